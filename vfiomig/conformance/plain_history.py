"""A plain TSV as a history: what another program's recorder wrote, without a header.

The columns are access (read or write), offset in the region, size in bytes, and value
(hex); ``#`` begins a comment.  Registers are in it, and data that was trapped; what
went through a mapping is not, and neither is what failed.  So that no rule accuses for
what was not seen, a mapping and the moves of each buffer are put in, as unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.history import Access, HistoryError, shown
from vfiomig.protocol.v1.registers import REGISTER_AT, REGISTERS_SIZE, Register
from vfiomig.uapi.migration_v1 import (
    VFIO_DEVICE_STATE_RESUMING,
    VFIO_DEVICE_STATE_SAVING,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGE: Final = 0x1000
_ACCESSES: Final = {b"read": "read", b"write": "write"}


def is_plain(first: bytes) -> bool:
    """Tell whether a file that begins with this line is a TSV."""
    words = first.split()
    return first.startswith(b"#") or (len(words) > 1 and words[0] in _ACCESSES)


def accesses(lines: Iterable[bytes]) -> Iterator[Access]:
    """Yield the accesses of a TSV's lines, all of the device ``source``.

    Raises:
        HistoryError: a line that is none, with its number counted from 1; no access.
    """
    number, found = 0, False
    for number, line in enumerate(lines, 1):
        words = line.partition(b"#")[0].split()
        if not words:
            continue
        try:
            yield _access(words)
        except ValueError as error:
            message = f"line {number}: {error}"
            raise HistoryError(message) from None
        found = True
    if not found:
        message = f"line {number}: there is no access"
        raise HistoryError(message)


def _access(words: list[bytes]) -> Access:
    access = _ACCESSES.get(words[0])
    if access is None:
        message = f"{_quoted(words[0])} is neither read nor write"
        raise ValueError(message)
    if len(words) != 4:
        message = f"{len(words)} columns, not access, offset, size and value"
        raise ValueError(message)
    offset = _number("offset", words[1])
    size = _number("size", words[2])
    if not size:
        message = "size: 0 bytes are no access"
        raise ValueError(message)
    value = shown(offset, _data(offset, size, words[3]))
    return Access("source", access, offset, size, value)  # type: ignore[arg-type]


def _data(offset: int, size: int, word: bytes) -> bytes:
    """Return the bytes of a value: up to 8 are a number, more are written out."""
    if size <= 8:
        value = _number("value", word, base=16)
        if value >= 1 << 8 * size:
            message = f"value: {value:#x} does not fit into {size} bytes"
            raise ValueError(message)
        return value.to_bytes(size, "little")
    try:
        data = bytes.fromhex(word.removeprefix(b"0x").decode())
    except ValueError:
        message = f"value: {_quoted(word)} is not in hex"
        raise ValueError(message) from None
    if len(data) != size:
        message = f"value: {len(data)} bytes at {offset:#x}, not {size}"
        raise ValueError(message)
    return data


def _number(name: str, word: bytes, base: int = 0) -> int:
    try:
        value = int(word, base)
    except ValueError:
        value = -1
    if value < 0:
        message = f"{name}: {_quoted(word)} is no number"
        raise ValueError(message)
    return value


def _quoted(word: bytes) -> str:
    return repr(word[:40].decode(errors="backslashreplace"))


class _Buffers:
    """Which buffer a device last described, as far as the registers tell."""

    def __init__(self) -> None:
        self._state = 0
        self._offset: int | None = None

    def unseen(self, access: Access, register: Register | None) -> Access | None:
        """Return the data that moves just before a write, or just behind a read."""
        value = int(access.value, 16) if register is not None else 0
        if register is Register.DEVICE_STATE:
            if value != self._state:
                self._state, self._offset = value, None
        elif register is Register.PENDING_BYTES:
            self._offset = None
        elif register is Register.DATA_OFFSET:
            self._offset = value if access.access == "read" else None
        elif register is Register.DATA_SIZE and self._offset is not None and value:
            reads = access.access == "read"
            bit = VFIO_DEVICE_STATE_SAVING if reads else VFIO_DEVICE_STATE_RESUMING
            if self._state & bit:
                offset, self._offset = self._offset, None
                return Access("source", access.access, offset, value, unseen=True)
        return None


def with_unseen(
    rows: Iterable[Access], areas: tuple[tuple[int, int], ...]
) -> Iterator[Access]:
    """Put in what a TSV leaves out: a mapping, and the data that went through it.

    ``areas`` are those that are mapped, as (offset, size).
    """
    for offset, size in areas:
        yield Access("source", "mmap", offset, size)
    buffers = _Buffers()
    for access in rows:
        register = REGISTER_AT.get((access.offset, access.size))
        moved = buffers.unseen(access, register)
        if moved is not None and moved.access == "write":
            yield moved
        yield access
        if moved is not None and moved.access == "read":
            yield moved


def region_size(rows: Iterable[Access]) -> int:
    """Return the whole pages, in bytes, that hold all accesses and all buffers."""
    end = REGISTERS_SIZE + 1
    buffers = _Buffers()
    for access in rows:
        end = max(end, access.offset + access.size)
        register = REGISTER_AT.get((access.offset, access.size))
        moved = buffers.unseen(access, register)
        if moved is not None:
            end = max(end, moved.offset + moved.size)
    return -(-end // PAGE) * PAGE
