"""What a vendor driver says of its migration region (part of the public contract)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class SparseMmapArea(NamedTuple):
    """A part of the migration region that the user application may map.

    ``offset`` is counted from the start of the migration region and, like ``size``,
    is in bytes; both are multiples of the page size
    (``struct vfio_region_sparse_mmap_area``).
    """

    offset: int
    size: int


@dataclass(frozen=True)
class MigrationRegion:
    """The migration region: ``size`` bytes, registers first, then the data section.

    Without ``areas`` every access is trapped, and the driver needs no ``mmap``.
    """

    size: int
    areas: tuple[SparseMmapArea, ...] = ()
