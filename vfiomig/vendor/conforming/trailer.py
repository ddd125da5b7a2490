"""Another way to make a stream: bytes without boundaries, and a trailer at the end.

Whatever pre-copy sends is a draft.  The trailer has the whole device, and what the
drafts must have been: their length and checksum, with the buffer that was queued when
the device stopped and without it, for nobody knows whether it was read (V1-SAVE-07).
So a buffer may be cut anywhere, to a single byte, and no byte may change.
"""

from __future__ import annotations

import errno
import struct
import zlib
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.vendor.conforming.memory import DeviceMemory

# kind, bytes of drafts, their checksum, bytes that were queued, checksum with them
_DRAFTS: Final = struct.Struct("<IQIQI")
_CHECKSUM: Final = struct.Struct("<I")
TRAILER_SIZE: Final = _DRAFTS.size + _CHECKSUM.size  # without the device


class TrailerSaver:
    """A session of saving in buffers of at most ``most`` bytes."""

    def __init__(
        self, memory: DeviceMemory, kind: int, most: int, *, is_running: bool
    ) -> None:
        self._memory = memory
        self._kind = kind
        self._most = most
        self._is_running = is_running
        self._sent = self._checksum = 0
        self._queued = b""
        self._has_changed = False
        self._left = bytes(memory.bytes) if is_running else self._trailer()

    def touch(self, places: Iterable[int]) -> None:
        """Note that the device changed, wherever that was."""
        self._has_changed |= any(True for _ in places)

    def pending(self) -> int:
        """Return how many bytes of this draft or of the trailer are left."""
        if self._is_running and not self._left and self._has_changed:
            self._left = bytes(self._memory.bytes)
            self._has_changed = False
        return len(self._left)

    def make(self) -> bytes:
        """Return the next piece of what is left."""
        self._queued, self._left = self._left[: self._most], self._left[self._most :]
        return self._queued

    def consumed(self) -> None:
        """Take the queued buffer as read."""
        self._sent += len(self._queued)
        self._checksum = zlib.crc32(self._queued, self._checksum)
        self._queued = b""

    def switch(self, *, is_running: bool) -> None:
        """Stop: what is left of the draft is dropped, and the trailer is next."""
        assert not is_running, "there is nothing behind a trailer"
        self._is_running = False
        self._left = self._trailer()
        self._queued = b""

    def _trailer(self) -> bytes:
        perhaps = zlib.crc32(self._queued, self._checksum)
        drafts = (self._sent, self._checksum, len(self._queued), perhaps)
        body = bytes(self._memory.bytes) + _DRAFTS.pack(self._kind, *drafts)
        return body + _CHECKSUM.pack(zlib.crc32(body))


class TrailerLoader:
    """A session of resuming: all is judged at its end (V1-RES-06)."""

    def __init__(self, size: int, kind: int) -> None:
        self._size = size
        self._kind = kind
        self._tail = b""
        self._before = self._checksum = 0

    def take(self, piece: bytes) -> None:
        """Keep as many of the last bytes as a trailer has; of the others, a sum."""
        tail = self._tail + piece
        cut = max(0, len(tail) - self._size - TRAILER_SIZE)
        self._checksum = zlib.crc32(tail[:cut], self._checksum)
        self._before += cut
        self._tail = tail[cut:]

    def finish(self) -> bytearray:
        """Return the device's bytes; ``OSError`` for anything wrong in the stream."""
        tail = self._tail
        if len(tail) < self._size + TRAILER_SIZE:
            _refuse(errno.EINVAL, f"{len(tail)} bytes are not a device of this kind")
        body, checksum = tail[: -_CHECKSUM.size], tail[-_CHECKSUM.size :]
        if _CHECKSUM.pack(zlib.crc32(body)) != checksum:
            _refuse(errno.EBADMSG, "the trailer's checksum is wrong")
        kind, sent, checksum_of, queued, perhaps = _DRAFTS.unpack(body[self._size :])
        if kind != self._kind:
            _refuse(errno.EINVAL, "the stream is of another device")
        came = (self._before, self._checksum)
        if came not in ((sent, checksum_of), (sent + queued, perhaps)):
            _refuse(errno.EPROTO, "the drafts are not those that were sent")
        return bytearray(body[: self._size])


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
