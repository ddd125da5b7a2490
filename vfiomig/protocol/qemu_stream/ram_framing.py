"""What stands around the pages in the sections of RAM, as bytes.

START  { be64 total | MEM_SIZE, { name, be64 length }*, EOS }
PART   { pages, EOS }        END  { pages, EOS }
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.framing import (
    SECTION_HEAD,
    TAG,
    counted,
    section_foot,
)
from vfiomig.uapi.qemu_stream import (
    QEMU_VM_SECTION_END,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_START,
    RAM_SAVE_FLAG_EOS,
    RAM_SAVE_FLAG_MEM_SIZE,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

RAM_IDSTR: Final = "ram"
_INSTANCE_AND_VERSION: Final = struct.pack(">II", 0, 4)
END_OF_STATE: Final = TAG.pack(RAM_SAVE_FLAG_EOS)


def start_section(number: int, blocks: Sequence[tuple[str, int]]) -> bytes:
    """Return the whole START section for blocks (name, bytes)."""
    head = SECTION_HEAD.pack(QEMU_VM_SECTION_START, number)
    return head + start_rest(blocks) + section_foot(number)


def start_rest(blocks: Sequence[tuple[str, int]]) -> bytes:
    """Return what stands between the id and the footer of a START section."""
    total = sum(size for _, size in blocks)
    parts = [
        counted(RAM_IDSTR),
        _INSTANCE_AND_VERSION,
        TAG.pack(total | RAM_SAVE_FLAG_MEM_SIZE),
    ]
    for name, size in blocks:
        parts += counted(name), TAG.pack(size)
    parts.append(END_OF_STATE)
    return b"".join(parts)


def part_head(number: int) -> bytes:
    """Return what a PART section begins with; pages follow, then `payload_foot`."""
    return SECTION_HEAD.pack(QEMU_VM_SECTION_PART, number)


def end_head(number: int) -> bytes:
    """Return what an END section begins with; pages follow, then `payload_foot`."""
    return SECTION_HEAD.pack(QEMU_VM_SECTION_END, number)


def payload_foot(number: int) -> bytes:
    """Return what a PART or END section ends with."""
    return END_OF_STATE + section_foot(number)
