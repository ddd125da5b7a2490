"""Where a section ends of which nothing is known: at its footer.

The footer's bytes may stand by chance in what the section holds, so what comes behind
must look like the next record, too.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.framing import section_foot
from vfiomig.uapi.qemu_stream import (
    MIG_CMD_SWITCHOVER_START,
    QEMU_VM_COMMAND,
    QEMU_VM_EOF,
    QEMU_VM_SECTION_END,
    QEMU_VM_SECTION_FULL,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_START,
    QEMU_VM_VMDESCRIPTION,
)

if TYPE_CHECKING:
    from collections.abc import Container

_ID: Final = struct.Struct(">I")
_COMMAND: Final = struct.Struct(">HH")
_TYPES: Final = (
    QEMU_VM_SECTION_START,
    QEMU_VM_SECTION_FULL,
    QEMU_VM_SECTION_PART,
    QEMU_VM_SECTION_END,
    QEMU_VM_COMMAND,
)
_CONTROLS: Final = (*range(0x20), 0x7F)
_LAST_COMMAND: Final = MIG_CMD_SWITCHOVER_START + 16  # a release may add some


def find_footer(
    data: memoryview, start: int, section_id: int, known: Container[int]
) -> int | None:
    """Return where the footer of a section begins, at ``start`` or behind it.

    ``known`` has the ids of the sections that began before.
    """
    footer = section_foot(section_id)
    for found in re.compile(re.escape(footer)).finditer(data, start):
        if is_plausible(data, found.end(), known):
            return found.start()
    return None


def is_plausible(data: memoryview, position: int, known: Container[int]) -> bool:
    """Tell whether a record, or the end of a cut stream, may stand there."""
    head = bytes(data[position : position + 1 + 4 + 1 + 255])
    if not head:
        return True
    type_, rest = head[0], head[1:]
    if type_ == QEMU_VM_EOF:
        return not rest or rest[0] == QEMU_VM_VMDESCRIPTION
    if len(rest) < _ID.size:
        return type_ in _TYPES
    if type_ in (QEMU_VM_SECTION_START, QEMU_VM_SECTION_FULL):
        name = rest[5 : 5 + rest[4]] if len(rest) > 4 else b"?"
        return bool(name) and not any(byte in _CONTROLS for byte in name)
    if type_ in (QEMU_VM_SECTION_PART, QEMU_VM_SECTION_END):
        return int(_ID.unpack_from(rest)[0]) in known
    if type_ == QEMU_VM_COMMAND:
        command, _ = _COMMAND.unpack_from(rest)
        return 0 < int(command) <= _LAST_COMMAND
    return False
