"""Checks of dirty tracking as a whole (specs/iommu/tracking.toml)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.iommu.bench import EVERYWHERE, PAGE
from vfiomig.conformance.iommu.conversation import first_lost_page
from vfiomig.uapi.iommu_type1 import VFIO_TYPE1_IOMMU, VFIO_TYPE1_NESTING_IOMMU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.iommu.bench import Bench, Breach, MakeBench

_FIRST: Final = 16
_PAGES: Final = 6
_IOVA: Final = _FIRST * PAGE
_SIZE: Final = _PAGES * PAGE
_START: Final = 1
_HUGE: Final = PAGE << 31  # one page more than a log has
_BASES: Final = (0, PAGE, 0x1_0000_0000, 0x100_0000_1000)
_ALL: Final = set(range(_PAGES))


def only_type1v2(make: MakeBench) -> Iterator[Breach]:
    """Refuse tracking for the first type with EACCES; a nesting one has it."""
    bench = make(iommu_type=VFIO_TYPE1_IOMMU)
    bench.map(_IOVA, _SIZE)
    for flags in (_START, 2, 4):
        yield from bench.answers(errno.EACCES, bench.operate(flags))
    bench = make(iommu_type=VFIO_TYPE1_NESTING_IOMMU)
    yield from bench.answers(0, bench.start())


def one_operation(make: MakeBench) -> Iterator[Breach]:
    """No flag, two flags, an unknown flag and a short argsz are EINVAL."""
    for flags, argsz in ((0, 8), (3, 8), (8, 8), (9, 8), (1 << 31, 8), (_START, 7)):
        bench = make()
        yield from bench.answers(errno.EINVAL, bench.operate(flags, argsz))
    for flags in (5, 6, 7):
        bench = _tracked(make)
        code = bench.get(_IOVA, _SIZE, bench.buffer(8), flags=flags)
        yield from bench.answers(errno.EINVAL, code)


def start_again(make: MakeBench) -> Iterator[Breach]:
    """START once more succeeds, and the log stays."""
    bench = _tracked(make)
    bench.write(_IOVA + PAGE)
    yield from bench.answers(0, bench.start())
    yield from bench.dirty(_IOVA, _SIZE, {1})


def new_mappings(make: MakeBench) -> Iterator[Breach]:
    """Track from the start what is mapped while there is tracking."""
    bench = _tracked(make)
    yield from bench.answers(0, bench.map(30 * PAGE, 2 * PAGE))
    bench.write(31 * PAGE)
    yield from bench.dirty(30 * PAGE, 2 * PAGE, {1})


def too_many_pages(make: MakeBench) -> Iterator[Breach]:
    """Refuse to track 2^31 pages in a mapping; one less will do."""
    bench = make(EVERYWHERE)
    bench.map(_HUGE, _HUGE, backed=False)
    yield from bench.answers(errno.EINVAL, bench.start())
    bench = make(EVERYWHERE)
    bench.map(_HUGE, _HUGE - PAGE, backed=False)
    yield from bench.answers(0, bench.start())


def failed_start_leaves_nothing(make: MakeBench) -> Iterator[Breach]:
    """After a START that failed there are no logs and there is no tracking."""
    bench = _mapped(make)
    bench.map(_HUGE, _HUGE, backed=False)
    yield from bench.answers(errno.EINVAL, bench.start())
    yield from bench.must_be("0 bytes of logs", _logs(bench))
    code = bench.get(_IOVA, _SIZE, bench.buffer(8))
    yield from bench.answers(errno.EINVAL, code)
    bench.unmap(_HUGE, _HUGE)
    yield from bench.answers(0, bench.start())


def stop_without_start(make: MakeBench) -> Iterator[Breach]:
    """STOP succeeds, whether there is tracking or not."""
    bench = _mapped(make)
    for _ in range(2):
        yield from bench.answers(0, bench.stop())
    bench.start()
    for _ in range(2):
        yield from bench.answers(0, bench.stop())


def stop_frees_the_logs(make: MakeBench) -> Iterator[Breach]:
    """Behind STOP logs take no memory, and the next START begins with clean ones."""
    bench = _tracked(make)
    bench.write(_IOVA)
    bench.stop()
    yield from bench.must_be("0 bytes of logs", _logs(bench))
    bench.start()
    yield from bench.dirty(_IOVA, _SIZE, set())


def unseen_group(make: MakeBench) -> Iterator[Breach]:
    """While a group writes unseen, every page is dirty, each time."""
    bench = _tracked(make)
    bench.container.attach("unseen", is_logged=False)
    bench.said.append("a group is attached whose writes nobody sees")
    bench.write(_IOVA + 3 * PAGE, is_logged=False)
    for _ in range(3):
        yield from bench.dirty(_IOVA, _SIZE, _ALL)


def detached_group(make: MakeBench) -> Iterator[Breach]:
    """Say once more that all is dirty when such a group has gone."""
    bench = _tracked(make)
    bench.container.attach("unseen", is_logged=False)
    bench.write(_IOVA + 3 * PAGE, is_logged=False)
    bench.container.detach("unseen")
    bench.said += ["a group whose writes nobody sees came, wrote, and was detached"]
    yield from bench.dirty(_IOVA, _SIZE, _ALL, may_be_more=True)


def no_dirt_is_lost(make: MakeBench) -> Iterator[Breach]:
    """Every page that a write touched is in the next bitmap of it.

    First at edges that others fell over, then in conversations by chance.
    """
    for base in _BASES:
        yield from _edges_of_pages(make, base)
    for pages in (1, 63, 64, 65, 130):
        yield from _neighbours(make, pages)
    yield from _half_a_write(make)
    breach = first_lost_page(make)
    if breach is not None:
        yield breach


def _edges_of_pages(make: MakeBench, base: int) -> Iterator[Breach]:
    bench = make(EVERYWHERE)
    bench.map(base, 70 * PAGE)
    bench.start()
    for page in (0, 7, 62, 63, 66):
        for offset in (0, 1, PAGE - 1):
            for size in (1, 2, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 1):
                place = page * PAGE + offset
                if place + size <= 70 * PAGE:
                    bench.said = bench.said[:2]
                    bench.write(base + place, size)
                    touched = {(place + each) // PAGE for each in range(size)}
                    yield from bench.dirty(base, 70 * PAGE, touched, may_be_more=True)


def _neighbours(make: MakeBench, pages: int) -> Iterator[Breach]:
    """Write across two mappings that share a word of the bitmap, and the last page."""
    bench = make()
    bench.map(PAGE, pages * PAGE)
    bench.map((1 + pages) * PAGE, 66 * PAGE)
    bench.start()
    bench.write((1 + pages) * PAGE - 1, 2)
    bench.write((67 + pages) * PAGE - 1)
    wanted = {pages - 1, pages, pages + 65}
    yield from bench.dirty(PAGE, (66 + pages) * PAGE, wanted, may_be_more=True)


def _half_a_write(make: MakeBench) -> Iterator[Breach]:
    """Write into a gap: what lies before it was written."""
    bench = _tracked(make)
    bench.write(_IOVA + _SIZE - 1, 2)
    if bench.memory_at(_IOVA)[-1]:
        yield from bench.dirty(_IOVA, _SIZE, {_PAGES - 1}, may_be_more=True)


def _logs(bench: Bench) -> str:
    return f"{bench.container.log_bytes} bytes of logs"


def _mapped(make: MakeBench) -> Bench:
    bench = make()
    bench.map(_IOVA, _SIZE)
    return bench


def _tracked(make: MakeBench) -> Bench:
    bench = _mapped(make)
    bench.start()
    return bench
