"""Where PCs have their RAM, as `info mtree -f` of QEMU 7.2.22 shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vfiomig.vm.layout import ABOVE_4G, Slot, pc_slots
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import RamBlock

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
GIB = 1 << 30


# (machine, -m, what lies below 4 GiB, what lies from 4 GiB on)
SEEN = (
    ("pc", 2048, 0x8000_0000, 0),
    ("pc", 3583, 0xDFF0_0000, 0),
    ("pc", 3584, 0xC000_0000, 0x2000_0000),
    ("pc", 4096, 0xC000_0000, 0x4000_0000),
    ("q35", 2815, 0xAFF0_0000, 0),
    ("q35", 2816, 0x8000_0000, 0x3000_0000),
    ("q35", 4096, 0x8000_0000, 0x8000_0000),
)


@pytest.mark.parametrize(("machine", "mib", "below", "above"), SEEN)
def test_the_slots_are_those_of_qemu(
    machine: str, mib: int, below: int, above: int
) -> None:
    with RamBlock("pc.ram", mib * MIB) as ram:
        expected = [(0, below, ram, 0)]
        if above:
            expected.append((0x1_0000_0000, above, ram, below))
        assert list(pc_slots(ram, machine)) == expected


def test_the_part_above_can_lie_elsewhere() -> None:
    with GuestMemory.of_pc(4 * GIB, above=1 << 40) as memory:
        assert [slot.gpa for slot in memory.slots] == [0, 1 << 40]
    assert ABOVE_4G == 4 * GIB


def test_no_such_machine() -> None:
    with (
        RamBlock("pc.ram", MIB) as ram,
        pytest.raises(ValueError, match=r"'virt': known are pc, q35"),
    ):
        pc_slots(ram, "virt")


@pytest.fixture
def blocks() -> Iterator[tuple[RamBlock, RamBlock]]:
    with RamBlock("pc.ram", MIB) as ram, RamBlock("vga.vram", MIB) as video:
        yield ram, video


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ([(0, 4096, 0, 0), (0, 4096, 1, 0)], "overlaps"),
        ([(0, 8192, 0, 0), (4096, 4096, 1, 0)], "slot at 0x1000: overlaps"),
        ([(512, 4096, 0, 0)], "slot at 0x200: not whole pages"),
        ([(0, 4095, 0, 0)], "not whole pages"),
        ([(0, 4096, 0, 8)], "not whole pages"),
        ([(0, 0, 0, 0)], "not whole pages"),
        ([(0, MIB, 0, 4096)], "pc.ram does not hold it"),
        ([(0, 4096, 0, MIB)], "pc.ram does not hold it"),
        ([(0, 4096, 0, -4096)], "pc.ram does not hold it"),
        ([(-4096, 8192, 0, 0)], "overlaps"),
    ],
)
def test_slots_that_cannot_be(
    blocks: tuple[RamBlock, RamBlock],
    slots: list[tuple[int, int, int, int]],
    said: str,
) -> None:
    made = [Slot(gpa, size, blocks[which], at) for gpa, size, which, at in slots]
    with pytest.raises(ValueError, match=said):
        GuestMemory(blocks, made)


def test_blocks_that_cannot_be(blocks: tuple[RamBlock, RamBlock]) -> None:
    ram, video = blocks
    with pytest.raises(ValueError, match=r"vga\.vram is none of the blocks"):
        GuestMemory([ram], [Slot(0, 4096, video, 0)])
    with (
        RamBlock("pc.ram", MIB) as twin,
        pytest.raises(ValueError, match="one name"),
    ):
        GuestMemory([ram, twin], [])
