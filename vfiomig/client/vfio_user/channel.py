"""A connected socket to a vfio-user server: bytes and file descriptors, and no longer.

Rule: every wait ends, at a deadline of the monotonic clock.  Whatever ends the link is
a `LinkError`; an errno passes only where nothing of a message was sent yet.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The longest message that `Channel.swap` receives.
SWAP_SIZE: Final = 4096 + 32  # a page of data, and what is in front of it

# File descriptors that are taken with one message; the kernel closes what is more.
MOST_FDS: Final = 8

_LONGEST: Final = 1e6  # seconds; the kernel's types end somewhere
_SEND: Final = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
_RECEIVE: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_TIMEVAL: Final = struct.Struct("@ll")
_ROOM_FOR_FDS: Final = socket.CMSG_SPACE(MOST_FDS * array.array("i").itemsize)
_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class LinkError(VfiomigError):
    """The other end is gone; ``str()`` says what it did."""


class SilentError(LinkError):
    """The other end let the deadline pass."""


def close_all(fds: Iterable[int]) -> None:
    """Close file descriptors that are ours."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def timeval(seconds: float) -> bytes:
    """Return a ``struct timeval`` for a socket option, which takes 0 for ever."""
    rounded = max(1, round(min(seconds, _LONGEST) * 1_000_000))
    whole, rest = divmod(rounded, 1_000_000)
    return _TIMEVAL.pack(whole, rest)


class Channel:
    """One end of a connected SOCK_STREAM socket, which it owns.

    ``limit`` are the seconds that `swap` waits.
    """

    def __init__(self, connected: socket.socket, limit: float) -> None:
        # The kernel keeps the time of `swap`: a poll in front would cost as much again.
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(limit))
        self._silent = f"the server did not answer within {limit:g} s"
        self._socket = connected
        self._send = connected.send
        self._receive_into = connected.recv_into
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connected, select.POLLOUT)
        self.buffer = bytearray(SWAP_SIZE)
        self._ahead = bytearray()  # what `swap` received and could not use

    def swap(self, message: bytes, room: int) -> int:
        """Send a short message, receive at most ``room`` bytes into ``buffer``.

        Return how many came.

        Raises:
            LinkError: the other end is gone, or silent.
            OSError: nothing was sent; BlockingIOError: it cannot be done at once.
        """
        if self._ahead:
            raise BlockingIOError
        try:
            self._send(message, _SEND)  # the kernel splits none that is so short
        except OSError as error:
            raise _told(error) from None
        try:
            count = self._receive_into(self.buffer, room)
        except BlockingIOError:
            raise SilentError(self._silent) from None
        except OSError as error:
            raise _lost(error) from None
        if not count:
            raise LinkError(_CLOSED)
        return count

    def put_back(self, count: int) -> None:
        """Have the first bytes of ``buffer`` received again."""
        self._ahead += self.buffer[:count]

    def send(self, message: bytes, deadline: float, fds: Sequence[int] = ()) -> None:
        """Send a whole message, the file descriptors with its first byte.

        Raises:
            LinkError: the other end is gone, or takes no more until the deadline.
            OSError: nothing was sent; EBADF for a file descriptor that is closed.
        """
        ancillary = _as_ancillary(fds)
        sent = 0
        with memoryview(message) as view:
            while sent < len(view):
                try:
                    if sent or not ancillary:
                        sent += self._send(view[sent:], _SEND)
                    else:
                        sent += self._socket.sendmsg([view], ancillary, _SEND)
                except BlockingIOError:
                    self._wait(self._writable, deadline)
                except OSError as error:
                    raise (_lost if sent else _told)(error) from None

    def receive(self, size: int, deadline: float) -> bytes:
        """Return exactly ``size`` bytes.

        Raises:
            LinkError: the other end is gone, or silent until the deadline.
        """
        data = bytearray(size)
        taken = self._take_ahead(size)
        got = len(taken)
        data[:got] = taken
        with memoryview(data) as view:
            while got < size:
                try:
                    count = self._receive_into(view[got:], 0, _RECEIVE)
                except BlockingIOError:
                    self._wait(self._readable, deadline)
                    continue
                except OSError as error:
                    raise _lost(error) from None
                if not count:
                    raise LinkError(_TORN)
                got += count
        return bytes(data)

    def receive_with_fds(self, size: int, deadline: float) -> tuple[bytes, list[int]]:
        """Return exactly ``size`` bytes, and the file descriptors that came with them.

        Those are the caller's to close.

        Raises:
            LinkError: the other end is gone, or silent until the deadline.
        """
        data = self._take_ahead(size)
        fds: list[int] = []
        try:
            while len(data) < size:
                self._wait(self._readable, deadline)
                more, new = self._receive_some(size - len(data))
                fds += new
                if not more:
                    raise LinkError(_TORN if data else _CLOSED)
                data += more
        except BaseException:
            close_all(fds)
            raise
        return data, fds

    def _receive_some(self, size: int) -> tuple[bytes, list[int]]:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(size, _ROOM_FOR_FDS, _RECEIVE)
        except OSError as error:
            raise _lost(error) from None
        return data, _fds_in(ancillary) if ancillary else []

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _take_ahead(self, size: int) -> bytes:
        taken = bytes(self._ahead[:size])
        del self._ahead[:size]
        return taken

    def _wait(self, poll: select.poll, deadline: float) -> None:
        left = min(deadline - time.monotonic(), _LONGEST)
        if left <= 0 or not poll.poll(left * 1000):
            raise SilentError(self._silent)


_CLOSED: Final = "the server closed the connection"
_TORN: Final = "the server closed the connection in the middle of a message"


def _told(error: OSError) -> OSError | LinkError:
    """Return what a send that sent nothing is to its caller."""
    return _lost(error) if error.errno in _GONE else error


def _lost(error: OSError) -> LinkError:
    if error.errno in _GONE:
        return LinkError(_CLOSED)
    return LinkError(f"the connection failed ({error})")


def _as_ancillary(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    if not fds:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def _fds_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
