"""What a forecast counts, against what is walked page by page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vfiomig.migration.what_if.stretches import RamMap
from vfiomig.migration.what_if.striding import steps_into
from vfiomig.migration.what_if.writing import ModelledLoad
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.workload import RamLoad, Workload

SECOND = 1_000_000_000


@given(
    pages=st.integers(1, 300),
    step=st.integers(0, 400),
    numbers=st.tuples(st.integers(0, 600), st.integers(0, 600)),
    places=st.tuples(st.integers(0, 300), st.integers(0, 300)),
)
def test_steps_are_counted_as_they_are_walked(
    pages: int, step: int, numbers: tuple[int, int], places: tuple[int, int]
) -> None:
    first, end = sorted(numbers)
    low, high = sorted(min(place, pages) for place in places)
    walked = sum(low <= number * step % pages < high for number in range(first, end))
    counted = steps_into(low, high, first=first, end=end, step=step, pages=pages)
    assert counted == walked


@given(
    rate=st.integers(0, 50_000_000),
    moments=st.lists(
        st.tuples(st.integers(0, SECOND), st.integers(0, 99)), min_size=1, max_size=6
    ),
)
def test_a_modelled_load_writes_as_often_as_the_real_one(
    rate: int, moments: list[tuple[int, int]]
) -> None:
    load = RamLoad(dirty_rate=rate, working_set=16 * PAGE_SIZE)
    modelled = ModelledLoad(load)
    with GuestMemory.of_pc(16 * PAGE_SIZE) as memory:
        real = Workload(memory, load)
        now = 0
        for passed, percent in moments:
            now += passed
            real.throttle(now, percent)
            modelled.throttle(now, percent)
            assert modelled.writes == real.writes


@st.composite
def loads(draw: st.DrawFn) -> list[RamLoad]:
    return [
        RamLoad(
            dirty_rate=draw(st.integers(0, 1 << 22)),
            working_set=(size := draw(st.integers(1, 64))) * PAGE_SIZE,
            offset=draw(st.integers(0, 64 - size)) * PAGE_SIZE,
            pattern=draw(st.sampled_from(["stride", "random"])),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]


@given(
    loads=loads(),
    filled=st.integers(0, 64),
    turns=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=20),
)
def test_pages_are_neither_lost_nor_made(
    loads: list[RamLoad], filled: int, turns: list[tuple[int, bool]]
) -> None:
    modelled = [ModelledLoad(load) for load in loads]
    ram = RamMap.of(64, filled, modelled)
    ram.sync()
    assert ram.dirty == 64
    now = 0
    for wanted, syncs in turns:
        now += SECOND // 50
        for load in modelled:
            load.run_until(now)
        left = min(wanted, ram.dirty)
        before, sent = ram.dirty, left
        while left:
            pages = min(left, ram.current.dirty)
            ram.send(pages)
            left -= pages
        assert ram.dirty == before - sent
        if syncs:
            ram.sync()
        assert ram.dirty == sum(stretch.dirty for stretch in ram.stretches)
        assert sum(stretch.pages for stretch in ram.stretches) == 64
        assert all(0 <= each.dirty <= each.pages for each in ram.stretches)
        assert all(0 <= each.zero_share() <= 1 for each in ram.stretches if each.dirty)


@given(
    pages=st.integers(8, 200),
    rate=st.integers(1, 1 << 22),
    sends=st.lists(st.integers(1, 60), min_size=1, max_size=8),
)
def test_one_stride_is_followed_to_a_page_or_two(
    pages: int, rate: int, sends: list[int]
) -> None:
    load = RamLoad(dirty_rate=rate, working_set=pages * PAGE_SIZE)
    modelled = ModelledLoad(load)
    ram = RamMap.of(pages, pages, [modelled])
    ram.sync()
    dirty = set(range(pages))
    place = now = written = 0
    for wanted in sends:
        now += SECOND // 20
        modelled.run_until(now)
        for _ in range(min(wanted, len(dirty), ram.dirty)):
            place = min(dirty, key=lambda page: (page < place, page))
            dirty.remove(place)
            ram.send(min(1, ram.current.dirty))
        dirty |= set(load.pages_written(written, modelled.writes - written).tolist())
        written = modelled.writes
        ram.sync()
        # Where a stretch is cut is known by its share of dirty pages only.
        assert abs(ram.dirty - len(dirty)) <= 2 + pages // 10
