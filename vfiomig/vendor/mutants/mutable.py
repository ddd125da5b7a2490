"""What mutants of the reference driver have in common: a small device.

Rule 1: a mutant overrides as little as its bug takes, and calls what it overrides.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final, NoReturn

from vfiomig.vendor.data_section import PAGE
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

_STATE: Final = 3 * PAGE


class MutableDriver(ReferenceDriver):
    """The reference driver over three pages of memory, which move in a few buffers.

    ``data_section`` says how they are reached, as `ReferenceDriver` has it.
    """

    violates: ClassVar[frozenset[str]] = frozenset()
    data_section: ClassVar[str] = "trapped"

    def __init__(self) -> None:
        self.scratchpad = ScratchpadModel(_STATE)
        super().__init__(
            self.scratchpad, section=2 * PAGE, data_section=self.data_section
        )


def fail(code: int, why: str) -> NoReturn:
    """Raise the ``OSError`` of an errno."""
    raise OSError(code, why)


def refuse(why: str) -> NoReturn:
    """Raise ``OSError(EINVAL)``."""
    fail(errno.EINVAL, why)
