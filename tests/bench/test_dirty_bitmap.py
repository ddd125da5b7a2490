"""GET_BITMAP of a large guest, against a memcpy of its bitmap."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from tests.bench.figures import best_of, show, timed
from vfiomig.conformance.iommu.bench import EVERYWHERE, PAGE, Bench
from vfiomig.host.container import Container

if TYPE_CHECKING:
    from collections.abc import Callable

GUEST = 64 << 30
LOW = 3 << 30  # below the hole under 4 GiB
HIGH = 4 << 30
TIMES = 20


def tracked_guest(*mappings: tuple[int, int]) -> Bench:
    bench = Bench(Container, EVERYWHERE)
    for iova, size in mappings:
        assert bench.map(iova, size, backed=False) == 0
    assert bench.start() == 0
    return bench


def gets(bench: Bench, iova: int, size: int) -> Callable[[], float]:
    buffer = bench.buffer(size // PAGE // 8)

    def measure() -> float:
        return timed(lambda: bench.get(iova, size, buffer), TIMES)

    assert bench.get(iova, size, buffer) == 0
    return measure


def copies(size: int) -> Callable[[], float]:
    source, target = (ctypes.create_string_buffer(size) for _ in range(2))
    return lambda: timed(lambda: ctypes.memmove(target, source, size), TIMES)


def test_a_clean_bitmap_of_a_guest_of_64_gib() -> None:
    whole = tracked_guest((0x100_0000_0000, GUEST))
    holed = tracked_guest((0, LOW), (HIGH, GUEST - LOW))
    pieces = tracked_guest((0, 0xC0000), (0xC0000, LOW - 0xC0000), (HIGH, GUEST - LOW))
    copied, once, twice, thrice = best_of(
        copies(GUEST // PAGE // 8),
        gets(whole, 0x100_0000_0000, GUEST),
        gets(holed, 0, GUEST + HIGH - LOW),
        gets(pieces, 0, GUEST + HIGH - LOW),
    )
    beside = "a memcpy of the bitmap"
    show("GET_BITMAP, one mapping", once / copied, 3, beside)
    show("GET_BITMAP, two mappings and a hole", twice / copied, 3, beside)
    show("GET_BITMAP, three mappings and a hole", thrice / copied, 3, beside)


def test_a_clean_bitmap_whose_words_are_shared() -> None:
    odd = 5 * PAGE  # the second mapping begins in the middle of a word
    guest = tracked_guest((0, odd), (odd, GUEST - odd))
    copied, shared = best_of(copies(GUEST // PAGE // 8), gets(guest, 0, GUEST))
    show("GET_BITMAP, shifted", shared / copied, 3, "a memcpy of the bitmap")
