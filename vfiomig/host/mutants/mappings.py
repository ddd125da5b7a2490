"""Mutants that map and unmap what they should refuse, or lead devices astray."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from vfiomig.host.iommu import Iommu, Mapping, UserBitmap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "AnyAlignmentWillDo",
    "BridgesTheHole",
    "CutsAtTheEnd",
    "EchoesTheSize",
    "GivesNothingBack",
    "LooksAtTheFirstPageOnly",
    "StopsAtTheFirstMapping",
    "UnmapsAllButOne",
    "UsesRangesUpToTheirEnd",
    "WritesWhatIsReadOnly",
]


class AnyAlignmentWillDo(Iommu):
    """Takes ranges that begin or end within a page."""

    violates: ClassVar = frozenset(
        {
            "iommu/mapping/aligned-to-pages",
            "iommu/unmapping/aligned-to-pages",
            "iommu/get-bitmap/aligned-range",
        }
    )

    def _require_pages(self, start: int, size: int) -> None:
        pass


class LooksAtTheFirstPageOnly(Iommu):
    """Looks for a mapping where a new one begins, and not up to where it ends."""

    violates: ClassVar = frozenset({"iommu/mapping/no-overlap"})

    def _require_free(self, mapping: Mapping) -> None:
        if self._overlapping(mapping.iova, 1):
            raise OSError(errno.EEXIST, "mapped")


class UsesRangesUpToTheirEnd(Iommu):
    """Takes the inclusive end of an IOVA range for an exclusive one."""

    violates: ClassVar = frozenset({"iommu/mapping/inside-the-ranges"})

    def _require_in_a_range(self, mapping: Mapping) -> None:
        for start, end in self.limits.iova_ranges:
            if start <= mapping.iova and mapping.end <= end:
                return
        raise OSError(errno.EINVAL, "not in a range")


class BridgesTheHole(Iommu):
    """Asks only whether both ends of a mapping are in some IOVA range."""

    violates: ClassVar = frozenset({"iommu/mapping/inside-the-ranges"})

    def _require_in_a_range(self, mapping: Mapping) -> None:
        for page in (mapping.iova, mapping.end - 1):
            if not any(start <= page <= end for start, end in self.limits.iova_ranges):
                raise OSError(errno.EINVAL, "not in a range")


class GivesNothingBack(Iommu):
    """Counts every mapping that there ever was against the limit."""

    violates: ClassVar = frozenset({"iommu/mapping/limited-in-number"})
    _ever = 0

    def map(self, mapping: Mapping) -> None:
        """Add a mapping."""
        super().map(mapping)
        self._ever += 1

    @property
    def available(self) -> int:
        """How many more mappings there can be."""
        return self.limits.max_mappings - self._ever


class StopsAtTheFirstMapping(Iommu):
    """Leaves out of a write what lies behind the mapping that it begins in."""

    violates: ClassVar = frozenset({"iommu/mapping/leads-to-memory"})

    def _pieces(self, iova: int, size: int) -> Iterator[tuple[Mapping, int, int]]:
        yield from list(super()._pieces(iova, size))[:1]


class WritesWhatIsReadOnly(Iommu):
    """Lets devices write wherever they may read."""

    violates: ClassVar = frozenset({"iommu/mapping/flags-are-obeyed"})

    def map(self, mapping: Mapping) -> None:
        """Add a mapping."""
        mapping.is_writable = True
        super().map(mapping)


class CutsAtTheEnd(Iommu):
    """Looks whether a range cuts a mapping where it begins, and not where it ends."""

    violates: ClassVar = frozenset(
        {"iommu/get-bitmap/whole-mappings-only", "iommu/unmapping/whole-mappings-only"}
    )

    def _whole(self, iova: int, size: int) -> Sequence[Mapping]:
        super()._whole(iova, max((*(each.end for each in self._mappings), 1)))
        return self._overlapping(iova, size)


class EchoesTheSize(Iommu):
    """Says that all was unmapped that was asked for."""

    violates: ClassVar = frozenset({"iommu/unmapping/says-how-much"})

    def unmap(self, iova: int, size: int, bitmap: UserBitmap | None = None) -> int:
        """Remove mappings."""
        super().unmap(iova, size, bitmap)
        return size


class UnmapsAllButOne(Iommu):
    """Leaves the first mapping when all are to go."""

    violates: ClassVar = frozenset({"iommu/unmapping/all-at-once"})

    def unmap_all(self) -> int:
        """Remove mappings."""
        return self._remove(tuple(self._mappings[1:]))
