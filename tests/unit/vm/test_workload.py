"""A load does what is due by virtual time, to the page, however it is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock
from vfiomig.vm.workload import Pattern, RamLoad, Workload, fill
from vfiomig.vm.zero_pages import zero_pages

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
SECOND = 1_000_000_000
BOTH: tuple[Pattern, ...] = ("stride", "random")


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory.of_pc(8 * MIB) as guest:
        guest.start_log(LogUser.KERNEL)
        yield guest


def dirty(memory: GuestMemory) -> int:
    log = memory.log(LogUser.KERNEL, memory.blocks[0])
    assert log is not None
    return log.count


# -- how much


@pytest.mark.parametrize(
    ("rate", "now", "writes"),
    [
        (4 * MIB, SECOND, 1024),
        (4 * MIB, SECOND - 1, 1023),
        (4096, SECOND, 1),
        (4096, SECOND - 1, 0),
        (1, 4096 * SECOND, 1),
        (1, 4096 * SECOND - 1, 0),
        (0, 1 << 60, 0),
        (1_000_000_007, 77_777_777, 18_988),  # 18988.7...
    ],
)
def test_the_writes_are_the_rate_times_the_time(
    memory: GuestMemory, rate: int, now: int, writes: int
) -> None:
    work = Workload(memory, RamLoad(dirty_rate=rate, working_set=MIB))
    assert work.run_until(now) == work.writes == writes
    assert work.run_until(now) == 0
    assert work.run_until(now - 1) == 0
    assert dirty(memory) == min(writes, 256)


def test_a_throttle_takes_its_share_from_then_on(memory: GuestMemory) -> None:
    work = Workload(memory, RamLoad(dirty_rate=4_096_000, working_set=MIB))
    work.throttle(SECOND, 20)
    assert work.writes == 1000
    work.throttle(2 * SECOND, 99)
    assert work.writes == 1800
    work.throttle(3 * SECOND, 0)
    assert work.writes == 1810
    work.run_until(4 * SECOND)
    assert (work.writes, work.percent) == (2810, 0)


@pytest.mark.parametrize("percent", [-1, 100])
def test_throttles_that_cannot_be(memory: GuestMemory, percent: int) -> None:
    work = Workload(memory, RamLoad(dirty_rate=1, working_set=MIB))
    with pytest.raises(ValueError, match=f"{percent} per cent"):
        work.throttle(0, percent)


@given(
    pattern=st.sampled_from(BOTH),
    rate=st.integers(0, 1 << 23),
    pages=st.integers(1, 300),
    times=st.lists(st.integers(0, SECOND), max_size=5),
    throttles=st.lists(
        st.tuples(st.integers(0, SECOND), st.integers(0, 99)), max_size=3
    ),
)
@settings(max_examples=50)
def test_it_does_not_matter_how_often_it_is_asked(
    pattern: Pattern,
    rate: int,
    pages: int,
    times: list[int],
    throttles: list[tuple[int, int]],
) -> None:
    load = RamLoad(dirty_rate=rate, working_set=pages * PAGE_SIZE, pattern=pattern)
    seen = []
    for asked in ([], times):
        with GuestMemory.of_pc(2 * MIB) as memory:
            memory.start_log(LogUser.KERNEL)
            work = Workload(memory, load)
            moments = [*((time, None) for time in asked), *throttles]
            for time, percent in sorted(moments, key=lambda moment: moment[0]):
                if percent is None:
                    work.run_until(time)
                else:
                    work.throttle(time, percent)
            work.run_until(SECOND)
            seen.append((work.writes, memory.digest(), dirty(memory)))
    assert seen[0] == seen[1]


# -- where


@pytest.mark.parametrize("seed", [0, 1, 57, -1, 1 << 70])
@pytest.mark.parametrize("pages", [1, 2, 3, 97, 155, 1000, 4096])
def test_a_stride_visits_every_page_before_one_twice(pages: int, seed: int) -> None:
    load = RamLoad(dirty_rate=1, working_set=pages * PAGE_SIZE, seed=seed)
    for first in (0, 1, pages - 1, 10**12):
        for count in {1, pages // 2, pages}:
            assert len(set(load.pages_written(first, count).tolist())) == count
    assert set(load.pages_written(5, 2 * pages).tolist()) == set(range(pages))


def test_neighbours_of_a_stride_are_apart() -> None:
    pages = RamLoad(dirty_rate=1, working_set=256 * MIB).pages_written(0, 1000)
    assert np.abs(np.diff(pages)).min() > 1000


def test_random_writes_are_uniform() -> None:
    load = RamLoad(dirty_rate=1, working_set=64 * PAGE_SIZE, pattern="random")
    hits = np.bincount(load.pages_written(0, 64_000), minlength=64)
    # Of 63 degrees of freedom: beyond 120 in one of 100,000 cases.
    assert float(((hits - 1000) ** 2 / 1000).sum()) < 120


def test_random_writes_come_with_the_seed() -> None:
    def written(seed: int, first: int = 0) -> list[int]:
        load = RamLoad(dirty_rate=1, working_set=256 * MIB, pattern="random", seed=seed)
        return [int(page) for page in load.pages_written(first, 1000)]

    assert written(3) == written(3)
    assert written(3)[1:] == written(3, 1)[:-1]
    # No sequence is another one, a few places on.
    of_seeds = [frozenset(written(seed)) for seed in range(8)]
    assert all(len(a & b) < 100 for a in of_seeds for b in of_seeds if a is not b)


@pytest.mark.parametrize("pattern", BOTH)
def test_it_stays_in_the_working_set(memory: GuestMemory, pattern: Pattern) -> None:
    load = RamLoad(
        dirty_rate=16 * MIB, working_set=MIB, offset=3 * MIB, pattern=pattern
    )
    Workload(memory, load).run_until(SECOND)
    log = memory.log(LogUser.KERNEL, memory.blocks[0])
    assert log is not None
    assert log.ranges().tolist() == [[3 * 256, 256]]
    # The log and the bytes tell the same.
    flags = zero_pages(memory.blocks[0], 0, 2048)
    assert np.flatnonzero(~flags).tolist() == list(range(3 * 256, 4 * 256))


# -- what


@pytest.mark.parametrize("pattern", BOTH)
@pytest.mark.parametrize("writes", [1, 100, 256, 257, 1000, 100_000])
def test_every_page_written_changes_in_8_bytes(
    memory: GuestMemory, pattern: Pattern, writes: int
) -> None:
    load = RamLoad(dirty_rate=4096, working_set=MIB, pattern=pattern)
    work = Workload(memory, load)
    fill(memory, 8 * MIB)
    work.run_until(7 * SECOND)
    before = memory.blocks[0].words.copy()
    memory.start_log(LogUser.KERNEL)
    assert work.run_until((7 + writes) * SECOND) == writes
    pages = set(load.pages_written(7, writes).tolist())
    changed = np.flatnonzero(memory.blocks[0].words != before) // 512
    assert changed.tolist() == sorted(pages)
    assert dirty(memory) == len(pages)


def test_it_works_without_a_log(memory: GuestMemory) -> None:
    memory.stop_log(LogUser.KERNEL)
    nothing = memory.digest()
    Workload(memory, RamLoad(dirty_rate=4096, working_set=MIB)).run_until(SECOND)
    assert memory.digest() != nothing


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dirty_rate": -1}, "dirty rate of -1"),
        ({"working_set": 0}, "working set of 0 bytes"),
        ({"working_set": 4097}, "not whole pages"),
        ({"offset": -4096}, "does not begin with a page"),
        ({"offset": 1}, "does not begin with a page"),
        ({"pattern": "zigzag"}, "no pattern 'zigzag': known are stride, random"),
    ],
)
def test_loads_that_cannot_be(change: dict[str, Any], said: str) -> None:
    good = RamLoad(dirty_rate=1, working_set=MIB)
    with pytest.raises(ValueError, match=said):
        replace(good, **change)


def test_a_load_that_does_not_fit(memory: GuestMemory) -> None:
    over = RamLoad(dirty_rate=1, working_set=8 * MIB, offset=PAGE_SIZE)
    with pytest.raises(ValueError, match=r"does not lie in pc\.ram"):
        Workload(memory, over)
    elsewhere = RamLoad(dirty_rate=1, working_set=MIB, block="vga.vram")
    with pytest.raises(KeyError, match=r"vga\.vram"):
        Workload(memory, elsewhere)


# -- contents at the start


@pytest.mark.parametrize("size", [0, PAGE_SIZE, 3 * MIB, 8 * MIB])
def test_filling_leaves_no_zero_page_and_no_other(
    memory: GuestMemory, size: int
) -> None:
    fill(memory, size)
    flags = zero_pages(memory.blocks[0], 0, 2048)
    assert np.flatnonzero(~flags).tolist() == list(range(size // PAGE_SIZE))
    assert dirty(memory) == size // PAGE_SIZE


def test_filling_goes_through_the_blocks() -> None:
    with GuestMemory(
        [RamBlock("pc.ram", MIB), RamBlock("vga.vram", MIB)], []
    ) as memory:
        fill(memory, MIB + PAGE_SIZE)
        ram, video = memory.blocks
        assert not zero_pages(ram, 0, 256).any()
        assert zero_pages(video, 0, 256).tolist() == [False] + [True] * 255
        assert video.view[:PAGE_SIZE] != ram.view[:PAGE_SIZE]


def test_contents_come_with_the_seed(memory: GuestMemory) -> None:
    digests = []
    for seed in (1, 2, 1):
        fill(memory, MIB, seed)
        digests.append(memory.digest())
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("size", [-4096, 1, 8 * MIB + PAGE_SIZE])
def test_contents_that_cannot_be(memory: GuestMemory, size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes are not whole pages"):
        fill(memory, size)
