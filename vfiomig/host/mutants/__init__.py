"""The museum of the host: faulty type1 IOMMUs, each with exactly one bug.

Rule 1: a mutant is an `Iommu` or a `Container` with a docstring that tells the bug and
``violates``, the ids of the rules of specs/iommu that the bug breaks.  It is found by
each of them.  All else it does as its parent does, of which it overrides one step.

Rule 2: BUG-IOMMU-01 and the like are numbers on the page of published bugs; a mutant
without one is of the rule's own making.

Rule 3: nothing that judges reads ``violates``; only tests and reports on the museum do.
"""

from __future__ import annotations

import importlib
from typing import Final

__all__ = ["MODULES", "every_iommu"]

MODULES: Final = ("arguments", "logs", "mappings", "operations", "user_bitmaps")


def every_iommu() -> dict[str, type]:
    """Return every mutant by ``package.module:NAME``.

    A container of an `Iommu` is ``Container(limits, make_iommu=...)``.
    """
    mutants = {}
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        for mutant in module.__all__:
            mutants[f"{module.__name__}:{mutant}"] = getattr(module, mutant)
    return mutants
