"""Moving chunks out of and into a data section, whole and in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register

if TYPE_CHECKING:
    from vfiomig.conformance.conversation.comparison import Comparison
    from vfiomig.conformance.conversation.device import DeviceUnderTest
    from vfiomig.conformance.conversation.session import Session

_PIECES_LIMIT: Final = 512  # accesses that one chunk is moved in
_RUBBISH: Final = b"\xa5"


def widths(size: int, how: str) -> list[int]:
    """Return the widths in which a chunk is moved, few enough for any size."""
    match how:
        case "whole":
            return [size] if size else []
        case "halves":
            return [half for half in (size // 2, size - size // 2) if half]
        case "bytes":
            width = max(1, -(-size // _PIECES_LIMIT))
        case "words":
            width = max(8, -(-size // _PIECES_LIMIT) // 8 * 8)
        case _:  # "odd"
            width = max(3, -(-size // _PIECES_LIMIT) | 1)
    many, rest = divmod(size, width)
    return [width] * many + [rest] * bool(rest)


def read_chunk(
    device: DeviceUnderTest, offset: int, size: int, how: str
) -> bytes | None:
    """Read a chunk by trapped accesses; None where one of them fails."""
    pieces = []
    for width in widths(size, how):
        piece = device.read(offset, width)
        if piece is None:
            return None
        pieces.append(piece)
        offset += width
    return b"".join(pieces)


def read_buffer(session: Session, bench: Comparison, how: str) -> bytes | None:
    """Read the buffer in hand: whole, in pieces, or through the mapping."""
    device, offset, size = session.device, session.offset, session.size
    if offset is None or size is None:
        return None
    if how != "mapped":
        if how != "whole":
            session.mark("read in pieces")
        return read_chunk(device, offset, size, how)
    seen = device.read_mapped(offset, size) if size else None
    if seen is None:
        return read_chunk(device, offset, size, "whole")
    trapped = device.read(offset, size)
    if trapped is not None:
        bench.mapped(session, is_same=trapped == seen, size=size)
    session.mark("read through the mapping")
    return seen


def give_chunk(device: DeviceUnderTest, chunk: bytes, how: str) -> bool:
    """Give a RESUMING device a chunk, by the steps of the header; False if refused.

    ``filled`` puts rubbish in its place before.
    """
    offset = device.read_register(Register.DATA_OFFSET)
    if offset is None or offset < REGISTERS_SIZE:
        return False
    if offset + len(chunk) > device.size:
        return False
    if how == "filled" and not device.write(offset, _RUBBISH * len(chunk)):
        return False
    place = offset
    for width in widths(len(chunk), "whole" if how == "filled" else how):
        start = place - offset
        if not device.write(place, chunk[start : start + width]):
            return False
        place += width
    return device.write_register(Register.DATA_SIZE, len(chunk))


def spoil_window(device: DeviceUnderTest, size: int) -> None:
    """Write rubbish where a chunk of that size was, after the driver has taken it."""
    offset = device.read_register(Register.DATA_OFFSET)
    if offset is not None and REGISTERS_SIZE <= offset < device.size:
        device.write(offset, _RUBBISH * min(size, device.size - offset))
