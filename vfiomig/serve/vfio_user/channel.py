"""One connection: whole messages in and out, fds beside them, and a limit on each wait.

Rule 1: between two messages a client may take its time.  One that was begun is to be
whole within the limit, and what is sent is to be read within it.

Rule 2: the fds that come are those of the last message that was begun.  A sender puts
them on its header, and the kernel ends what it gives us with what they came with; so
only with nothing in the buffer more is read than one message has.

Rule 3: fds are closed unless a message is given away with them.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from vfiomig.protocol.errors import MessageError, VfiomigError
from vfiomig.protocol.vfio_user.framing import (
    HEADER_SIZE,
    ROOM_FOR_ALL_BUT_DATA,
    FramingError,
    Header,
    command_message,
    read_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_FDS: Final = 32  # in one message: as many as there are messages of MSI
_FD_SIZE: Final = array.array("i").itemsize

# How a message is received: recvmsg's room for fds, and its flags.  A message that has
# nothing beside it comes with the same flags.
ROOM_FOR_FDS: Final = socket.CMSG_SPACE(MAX_FDS * _FD_SIZE)
FLAGS: Final = socket.MSG_CMSG_CLOEXEC

_BUFFER: Final = 64 << 10
# What a client may send while it owes us a reply.
_MOST_WAITING: Final = 64  # messages
_MOST_WAITING_BYTES: Final = 4 << 20
_MOST_WAITING_FDS: Final = 64


class ClientLostError(VfiomigError):
    """The connection is of no more use; ``str()`` says why, or nothing: it was closed.

    It never goes through a driver: see `Channel.ask`.
    """


class Message(NamedTuple):
    """One message; its fds are the receiver's to close."""

    header: Header
    payload: bytes
    fds: list[int]

    def close(self) -> None:
        """Close its fds."""
        _close_all(self.fds)


class Channel:
    """A connected socket, ours from now on; ``limit`` is in seconds.

    ``max_data_size`` bytes of data are the most that a message may bring.
    """

    def __init__(
        self, connection: socket.socket, *, limit: float, max_data_size: int
    ) -> None:
        self.socket = connection
        self.buffer = bytearray(_BUFFER)
        self.have = 0  # bytes in the buffer that no message was made of yet
        self.waiting: deque[Message] = deque()  # they came before a reply
        self._view = memoryview(self.buffer)
        self._fds: list[int] = []
        self._limit = limit
        self._longest = max_data_size + ROOM_FOR_ALL_BUT_DATA
        self._next_id = 0
        self._lost: str | None = None
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(connection, select.POLLIN)
        self._writable.register(connection, select.POLLOUT)

    def close(self) -> None:
        """Close the socket, and every fd that came and was not given away."""
        _close_all(self._fds)
        for message in self.waiting:
            message.close()
        self.waiting.clear()
        self.socket.close()

    # -- receiving ---------------------------------------------------------------------

    def receive(self, *, is_limited: bool = False) -> Message:
        """Return the next message; with a limit also on the wait for its first byte.

        Raises:
            ClientLostError, FramingError: there will be none.
        """
        self._require_client()
        if self.waiting:
            return self.waiting.popleft()
        return self._read(self._deadline() if is_limited else None)

    def took(
        self, count: int, control: Iterable[tuple[int, int, bytes]], flags: int
    ) -> None:
        """Note what a recvmsg put behind what is in the buffer.

        Raises:
            ClientLostError: there was nothing, or more fds than a message has.
        """
        self._take_fds(control, flags)
        if not count:
            in_message = "it left in the middle of a message"
            raise ClientLostError(in_message if self.have else "")
        self.have += count

    def _read(self, deadline: float | None) -> Message:
        if not self.have:
            self._receive_into(self._view, deadline)
        deadline = self._deadline()
        self._complete(HEADER_SIZE, deadline)
        header = read_header(self.buffer, limit=self._longest)
        size = header.msg_size
        if size > _BUFFER:
            payload = self._long_payload(header.payload_size, deadline)
        else:
            self._complete(size, deadline)
            payload = bytes(self._view[HEADER_SIZE:size])
            rest = self.have - size
            self._view[:rest] = self._view[size : self.have]
            self.have = rest
        fds: list[int] = []
        if not self.have:
            fds, self._fds = self._fds, fds
        return Message(header, payload, fds)

    def _complete(self, size: int, deadline: float) -> None:
        """Have so many bytes in the buffer, and read no more than those."""
        while self.have < size:
            self._receive_into(self._view[self.have : size], deadline)

    def _long_payload(self, size: int, deadline: float) -> bytes:
        """Return a payload that the buffer has no room for; nothing is behind it."""
        payload = bytearray(size)
        done = self.have - HEADER_SIZE
        payload[:done] = self._view[HEADER_SIZE : self.have]
        with memoryview(payload) as room:
            while done < size:
                before = self.have
                self._receive_into(room[done:], deadline)
                done += self.have - before
                self.have = before
        self.have = 0
        return bytes(payload)

    def _receive_into(self, room: memoryview, deadline: float | None) -> None:
        if deadline is not None and not _wait(self._readable, deadline):
            what = "its message is not whole" if self.have else "it says nothing"
            raise ClientLostError(f"{what} after {self._limit:g} s")
        try:
            count, control, flags, _ = self.socket.recvmsg_into(
                [room], ROOM_FOR_FDS, FLAGS
            )
        except ConnectionError as error:
            raise ClientLostError("") from error
        self.took(count, control, flags)

    def _take_fds(self, control: Iterable[tuple[int, int, bytes]], flags: int) -> None:
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(data) - len(data) % _FD_SIZE
                self._fds += array.array("i", data[:whole])
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            raise ClientLostError(f"a message with more than {MAX_FDS} fds")

    # -- sending -----------------------------------------------------------------------

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send a whole message, the fds with its first byte.

        Raises:
            ClientLostError: the client is gone, or does not read.
        """
        self._require_client()
        try:
            sent = self._send_some(message, fds)
            if sent < len(message):
                self._send_rest(memoryview(message)[sent:], () if sent else fds)
        except ConnectionError as error:
            raise ClientLostError("") from error

    def _send_some(self, data: bytes | memoryview, fds: Sequence[int]) -> int:
        """Send what there is room for at once; return the number of bytes."""
        try:
            if not fds:
                return self.socket.send(data, socket.MSG_DONTWAIT)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
            return self.socket.sendmsg([data], [rights], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _send_rest(self, data: memoryview, fds: Sequence[int]) -> None:
        deadline = self._deadline()
        while data:
            if not _wait(self._writable, deadline):
                message = f"it has not read what it was sent for {self._limit:g} s"
                raise ClientLostError(message)
            if sent := self._send_some(data, fds):
                data, fds = data[sent:], ()

    # -- asking ------------------------------------------------------------------------

    def ask(self, command: int, payload: bytes) -> bytes:
        """Send a command of ours and return what its reply carries.

        Commands that come before it wait.  A client that cannot be asked any more is
        left alone: all that is sent or received later is a ClientLostError.

        Raises:
            OSError: EFAULT: the client refuses, or is lost.
        """
        number = self._next_id
        self._next_id = number + 1 & 0xFFFF
        try:
            self.send(command_message(number, command, payload))
            reply = self._await_reply(number, command)
        except (ClientLostError, FramingError) as error:
            self.give_up(str(error))
            raise OSError(errno.EFAULT, f"the client is lost: {error}") from error
        reply.close()
        if reply.header.is_error:
            code = reply.header.error_no
            raise OSError(errno.EFAULT, f"the client refuses with {code}")
        return reply.payload

    def give_up(self, why: str) -> None:
        """Let nothing be sent or received any more."""
        self._lost = why
        with contextlib.suppress(OSError):  # it is gone already
            self.socket.shutdown(socket.SHUT_RDWR)

    def _await_reply(self, number: int, command: int) -> Message:
        deadline = self._deadline()
        while True:
            message = self._read(deadline)
            if not message.header.is_reply:
                self._keep(message)
                continue
            if (message.header.msg_id, message.header.command) == (number, command):
                return message
            message.close()
            raise FramingError(f"a reply to nothing, command {message.header.command}")

    def _keep(self, message: Message) -> None:
        self.waiting.append(message)
        size = sum(len(each.payload) for each in self.waiting)
        fds = sum(len(each.fds) for each in self.waiting)
        if (
            len(self.waiting) > _MOST_WAITING
            or size > _MOST_WAITING_BYTES
            or fds > _MOST_WAITING_FDS
        ):
            raise ClientLostError("it sends commands where it owes a reply")

    def _require_client(self) -> None:
        if self._lost is not None:
            raise ClientLostError(self._lost)

    def _deadline(self) -> float:
        return time.monotonic() + self._limit


def refuse(why: str, code: int = errno.EINVAL) -> NoReturn:
    """Raise MessageError: the client is to be answered with an errno."""
    raise MessageError(why, code=code)


def _wait(poller: select.poll, deadline: float) -> bool:
    """Wait until a socket is ready; return whether it was in time."""
    left = deadline - time.monotonic()
    return bool(poller.poll(max(0.0, left) * 1000))


def _close_all(fds: list[int]) -> None:
    """Close fds, and forget them."""
    while fds:
        os.close(fds.pop())
