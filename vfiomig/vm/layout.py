"""Where RAM lies in guest physical addresses.

QEMU 7.2's PCs leave room for devices below 4 GiB: RAM that reaches into it goes on at
4 GiB, so that an address is not the offset in RAM (hw/i386/pc_piix.c, pc_q35.c).
RISC-V's virt machine has all of its RAM behind the devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from vfiomig.vm.ram_block import RamBlock

GIB: Final = 1 << 30
ABOVE_4G: Final = 4 * GIB
VIRT_RAM: Final = 0x8000_0000  # where RAM begins in RISC-V's virt machine


class Slot(NamedTuple):
    """``size`` bytes of guest physical addresses from ``gpa`` on: RAM of one block.

    What a container maps (iova = gpa) and what KVM knows as a memory slot.
    """

    gpa: int
    size: int
    block: RamBlock
    offset: int  # in the block


class _Below(NamedTuple):
    """RAM of ``at_least`` bytes is cut, and only ``cut`` bytes stay below 4 GiB."""

    at_least: int
    cut: int


# Seen with `info mtree -f` of QEMU 7.2.22: one byte less than `at_least` is not cut.
_MACHINES: Final = {
    "pc": _Below(0xE000_0000, 0xC000_0000),
    "q35": _Below(0xB000_0000, 0x8000_0000),
}


def pc_slots(
    block: RamBlock, machine: str = "pc", above: int = ABOVE_4G
) -> tuple[Slot, ...]:
    """Return the one or two slots of a PC whose RAM is ``block``.

    ``machine`` is ``pc`` (i440fx) or ``q35``.  QEMU moves the part above 4 GiB
    (``above``) for AMD's hole at 1012 GiB.  The holes for VGA and firmware below 1 MiB
    are left out: QEMU cuts a slot there.

    Raises:
        ValueError: no such machine.
    """
    try:
        below = _MACHINES[machine]
    except KeyError:
        message = f"machine {machine!r}: known are {', '.join(_MACHINES)}"
        raise ValueError(message) from None
    if block.size < below.at_least:
        return (Slot(0, block.size, block, 0),)
    rest = block.size - below.cut
    return (Slot(0, below.cut, block, 0), Slot(above, rest, block, below.cut))


def virt_slots(block: RamBlock) -> tuple[Slot, ...]:
    """Return the one slot of RISC-V's ``virt`` machine whose RAM is ``block``.

    It has no hole: the devices are below (hw/riscv/virt.c, VIRT_DRAM).
    """
    return (Slot(VIRT_RAM, block.size, block, 0),)
