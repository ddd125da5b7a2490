"""Checks of what the IOMMU says of itself (specs/iommu/information.toml)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from vfiomig.host.iommu import IommuLimits
from vfiomig.uapi.iommu_type1 import (
    VFIO_IOMMU_INFO_CAPS,
    VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
    vfio_iommu_type1_info,
)
from vfiomig.uapi.vfio import vfio_info_cap_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.iommu.bench import Bench, Breach, MakeBench

_BARE: Final = 24
_PAGE_SIZES: Final = (
    0xFFFF_FFFF_FFFF_F000,
    1 << 12 | 1 << 21 | 1 << 30,
    *(1 << shift for shift in (16, 30, 31, 32, 63)),
)
_LARGEST: Final = 256 << 20  # bytes of a bitmap


def dirty_tracking_is_announced(make: MakeBench) -> Iterator[Breach]:
    """Announce one page size, the smallest, and the largest bitmap."""
    for page_sizes in _PAGE_SIZES:
        bench = make(IommuLimits(page_sizes=page_sizes))
        _, info = bench.info(512)
        capability = _capabilities(info).get(VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, b"")
        if len(capability) < 24:
            yield bench.breach("a migration capability", "none")
            continue
        flags, page_size, largest = struct.unpack_from("<I4xQQ", capability)
        yield from bench.must_be(0, flags)
        yield from bench.must_be(hex(page_sizes & -page_sizes), hex(page_size))
        yield from bench.must_be(_LARGEST, largest)


def argsz_grows(make: MakeBench) -> Iterator[Breach]:
    """Answer too little room with how much it takes; then the chain fits."""
    bench = make()
    code, bare = bench.info(_BARE)
    yield from bench.answers(0, code)
    said = vfio_iommu_type1_info.from_buffer_copy(bare)
    yield from bench.must_be(0, said.cap_offset)
    yield from bench.must_be(VFIO_IOMMU_INFO_CAPS, said.flags & VFIO_IOMMU_INFO_CAPS)
    if said.argsz <= _BARE:
        yield bench.breach("a larger argsz", said.argsz)
    yield from _fits(bench, said.argsz)


def _fits(bench: Bench, argsz: int) -> Iterator[Breach]:
    code, whole = bench.info(argsz)
    yield from bench.answers(0, code)
    said = vfio_iommu_type1_info.from_buffer_copy(whole)
    yield from bench.must_be(argsz, said.argsz)
    if not _BARE <= said.cap_offset < argsz:
        yield bench.breach("a chain behind the structure", said.cap_offset)


def _capabilities(info: bytes) -> dict[int, bytes]:
    """Follow a chain, as far as it leads forward; each without its header."""
    found, place = {}, vfio_iommu_type1_info.from_buffer_copy(info).cap_offset
    while _BARE <= place < len(info) - 8:
        header = vfio_info_cap_header.from_buffer_copy(info, place)
        end = header.next or len(info)
        found[header.id] = info[place + 8 : end]
        place = header.next if header.next > place else 0
    return found
