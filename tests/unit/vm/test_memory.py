"""Guest memory by address, and who logs which write."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import Slot
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
LOW_END = 0xC000_0000  # where RAM below 4 GiB ends, in a PC with 4 GiB
HIGH = 4 * GIB


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory.of_pc(4 * GIB) as guest:
        yield guest


def dirty(memory: GuestMemory, user: LogUser) -> list[list[int]] | None:
    log = memory.log(user, memory.blocks[0])
    return None if log is None else log.ranges().tolist()


def test_an_address_above_the_hole_is_another_offset(memory: GuestMemory) -> None:
    ram = memory.block("pc.ram")
    memory.write(HIGH + 5, b"high")
    memory.write(LOW_END - 3, b"low")
    # In RAM the two are neighbours; between their addresses is a gibibyte of hole.
    assert bytes(ram.view[LOW_END - 3 : LOW_END + 9]) == b"low\0\0\0\0\0high"
    assert memory.read(HIGH, 9) == b"\0\0\0\0\0high"
    assert memory.pieces(HIGH + 5, 4) == [(ram, LOW_END + 5, 4)]
    assert memory.size == 4 * GIB


@pytest.mark.parametrize(
    ("gpa", "size", "no_ram_at"),
    [
        (LOW_END - 1, 2, LOW_END),
        (LOW_END, 1, LOW_END),
        (HIGH - 1, 2, HIGH - 1),
        (HIGH + GIB - 1, 2, HIGH + GIB),
        (0, HIGH + GIB, LOW_END),
        (-1, 1, -1),
        (1 << 64, 1, 1 << 64),
    ],
)
def test_what_is_no_ram_faults(
    memory: GuestMemory, gpa: int, size: int, no_ram_at: int
) -> None:
    with pytest.raises(OSError, match=f"no RAM at {no_ram_at:#x}") as raised:
        memory.pieces(gpa, size)
    assert raised.value.errno == errno.EFAULT


def test_the_virt_machine_has_all_of_its_ram_from_2_gib_on() -> None:
    with GuestMemory.of_virt(3 * GIB) as memory:
        ram = memory.block("riscv_virt_board.ram")
        assert memory.slots == (Slot(0x8000_0000, 3 * GIB, ram, 0),)
        memory.write(0x8000_0005, b"first")
        assert bytes(ram.view[4:11]) == b"\0first\0"
        for gpa, no_ram_at in ((0x7FFF_FFFF, 0x7FFF_FFFF), (5 * GIB - 1, 5 * GIB)):
            with pytest.raises(OSError, match=f"no RAM at {no_ram_at:#x}"):
                memory.read(gpa, 2)


def test_a_write_that_faults_writes_nothing(memory: GuestMemory) -> None:
    memory.start_log(LogUser.KERNEL)
    with pytest.raises(OSError, match="no RAM"):
        memory.write(LOW_END - 1, b"ab")
    assert memory.read(LOW_END - 1, 1) == b"\0"
    assert dirty(memory, LogUser.KERNEL) == []


def test_neighbouring_slots_are_one_range() -> None:
    with RamBlock("a", 2 * PAGE_SIZE) as first, RamBlock("b", PAGE_SIZE) as second:
        # The pages of `first` lie the wrong way round, and `second` between them.
        slots = [
            Slot(2 * PAGE_SIZE, PAGE_SIZE, first, 0),
            Slot(0, PAGE_SIZE, first, PAGE_SIZE),
            Slot(PAGE_SIZE, PAGE_SIZE, second, 0),
        ]
        memory = GuestMemory([first, second], slots)
        memory.start_log(LogUser.DMA)
        data = bytes(range(1, 200)) * 50
        memory.write(PAGE_SIZE - 100, data[: PAGE_SIZE + 200], LogUser.DMA)
        assert memory.read(PAGE_SIZE - 100, PAGE_SIZE + 200) == data[: PAGE_SIZE + 200]
        assert first.view[2 * PAGE_SIZE - 100 :] == data[:100]
        assert second.view[:] == data[100 : PAGE_SIZE + 100]
        assert first.view[:100] == data[PAGE_SIZE + 100 : PAGE_SIZE + 200]
        logs = [memory.log(LogUser.DMA, block) for block in memory.blocks]
        assert [log.ranges().tolist() for log in logs if log] == [[[0, 2]], [[0, 1]]]
        assert memory.blocks == (first, second)


def test_who_writes_marks_his_own_log(memory: GuestMemory) -> None:
    for user in LogUser:
        assert dirty(memory, user) is None
        memory.start_log(user)
    memory.write(0, b"x")
    memory.write(2 * PAGE_SIZE - 1, b"xy", LogUser.DMA)
    memory.write(HIGH, b"x", LogUser.MIGRATION)
    assert dirty(memory, LogUser.KERNEL) == [[0, 1]]
    assert dirty(memory, LogUser.DMA) == [[1, 2]]
    assert dirty(memory, LogUser.MIGRATION) == [[LOW_END // PAGE_SIZE, 1]]
    assert memory.dirty_pages == 1


def test_a_write_of_nothing_marks_nothing(memory: GuestMemory) -> None:
    memory.start_log(LogUser.KERNEL)
    memory.write(LOW_END, b"")
    memory.mark(LogUser.KERNEL, memory.blocks[0], 0, 0)
    assert dirty(memory, LogUser.KERNEL) == []


def test_a_log_that_is_off_holds_nothing(memory: GuestMemory) -> None:
    memory.start_log(LogUser.KERNEL)
    memory.write(0, b"x")
    memory.stop_log(LogUser.KERNEL)
    memory.write(0, b"x")
    memory.stop_log(LogUser.KERNEL)
    assert dirty(memory, LogUser.KERNEL) is None
    memory.start_log(LogUser.KERNEL)
    assert dirty(memory, LogUser.KERNEL) == []


def test_a_sync_moves_a_log_and_counts_what_is_new(memory: GuestMemory) -> None:
    for user in LogUser:
        memory.start_log(user)
    memory.write(0, bytes(3 * PAGE_SIZE))
    memory.write(HIGH, b"x", LogUser.DMA)
    memory.write(PAGE_SIZE, b"x", LogUser.DMA)
    assert memory.sync(LogUser.KERNEL) == 3
    assert memory.sync(LogUser.DMA) == 1
    assert memory.sync(LogUser.KERNEL) == memory.sync(LogUser.DMA) == 0
    assert dirty(memory, LogUser.KERNEL) == dirty(memory, LogUser.DMA) == []
    assert dirty(memory, LogUser.MIGRATION) == [[0, 3], [LOW_END // PAGE_SIZE, 1]]
    assert memory.dirty_pages == 4


def test_a_sync_needs_both_logs(memory: GuestMemory) -> None:
    assert memory.sync(LogUser.KERNEL) == 0
    memory.start_log(LogUser.KERNEL)
    memory.write(0, b"x")
    assert memory.sync(LogUser.KERNEL) == memory.dirty_pages == 0
    assert dirty(memory, LogUser.KERNEL) == [[0, 1]]  # not lost
    with pytest.raises(ValueError, match="into itself"):
        memory.sync(LogUser.MIGRATION)


# -- a container's bitmap (its pages one by one: tests/property/test_guest_memory.py)


def test_a_containers_bitmap_is_merged_over_the_hole(memory: GuestMemory) -> None:
    memory.start_log(LogUser.MIGRATION)
    bitmap = bytearray((HIGH + GIB) // PAGE_SIZE // 8)
    last = LOW_END // PAGE_SIZE - 1
    for page in (3, last, last + 1, HIGH // PAGE_SIZE - 1, HIGH // PAGE_SIZE):
        bitmap[page // 8] |= 1 << page % 8
    assert memory.merge(bitmap, 0, HIGH + GIB, PAGE_SIZE) == 3
    # The hole's two are nobody's; the first page above it is the next of RAM.
    assert dirty(memory, LogUser.MIGRATION) == [[3, 1], [last, 2]]
    assert memory.merge(bitmap, 0, HIGH + GIB, PAGE_SIZE) == 0


def test_a_large_page_marks_all_of_ram_that_it_touches(memory: GuestMemory) -> None:
    memory.start_log(LogUser.MIGRATION)
    assert memory.merge((1).to_bytes(8, "little"), HIGH, 64 << 21, 1 << 21) == 512
    assert dirty(memory, LogUser.MIGRATION) == [[LOW_END // PAGE_SIZE, 512]]


def test_a_merge_without_a_log_is_of_nothing(memory: GuestMemory) -> None:
    assert memory.merge(b"\xff" * 8, 0, 64 * PAGE_SIZE, PAGE_SIZE) == 0


@pytest.mark.parametrize(
    ("bitmap", "gpa", "size", "page_size", "said"),
    [
        (bytes(7), 0, PAGE_SIZE, PAGE_SIZE, "no whole words"),
        (bytes(8), 0, 65 * PAGE_SIZE, PAGE_SIZE, "does not hold 65 pages"),
        (b"", 0, 1, PAGE_SIZE, "does not hold 1 pages"),
        (bytes(8), 0, PAGE_SIZE, 0, "no power of two"),
        (bytes(8), 0, PAGE_SIZE, -4096, "no power of two"),
        (bytes(8), 0, PAGE_SIZE, 4095, "no power of two"),
        (bytes(8), -PAGE_SIZE, PAGE_SIZE, PAGE_SIZE, "no guest physical"),
        (bytes(8), 0, -PAGE_SIZE, PAGE_SIZE, "no guest physical"),
        (bytes(8), 1 << 62, PAGE_SIZE, PAGE_SIZE, "no guest physical"),
        (bytes(8), 0, 1, 1 << 63, "no guest physical"),
    ],
)
def test_bitmaps_that_cannot_be(
    memory: GuestMemory, bitmap: bytes, gpa: int, size: int, page_size: int, said: str
) -> None:
    memory.start_log(LogUser.MIGRATION)
    with pytest.raises(ValueError, match=said):
        memory.merge(bitmap, gpa, size, page_size)


def test_the_digest_is_of_the_blocks(memory: GuestMemory) -> None:
    before = memory.digest()
    memory.write(HIGH, b"\0")
    assert memory.digest() == before
    memory.write(HIGH, b"\1")
    assert memory.digest() != before
