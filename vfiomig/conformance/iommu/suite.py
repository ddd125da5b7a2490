"""A container held to every rule of specs/iommu.

>>> from vfiomig.host.container import Container
>>> check_iommu(Container)
[]
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfiomig.conformance.iommu.bench import Bench, Breach
from vfiomig.conformance.iommu.catalogue import load_iommu_rules
from vfiomig.host.container import Container
from vfiomig.host.iommu import DEFAULT_LIMITS, Iommu, IommuLimits
from vfiomig.uapi.iommu_type1 import VFIO_TYPE1v2_IOMMU

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.conformance.iommu.bench import MakeContainer
    from vfiomig.conformance.iommu.catalogue import IommuRule


@dataclass(frozen=True, slots=True, kw_only=True)
class IommuFinding:
    """A broken rule; where the container ``died``, by what and at which line."""

    rule: IommuRule
    breach: Breach
    died: str = ""


class _Benches:
    """What checks get their benches from; it remembers the last one."""

    def __init__(self, make: MakeContainer) -> None:
        self._make = make
        self.last: Bench | None = None

    def __call__(
        self,
        limits: IommuLimits = DEFAULT_LIMITS,
        *,
        iommu_type: int = VFIO_TYPE1v2_IOMMU,
    ) -> Bench:
        self.last = Bench(self._make, limits, iommu_type=iommu_type)
        return self.last


def check_iommu(
    make_container: MakeContainer, *, rules: Iterable[IommuRule] | None = None
) -> list[IommuFinding]:
    """Return a finding for each rule that the containers break, of all or some rules.

    ``make_container`` is called with `IommuLimits`, once for each conversation.
    """
    rules = load_iommu_rules() if rules is None else rules
    tried = (_try(rule, make_container) for rule in rules if rule.check)
    return [finding for finding in tried if finding is not None]


def make_faulty(mutant: type, limits: IommuLimits = DEFAULT_LIMITS) -> Container:
    """Return a container of a mutant of `vfiomig.host.mutants`."""
    if issubclass(mutant, Iommu):
        return Container(limits, make_iommu=mutant)
    assert issubclass(mutant, Container)
    return mutant(limits)


def _try(rule: IommuRule, make_container: MakeContainer) -> IommuFinding | None:
    benches = _Benches(make_container)
    try:
        breach = next(rule.bound()(benches), None)
    except Exception as error:
        said = benches.last.said if benches.last is not None else ()
        breach = Breach(
            expected="an answer or an errno",
            actual=f"{type(error).__name__}: {error}",
            conversation=tuple(said),
        )
        return IommuFinding(rule=rule, breach=breach, died=_where(error))
    return None if breach is None else IommuFinding(rule=rule, breach=breach)


def _where(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
