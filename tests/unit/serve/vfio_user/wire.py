"""A vfio-user client that knows bytes alone, and a device that it may hold.

Messages are packed by hand here, after the protocol's description, so that codec and
server are not judged by themselves.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from vfiomig.host.pci import Bar, PciIdentity
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
from vfiomig.serve.vfio_user.listening import listen
from vfiomig.serve.vfio_user.server import Server
from vfiomig.serve.vfio_user.session import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.pci import Bus

VERSION, DMA_MAP, DMA_UNMAP, DEVICE_INFO, REGION_INFO, IO_FDS = range(1, 7)
IRQ_INFO, SET_IRQS, READ, WRITE, DMA_READ, DMA_WRITE, RESET, DIRTY = range(7, 15)
COMMAND, REPLY, NO_REPLY, ERROR = 0, 1, 0x10, 0x20
MIGRATION, CONFIG = 9, 7
PATIENCE = 20.0  # seconds, until a test fails instead of waiting

HEADER = struct.Struct("<HHIII")
ACCESS = struct.Struct("<QII")
REGION = struct.Struct("<IIIIQQ")


class Got(NamedTuple):
    """A message that came."""

    number: int
    command: int
    flags: int
    error: int
    payload: bytes
    fds: list[int]


class Client:
    """A connection; what is not said otherwise is said correctly."""

    def __init__(self, path: Path, *, is_agreed: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self._number = 100
        if is_agreed:
            assert not self.ask(VERSION, struct.pack("<HH", 0, 2)).error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(
        self,
        command: int,
        payload: bytes = b"",
        *,
        flags: int = COMMAND,
        fds: Sequence[int] = (),
        number: int | None = None,
    ) -> int:
        """Send one message; return its id."""
        self._number += 1
        number = self._number if number is None else number
        head = HEADER.pack(number, command, 16 + len(payload), flags, 0)
        if fds:
            socket.send_fds(self.socket, [head + payload], list(fds))
        else:
            self.socket.sendall(head + payload)
        return number

    def receive(self) -> Got:
        """Return the next message."""
        head, fds = self._exactly(16)
        number, command, size, flags, error = HEADER.unpack(head)
        return Got(number, command, flags, error, self._exactly(size - 16)[0], fds)

    def ask(
        self, command: int, payload: bytes = b"", *, fds: Sequence[int] = ()
    ) -> Got:
        """Send a command and return its reply."""
        number = self.send(command, payload, fds=fds)
        reply = self.receive()
        assert (reply.number, reply.command) == (number, command)
        assert reply.flags == (REPLY | ERROR if reply.error else REPLY)
        if reply.error:
            assert reply.payload == b""
        return reply

    def read(self, offset: int, size: int, region: int = MIGRATION) -> bytes:
        """Read a region; OSError as the server answers."""
        reply = self.ask(READ, ACCESS.pack(offset, region, size))
        if reply.error:
            raise OSError(reply.error, "as the server says")
        assert ACCESS.unpack_from(reply.payload)[:2] == (offset, region)
        data = reply.payload[16:]
        assert ACCESS.unpack_from(reply.payload)[2] == len(data)
        return data

    def write(self, offset: int, data: bytes, region: int = MIGRATION) -> int:
        """Write a region and return the bytes taken; OSError as above."""
        reply = self.ask(WRITE, ACCESS.pack(offset, region, len(data)) + data)
        if reply.error:
            raise OSError(reply.error, "as the server says")
        assert len(reply.payload) == 16
        return int(ACCESS.unpack(reply.payload)[2])

    def is_closed(self) -> bool:
        """Tell whether the server has closed the connection, which is waited for."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _exactly(self, size: int) -> tuple[bytes, list[int]]:
        data = b""
        fds: list[int] = []
        while len(data) < size:
            some, control, _, _ = self.socket.recvmsg(
                size - len(data), socket.CMSG_SPACE(128)
            )
            assert some, "the server closed the connection"
            data += some
            for _, _, rights in control:
                fds += array.array("i", rights)
        return data, fds


class Card:
    """A driver whose region is memory, and that does DMA when it is told to.

    A write of (iova, size) at 0x100 reads that much of the guest into its memory at
    0x2000; at 0x108 it writes it from there.  What is noted is what was called.
    """

    identity = PciIdentity(
        vendor=1, device=2, subsystem_vendor=3, subsystem=4, class_code=0x118000,
        interrupt_pin=1, msi_vectors=4,
    )  # fmt: skip
    bars = (Bar(0x100, "io"),)
    migration_region = MigrationRegion(0x4000)
    calls: list[str]
    refusal: BaseException | None = None

    def __init__(self) -> None:
        self.calls = []
        self.memory = bytearray(0x10_0000 + 0x4000)
        self.bus: Bus | None = None

    def connect(self, bus: Bus) -> None:
        self.bus = bus

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        return bytes([0x80 + bar] * size)

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        assert self.bus is not None
        self.calls.append(f"bar {bar} {offset} {data.hex()}")
        self.bus.raise_interrupt(data[0])

    def read(self, offset: int, size: int) -> bytes:
        self.calls.append(f"read {offset} {size}")
        if self.refusal is not None:
            raise self.refusal
        return bytes(self.memory[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self.calls.append(f"write {offset} {len(data)}")
        if self.refusal is not None:
            raise self.refusal
        assert self.bus is not None
        if offset in (0x100, 0x108):
            iova, size = struct.unpack("<QI", data)
            if offset == 0x100:
                self.memory[0x2000 : 0x2000 + size] = self.bus.dma_read(iova, size)
            else:
                self.bus.dma_write(iova, bytes(self.memory[0x2000 : 0x2000 + size]))
            return
        self.memory[offset : offset + len(data)] = data

    def reset(self) -> None:
        self.calls.append("reset")
        self.memory[:] = bytes(len(self.memory))

    def close(self) -> None:
        self.calls.append("close")


class MappedCard:
    """A driver with areas in files of its own: as many as it has files."""

    def __init__(self, *, files: int = 1, base: int = 0) -> None:
        self.files = [
            os.memfd_create("card", os.MFD_ALLOW_SEALING) for _ in range(files)
        ]
        self.base = base
        areas = (SparseMmapArea(0x1000, 0x1000), SparseMmapArea(0x3000, 0x2000))
        self.migration_region = MigrationRegion(0x5000, areas)
        for fd in self.files:
            os.ftruncate(fd, base + 0x5000)
        self.registers = bytearray(0x20)
        self.refusal: BaseException | None = None
        self.seen = b""  # what was in the data section when data_size was written

    def file_of(self, offset: int) -> int:
        return self.files[-1 if offset >= 0x3000 else 0]

    def read(self, offset: int, size: int) -> bytes:
        if offset < 0x20:
            return bytes(self.registers[offset : offset + size])
        return os.pread(self.file_of(offset), size, self.base + offset)

    def write(self, offset: int, data: bytes) -> None:
        if offset == 0x18:
            at = int.from_bytes(self.registers[0x10:0x18], "little")
            size = int.from_bytes(data, "little")
            self.seen = os.pread(self.file_of(at), size, self.base + at)
        if offset < 0x20:
            self.registers[offset : offset + len(data)] = data
        else:
            os.pwrite(self.file_of(offset), data, self.base + offset)

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        if self.refusal is not None:
            raise self.refusal
        return self.file_of(area.offset), self.base + area.offset

    def reset(self) -> None:
        self.registers[:] = bytes(0x20)

    def close(self) -> None:
        for fd in self.files:
            os.close(fd)


class Serving:
    """A server in a thread; ``drivers`` are those that it made, ``error`` its end."""

    def __init__(
        self, path: Path, make_driver: Callable[[], TrappedDriver], limits: Limits
    ) -> None:
        self.path = path
        self.drivers: list[TrappedDriver] = []
        self.ends: list[tuple[int, str]] = []
        self.error: BaseException | None = None
        self._make_driver = make_driver
        self._went = threading.Condition()
        self._listener = listen(path)
        self._server = Server(self._make, self._listener, limits=limits, observer=self)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def connected(self) -> None:
        """Nothing is asked of this."""

    def gone(self, accesses: int, why: str) -> None:
        with self._went:
            self.ends.append((accesses, why))
            self._went.notify_all()

    def await_ends(self, number: int) -> list[tuple[int, str]]:
        """Wait until so many clients have gone."""
        with self._went:
            assert self._went.wait_for(lambda: len(self.ends) >= number, PATIENCE)
        return self.ends

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self._listener.close()

    def _make(self) -> TrappedDriver:
        self.drivers.append(self._make_driver())
        return self.drivers[-1]

    def _serve(self) -> None:
        try:
            self._server.serve()
        except BaseException as error:
            self.error = error


@contextlib.contextmanager
def serving(
    folder: Path,
    make_driver: Callable[[], TrappedDriver] = Card,
    *,
    patience: float = 10.0,
) -> Iterator[Serving]:
    """Serve in a thread, until the end of the block; the server must have lived on."""
    server = Serving(folder / "sock", make_driver, Limits(patience=patience))
    try:
        yield server
    finally:
        server.stop()
    if not isinstance(server.error, OSError) or server.error.errno != errno.EINVAL:
        assert server.error is not None
        raise server.error


def open_fds() -> dict[str, str]:
    """Return our fds, and what they are; not that of the listing itself."""
    found = {}
    for each in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found[each.name] = str(each.readlink())
    return found


def region_info(client: Client, index: int, argsz: int = 4096) -> Got:
    """Ask for the info of a region."""
    return client.ask(REGION_INFO, REGION.pack(argsz, 0, index, 0, 0, 0))
