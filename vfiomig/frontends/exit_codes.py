"""How every command ends (design: the same codes everywhere)."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
NOT_AS_EXPECTED: Final = 1  # a rule is broken, a driver died, an outcome differs
MISUSE: Final = 2  # or input that cannot be read
NOT_STARTED: Final = 3  # the target could not be started
INTERRUPTED: Final = 130
