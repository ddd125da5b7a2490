"""One session with a server: a request, its reply, and what the server asks meanwhile.

Rule 1: one request is under way at a time, and its reply has its id.

Rule 2: what a server does wrong ends the session: `DriverLostError`, with the request
that it did it at, and the same error for whatever is asked later.

Rule 3: a request has ``limit`` seconds, and they include sending it and answering the
server's own commands.
"""

from __future__ import annotations

import errno
import struct
import time
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.client.vfio_user.channel import SWAP_SIZE, LinkError, close_all
from vfiomig.client.vfio_user.requests import (
    Reply,
    Request,
    T,
    region_read,
    region_write,
)
from vfiomig.protocol.errors import DriverLostError, ProtocolError
from vfiomig.protocol.vfio_user.framing import (
    HEADER_SIZE,
    ROOM_FOR_ALL_BUT_DATA,
    Header,
    command_message,
    read_header,
)
from vfiomig.protocol.vfio_user.messages import (
    ACCESS_SIZE,
    refuse,
    region_read_message,
)
from vfiomig.uapi.vfio_user import (
    VFIO_USER_F_TYPE_REPLY,
    VFIO_USER_REGION_READ,
    VFIO_USER_REGION_WRITE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.client.vfio_user.channel import Channel
    from vfiomig.client.vfio_user.memory import DmaMemory

# A header and a region access: what a register costs beside its bytes.
_HEAD: Final = struct.Struct("<HHIIIQII")
_HEAD_SIZE: Final = HEADER_SIZE + ACCESS_SIZE
_QUICK: Final = SWAP_SIZE - _HEAD_SIZE
_REPLY: Final = VFIO_USER_F_TYPE_REPLY


class Session:
    """The requests over one channel, from the first on.

    ``most`` are the bytes of data that one message may bring, ``where`` names the
    server, and ``post_mortem`` says how it ended, or nothing.
    """

    def __init__(
        self,
        channel: Channel,
        memory: DmaMemory,
        *,
        limit: float,
        most: int,
        where: str,
        post_mortem: Callable[[], str],
    ) -> None:
        self._channel = channel
        self._memory = memory
        self._limit = limit
        self._longest = HEADER_SIZE + ROOM_FOR_ALL_BUT_DATA + most
        self._where = where
        self._post_mortem = post_mortem
        self._id = 0
        self._lost: DriverLostError | None = None
        self._is_open = True
        # The most bytes that go the quick way: none when the session is over.
        self.quick = 0

    def allow_quick(self, most: int) -> None:
        """Let short accesses go the quick way, of at most so many bytes."""
        self.quick = min(_QUICK, most)

    def ask(self, request: Request[T], *, deadline: float | None = None) -> T:
        """Send a request and return what its reply says.

        The ``deadline`` is one of the monotonic clock: by default, the limit from now.

        Raises:
            OSError: the server's errno, EIO if it has none; EBADF when closed, and for
                an fd that is.
            DriverLostError: there is no server any more, or it is not understood.
        """
        self.require_open()
        try:
            end = time.monotonic() + self._limit if deadline is None else deadline
            return self._read_reply(request, self._send(request, end), end)
        except BaseException as error:
            self._fail(request, error)

    def read_quickly(self, index: int, place: int, size: int) -> bytes:
        """Read 1 to ``quick`` bytes of a region: a send, a receive, and one look.

        Raises:
            OSError, DriverLostError: as `ask`.
        """
        channel = self._channel
        began = time.monotonic()
        self._id = number = (self._id + 1) & 0xFFFF
        whole = _HEAD_SIZE + size
        message = region_read_message(number, place, index, size)
        try:
            got = channel.swap(message, whole)
        except BaseException as error:
            return self._ask_if_unsent(region_read(index, place, size), error)
        said = _HEAD.unpack_from(channel.buffer)
        told = (number, VFIO_USER_REGION_READ, whole, _REPLY, 0, place, index, size)
        if got == whole and said == told:
            return bytes(channel.buffer[_HEAD_SIZE:whole])
        channel.put_back(got)
        return self._read_on(region_read(index, place, size), number, began)

    def write_quickly(self, index: int, place: int, data: bytes) -> int:
        """Write 1 to ``quick`` bytes of a region; return how many were taken.

        Raises:
            OSError, DriverLostError: as `ask`.
        """
        channel = self._channel
        began = time.monotonic()
        self._id = number = (self._id + 1) & 0xFFFF
        size = len(data)
        whole = _HEAD_SIZE + size
        command = VFIO_USER_REGION_WRITE
        head = _HEAD.pack(number, command, whole, 0, 0, place, index, size)
        try:
            got = channel.swap(head + data, _HEAD_SIZE)
        except BaseException as error:
            return self._ask_if_unsent(region_write(index, place, data), error)
        said = _HEAD.unpack_from(channel.buffer)
        told = (number, command, _HEAD_SIZE, _REPLY, 0, place, index, size)
        if got == _HEAD_SIZE and said == told:
            return size
        channel.put_back(got)
        return self._read_on(region_write(index, place, data), number, began)

    def require_open(self) -> None:
        """Raise what ended the session; OSError(EBADF) once it is closed."""
        if not self._is_open:
            raise OSError(errno.EBADF, "the device is closed")
        if self._lost is not None:
            raise self._lost.with_traceback(None)

    def close(self) -> None:
        """Close the socket; once is enough."""
        self._is_open, self.quick = False, 0
        self._channel.close()

    def _ask_if_unsent(self, request: Request[T], error: BaseException) -> T:
        """Ask at length what could not be sent at once; else it failed."""
        if not isinstance(error, BlockingIOError):
            self._fail(request, error)
        return self.ask(request)

    def _read_on(self, request: Request[T], number: int, began: float) -> T:
        """Read the reply to a request of which no whole one came at once."""
        try:
            return self._read_reply(request, number, began + self._limit)
        except BaseException as error:
            self._fail(request, error)

    def _send(self, request: Request[T], deadline: float) -> int:
        self._id = (self._id + 1) & 0xFFFF
        message = command_message(self._id, request.command, request.payload)
        self._channel.send(message, deadline, request.fds)
        return self._id

    def _read_reply(self, request: Request[T], number: int, deadline: float) -> T:
        reply = self._reply_to(request, number, deadline)
        try:
            return request.read(reply)
        except BaseException:
            close_all(reply.fds)
            raise

    def _reply_to(self, request: Request[T], number: int, deadline: float) -> Reply:
        """Answer the server's commands until the reply comes."""
        while True:
            header, payload, fds = self._message(deadline)
            if header.is_reply:
                break
            close_all(fds)
            if (header.msg_id, header.command) == (number, request.command):
                refuse(f"the reply to message {number} is marked as a command")
            answer = self._memory.answer(header, payload)
            if not header.wants_no_reply:
                self._answer(answer, deadline)
        close_all(fds[request.most_fds :])
        reply = Reply(payload, fds[: request.most_fds])
        try:
            self._require_success(header, request, number)
        except BaseException:
            close_all(reply.fds)
            raise
        return reply

    def _answer(self, message: bytes, deadline: float) -> None:
        try:
            self._channel.send(message, deadline)
        except OSError as error:
            # No errno of the user application's: its own request is under way.
            what = f"a command of the server could not be answered ({error})"
            raise LinkError(what) from error

    def _require_success(
        self, header: Header, request: Request[T], number: int
    ) -> None:
        if header.msg_id != number:
            refuse(f"a reply to message {header.msg_id}, not to {number}")
        if header.command != request.command:
            refuse(f"a reply to command {header.command}, not to {request.command}")
        if header.is_error:
            code = header.error_no
            if code not in errno.errorcode:
                code = errno.EIO
            raise OSError(code, f"the server refuses {request.name}")

    def _message(self, deadline: float) -> tuple[Header, bytes, list[int]]:
        head, fds = self._channel.receive_with_fds(HEADER_SIZE, deadline)
        try:
            header = read_header(head, limit=self._longest)
            payload = self._channel.receive(header.payload_size, deadline)
        except BaseException:
            close_all(fds)
            raise
        return header, payload, fds

    def _fail(self, request: Request[T], error: BaseException) -> NoReturn:
        """Raise what an error at a request is; only an errno leaves the session."""
        if isinstance(error, LinkError):
            raise self._lose(request, f"{error} at {request.name}") from error
        if isinstance(error, ProtocolError):
            garbage = f"the server talks garbage at {request.name}: {error}"
            raise self._lose(request, garbage) from error
        if not isinstance(error, OSError):
            # Whoever goes on meets a reply that nobody waits for.
            self._end(request, f"the wait was interrupted at {request.name}")
        raise error

    def _lose(self, request: Request[T], what: str) -> DriverLostError:
        ending = " ".join(self._post_mortem().split())
        return self._end(request, f"{what} ({ending})" if ending else what)

    def _end(self, request: Request[T], what: str) -> DriverLostError:
        self._lost = DriverLostError(request.access, self._where, what)
        self.quick = 0
        return self._lost
