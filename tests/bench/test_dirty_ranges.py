"""Guest RAM: its dirty ranges, and its zero pages, against copies of the same bytes."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

import numpy as np

from tests.bench.figures import best_of, show, timed
from vfiomig.protocol.page_ranges import dirty_ranges, empty_words, set_pages
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.workload import fill
from vfiomig.vm.zero_pages import zero_pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.protocol.page_ranges import Words

GIB: Final = 1 << 30
PAGES: Final = 1024 * GIB // 4096
DIRTY: Final = PAGES // 10_000
TIMES: Final = 5
RUNS: Final = 15


def bitmap(dirty: int) -> Words:
    """Return the bitmap of a guest of 1 TiB, all of it there."""
    words = empty_words(PAGES)
    words.fill(0)
    rng = np.random.default_rng(1)
    set_pages(words, rng.choice(PAGES, dirty, replace=False))
    return words


def memcpy(size: int, source: int, times: int) -> Callable[[], float]:
    target = ctypes.create_string_buffer(size)
    return lambda: timed(lambda: ctypes.memmove(target, source, size), times)


def test_the_dirty_ranges_of_a_guest_of_a_tebibyte() -> None:
    sparse, clean = bitmap(DIRTY), bitmap(0)
    assert dirty_ranges(sparse)[:, 1].sum() == DIRTY
    copied, found, none = best_of(
        memcpy(sparse.nbytes, sparse.ctypes.data, TIMES),
        lambda: timed(lambda: dirty_ranges(sparse), TIMES),
        lambda: timed(lambda: dirty_ranges(clean), TIMES),
        runs=RUNS,
    )
    beside = "a memcpy of the bitmap"
    show("dirty ranges of 1 TiB, 1 page in 10,000", found / copied, 5, beside)
    show("dirty ranges of 1 TiB, none", none / copied, 5, beside)


def test_the_zero_pages_of_a_gibibyte() -> None:
    with GuestMemory.of_pc(2 * GIB) as memory:
        fill(memory, GIB)
        ram = memory.blocks[0]
        ram.bytes[GIB:] = 0
        half = GIB // 4096
        copied, full, zero = best_of(
            memcpy(GIB, ram.address, 1),
            lambda: timed(lambda: zero_pages(ram, 0, half)),
            lambda: timed(lambda: zero_pages(ram, half, half)),
        )
    beside = "a memcpy of 1 GiB"
    show("zero pages of 1 GiB, none", full / copied, 0.1, beside)
    show("zero pages of 1 GiB, all", zero / copied, 1, beside)
