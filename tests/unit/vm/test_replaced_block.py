"""Other memory behind a block, as a host has it that merges or moves pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import Slot
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock
from vfiomig.vm.xen.guest_page import CachedPage, PinnedPage

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES: Final = 3
TWICE: Final = 8 * PAGE_SIZE  # where one page of it shows once more


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    ram, page = RamBlock("ram", PAGES * PAGE_SIZE), RamBlock("page", 2 * PAGE_SIZE)
    slots = [
        Slot(0, ram.size, ram, 0),
        Slot(4 * PAGE_SIZE, page.size, page, 0),
        Slot(TWICE, PAGE_SIZE, page, PAGE_SIZE),
    ]
    with GuestMemory([ram, page], slots) as memory:
        yield memory


def test_the_guest_sees_no_difference(memory: GuestMemory) -> None:
    memory.write(5 * PAGE_SIZE - 2, b"over the edge")
    memory.write(7, b"ram")
    before, ram = memory.digest(), memory.block("ram")
    old, generation = memory.block("page"), memory.generation
    new = memory.replace_block("page")
    assert memory.digest() == before
    assert memory.read(5 * PAGE_SIZE - 2, 13) == b"over the edge"
    assert memory.read(TWICE, 11) == b"er the edge"
    assert new is memory.block("page") is memory.blocks[1]
    assert new is not old
    assert memory.block("ram") is memory.blocks[0] is ram
    assert [slot.block for slot in memory.slots] == [ram, new, new]
    assert [slot.gpa for slot in memory.slots] == [0, 4 * PAGE_SIZE, TWICE]
    assert memory.generation > generation
    assert memory.size == (PAGES + 2) * PAGE_SIZE


def test_what_is_written_goes_to_the_new_block_alone(memory: GuestMemory) -> None:
    old = memory.block("page")
    new = memory.replace_block("page")
    memory.write(4 * PAGE_SIZE, b"new")
    assert bytes(new.view[:3]) == b"new"
    assert not any(old.view)
    old.view[:3] = b"old"  # who kept it
    assert memory.read(4 * PAGE_SIZE, 3) == b"new"


def test_logs_stay_as_they_are_and_go_on(memory: GuestMemory) -> None:
    for user in (LogUser.KERNEL, LogUser.MIGRATION):
        memory.start_log(user)
    memory.write(5 * PAGE_SIZE, b"before")
    new = memory.replace_block("page")
    kernel = memory.log(LogUser.KERNEL, new)
    assert kernel is not None
    assert kernel.ranges().tolist() == [[1, 1]]  # replacing it has written nothing
    memory.write(4 * PAGE_SIZE, b"after")
    assert kernel.ranges().tolist() == [[0, 2]]
    assert memory.sync(LogUser.KERNEL) == 2
    assert memory.dirty_pages == 2


def test_a_pinned_page_keeps_the_old_block_and_a_cached_one_does_not(
    memory: GuestMemory,
) -> None:
    pinned, cached = PinnedPage(memory, TWICE), CachedPage(memory, TWICE)
    old = memory.block("page")
    for page in (pinned, cached):
        assert page.frame().block is old
    new = memory.replace_block("page")
    pinned.frame().set_bits(0, 4, 1)
    cached.frame().set_bits(0, 4, 2)
    assert (pinned.byte(0), cached.byte(0)) == (1, 2)
    assert (old.view[PAGE_SIZE], new.view[PAGE_SIZE]) == (1, 2)


def test_a_block_may_be_replaced_again_and_again(memory: GuestMemory) -> None:
    memory.write(4 * PAGE_SIZE, b"kept")
    blocks = [memory.block("page")]
    blocks += (memory.replace_block("page") for _ in range(3))
    assert len(set(map(id, blocks))) == 4
    assert memory.read(4 * PAGE_SIZE, 4) == b"kept"


def test_a_block_that_no_slot_shows_is_replaced_as_well(memory: GuestMemory) -> None:
    ram = memory.block("ram")
    memory.block("page").view[:3] = b"was"
    memory.set_slots([Slot(0, ram.size, ram, 0)])
    assert bytes(memory.replace_block("page").view[:3]) == b"was"
    assert [slot.block for slot in memory.slots] == [ram]


def test_a_block_that_is_not_there_is_none(memory: GuestMemory) -> None:
    blocks, slots = memory.blocks, memory.slots
    with pytest.raises(KeyError):
        memory.replace_block("pages")
    assert (memory.blocks, memory.slots) == (blocks, slots)


def test_all_that_were_ever_there_are_closed() -> None:
    ram = RamBlock("ram", PAGE_SIZE)
    with GuestMemory([ram], [Slot(0, ram.size, ram, 0)]) as memory:
        blocks = [ram, memory.replace_block("ram"), memory.replace_block("ram")]
        assert all(block.fd >= 0 for block in blocks)
    assert [block.fd for block in blocks] == [-1] * 3
