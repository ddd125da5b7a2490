"""Checks of VFIO_IOMMU_UNMAP_DMA and its bitmap (specs/iommu/unmapping.toml)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.iommu.bench import PAGE
from vfiomig.uapi.iommu_type1 import VFIO_DMA_UNMAP_FLAG_ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.iommu.bench import Bench, Breach, MakeBench

_FIRST: Final = 16  # the mapping of most checks: so many pages from this one on
_PAGES: Final = 6
_IOVA: Final = _FIRST * PAGE
_SIZE: Final = _PAGES * PAGE


def whole_mappings_only(make: MakeBench) -> Iterator[Breach]:
    """Refuse a range that cuts a mapping in two, and keep the mapping."""
    for first, pages in ((17, 5), (16, 5), (17, 1), (0, 17), (21, 9), (0, 21)):
        bench = _mapped(make)
        code, _ = bench.unmap(first * PAGE, pages * PAGE)
        yield from bench.answers(errno.EINVAL, code)
        yield from bench.answers(0, bench.read(_IOVA, _SIZE)[0])


def aligned_to_pages(make: MakeBench) -> Iterator[Breach]:
    """Refuse a range that is not of whole pages, or empty."""
    cases = ((_IOVA, 0), (_IOVA + 8, _SIZE), (_IOVA, _SIZE + 8), (0, 1))
    for iova, size in cases:
        bench = _mapped(make)
        yield from bench.answers(errno.EINVAL, bench.unmap(iova, size)[0])


def says_how_much(make: MakeBench) -> Iterator[Breach]:
    """Afterwards size has the bytes that were unmapped, which may be none."""
    bench = _mapped(make)
    bench.map(30 * PAGE, PAGE)
    yield from bench.must_be((0, 0), bench.unmap(0, PAGE))
    yield from bench.must_be((0, _SIZE + PAGE), bench.unmap(0, 64 * PAGE))
    yield from bench.must_be((0, 0), bench.unmap(0, 64 * PAGE))


def all_at_once(make: MakeBench) -> Iterator[Breach]:
    """With ALL there is no range, and nothing is left behind."""
    bench = _mapped(make)
    bench.map(30 * PAGE, PAGE)
    code, _ = bench.unmap(0, PAGE, flags=VFIO_DMA_UNMAP_FLAG_ALL)
    yield from bench.answers(errno.EINVAL, code)
    unmapped = bench.unmap(0, 0, flags=VFIO_DMA_UNMAP_FLAG_ALL)
    yield from bench.must_be((0, _SIZE + PAGE), unmapped)
    yield from bench.answers(errno.EFAULT, bench.read(_IOVA, 1)[0])


def gives_the_bitmap_first(make: MakeBench) -> Iterator[Breach]:
    """Give what was written until the mapping went."""
    for offset in (0, 8, PAGE - 8, PAGE - 1):
        bench = _tracked(make)
        bench.map(80 * PAGE, 3 * PAGE)
        for page in (_FIRST, 21, 82):
            bench.write(page * PAGE + PAGE - 1)
        buffer = bench.buffer(16, offset)
        code, size = bench.unmap(_IOVA, 100 * PAGE, buffer)
        yield from bench.must_be((0, _SIZE + 3 * PAGE), (code, size))
        yield from bench.holds(buffer, {0, 5, 66})


def bitmap_needs_tracking(make: MakeBench) -> Iterator[Breach]:
    """Without tracking there is no bitmap, and nothing is unmapped."""
    bench = _mapped(make)
    buffer = bench.buffer(8)
    yield from bench.answers(errno.EINVAL, bench.unmap(_IOVA, _SIZE, buffer)[0])
    yield from bench.untouched(buffer)
    yield from bench.answers(0, bench.read(_IOVA, 1)[0])


def bitmap_fits(make: MakeBench) -> Iterator[Breach]:
    """Page size and room are as for VFIO_IOMMU_DIRTY_PAGES; else nothing happens."""
    for pages, room, pgsize in (
        (6, 8, 2 * PAGE),
        (6, 8, 0),
        (6, 7, PAGE),
        (6, 0, PAGE),
        (65, 8, PAGE),
        (6, (256 << 20) + 8, PAGE),
    ):
        bench = _tracked(make)
        buffer = bench.buffer(8)
        buffer.size = room
        code, _ = bench.unmap(_IOVA, pages * PAGE, buffer, pgsize=pgsize)
        yield from bench.answers(errno.EINVAL, code)
        yield from bench.answers(0, bench.read(_IOVA, 1)[0])


def bitmap_is_of_a_range(make: MakeBench) -> Iterator[Breach]:
    """ALL has no bitmap."""
    bench = _tracked(make)
    buffer = bench.buffer(8)
    code, _ = bench.unmap(0, 0, buffer, flags=VFIO_DMA_UNMAP_FLAG_ALL)
    yield from bench.answers(errno.EINVAL, code)
    yield from bench.answers(0, bench.read(_IOVA, 1)[0])


def failed_bitmap_unmaps_nothing(make: MakeBench) -> Iterator[Breach]:
    """Where the bitmap cannot be written, the mapping stays, and so does its log."""
    bench = _tracked(make)
    bench.write(_IOVA)
    code, _ = bench.unmap(_IOVA, _SIZE, bench.lost_buffer(8))
    yield from bench.answers(errno.EFAULT, code)
    yield from bench.answers(0, bench.read(_IOVA, 1)[0])
    yield from bench.dirty(_IOVA, _SIZE, {0})


def _mapped(make: MakeBench) -> Bench:
    bench = make()
    bench.map(_IOVA, _SIZE)
    return bench


def _tracked(make: MakeBench) -> Bench:
    bench = _mapped(make)
    bench.start()
    return bench
