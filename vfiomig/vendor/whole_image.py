"""Device state that migrates as one image, once the device has stopped.

Rule 1: nothing goes in pre-copy.  The image is cut into as many pieces as the
payloads need; each says where it belongs.

Rule 2: a piece is taken where it follows on the last one, where it repeats the last
one (the source may not know that it was read), or at 0, where an image begins.
Anywhere else something was lost or swapped.

Rule 3: an image that changes begins again; a half of the old one and a half of the
new one would be the state of no device.
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


class PieceHeader(ctypes.Structure):
    """What stands before a piece of the image in a payload (host byte order)."""

    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


_HEADER_SIZE: Final = ctypes.sizeof(PieceHeader)


class WholeImage:
    """``size`` bytes of state, zero at power-on; ``view`` is all of them, writable.

    Whoever writes to ``view`` calls `touch` before.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.view = memoryview(bytearray(size))
        self._cursor = 0
        self._sent_from = 0
        self._is_saving = False
        self._staged: memoryview | None = None
        self._piece = (0, 0)

    def snapshot(self) -> memoryview:
        """Return a read-only view of the image."""
        return self.view.toreadonly()

    def touch(self) -> None:
        """Say that the image is about to change: what was sent of it is void."""
        self._cursor = self._sent_from = 0

    def power_on(self) -> None:
        """Zero everything and end what session there is."""
        self.drop_loading()
        self.end_saving()
        self.view[:] = bytes(self.size)

    # -- saving

    def begin_saving(self) -> None:
        """Start a session: all of the image is to be sent."""
        self.touch()
        self._is_saving = True

    def pending(self, *, running: bool) -> int:
        """Return the bytes that `save` would still give: none while it runs."""
        return 0 if running or not self._is_saving else self.size - self._cursor

    def save(self, payload: memoryview, *, running: bool) -> int:
        """Fill ``payload`` with the next piece and return its size with its header."""
        room = len(payload) - _HEADER_SIZE
        length = min(self.pending(running=running), room)
        if length <= 0:
            return 0
        start, end = self._cursor, self._cursor + length
        header = PieceHeader.from_buffer(payload)
        header.offset, header.length = start, length
        payload[_HEADER_SIZE : _HEADER_SIZE + length] = self.view[start:end]
        self._sent_from, self._cursor = start, end
        return _HEADER_SIZE + length

    def requeue(self) -> None:
        """Take the last piece as not sent."""
        self._cursor = self._sent_from

    def end_saving(self) -> None:
        """End the session."""
        self._is_saving = False
        self.touch()

    # -- loading

    def begin_loading(self) -> None:
        """Get ready for the image to come."""
        self._staged = memoryview(bytearray(self.size))
        self._piece = (0, 0)

    def load(self, payload: memoryview) -> None:
        """Take one piece.

        Raises ``OSError(EINVAL)`` if it is out of place, too long or cut short.
        """
        staged = self._loading()
        if not payload:
            return  # a chunk that only says that the stream ends
        if len(payload) <= _HEADER_SIZE:
            raise OSError(errno.EINVAL, f"a piece of {len(payload)} bytes")
        header = PieceHeader.from_buffer_copy(payload)
        start, length = int(header.offset), int(header.length)
        if length != len(payload) - _HEADER_SIZE:
            message = f"a piece of {length} bytes in a payload of {len(payload)}"
            raise OSError(errno.EINVAL, message)
        if start not in (0, *self._piece) or length > self.size - start:
            message = f"a piece of {length} bytes at {start}, after {self._piece}"
            raise OSError(errno.EINVAL, message)
        staged[start : start + length] = payload[_HEADER_SIZE:]
        self._piece = (start, start + length)

    def finish_loading(self, check: Callable[[memoryview], None]) -> None:
        """Make what came the image.

        ``check`` is given what came, and raises if it makes no sense.  Raises
        ``OSError(EINVAL)`` if a part is missing.
        """
        staged = self._loading()
        if (came := self._piece[1]) != self.size:
            message = f"{came} of {self.size} bytes of the image came"
            raise OSError(errno.EINVAL, message)
        check(staged)
        self.touch()
        self.view[:] = staged
        self.drop_loading()

    def drop_loading(self) -> None:
        """Forget what came; the image was never touched."""
        self._staged = None

    def _loading(self) -> memoryview:
        if self._staged is None:
            raise OSError(errno.EINVAL, "the device is not being loaded")
        return self._staged
