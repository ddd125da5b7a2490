"""Pages that lie over a guest's RAM, such as shared_info: blocks of their own.

What is beneath stays as it was, and shows again when the page goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.vm.layout import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.vm.ram_block import RamBlock


def without(slots: Iterable[Slot], gpa: int, size: int) -> list[Slot]:
    """Return slots that show nothing from ``gpa`` on: whole pages."""
    rest = []
    for slot in slots:
        begin, end = slot.gpa, slot.gpa + slot.size
        for first, last in ((begin, min(end, gpa)), (max(begin, gpa + size), end)):
            if first < last:
                at = slot.offset + first - begin
                rest.append(Slot(first, last - first, slot.block, at))
    return rest


def overlaid(slots: Iterable[Slot], gpa: int, block: RamBlock) -> list[Slot]:
    """Return slots that show a block at ``gpa`` instead of what they did."""
    return [*without(slots, gpa, block.size), Slot(gpa, block.size, block, 0)]
