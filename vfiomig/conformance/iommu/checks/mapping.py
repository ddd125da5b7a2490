"""Checks of VFIO_IOMMU_MAP_DMA, and of where DMA goes (specs/iommu/mapping.toml)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.iommu.bench import PAGE
from vfiomig.host.iommu import IommuLimits, IovaRange
from vfiomig.uapi.iommu_type1 import VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.iommu.bench import Breach, MakeBench

_TWO_RANGES: Final = IommuLimits(
    iova_ranges=(IovaRange(0, 4 * PAGE - 1), IovaRange(6 * PAGE, 9 * PAGE - 1))
)
_BASE: Final = 0x10_0000


def aligned_to_pages(make: MakeBench) -> Iterator[Breach]:
    """IOVA and size are of whole pages, at least one."""
    for iova, size in ((0, 0), (0, 8), (0, PAGE - 1), (0, PAGE + 1), (8, PAGE)):
        bench = make()
        yield from bench.answers(errno.EINVAL, bench.map(iova, size, backed=False))


def no_overlap(make: MakeBench) -> Iterator[Breach]:
    """Refuse a page that is mapped with EEXIST, and no neighbour of it."""
    for first, pages in ((2, 1), (4, 1), (1, 2), (4, 2), (1, 9), (3, 1)):
        bench = make()
        bench.map(2 * PAGE, 3 * PAGE)
        code = bench.map(first * PAGE, pages * PAGE, backed=False)
        yield from bench.answers(errno.EEXIST, code)
    bench = make()
    for first in (2, 1, 3):
        yield from bench.answers(0, bench.map(first * PAGE, PAGE))


def inside_the_ranges(make: MakeBench) -> Iterator[Breach]:
    """Map to the last page of a range, and never from one into another."""
    cases = (
        (0, 4, 0),
        (3, 1, 0),
        (6, 3, 0),
        (8, 1, 0),
        (3, 2, errno.EINVAL),
        (4, 2, errno.EINVAL),
        (5, 2, errno.EINVAL),
        (3, 4, errno.EINVAL),
        (8, 2, errno.EINVAL),
        (9, 1, errno.EINVAL),
    )
    for first, pages, code in cases:
        bench = make(_TWO_RANGES)
        yield from bench.answers(code, bench.map(first * PAGE, pages * PAGE))


def limited_in_number(make: MakeBench) -> Iterator[Breach]:
    """One mapping too many is ENOSPC, and unmapping makes room again."""
    bench = make(IommuLimits(max_mappings=2))
    for _ in range(2):
        yield from bench.answers(0, bench.map(0, PAGE))
        yield from bench.answers(0, bench.map(PAGE, PAGE))
        yield from bench.answers(errno.ENOSPC, bench.map(2 * PAGE, PAGE))
        bench.unmap(0, 2 * PAGE)


def leads_to_memory(make: MakeBench) -> Iterator[Breach]:
    """DMA goes over mappings that touch, and faults where there is none."""
    bench = make()
    for page in (0, 1, 3):
        bench.map(_BASE + page * PAGE, PAGE)
    yield from bench.answers(0, bench.write(_BASE + PAGE - 3, 7))
    first, second = bench.memory_at(_BASE), bench.memory_at(_BASE + PAGE)
    yield from bench.must_be(bytes(1) + b"\x5a" * 3, bytes(first[-4:]))
    yield from bench.must_be(b"\x5a" * 4 + bytes(1), bytes(second[:5]))
    code, data = bench.read(_BASE + PAGE - 4, 9)
    yield from bench.answers(0, code)
    yield from bench.must_be(bytes(1) + b"\x5a" * 7 + bytes(1), data)
    for place, size in ((-1, 2), (2 * PAGE - 1, 2), (2 * PAGE, 1), (PAGE, 3 * PAGE)):
        yield from bench.answers(errno.EFAULT, bench.read(_BASE + place, size)[0])
        yield from bench.answers(errno.EFAULT, bench.write(_BASE + place, size))


def flags_are_obeyed(make: MakeBench) -> Iterator[Breach]:
    """Read and write where a mapping's flags say so, and nowhere else."""
    bench = make()
    bench.map(0, PAGE, flags=VFIO_DMA_MAP_FLAG_READ)
    bench.map(PAGE, PAGE, flags=VFIO_DMA_MAP_FLAG_WRITE)
    yield from bench.answers(errno.EFAULT, bench.write(0))
    yield from bench.must_be(bytes(PAGE), bytes(bench.memory_at(0)))
    yield from bench.answers(errno.EFAULT, bench.read(PAGE, 1)[0])
    yield from bench.answers(0, bench.read(0, 1)[0])
    yield from bench.answers(0, bench.write(PAGE))
    code = bench.map(2 * PAGE, PAGE, flags=0)
    yield from bench.answers(errno.EINVAL, code)
