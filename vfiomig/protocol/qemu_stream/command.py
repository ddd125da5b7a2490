"""The COMMAND record: what the source tells the destination between sections.

Source: QEMU 7.2.22 and 10.0.13, migration/savevm.c (``enum qemu_vm_cmd``).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.cursor import (
    Cursor,
    decode_text,
    encode_counted,
)
from vfiomig.protocol.qemu_stream.records import Command, PostcopyAdvice, RamDiscard
from vfiomig.uapi.qemu_stream import (
    MIG_CMD_PACKAGED,
    MIG_CMD_PING,
    MIG_CMD_POSTCOPY_ADVISE,
    MIG_CMD_POSTCOPY_RAM_DISCARD,
    MIG_CMD_RECV_BITMAP,
    QEMU_VM_COMMAND,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Argument: TypeAlias = int | str | PostcopyAdvice | RamDiscard | bytes | memoryview

_HEAD: Final = struct.Struct(">BHH")
_NUMBER: Final = struct.Struct(">I")
_PAIR: Final = struct.Struct(">QQ")
_DISCARD_VERSION: Final = 0
_LONGEST: Final = 0xFFFF


def read_command(source: Cursor) -> Command:
    """Read what follows the type of the record."""
    what = "a command"
    number = source.be16(what)
    data = source.take(source.be16(what), what)
    if not data:
        return Command(number)
    read = _READERS.get(number)
    argument = None if read is None else read(data)
    return Command(number, data if argument is None else argument)


def encode_command(command: Command) -> bytes:
    """Return the whole record.

    Raises:
        ValueError: the argument does not fit a command.
    """
    data = _argument(command)
    if len(data) > _LONGEST:
        reason = f"a command has at most {_LONGEST} bytes, not {len(data)}"
        raise ValueError(reason)
    return _HEAD.pack(QEMU_VM_COMMAND, command.command, len(data)) + data


def _argument(command: Command) -> bytes:
    argument = command.argument
    if argument is None:
        return b""
    if isinstance(argument, int):
        return argument.to_bytes(_NUMBER.size, "big")
    if isinstance(argument, str):
        return encode_counted(argument)
    if isinstance(argument, PostcopyAdvice):
        return _PAIR.pack(argument.page_sizes, argument.target_page_size)
    if isinstance(argument, RamDiscard):
        head = bytes([_DISCARD_VERSION]) + encode_counted(argument.block) + b"\0"
        return head + b"".join(_PAIR.pack(*each) for each in argument.ranges)
    return bytes(argument)


# Each returns None for what it would not write so.


def _read_number(data: memoryview) -> int | None:
    return int.from_bytes(data, "big") if len(data) == _NUMBER.size else None


def _read_advice(data: memoryview) -> PostcopyAdvice | None:
    return PostcopyAdvice(*_PAIR.unpack(data)) if len(data) == _PAIR.size else None


def _read_name(data: memoryview) -> str | None:
    return decode_text(data[1:]) if data[0] == len(data) - 1 else None


def _read_discard(data: memoryview) -> RamDiscard | None:
    source = Cursor(data)
    what = "ranges of RAM"
    try:
        version = source.u8(what)
        block = source.counted_string(what)
        end = source.u8(what)
    except StreamError:
        return None
    if version != _DISCARD_VERSION or end or source.remaining % _PAIR.size:
        return None
    return RamDiscard(block, tuple(_PAIR.iter_unpack(data[source.position :])))


_READERS: Final[dict[int, Callable[[memoryview], Argument | None]]] = {
    MIG_CMD_PING: _read_number,
    MIG_CMD_PACKAGED: _read_number,
    MIG_CMD_POSTCOPY_ADVISE: _read_advice,
    MIG_CMD_POSTCOPY_RAM_DISCARD: _read_discard,
    MIG_CMD_RECV_BITMAP: _read_name,
}
