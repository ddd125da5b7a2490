"""Checks of GET_BITMAP of VFIO_IOMMU_DIRTY_PAGES (specs/iommu/get_bitmap.toml)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.iommu.bench import EVERYWHERE, PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.iommu.bench import Bench, Breach, MakeBench

_FIRST: Final = 16
_PAGES: Final = 6
_IOVA: Final = _FIRST * PAGE
_SIZE: Final = _PAGES * PAGE
_U64: Final = (1 << 64) - 1
_BITS_OF_A_PAGE: Final = 8 * PAGE
_FULL: Final = b"\xff"


def needs_tracking(make: MakeBench) -> Iterator[Breach]:
    """Before START and behind STOP it is EINVAL."""
    bench = make()
    bench.map(_IOVA, _SIZE)
    for _ in range(2):
        buffer = bench.buffer(8, fill=_FULL)
        yield from bench.answers(errno.EINVAL, bench.get(_IOVA, _SIZE, buffer))
        yield from bench.untouched(buffer)
        bench.start()
        bench.stop()


def argsz_and_end(make: MakeBench) -> Iterator[Breach]:
    """Refuse a short argsz, and a range whose end is no u64."""
    for argsz in (8, 40, 47):
        bench = _tracked(make)
        code = bench.get(_IOVA, _SIZE, bench.buffer(8), argsz=argsz)
        yield from bench.answers(errno.EINVAL, code)
    for iova, size in ((_U64 - PAGE + 1, PAGE), (_U64 - PAGE + 1, 2 * PAGE)):
        bench = _tracked(make)
        yield from _refused(bench, iova, size)


def smallest_page_size_only(make: MakeBench) -> Iterator[Breach]:
    """Any other page size is EINVAL, and the buffer stays as it was."""
    others = [1 << shift for shift in range(64) if 1 << shift != PAGE]
    for pgsize in (0, 3, PAGE - 1, PAGE + 1, _U64, *others):
        bench = _tracked(make)
        buffer = bench.buffer(8, fill=_FULL)
        code = bench.get(_IOVA, _SIZE, buffer, pgsize=pgsize)
        yield from bench.answers(errno.EINVAL, code)
        yield from bench.untouched(buffer)


def aligned_range(make: MakeBench) -> Iterator[Breach]:
    """Refuse a range that is not of whole pages, or empty."""
    for iova, size in ((_IOVA + 8, _SIZE), (_IOVA, _SIZE + 8), (_IOVA, 0)):
        yield from _refused(_tracked(make), iova, size)


def room_is_enough(make: MakeBench) -> Iterator[Breach]:
    """Room is of whole u64 words, and at most 256 MiB."""
    cases = ((1, 0), (1, 1), (1, 7), (65, 8), (65, 9), (65, 15), (1, (256 << 20) + 1))
    for pages, room in cases:
        bench = _one_mapping(make, 0, pages)
        buffer = bench.buffer(16, fill=_FULL)
        code = bench.get(0, pages * PAGE, buffer, room=room)
        yield from bench.answers(errno.EINVAL, code)
        yield from bench.untouched(buffer)
    for pages, room in ((1, 8), (64, 8), (65, 16), (1, 9), (1, 256 << 20)):
        bench = _one_mapping(make, 0, pages)
        code = bench.get(0, pages * PAGE, bench.buffer(16), room=room)
        yield from bench.answers(0, code)


def whole_mappings_only(make: MakeBench) -> Iterator[Breach]:
    """Refuse a range that cuts a mapping in two, and none for its holes."""
    for first, pages in ((17, 5), (16, 5), (17, 1), (0, 17), (21, 9)):
        yield from _refused(_tracked(make), first * PAGE, pages * PAGE)
    bench = _tracked(make)
    for first, pages in ((16, 6), (0, 22), (10, 100), (40, 3)):
        code = bench.get(first * PAGE, pages * PAGE, bench.buffer(16))
        yield from bench.answers(0, code)


def bit_of_a_page(make: MakeBench) -> Iterator[Breach]:
    """Bit i is the page at iova + i * pgsize, and only what was written is set."""
    for base in (0, PAGE, 3 * PAGE, 0x1_0000_0000, 0x100_0000_1000):
        for page in (0, 1, 7, 8, 63, 64, 129):
            bench = make(EVERYWHERE)
            bench.map(base, 130 * PAGE)
            bench.start()
            bench.write(base + page * PAGE + 9)
            yield from bench.dirty(base, 130 * PAGE, {page})
    for below in (1, 7, 15, 16):
        bench = _tracked(make)
        bench.write(_IOVA + _SIZE - 1)
        start = _IOVA - below * PAGE
        yield from bench.dirty(start, _SIZE + below * PAGE, {below + 5})


def whole_words_only(make: MakeBench) -> Iterator[Breach]:
    """Words of mappings are written whole, and nothing else is.

    In the word that a mapping begins in the middle of, what lies below it stays.
    """
    bench = make()
    bench.map(_IOVA, _SIZE)
    bench.map(144 * PAGE, 3 * PAGE)
    bench.start()
    bench.write(21 * PAGE)
    bench.write(146 * PAGE)
    buffer = bench.buffer(32, fill=_FULL)
    yield from bench.answers(0, bench.get(0, 192 * PAGE, buffer))
    below, hole = set(range(16)), set(range(64, 128))
    behind = set(range(192, 256))
    pages = below | {21} | hole | {128 + each for each in below} | {146} | behind
    yield from bench.holds(buffer, pages)
    for room in (8, 9, 12, 15):
        bench = _tracked(make)
        buffer = bench.buffer(room, fill=_FULL)
        yield from bench.answers(0, bench.get(_IOVA, _SIZE, buffer))
        yield from bench.holds(buffer, set(range(64, 8 * room)))


def anywhere_in_memory(make: MakeBench) -> Iterator[Breach]:
    """Write to a bitmap at any byte, over any number of pages."""
    for pages in (1, 65, _BITS_OF_A_PAGE, 3 * _BITS_OF_A_PAGE + 70):
        for offset in (0, 1, 8, 16, PAGE - 8, PAGE - 1):
            bench = make()
            bench.map(PAGE, pages * PAGE, backed=False)
            bench.start()
            wanted = {0, pages - 1, pages // 2, min(_BITS_OF_A_PAGE, pages - 1)}
            for page in wanted:
                bench.back(page * PAGE)
                bench.write((1 + page) * PAGE + 5)
            buffer = bench.buffer(-(-pages // 64) * 8, offset, fill=_FULL)
            yield from bench.answers(0, bench.get(PAGE, pages * PAGE, buffer))
            yield from bench.holds(buffer, wanted)


def read_and_clear(make: MakeBench) -> Iterator[Breach]:
    """Clear what was answered, and nothing else."""
    bench = _tracked(make)
    bench.map(22 * PAGE, 2 * PAGE)
    bench.write(21 * PAGE, 2 * PAGE)
    yield from bench.dirty(22 * PAGE, 2 * PAGE, {0})
    yield from bench.dirty(22 * PAGE, 2 * PAGE, set())
    yield from bench.dirty(_IOVA, _SIZE, {5})
    yield from bench.dirty(0, 64 * PAGE, set())


def failed_get_loses_nothing(make: MakeBench) -> Iterator[Breach]:
    """Keep the log when its bitmap cannot be written."""
    bench = _tracked(make)
    bench.write(_IOVA)
    code = bench.get(_IOVA, _SIZE, bench.lost_buffer(8))
    yield from bench.answers(errno.EFAULT, code)
    yield from bench.dirty(_IOVA, _SIZE, {0})


def _refused(bench: Bench, iova: int, size: int) -> Iterator[Breach]:
    bench.write(_IOVA)
    buffer = bench.buffer(64, fill=_FULL)
    yield from bench.answers(errno.EINVAL, bench.get(iova, size, buffer))
    yield from bench.untouched(buffer)


def _tracked(make: MakeBench) -> Bench:
    return _one_mapping(make, _IOVA, _PAGES)


def _one_mapping(make: MakeBench, iova: int, pages: int) -> Bench:
    bench = make()
    bench.map(iova, pages * PAGE)
    bench.start()
    return bench
