"""A vfio-user server that a test writes by hand: a thread, a real socket, struct.

A script is a function of the `Peer`; what it asserts in vain fails the test.  Nothing
of the package's codec is used.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

HEADER = struct.Struct("<HHIII")
ACCESS = struct.Struct("<QII")
INFO = struct.Struct("<IIIIQQ")
SIZES = struct.Struct("<QQ")  # size and offset of an INFO

(
    VERSION,
    DMA_MAP,
    DMA_UNMAP,
    GET_INFO,
    GET_REGION_INFO,
    _,
    GET_IRQ_INFO,
    SET_IRQS,
    REGION_READ,
    REGION_WRITE,
    DMA_READ,
    DMA_WRITE,
    RESET,
    DIRTY_PAGES,
) = range(1, 15)

COMMAND, REPLY, NO_REPLY, ERROR = 0, 1, 0x10, 0x20
READ, WRITE, MMAP, CAPS = 1, 2, 4, 8

PATIENCE = 10.0  # seconds until a script gives a client up


class Message(NamedTuple):
    """A message as it came."""

    msg_id: int
    command: int
    flags: int
    error: int
    payload: bytes
    fds: list[int]


class GoneError(Exception):
    """The client has left."""


class Peer:
    """The server's end of one connection."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(PATIENCE)
        self.socket = connected

    def message(self) -> Message:
        """Receive whatever comes next."""
        head, fds = b"", array.array("i")
        while len(head) < 16:
            data, ancillary, _, _ = self.socket.recvmsg(16 - len(head), 256)
            for _, _, given in ancillary:
                fds.frombytes(given)
            if not data:
                raise GoneError
            head += data
        msg_id, command, size, flags, error = HEADER.unpack(head)
        payload = b""
        while len(payload) < size - 16:
            data = self.socket.recv(size - 16 - len(payload))
            if not data:
                raise GoneError
            payload += data
        return Message(msg_id, command, flags, error, payload, list(fds))

    def expect(self, command: int) -> Message:
        """Receive a certain command."""
        message = self.message()
        assert (message.command, message.flags) == (command, COMMAND)
        return message

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send bytes as they are."""
        sent = socket.send_fds(self.socket, [data], fds) if fds else 0
        if sent < len(data):  # to send nothing fails, too, once the client has left
            self.socket.sendall(data[sent:])

    def reply(self, to: Message, payload: bytes = b"", *fds: int) -> None:
        """Answer a command."""
        head = HEADER.pack(to.msg_id, to.command, 16 + len(payload), REPLY, 0)
        self.send(head + payload, fds)

    def refuse(self, to: Message, code: int) -> None:
        """Answer with an errno."""
        self.send(HEADER.pack(to.msg_id, to.command, 16, REPLY | ERROR, code))

    def command(
        self, msg_id: int, command: int, payload: bytes, flags: int = COMMAND
    ) -> None:
        """Send a command of the server's own."""
        self.send(HEADER.pack(msg_id, command, 16 + len(payload), flags, 0) + payload)

    def greet(self, capabilities: bytes = b'{"max_msg_fds":8}') -> Message:
        """Agree on 0.2."""
        hello = self.expect(VERSION)
        said = b'\0\0\2\0{"capabilities":' + capabilities + b"}\0"
        self.reply(hello, said)
        return hello

    def until_gone(self) -> None:
        """Wait until the client leaves, and say nothing."""
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(1 << 16):
                pass


class Server:
    """One that listens at ``path`` and follows a script with its first client."""

    def __init__(self, path: Path, script: Callable[[Peer], None]) -> None:
        self.path = path
        self.failure: BaseException | None = None
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._listener:
                connected, _ = self._listener.accept()
            with connected:
                self._script(Peer(connected))
        except BaseException as failure:
            self.failure = failure

    def finish(self) -> None:
        """Wait for the script and raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the script does not end"
        if self.failure is not None:
            raise self.failure


@contextlib.contextmanager
def serving(path: Path, script: Callable[[Peer], None]) -> Iterator[Server]:
    """Run a server; its script has ended well when the block has."""
    server = Server(path, script)
    yield server
    server.finish()


@dataclass
class Regions:
    """A server that keeps to the rules; ``asked`` has the commands in their order.

    ``infos`` are replies to GET_REGION_INFO with their fds, by index; an absent one
    is EINVAL.  ``memory`` is what REGION_READ and WRITE reach, of every region.
    """

    infos: Mapping[int, tuple[bytes, tuple[int, ...]]] = field(default_factory=dict)
    count: int = 10
    memory: bytearray = field(default_factory=lambda: bytearray(range(256)) * 16)
    capabilities: bytes = b'{"max_msg_fds":8}'
    asked: list[Message] = field(default_factory=list)
    meanwhile: Callable[[Peer], None] = lambda _: None

    def __call__(self, peer: Peer) -> None:
        peer.greet(self.capabilities)
        with contextlib.suppress(GoneError, ConnectionResetError):
            while True:
                message = peer.message()
                self.asked.append(message)
                self.meanwhile(peer)
                self.answer(peer, message)

    def commands(self) -> list[int]:
        return [message.command for message in self.asked]

    def answer(self, peer: Peer, message: Message) -> None:
        if message.command == GET_INFO:
            peer.reply(message, struct.pack("<IIII", 16, 3, self.count, 5))
        elif message.command == GET_REGION_INFO:
            argsz, _, index, *_ = INFO.unpack(message.payload)
            info, fds = self.infos.get(index, (b"", ()))
            if not info:
                peer.refuse(message, errno.EINVAL)
            elif len(info) <= argsz:
                peer.reply(message, info, *fds)
            else:
                cut = INFO.pack(
                    len(info), info[4] & ~CAPS, index, 0, *SIZES.unpack_from(info, 16)
                )
                peer.reply(message, cut)
        elif message.command == REGION_READ:
            offset, _, count = ACCESS.unpack(message.payload)
            peer.reply(message, message.payload + self.memory[offset : offset + count])
        elif message.command == REGION_WRITE:
            offset, _, count = ACCESS.unpack_from(message.payload)
            self.memory[offset : offset + count] = message.payload[16:]
            peer.reply(message, message.payload[:16])
        elif message.command == GET_IRQ_INFO:
            index = struct.unpack_from("<I", message.payload, 8)[0]
            peer.reply(message, struct.pack("<IIII", 16, 9, index, 4))
        elif message.command == DMA_UNMAP:
            peer.reply(message, message.payload)
        else:
            peer.reply(message)
        for fd in message.fds:
            os.close(fd)


def region_info(
    index: int,
    size: int,
    *capabilities: tuple[int, bytes],
    flags: int = READ | WRITE,
    offset: int = 0,
) -> bytes:
    """Return a vfio_region_info and its chain."""
    chain = b""
    for number, (identity, body) in enumerate(capabilities, 1):
        end = 32 + len(chain) + 8 + len(body)
        following = end if number < len(capabilities) else 0
        chain += struct.pack("<HHI", identity, 1, following) + body
    flags |= CAPS if chain else 0
    first = 32 if chain else 0
    return INFO.pack(32 + len(chain), flags, index, first, size, offset) + chain


def is_migration(kind: int = 3, subtype: int = 1) -> tuple[int, bytes]:
    return 2, struct.pack("<II", kind, subtype)


def areas(*areas: tuple[int, int]) -> tuple[int, bytes]:
    listed = b"".join(struct.pack("<QQ", *area) for area in areas)
    return 1, struct.pack("<II", len(areas), 0) + listed


@contextlib.contextmanager
def memfd(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("region")
    os.write(fd, content)
    yield fd
    os.close(fd)


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- names, and no more
