"""Rows over a socket: one system call for hundreds of heads and bodies.

Python's own sendmsg takes a list of buffers, and to make that list costs more than the
copy that it saves.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from vfiomig.migration.transport.rows import Span

_MOST: Final = 1024  # vectors of one call: IOV_MAX of Linux
_VECTOR: Final = 16  # bytes of a struct iovec
_NOW: Final = int(socket.MSG_DONTWAIT)
_NO_SIGNAL: Final = int(socket.MSG_NOSIGNAL)
_NOT_NOW: Final = (errno.EAGAIN, errno.EINTR)


class _MessageHeader(ctypes.Structure):
    """struct msghdr of <sys/socket.h>."""

    _fields_ = (
        ("msg_name", ctypes.c_void_p),
        ("msg_namelen", ctypes.c_uint32),
        ("msg_iov", ctypes.c_void_p),
        ("msg_iovlen", ctypes.c_size_t),
        ("msg_control", ctypes.c_void_p),
        ("msg_controllen", ctypes.c_size_t),
        ("msg_flags", ctypes.c_int),
    )


class SocketRows:
    """Moves rows over one socket; the vectors of one call are kept for the next."""

    def __init__(self) -> None:
        self._vectors: _Vectors | None = None

    def send(self, descriptor: int, span: Span) -> int | None:
        """Send bytes from the start of a span: return how many, None for EAGAIN.

        Raises OSError as sendmsg(2), and never SIGPIPE.
        """
        return self._call(_SENDMSG, descriptor, span, _NOW | _NO_SIGNAL)

    def receive(self, descriptor: int, span: Span) -> int | None:
        """Receive into the start of a span; 0 at the stream's end, None for EAGAIN.

        Raises OSError as recvmsg(2).
        """
        return self._call(_RECVMSG, descriptor, span, _NOW)

    def _call(
        self, function: Any, descriptor: int, span: Span, flags: int
    ) -> int | None:
        rows, vectors = span.rows, self._vectors
        if vectors is None or vectors.head != rows.head or vectors.size != rows.size:
            vectors = self._vectors = _Vectors(rows.head, rows.size)
        moved: int = function(descriptor, vectors.point_to(span), flags)
        if moved >= 0:
            return moved
        code = ctypes.get_errno()
        if code not in _NOT_NOW:
            raise OSError(code, os.strerror(code))
        return None


class _Vectors:
    """Where the first pieces of a span lie, as many as one call takes.

    It runs for each system call, right behind one that has emptied the caches.
    """

    def __init__(self, head: int, size: int) -> None:
        self.head, self.size = head, size
        self._body = size - head
        self._room = np.empty((_MOST, 2), np.uintp)
        rows = np.arange(_MOST // 2, dtype=np.uintp)
        self._heads, self._bodies = self._room[0::2, 0], self._room[1::2, 0]
        self._steps = rows * head, rows * self._body
        self._room[0::2, 1], self._room[1::2, 1] = head, self._body
        self._address = self._room.ctypes.data
        self._cut: list[int] = []  # the vectors that are shorter than their pieces
        self._header = _MessageHeader()
        self._pointer = ctypes.byref(self._header)

    def point_to(self, span: Span) -> Any:
        """Return a pointer to what names them; good until the next call."""
        rows = span.rows
        for number in self._cut:
            self._room[number, 1] = self._body if number % 2 else self.head
        self._cut = []
        row, skipped = divmod(span.start, self.size)
        np.add(self._steps[0], rows.heads_at + row * self.head, out=self._heads)
        np.add(self._steps[1], rows.bodies_at + row * self._body, out=self._bodies)
        first, end = 0, 2 * (span.end // self.size - row)
        if skipped or end < _MOST:
            first, end = self._cut_to(skipped, end, span.end % self.size)
        self._header.msg_iov = self._address + first * _VECTOR
        self._header.msg_iovlen = min(end, _MOST) - first
        return self._pointer

    def _cut_to(self, skipped: int, end: int, taken: int) -> tuple[int, int]:
        """Shorten the first vector and the last; return the first and behind which."""
        if taken >= self.head:
            end, taken = end + 1, taken - self.head
        if taken and end < _MOST:
            self._room[end, 1] = taken
            self._cut.append(end)
        first = int(skipped >= self.head)
        if skipped := skipped - first * self.head:
            self._room[first, 0] += skipped
            self._room[first, 1] -= skipped
            self._cut.append(first)
        return first, end + bool(taken)


def _function(name: str) -> Any:
    function = ctypes.CDLL(None, use_errno=True)[name]
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    function.restype = ctypes.c_ssize_t
    return function


_SENDMSG: Final = _function("sendmsg")
_RECVMSG: Final = _function("recvmsg")
