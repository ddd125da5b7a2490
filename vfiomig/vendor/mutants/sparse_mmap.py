"""Mutants that go wrong where a data section may be mapped.

Rule 1: whoever ignores the areas, or maps them, gets the data right by the other way.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
from vfiomig.vendor.data_section import PAGE, DataSection
from vfiomig.vendor.mutants.mutable import MutableDriver, fail, refuse

__all__ = [
    "AreaBeyondTheRegion",
    "AreaCannotBeMapped",
    "EmptyArea",
    "MappingIsElsewhere",
    "MmapOnly",
    "OverlappingAreas",
    "ReadShowsTheLastBuffer",
    "TrappedHalfIsRefused",
    "UnalignedArea",
]


class _Mapped(MutableDriver):
    """Has a data section that may be mapped, with ``more`` areas beside its own."""

    data_section: ClassVar[str] = "mapped"
    more: ClassVar[tuple[tuple[int, int], ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        region = self.migration_region
        areas = [SparseMmapArea(offset, size) for offset, size in self.more]
        self.migration_region = MigrationRegion(region.size, (*region.areas, *areas))


class AreaCannotBeMapped(_Mapped):
    """Lists an area, and fails when it is to be mapped."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/listed-areas-can-be-mapped"})

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        """Answer a mapping, with the bug."""
        fail(errno.ENODEV, f"nothing at {area.offset:#x} can be mapped")


class MmapOnly(_Mapped):
    """Hands its data out by mapping alone, as mtty of May 2020 did."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/reads-work-without-mapping"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if offset >= self._section.offset:
            refuse("map it")
        return super().read(offset, size)


class ReadShowsTheLastBuffer(_Mapped):
    """Answers a trapped read with what the mapping showed one buffer before."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/reads-work-without-mapping"})

    def __init__(self) -> None:
        super().__init__()
        self._shown = bytes(self._section.size)

    def _read_data_offset(self) -> bytes:
        if self._saving is not None and not self._saving.has_buffer:
            self._shown = bytes(self._section.view)
        return super()._read_data_offset()

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        answer = super().read(offset, size)
        start = offset - self._section.offset
        if self._saving is not None and start >= 0:
            return self._shown[start : start + size]
        return answer


class MappingIsElsewhere(_Mapped):
    """Maps other memory than reads and writes reach."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/reads-work-without-mapping"})

    def __init__(self) -> None:
        super().__init__()
        self._other = DataSection(self._section.size)

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        """Return the file of the other memory."""
        return self._other.mmap(area)

    def close(self) -> None:
        """Close, the other memory included."""
        self._other.close()
        super().close()


class AreaBeyondTheRegion(_Mapped):
    """Lists an area behind the end of its region."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/areas-well-formed"})
    more: ClassVar = ((8 * PAGE, PAGE),)


class OverlappingAreas(_Mapped):
    """Lists the second page of its data section twice."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/areas-well-formed"})
    more: ClassVar = ((2 * PAGE, PAGE),)


class EmptyArea(_Mapped):
    """Lists an area of no bytes, at the end of its region."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/areas-well-formed"})
    more: ClassVar = ((3 * PAGE, 0),)


class UnalignedArea(_Mapped):
    """Lists all of its data section but the last 16 bytes, which are no whole page."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/areas-well-formed"})

    def __init__(self) -> None:
        super().__init__()
        region = self.migration_region
        area = SparseMmapArea(self._section.offset, self._section.size - 16)
        self.migration_region = MigrationRegion(region.size, (area,))


class TrappedHalfIsRefused(MutableDriver):
    """Serves the half that is mapped; reads of the other half fail."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/straddling-chunk-readable"})
    data_section: ClassVar = "split"

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if offset >= self._section.offset + self._section.size // 2:
            refuse("only what is mapped has data")
        return super().read(offset, size)
