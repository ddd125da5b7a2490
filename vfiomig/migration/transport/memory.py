"""A link inside one process that copies each byte once.

There is no buffer between the two ends.  The receiver posts its own buffer, and the
sender's bytes go straight into it: one memmove from the vendor driver's data section
to where the destination wants them.  So nothing can be sent before the peer has asked.

      destination                         source
      receive_into(buffer) -> None
                                          send(view) -> bytes copied into buffer
      receive_into(buffer) -> that many
"""

from __future__ import annotations

import ctypes
import errno
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from vfiomig.migration.transport.rows import (
    Span,
    copy,
    require_room,
    require_writable,
)

if TYPE_CHECKING:
    from vfiomig.migration.transport.base import Pair


def make_memory_pair() -> Pair:
    """Return both ends of a link within this process."""
    there, back = _Lane(), _Lane()
    return MemoryStream(there, back), MemoryStream(back, there)


def listen_memory() -> MemoryListener:
    """Listen for links within this process."""
    return MemoryListener()


class MemoryListener:
    """Where links within this process begin; a Listener."""

    def __init__(self) -> None:
        self._waiting: deque[MemoryStream] = deque()
        self._closed = False

    def connect(self) -> MemoryStream:
        """Return one end of a new link, whose other end waits to be accepted.

        Raises ConnectionRefusedError after ``close()``.
        """
        if self._closed:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        there, back = _Lane(), _Lane()
        self._waiting.append(MemoryStream(back, there))
        return MemoryStream(there, back)

    def accept(self) -> MemoryStream | None:
        """Return the other end of the link that has waited longest; None if none does.

        Raises ValueError after ``close()``.
        """
        if self._closed:
            message = "this listener is closed"
            raise ValueError(message)
        return self._waiting.popleft() if self._waiting else None

    def fileno(self) -> None:
        """Return None: only a call of ``connect()`` can change anything here."""

    def close(self) -> None:
        """Close what was not accepted: its source reads the end of the stream."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft().close()


class MemoryStream:
    """One end of a link within this process; a ByteStream that moves rows too."""

    def __init__(self, outgoing: _Lane, incoming: _Lane) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._closed = False

    def send(self, data: memoryview) -> int:
        """Copy into the buffer that the peer posted; 0 when there is none or no room.

        Raises BrokenPipeError when the peer has closed or this end has finished, and
        ValueError when this end is closed.
        """
        if self._closed:
            _refuse_closed()
        return self._outgoing.fill(data)

    def receive_into(self, buffer: memoryview) -> int | None:
        """Post ``buffer``, or say how many bytes the peer has put into it.

        A buffer that nothing came into may be replaced by another. Raises ValueError
        for one without room, for another than the one that holds bytes, and when this
        end is closed; TypeError for a read-only one.
        """
        if self._closed:
            _refuse_closed()
        return self._incoming.take(buffer)

    def send_rows(self, span: Span) -> int:
        """Copy into what the peer posted, rows or a buffer; answers as `send`."""
        if self._closed:
            _refuse_closed()
        return self._outgoing.fill(span)

    def receive_rows(self, span: Span) -> int | None:
        """Post rows, or say how many bytes came; answers as `receive_into`."""
        if self._closed:
            _refuse_closed()
        return self._incoming.take(span)

    def finish(self) -> None:
        """Send no more: the peer reads what its buffer holds, then the end."""
        self._outgoing.finish()

    def close(self) -> None:
        """End both directions and let go of the posted buffer."""
        self._closed = True
        self._outgoing.finish()
        self._incoming.abandon()

    def fileno(self) -> None:
        """Return None: only a call of the peer can change anything here."""


class _Lane:
    """One direction: the buffer its reader posted, and which of the two has left."""

    def __init__(self) -> None:
        self._posted: memoryview | Span | None = None
        self._given: memoryview | Span | None = None
        self._filled = 0
        self._finished = False
        self._abandoned = False

    def fill(self, data: memoryview | Span) -> int:
        """Copy what fits from ``data`` to behind what the posted buffer holds."""
        if self._finished:
            raise BrokenPipeError(errno.EPIPE, "this end has finished sending")
        if self._abandoned:
            raise BrokenPipeError(errno.EPIPE, "the peer has closed the memory link")
        if self._posted is None:
            return 0
        start = self._filled
        count = min(len(data), len(self._posted) - start)
        copy(self._posted[start : start + count], data[:count])
        self._filled = start + count
        return count

    def take(self, buffer: memoryview | Span) -> int | None:
        """Answer the reader: bytes in ``buffer``, 0 at the end, None after posting."""
        require_room(buffer)
        if self._filled:
            if buffer is not self._given and not self._is_posted(buffer):
                self._refuse_another()
            count, self._filled = self._filled, 0
            self._release()
            return count
        if self._finished:
            return 0
        require_writable(buffer)
        self._release()
        self._given = buffer
        # A view of our own: the caller's may be released, or end with its expression.
        self._posted = buffer[:]
        return None

    def finish(self) -> None:
        """No more bytes come; a buffer that none came into is let go of now."""
        self._finished = True
        if not self._filled:
            self._release()

    def abandon(self) -> None:
        """Nobody reads any more: what came and was not taken is lost."""
        self._abandoned = True
        self._filled = 0
        self._release()

    def _refuse_another(self) -> NoReturn:
        message = (
            f"{self._filled} bytes wait in another buffer: receive_into() goes on "
            "with the buffer that it returned None for"
        )
        raise ValueError(message)

    def _release(self) -> None:
        if self._posted is not None:
            self._posted.release()
            self._posted = self._given = None

    def _is_posted(self, buffer: memoryview | Span) -> bool:
        """Tell whether another view is of the same memory."""
        return self._posted is not None and _place(buffer) == _place(self._posted)


def _place(buffer: memoryview | Span) -> tuple[int, ...]:
    """Return where a writable view lies in memory, and its size in bytes."""
    if isinstance(buffer, Span):
        return id(buffer.rows), buffer.start, buffer.end
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)), buffer.nbytes


def _refuse_closed() -> NoReturn:
    message = "this end of the memory link is closed"
    raise ValueError(message)
