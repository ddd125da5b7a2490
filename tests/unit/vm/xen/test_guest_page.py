"""Two ways to a page: what each does when the guest's addresses show something else."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import Slot
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock
from vfiomig.vm.xen.guest_page import WAYS, CachedPage, Frame, PinnedPage
from vfiomig.vm.xen.overlay import overlaid, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.vm.xen.guest_page import Way

_GPA: Final = 2 * PAGE_SIZE
_SIZE: Final = 8 * PAGE_SIZE


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    """RAM with shared_info's block beneath nothing yet, and another like it."""
    ram = RamBlock("pc.ram", _SIZE)
    over = [RamBlock(f"xen:{name}", PAGE_SIZE) for name in ("shared_info", "other")]
    with GuestMemory([ram, *over], [Slot(0, _SIZE, ram, 0)]) as made:
        yield made


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def show(memory: GuestMemory, name: str, gpa: int = _GPA) -> RamBlock:
    block = memory.block(f"xen:{name}")
    memory.set_slots(overlaid(memory.slots, gpa, block))
    return block


def dirty(memory: GuestMemory, block: RamBlock) -> list[list[int]]:
    log = memory.log(LogUser.KERNEL, block)
    assert log is not None
    ranges: list[list[int]] = log.ranges().tolist()
    return ranges


# -- a frame ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_words_are_changed_and_told(memory: GuestMemory, way: Way, size: int) -> None:
    frame = way(memory, _GPA).frame()
    top = 8 * size - 1
    assert not frame.test_and_set(64, size, top)
    assert frame.test_and_set(64, size, top)
    assert frame.look_and_set(64, size, top)
    assert not frame.look_and_set(64, size, 1)
    assert frame.test_and_clear(64, size, 1)
    assert not frame.test_and_set(64, size, 0)
    assert memory.read(_GPA + 64, size) == (1 << top | 1).to_bytes(size, "little")
    assert frame.test_and_clear(64, size, top)
    assert not frame.test_and_clear(64, size, top)
    assert frame.exchange(64, size, 5) == 1
    assert frame.set_bits(64, size, 0x18) == 5
    assert not frame.compare_and_swap(64, size, 5, 9)
    assert frame.compare_and_swap(64, size, 0x1D, 9)
    assert frame.load(64, size) == 9
    assert memory.read(_GPA, PAGE_SIZE).count(0) == PAGE_SIZE - 1


@pytest.mark.parametrize(
    ("offset", "size"), [(4, 8), (-8, 8), (PAGE_SIZE, 1), (0, 3), (0, 16), (2, 4)]
)
def test_what_is_no_word_is_refused(
    memory: GuestMemory, way: Way, offset: int, size: int
) -> None:
    frame = way(memory, _GPA).frame()
    changes: tuple[Callable[[], object], ...] = (
        lambda: frame.load(offset, size),
        lambda: frame.compare_and_swap(offset, size, 0, 1),
        lambda: frame.test_and_set(offset, size, 0),
        lambda: frame.look_and_set(offset, size, 0),
        lambda: frame.test_and_clear(offset, size, 0),
        lambda: frame.exchange(offset, size, 1),
        lambda: frame.set_bits(offset, size, 1),
    )
    for change in changes:
        with pytest.raises(OSError, match="no word") as refusal:
            change()
        assert refusal.value.errno == errno.EINVAL
    assert not any(memory.read(0, _SIZE))


def test_a_guest_that_never_lets_a_change_through_stops_nobody(
    memory: GuestMemory,
) -> None:
    block = memory.blocks[0]
    frame = Frame(memory, block, _GPA, swaps=lambda _: lambda _a, _e, _d: False)
    changes: tuple[Callable[[], object], ...] = (
        lambda: frame.test_and_set(0, 8, 1),
        lambda: frame.test_and_clear(0, 8, 1),
        lambda: frame.exchange(0, 8, 1),
        lambda: frame.set_bits(0, 8, 1),
    )
    for change in changes:
        with pytest.raises(OSError, match="65536 times") as refusal:
            change()
        assert refusal.value.errno == errno.EAGAIN


def test_what_is_changed_is_dirty_and_what_is_not_is_not(
    memory: GuestMemory, way: Way
) -> None:
    page, ram = way(memory, _GPA), memory.blocks[0]
    page.frame().exchange(8, 8, 3)
    memory.start_log(LogUser.KERNEL)
    page.frame().test_and_set(8, 8, 0)
    page.frame().test_and_clear(8, 8, 5)
    page.frame().compare_and_swap(8, 8, 7, 9)
    page.frame().load(8, 8)
    assert dirty(memory, ram) == []
    changes: tuple[Callable[[], object], ...] = (
        lambda: page.frame().test_and_set(8, 8, 9),
        lambda: page.frame().test_and_clear(8, 8, 9),
        lambda: page.frame().compare_and_swap(8, 8, 3, 9),
        lambda: page.frame().exchange(8, 8, 3),
        lambda: page.frame().set_bits(8, 8, 4),
    )
    for change in changes:
        change()
        assert dirty(memory, ram) == [[_GPA // PAGE_SIZE, 1]]
        log = memory.log(LogUser.KERNEL, ram)
        assert log is not None
        assert log.count == 1
        log.clear_all()
    memory.stop_log(LogUser.KERNEL)
    page.frame().test_and_set(8, 8, 40)
    memory.start_log(LogUser.KERNEL)
    assert dirty(memory, ram) == []


def test_marks_go_to_the_log_of_the_user(memory: GuestMemory) -> None:
    memory.start_log(LogUser.KERNEL)
    memory.start_log(LogUser.MIGRATION)
    CachedPage(memory, _GPA, LogUser.MIGRATION).frame().exchange(0, 8, 1)
    assert dirty(memory, memory.blocks[0]) == []
    assert memory.dirty_pages == 1


def test_an_address_within_a_page_is_refused(memory: GuestMemory, way: Way) -> None:
    with pytest.raises(OSError, match="0x2008") as refusal:
        way(memory, _GPA + 8)
    assert refusal.value.errno == errno.EINVAL


# -- slots that change -----------------------------------------------------------------


def test_a_cached_page_follows_a_page_that_is_replaced(memory: GuestMemory) -> None:
    old = show(memory, "shared_info")
    page = CachedPage(memory, _GPA)
    page.frame().exchange(0, 8, 0x11)
    new = show(memory, "other")
    page.frame().exchange(0, 8, 0x22)
    assert (old.view[0], new.view[0], page.byte(0)) == (0x11, 0x22, 0x22)
    old.view[0] = 0x33
    assert page.byte(0) == 0x22


def test_a_pinned_page_goes_on_with_the_old_one(memory: GuestMemory) -> None:
    old = show(memory, "shared_info")
    page = PinnedPage(memory, _GPA)
    page.frame().exchange(0, 8, 0x11)
    new = show(memory, "other")
    memory.start_log(LogUser.KERNEL)
    page.frame().exchange(0, 8, 0x22)
    assert (old.view[0], new.view[0], page.byte(0)) == (0x22, 0, 0x22)
    assert (dirty(memory, old), dirty(memory, new)) == ([[0, 1]], [])


def test_a_page_that_moves_shows_what_is_beneath(memory: GuestMemory) -> None:
    block = show(memory, "shared_info")
    page = CachedPage(memory, _GPA)
    page.frame().exchange(0, 8, 0x11)
    memory.set_slots([Slot(0, _SIZE, memory.blocks[0], 0)])
    show(memory, "shared_info", 5 * PAGE_SIZE)
    assert page.byte(0) == 0
    page.frame().exchange(0, 8, 0x22)
    assert (block.view[0], memory.blocks[0].view[_GPA]) == (0x11, 0x22)
    assert CachedPage(memory, 5 * PAGE_SIZE).byte(0) == 0x11


def test_a_cached_page_cannot_be_reached_while_it_is_unmapped(
    memory: GuestMemory,
) -> None:
    page = CachedPage(memory, _GPA)
    page.frame().exchange(0, 8, 0x11)
    slots = memory.slots
    memory.set_slots(without(slots, _GPA, PAGE_SIZE))
    for use in (page.frame, page.frame, lambda: page.byte(0)):
        with pytest.raises(OSError, match="0x2000") as refusal:
            use()
        assert refusal.value.errno == errno.EFAULT
    memory.set_slots(slots)
    assert page.byte(0) == 0x11


def test_no_page_is_pinned_where_there_is_no_ram(memory: GuestMemory) -> None:
    with pytest.raises(OSError, match="no RAM") as refusal:
        PinnedPage(memory, _SIZE)
    assert refusal.value.errno == errno.EFAULT


def test_slots_that_are_none_change_nothing(memory: GuestMemory) -> None:
    before, generation = memory.slots, memory.generation
    ram = memory.blocks[0]
    with pytest.raises(ValueError, match="overlaps"):
        memory.set_slots([*before, Slot(_GPA, PAGE_SIZE, ram, 0)])
    assert (memory.slots, memory.generation) == (before, generation)
    memory.set_slots(before)
    assert memory.generation > generation


def test_an_overlay_covers_and_uncovers(memory: GuestMemory) -> None:
    ram, over = memory.blocks[0], memory.block("xen:other")
    ram.view[:] = bytes(page for page in range(8) for _ in range(PAGE_SIZE))
    over.view[:] = b"\xff" * PAGE_SIZE
    whole = memory.slots

    def seen() -> list[int]:
        return [memory.read(page * PAGE_SIZE, 1)[0] for page in range(8)]

    for place in (0, 3, 7):
        memory.set_slots(overlaid(whole, place * PAGE_SIZE, over))
        assert seen() == [255 if page == place else page for page in range(8)]
    rest = without(whole, 2 * PAGE_SIZE, 3 * PAGE_SIZE)
    assert rest == [
        Slot(0, 2 * PAGE_SIZE, ram, 0),
        Slot(5 * PAGE_SIZE, 3 * PAGE_SIZE, ram, 5 * PAGE_SIZE),
    ]
