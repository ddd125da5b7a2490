"""rsocket's semantics in one process, for machines without RDMA: rdma-core 44.0's.

Rule 1: what check.py claims of librdmacm holds here too, by the same mechanism:
two halves of a receive buffer, message credits, completions that wait for a call.

Rule 2: one lock guards a network; a call that blocks sleeps on it, and wakes for what
happens to its own socket only.

Streams over IPv4 alone: datagrams and other families are not modelled (ENOTSUP).  Where
44.0 would crash (bytes for a socket that was never connected) this says ENOTCONN, and
where it would never return (a directed write beyond the end of a mapping) this ends.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import socket
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.model_end import (
    FIRST_TRANSFER,
    MAX_TRANSFER,
    Copies,
    End,
    Sizes,
)
from vfiomig.migration.transport.rsocket.model_network import Network
from vfiomig.migration.transport.rsocket.model_poll import Polling
from vfiomig.migration.transport.rsocket.model_sleep import Sleepers
from vfiomig.migration.transport.rsocket.model_socket import (
    NOWHERE,
    ModelSocket,
    Phase,
    failure,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.migration.transport.rsocket.library import Address

# Plain numbers: the calls that ask for them are many.
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)
_PEEK: Final = int(socket.MSG_PEEK)
_WAITALL: Final = int(socket.MSG_WAITALL)
_NOT_NOW: Final = os.strerror(errno.EAGAIN)


class RsocketModel:
    """A network of its own, and the calls of `RsocketLibrary` on it.

    ``inherits`` is what rdma-core 63 changed: accepted sockets have the listener's
    flags. ``native`` makes every socket one of old RDMA migration: it greets as QEMU
    does, and its memory is registered, so that the processor copies nothing.
    ``wake_up_seconds`` is how long rpoll() sleeps before it looks again on its own.
    """

    def __init__(
        self,
        *,
        inherits: bool = False,
        native: bool = False,
        wake_up_seconds: float = 5.0,
    ) -> None:
        self._is_native = native
        self._sleepers = Sleepers()
        self._lock = self._sleepers.lock
        self._network = Network(inherits=inherits)
        self._sockets = self._network.sockets
        self._polling = Polling(self._network, self._sleepers, wake_up_seconds)
        self._closed_copies = Copies(), Copies()

    @property
    def refusals(self) -> list[str]:
        """Why handshakes were refused, in order, for a person."""
        with self._lock:
            return list(self._network.refusals)

    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        """Return a new socket. Raises OSError: ENOTSUP for all but streams of IPv4."""
        if (
            domain != socket.AF_INET
            or kind != socket.SOCK_STREAM
            or protocol not in (0, socket.IPPROTO_TCP)
        ):
            raise failure(errno.ENOTSUP, "streams over IPv4 alone")
        with self._lock:
            return self._network.add(ModelSocket(Sizes(), is_native=self._is_native))

    def rbind(self, number: int, address: Address) -> None:
        """Bind. Raises OSError: EADDRINUSE, EINVAL for one that is bound."""
        with self._lock:
            self._network.bind(self._socket(number), address)

    def rlisten(self, number: int, backlog: int) -> None:
        """Listen; whatever ``backlog`` is, as many connections wait as come."""
        with self._lock:
            each = self._socket(number)
            if each.phase not in (Phase.NEW, Phase.LISTENING):
                raise failure(errno.EINVAL, "it is connected")
            if each.address == NOWHERE:
                self._network.bind(each, NOWHERE)
            each.phase = Phase.LISTENING

    def raccept(self, number: int) -> tuple[int, Address]:
        """Return a connection and its peer; EBADF for what does not listen."""
        with self._lock:
            each = self._socket(number)
            if each.phase is not Phase.LISTENING:
                raise failure(errno.EBADF, "it does not listen")
            if not each.queue and not each.blocks:
                raise failure(errno.EAGAIN, "nobody connects")
            self._sleep_until(each, lambda: bool(each.queue))
            accepted = each.queue.popleft()
            return accepted.number, accepted.peer_address

    def rconnect(self, number: int, address: Address) -> None:
        """Connect. Raises OSError: ECONNREFUSED with the reason, EINPROGRESS."""
        with self._lock:
            each = self._socket(number)
            match each.phase:
                case Phase.NEW:
                    self._network.connect(each, address)
                    self._sleepers.wake()
                    if not each.blocks:
                        raise failure(errno.EINPROGRESS, "it connects")
                case Phase.LISTENING:
                    raise failure(errno.EINVAL, "it listens")
                case Phase.REFUSED:
                    raise failure(errno.ENOTCONN, "it was refused before")
            if each.phase is Phase.OPENING:
                self._network.open(each)

    def connect_native(self, address: Address, flags: int = 0) -> int:
        """Connect as QEMU's old RDMA migration does; return the socket.

        Raises OSError as rconnect().
        """
        with self._lock:
            each = ModelSocket(Sizes(), is_native=True, native_flags=flags)
            number = self._network.add(each)
            try:
                self._network.connect(each, address)
                self._sleepers.wake()
                self._network.open(each)
            except OSError:
                self._close(each)
                raise
            return number

    def listen_native(self, address: Address, flags: int = 0) -> int:
        """Listen as QEMU's old RDMA migration does; return the socket."""
        with self._lock:
            each = ModelSocket(Sizes(), is_native=True, native_flags=flags)
            self._network.bind(each, address)
            each.phase = Phase.LISTENING
            return self._network.add(each)

    def rsend(self, number: int, data: memoryview, flags: int = 0) -> int:
        """Copy bytes into the window, in transfers that grow from 2 to 64 KiB."""
        with self._lock:
            each, end = self._connection(number)
            if end.unheard:
                self._publish(each, end, flags)
            total, sent, limit = len(data), 0, FIRST_TRANSFER
            while sent < total:
                if not end.can_send and not self._may_send(each, end, flags, sent):
                    break
                taken, limit = end.send(data[sent:], limit)
                sent += taken
            self._sleepers.wake()
            return sent

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        """Copy what has come; 0 at the end. MSG_PEEK and MSG_WAITALL are known."""
        with self._lock:
            each, end = self._connection(number)
            received = 0
            while True:
                if not end.messages and not self._wait(
                    each, end, end.can_answer, flags, received
                ):
                    return received
                if flags & _PEEK:
                    return end.peek(buffer)
                received += end.take(buffer[received:])
                if (
                    received == len(buffer)
                    or not flags & _WAITALL
                    or not end.is_readable
                ):
                    return received

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        """Wait as poll(2), among sockets of this network and ordinary descriptors."""
        with self._lock:
            return self._polling.wait(watched, timeout)

    def rfcntl(self, number: int, command: int, argument: int = 0) -> int:
        """Do F_GETFL or F_SETFL. Raises OSError: ENOTSUP for any other."""
        with self._lock:
            each = self._socket(number)
            if command == fcntl.F_GETFL:
                return each.flags
            if command != fcntl.F_SETFL:
                raise failure(errno.ENOTSUP, "F_GETFL and F_SETFL alone")
            each.flags = argument
            return 0

    def rshutdown(self, number: int, how: int) -> None:
        """Shut one direction or both, if it is connected; nothing is on its way."""
        with self._lock:
            each = self._socket(number)
            if each.phase is not Phase.CONNECTED or each.end is None:
                return
            each.end.shut(
                reading=how in (socket.SHUT_RD, socket.SHUT_RDWR),
                writing=how in (socket.SHUT_WR, socket.SHUT_RDWR),
            )
            self._sleepers.wake()

    def rclose(self, number: int) -> None:
        """Close; who blocks in a call on it gets EBADF.

        Connections that a listener did not hand out stay open and unheard of, as
        44.0 leaves them.
        """
        with self._lock:
            self._close(self._socket(number))
            self._sleepers.wake()

    def rgetsockname(self, number: int) -> Address:
        """Return its own address."""
        with self._lock:
            return self._socket(number).address

    def rgetpeername(self, number: int) -> Address:
        """Return its peer's address."""
        with self._lock:
            return self._socket(number).peer_address

    def rsetsockopt(self, number: int, level: int, option: int, value: int) -> None:
        """Set an option. Raises OSError: ENOTSUP, EINVAL for RDMA's once connected."""
        with self._lock:
            self._socket(number).set_option(level, option, value)

    def rgetsockopt(self, number: int, level: int, option: int) -> int:
        """Return an option. Raises OSError: ENOTSUP."""
        with self._lock:
            return self._socket(number).option(level, option)

    def riomap(self, number: int, buffer: memoryview, offset: int = -1) -> int:
        """Let the peer write there. Raises OSError: ENOMEM, EINVAL if unconnected."""
        with self._lock:
            end = self._socket(number).end
            if end is None or not len(buffer):
                raise failure(
                    errno.EINVAL, "it is not connected, or there is nothing to map"
                )
            mapped = end.map(buffer, offset)
            if mapped is None:
                raise failure(errno.ENOMEM, "the peer has no place for a mapping")
            return mapped

    def riounmap(self, number: int, buffer: memoryview) -> None:
        """End that. Raises OSError: EINVAL for what is not mapped."""
        with self._lock:
            _, end = self._connection(number)
            if not end.unmap(buffer):
                raise failure(errno.EINVAL, "it is not mapped")

    def riowrite(
        self, number: int, data: memoryview, offset: int, flags: int = 0
    ) -> int:
        """Write to where the peer mapped ``offset``; 0 if it is not heard of."""
        with self._lock:
            each, end = self._connection(number)
            if end.unheard:
                self._publish(each, end, flags)
            sent, limit = 0, FIRST_TRANSFER
            while sent < len(data):
                if (mapping := end.reach(offset + sent)) is None:
                    break
                if not end.can_send and not self._may_send(each, end, flags, sent):
                    break
                sent += end.write(data[sent:], limit, mapping, offset + sent)
                limit = min(limit << 1, MAX_TRANSFER)
            self._sleepers.wake()
            return sent

    def copies_of(self, number: int) -> tuple[Copies, Copies]:
        """Return what the processor copied for this socket: to send, and to receive."""
        with self._lock:
            _, end = self._connection(number)
            return dataclasses.replace(end.sending), dataclasses.replace(end.receiving)

    def copies(self) -> tuple[Copies, Copies]:
        """Return the same for all sockets that there are, or were."""
        with self._lock:
            sending, receiving = map(dataclasses.replace, self._closed_copies)
            for each in self._sockets.values():
                if each.end is not None:
                    sending.add(each.end.sending)
                    receiving.add(each.end.receiving)
            return sending, receiving

    def _socket(self, number: int) -> ModelSocket:
        each = self._sockets.get(number)
        if each is None:
            raise failure(errno.EBADF, f"{number} is no socket of this network")
        return each

    def _connection(self, number: int) -> tuple[ModelSocket, End]:
        """Return a socket and its end; one that opens goes on to do so."""
        each = self._socket(number)
        if each.phase is Phase.OPENING:
            self._network.open(each)
        if each.end is None:
            raise failure(errno.ENOTCONN, "it was never connected")
        return each, each.end

    def _close(self, each: ModelSocket) -> None:
        self._network.remove(each)
        if each.end is not None:
            self._closed_copies[0].add(each.end.sending)
            self._closed_copies[1].add(each.end.receiving)

    def _publish(self, each: ModelSocket, end: End, flags: int) -> None:
        """Let the peer hear of mappings before anything else."""
        while end.unheard:
            if not end.can_send:
                self._may_send(each, end, flags, 0)
            end.publish()
            self._sleepers.wake()

    def _may_send(self, each: ModelSocket, end: End, flags: int, done: int) -> bool:
        """Wait until a message can go; as `_wait`, and ECONNRESET at the end."""

        def test() -> bool:
            return end.can_send or not end.is_writable

        may = self._wait(each, end, test, flags, done)
        if may and not end.is_writable:
            if not done:
                raise failure(errno.ECONNRESET, "the connection is at an end")
            return False
        return may

    def _wait(
        self,
        each: ModelSocket,
        end: End,
        test: Callable[[], bool],
        flags: int,
        done: int,
    ) -> bool:
        """Look at completions until ``test`` holds.

        What must not block and has ``done`` something is over (False); where nothing
        was done, it raises EAGAIN.
        """
        while True:
            if end.enter():
                self._sleepers.wake()
            if test():
                return True
            if not each.blocks or flags & _DONTWAIT:
                if done:
                    return False
                raise BlockingIOError(errno.EAGAIN, _NOT_NOW)
            self._sleepers.wake()  # whom this call sent to
            self._sleep_until(each, lambda: end.has_event or test())

    def _sleep_until(self, each: ModelSocket, test: Callable[[], bool]) -> None:
        self._sleepers.until(lambda: each.is_closed or test())
        if each.is_closed:
            raise failure(errno.EBADF, "it was closed in the meantime")
