"""The museum's other wing: faulty v1 user applications, each with exactly one bug.

Rule 1: a mutant is a class that is called without arguments, with a docstring that
tells the bug and ``violates``, the ids of the rules that the bug breaks.  All else it
does as `CarefulClient` does, of which it overrides one step.

Rule 2: a mutant holds devices by their handles alone, as a user application does; what
is behind them is for the caller to choose.

Rule 3: nothing that judges a user application reads ``violates``; only tests and the
report on the museum do.
"""

from __future__ import annotations

import importlib
from typing import Final

__all__ = ["MODULES", "every_client"]

MODULES: Final = ("registers", "states", "saving", "resuming")


def every_client() -> dict[str, type]:
    """Return every faulty user application by ``package.module:NAME``."""
    clients = {}
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        for client in module.__all__:
            clients[f"{module.__name__}:{client}"] = getattr(module, client)
    return clients
