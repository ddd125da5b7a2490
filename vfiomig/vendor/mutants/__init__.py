"""The museum: faulty v1 vendor drivers, each with exactly one bug.

Rule 1: a mutant is a class that is called without arguments, with a docstring that
tells the bug and ``violates``, the ids of the rules that the bug breaks.  All else it
does as a conforming driver does.

It is found by one of them.

Rule 2: a module named after a section of the rules has mutants of the reference
driver; those in ``standalone_*`` and in ``published`` are of a driver that shares no
code with it.

Rule 3: nothing that judges a driver reads ``violates``; only tests and the report on
the museum do.
"""

from __future__ import annotations

import importlib
from typing import Final

__all__ = ["MODULES", "every_mutant"]

MODULES: Final = (
    "discovery",
    "register_access",
    "device_state",
    "transitions",
    "pending_bytes",
    "data_offset",
    "data_size",
    "saving",
    "resuming",
    "sparse_mmap",
    "errors_and_reset",
    "standalone_registers",
    "standalone_states",
    "standalone_saving",
    "standalone_resuming",
    "published",
)


def every_mutant() -> dict[str, type]:
    """Return every mutant by its target, ``package.module:NAME``."""
    mutants = {}
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        for mutant in module.__all__:
            mutants[f"{module.__name__}:{mutant}"] = getattr(module, mutant)
    return mutants
