"""One way to make a stream: each buffer is a record of one block of the device.

A record says where its bytes belong, so it may come twice.  The last one has the
checksum of the whole device, so nothing can be missing, and order does not matter.
A buffer that was queued and perhaps never read is made once more (V1-SAVE-07).
"""

from __future__ import annotations

import errno
import struct
import zlib
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.vendor.conforming.memory import DeviceMemory

# kind, length of the device, place, bytes, whether it is the last, whole checksum
_HEAD: Final = struct.Struct("<IIIIII")
_CHECKSUM: Final = struct.Struct("<I")
RECORD_SIZE: Final = _HEAD.size + _CHECKSUM.size  # of a record without bytes


class RecordSaver:
    """A session of saving; ``block`` bytes of the device go into one record."""

    def __init__(
        self, memory: DeviceMemory, kind: int, block: int, *, is_running: bool
    ) -> None:
        self._memory = memory
        self._kind = kind
        self._block = block
        self._is_running = is_running
        self._dirty = set(range(-(-len(memory.bytes) // block)))
        self._next = 0
        self._queued: int | None = None
        self._is_last = self._has_ended = False

    def touch(self, places: Iterable[int]) -> None:
        """Note which bytes the device changed."""
        self._dirty.update(place // self._block for place in places)

    def pending(self) -> int:
        """Return about how many bytes are still to be saved."""
        ending = 0 if self._is_running or self._has_ended else RECORD_SIZE
        return ending + len(self._dirty) * (self._block + RECORD_SIZE)

    def make(self) -> bytes:
        """Return the next record."""
        # In turn: a block that changes all the time must not keep the others back.
        later = [number for number in self._dirty if number >= self._next]
        number = min(later or self._dirty, default=None)
        start, data = 0, b""
        if number is not None:
            self._dirty.remove(number)
            self._next = number + 1
            start = number * self._block
            data = bytes(self._memory.bytes[start : start + self._block])
        self._queued = number
        self._is_last = not (self._is_running or self._dirty)
        whole = zlib.crc32(self._memory.bytes) if self._is_last else 0
        size = len(self._memory.bytes)
        head = _HEAD.pack(self._kind, size, start, len(data), self._is_last, whole)
        return head + data + _CHECKSUM.pack(zlib.crc32(head + data))

    def consumed(self) -> None:
        """Take the queued buffer as read."""
        self._has_ended |= self._is_last
        self._queued = None
        self._is_last = False

    def switch(self, *, is_running: bool) -> None:
        """Go on in the other of the two states; nobody knows who read the buffer."""
        if self._queued is not None:
            self._dirty.add(self._queued)
        self._queued = None
        self._is_running = is_running
        self._is_last = self._has_ended = False


class RecordLoader:
    """A session of resuming.

    ``is_forgiving``: a record that was refused is forgotten, and the right one may
    come in its place.  Otherwise the first bad record spoils the stream.
    """

    def __init__(self, size: int, kind: int, *, is_forgiving: bool = False) -> None:
        self._staged = bytearray(size)
        self._kind = kind
        self._is_forgiving = is_forgiving
        self._is_spoiled = self._is_complete = False

    def take(self, record: bytes) -> None:
        """Check one record and keep its bytes; ``OSError`` for any that is wrong."""
        if self._is_spoiled:
            _refuse(errno.EINVAL, "this stream was refused before")
        try:
            self._take(record)
        except OSError:
            self._is_spoiled = not self._is_forgiving
            raise

    def finish(self) -> bytearray:
        """Return the device's bytes; ``OSError(EINVAL)`` if they are not all there."""
        if self._is_spoiled or not self._is_complete:
            _refuse(errno.EINVAL, "the stream is not complete")
        return self._staged

    def _take(self, record: bytes) -> None:
        if len(record) < RECORD_SIZE:
            _refuse(errno.EINVAL, f"no record has {len(record)} bytes")
        body, checksum = record[: -_CHECKSUM.size], record[-_CHECKSUM.size :]
        if _CHECKSUM.pack(zlib.crc32(body)) != checksum:
            _refuse(errno.EBADMSG, "the record's checksum is wrong")
        kind, size, start, length, is_last, whole = _HEAD.unpack_from(body)
        data = body[_HEAD.size :]
        if kind != self._kind or size != len(self._staged):
            _refuse(errno.EINVAL, "the record is of another device")
        if length != len(data) or start + length > size:
            _refuse(errno.EINVAL, "the record does not fit the device")
        self._is_complete = False
        staged = self._staged.copy() if self._is_forgiving else self._staged
        staged[start : start + length] = data
        if is_last and zlib.crc32(staged) != whole:
            _refuse(errno.EPROTO, "a part of the device did not come")
        self._staged = staged
        self._is_complete = bool(is_last)


class LateRecordLoader:
    """A session of resuming that takes all it is given, and looks at it at the end."""

    LIMIT: Final = 4 << 20  # nobody is trusted with all memory there is

    def __init__(self, size: int, kind: int) -> None:
        self._records: list[bytes] = []
        self._held = 0
        self._judge = RecordLoader(size, kind)

    def take(self, record: bytes) -> None:
        """Put a record by; ``OSError(ENOSPC)`` when there are too many."""
        if self._held + len(record) > self.LIMIT:
            _refuse(errno.ENOSPC, "no device has so much state")
        self._held += len(record)
        self._records.append(record)

    def finish(self) -> bytearray:
        """Return the device's bytes; ``OSError`` for anything wrong in the stream."""
        for record in self._records:
            self._judge.take(record)
        return self._judge.finish()


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
