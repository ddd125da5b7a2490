"""Moving chunks out of and into a data section, whole and in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from vfiomig.conformance.conversation.comparison import Comparison
    from vfiomig.conformance.conversation.damage import Damage
    from vfiomig.conformance.conversation.device import DeviceUnderTest
    from vfiomig.conformance.conversation.session import Session
    from vfiomig.conformance.conversation.stream import Stream

# How a chunk may be moved: by trapped accesses of some widths, or in a mapping.
WAYS: Final = (
    "whole",
    "halves",
    "bytes",
    "words",
    "odd",
    "sevens",
    "shifted",
    "mapped",
)
UNUSUAL: Final = ("filled", "interrupted")  # ways to load it whole
IMPOSSIBLE_SIZES: Final = ("one too many", "32 bits", "63 bits", "64 bits", "narrow")

_SINGLY: Final = 48  # bytes at the start of a chunk that are moved one by one
_NARROW: Final = {"bytes": 1, "words": 8, "odd": 3, "sevens": 7}
_SHIFTED: Final = (1, 2, 4, 8, 2, 2, 4, 4, 8, 8)
_PIECES_LIMIT: Final = 16  # accesses that the rest of it is moved in, about
_RUBBISH: Final = b"\xa5"
_BUFFERS_AGAIN: Final = 4096
_BYTES_AGAIN: Final = 64 << 20


def widths(size: int, how: str) -> list[int]:
    """Return the widths in which a chunk is moved, few enough for any size.

    ``bytes``, ``words``, ``odd`` and ``sevens`` begin with so narrow pieces; those of
    ``shifted`` have the widths of registers, and lie at no multiple of them.
    """
    match how:
        case "whole":
            return [size] if size else []
        case "halves":
            return [half for half in (size // 2, size - size // 2) if half]
        case "shifted":
            return _shifted(size)
        case _:
            width = _NARROW[how]
            return _stretch(min(size, _SINGLY), width) + _rest(size - _SINGLY, width)


def _stretch(size: int, width: int) -> list[int]:
    many, rest = divmod(size, width)
    return [width] * many + [rest] * bool(rest)


def _shifted(size: int) -> list[int]:
    pieces: list[int] = []
    for width in _SHIFTED:
        if size:
            pieces.append(min(width, size))
            size -= pieces[-1]
    return pieces + _rest(size, 1)


def _rest(size: int, width: int) -> list[int]:
    """Return wider pieces of the same kind: a multiple of ``width``, odd if it is."""
    if size <= 0:
        return []
    times = -(-size // (_PIECES_LIMIT * width)) | 1
    return _stretch(size, times * width)


def read_chunk(
    device: DeviceUnderTest, offset: int, size: int, how: str
) -> bytes | None:
    """Read a chunk by trapped accesses; None where one of them fails."""
    pieces = []
    for width in widths(size, how):
        piece = device.read_all(offset, width)
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
    if not device.areas:
        return read_chunk(device, offset, size, "whole")
    seen = device.read_mapped(offset, size)
    if seen is None:
        return None
    trapped = device.read(offset, size)
    if trapped is not None:
        bench.mapped(session, is_same=trapped == seen, size=size)
    session.mark("read through the mapping")
    return seen


def give_chunk(device: DeviceUnderTest, chunk: bytes, how: str) -> bool:
    """Give a RESUMING device a chunk, by the steps of the header; False if refused.

    ``filled`` puts rubbish in its place before; ``interrupted`` makes accesses between
    data and data_size that owe to change nothing.
    """
    offset = device.read_register(Register.DATA_OFFSET)
    if offset is None or offset < REGISTERS_SIZE:
        return False
    if offset + len(chunk) > device.size:
        return False
    if not _write_chunk(device, offset, chunk, how):
        return False
    if how == "interrupted":
        _interrupt(device)
    if not device.write_register(Register.DATA_SIZE, len(chunk)):
        return False
    device.window = (offset, len(chunk))
    return True


def _interrupt(device: DeviceUnderTest) -> None:
    narrow = Register.DATA_SIZE.width // 2
    device.read_register(Register.DEVICE_STATE)
    device.write_register(Register.RESERVED, 0xFFFF_FFFF)
    device.read(Register.DATA_SIZE.offset, narrow)
    device.write(Register.DATA_SIZE.offset, bytes(narrow))


def _write_chunk(device: DeviceUnderTest, offset: int, chunk: bytes, how: str) -> bool:
    if how == "mapped":
        return device.write_mapped(offset, chunk)
    if how == "filled" and not device.write(offset, _RUBBISH * len(chunk)):
        return False
    start = 0
    for width in widths(len(chunk), "whole" if how in UNUSUAL else how):
        if not device.write(offset + start, chunk[start : start + width]):
            return False
        start += width
    return True


def give_impossible(device: DeviceUnderTest, chunk: bytes, how: str) -> None:
    """Write a chunk where it belongs, and a data_size that it cannot have.

    ``narrow`` has its value, in half of the register's width.
    """
    offset = device.read_register(Register.DATA_OFFSET)
    if offset is None or not REGISTERS_SIZE <= offset < device.size:
        return
    device.write(offset, chunk[: device.size - offset])
    if how == "narrow":
        device.write(Register.DATA_SIZE.offset, len(chunk).to_bytes(4, "little"))
        return
    sizes = {
        "one too many": device.size - offset + 1,
        "32 bits": (1 << 32) + len(chunk),
        "63 bits": (1 << 63) + len(chunk),
    }
    device.write_register(Register.DATA_SIZE, sizes.get(how, (1 << 64) - 1))


def spoil_window(device: DeviceUnderTest) -> None:
    """Write rubbish where the last chunk was, after the driver has taken it.

    Not even data_offset is read before: the window is the user application's again.
    """
    if device.window is not None:
        offset, size = device.window
        device.write_mapped(offset, _RUBBISH * size)


def _save_again(device: DeviceUnderTest) -> list[bytes] | None:
    """Stop a device that runs and save all of it; None where that fails."""
    if not device.write_register(Register.DEVICE_STATE, DeviceState.STOP_AND_COPY):
        return None
    chunks: list[bytes] = []
    moved = 0
    for _ in range(_BUFFERS_AGAIN):
        pending = device.read_register(Register.PENDING_BYTES)
        if pending == 0:
            return chunks
        chunk = _save_buffer(device) if pending is not None else None
        if chunk is None:
            return None
        chunks.append(chunk)
        moved += len(chunk)
        if moved > _BYTES_AGAIN:
            return None
    return None


def _save_buffer(device: DeviceUnderTest) -> bytes | None:
    offset = device.read_register(Register.DATA_OFFSET)
    size = device.read_register(Register.DATA_SIZE)
    if offset is None or size is None or offset < REGISTERS_SIZE:
        return None
    if offset + size > device.size:
        return None
    return device.read(offset, size) if size else b""


def _resume(device: DeviceUnderTest, chunks: list[bytes]) -> bool:
    """Load a stream into a fresh device, and let it run; False where that fails."""
    write = device.write_register
    return (
        write(Register.DEVICE_STATE, DeviceState.RESUMING)
        and all(give_chunk(device, chunk, "whole") for chunk in chunks if chunk)
        and write(Register.DEVICE_STATE, DeviceState.RUNNING)
    )


def takes_loose_data(device: DeviceUnderTest, chunks: list[bytes]) -> bool:
    """Tell whether a fresh device runs though data was written that no size follows.

    It is the last chunk itself, written once more: nothing is lost by it.
    """
    write = device.write_register
    if not write(Register.DEVICE_STATE, DeviceState.RESUMING):
        return False
    if not all(give_chunk(device, chunk, "whole") for chunk in chunks if chunk):
        return False
    last = next((chunk for chunk in reversed(chunks) if chunk), b"")
    if device.window is None or not device.write_mapped(device.window[0], last):
        return False
    return write(Register.DEVICE_STATE, DeviceState.RUNNING)


def took_as_state(
    device: DeviceUnderTest,
    damage: Damage,
    control: DeviceUnderTest,
    true: Stream,
) -> bool:
    """Tell whether a device that runs took damage as state (see `damage`).

    ``control`` is a fresh device, which is given the ``true`` stream.  Where that
    stream does not restore it either, damage is not what is wrong; and where one state
    has other streams each time (a date, a random number), bytes prove nothing.
    """
    again = _save_again(device)
    device.write_register(Register.DEVICE_STATE, DeviceState.RUNNING)
    if not _resume(control, true.chunks) or control.snapshot() != true.snapshot:
        return True
    whole = _save_again(control)
    if whole is None:
        return False
    control.write_register(Register.DEVICE_STATE, DeviceState.RUNNING)
    if whole != _save_again(control):
        return True
    return again is not None and damage.is_state(again, whole)
