"""The rules of specs/iommu: read, and bound to their checks."""

from __future__ import annotations

import importlib
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vfiomig.conformance.iommu.bench import Breach, MakeBench

    Check: TypeAlias = "Callable[[MakeBench], Iterator[Breach]]"

_PACKAGE: Final = Path(__file__).parents[2]

# In the order in which a user application meets them.
SECTIONS: Final = ("information", "mapping", "unmapping", "tracking", "get_bitmap")


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[rule]]`` as the file has it."""

    id: str
    origin: str
    level: Literal["MUST", "SHOULD"]
    title: str
    sentence: str
    source: str
    check: str = ""
    untestable: str = ""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    section: str
    source: str
    rule: tuple[_Entry, ...]


class IommuRule(_Entry, frozen=True, kw_only=True):
    """A rule; ``id`` is whole, ``iommu/get-bitmap/read-and-clear``.

    ``check`` is ``module:function`` in `conformance.iommu.checks`, or ``untestable``
    says why there is none.
    """

    def bound(self) -> Check:
        """Return its check."""
        module, _, name = self.check.partition(":")
        place = f"vfiomig.conformance.iommu.checks.{module}"
        check: Check = getattr(importlib.import_module(place), name)
        return check


@cache
def load_iommu_rules() -> tuple[IommuRule, ...]:
    """Return all rules, in the order of the sections."""
    return tuple(rule for name in SECTIONS for rule in _rules_of(name))


def _rules_of(name: str) -> Iterable[IommuRule]:
    text = (_folder() / f"{name}.toml").read_text("utf-8")
    section = msgspec.convert(tomllib.loads(text), _Section)
    for entry in section.rule:
        fields = msgspec.structs.asdict(entry)
        fields["id"] = f"{section.section}/{entry.id}"
        yield IommuRule(**fields)


def _folder() -> Path:
    """Return where the rules are: in the wheel, or beside the package."""
    installed = _PACKAGE / "_specs" / "iommu"
    return installed if installed.is_dir() else _PACKAGE.parent / "specs" / "iommu"
