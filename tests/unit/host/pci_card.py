"""A driver that is a PCI function, and a user application that has it open.

What the tests of BARs, interrupts and ioctls have in common.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Self

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.host.pci import Bar, PciIdentity
from vfiomig.host.user_process import LocalProcess
from vfiomig.protocol.region import MigrationRegion

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.pci import Bus, Dma

GET_INFO, GET_REGION_INFO, GET_IRQ_INFO, SET_IRQS = 0x3B6B, 0x3B6C, 0x3B6D, 0x3B6E
RESET, GET_HOT_RESET_INFO, HOT_RESET, FEATURE = 0x3B6F, 0x3B70, 0x3B71, 0x3B75

NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER = 1, 2, 4, 8, 0x10, 0x20
INTX, MSI, MSIX, ERR, REQ = range(5)

CONFIG = 7 << 40
COMMAND = CONFIG + 4
IO, MEMORY, MASTER, INTX_DISABLE = 1, 2, 4, 0x400


class Card:
    """Ports in BAR 0, memory in BAR 2, INTx, four messages; it notes what comes."""

    identity = PciIdentity(
        vendor=0x1AF4,
        device=0x10F0,
        subsystem_vendor=0x1AF4,
        subsystem=1,
        class_code=0x118000,
        interrupt_pin=1,
        msi_vectors=4,
    )
    bars: tuple[Bar, ...] = (Bar(8, "io"), Bar(0), Bar(0x1000))

    def __init__(self) -> None:
        self.migration_region = MigrationRegion(0x5000)
        self.asked: list[tuple[object, ...]] = []
        self.memory = bytearray(range(256)) * 16
        self.bus: Bus | None = None
        self.refusal: BaseException | None = None

    def connect(self, bus: Bus) -> None:
        self._note("connect")
        self.bus = bus

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        self._note("read_bar", bar, offset, size)
        return bytes(self.memory[offset : offset + size])

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        self._note("write_bar", bar, offset, data)
        self.memory[offset : offset + len(data)] = data

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        self._note("write", offset, data)

    def reset(self) -> None:
        self._note("reset")

    def close(self) -> None:
        self._note("close")

    def _note(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal


class Eventfd:
    """An eventfd of the user's."""

    def __init__(self, flags: int = os.EFD_NONBLOCK | os.EFD_CLOEXEC) -> None:
        self.fd = os.eventfd(0, flags)

    def taken(self) -> int:
        """Return how often it was signalled since the last time."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class User:
    """A user application with one device open, by pointers into its own memory."""

    def __init__(self, driver: object = None, dma: Dma | None = None) -> None:
        self.card = Card() if driver is None else driver
        self.device = DeviceFd(self.card, dma=dma)  # type: ignore[arg-type]
        self.process = LocalProcess(lambda _: self.device)
        self.number = self.process.open("/dev/vfio/devices/vfio0")

    def ioctl(self, request: int, argument: bytes = b"") -> tuple[int, bytes]:
        """Perform an ioctl; return what it returned, and the argument after it."""
        buffer = bytearray(argument)
        address = self.process.memory.place(buffer)
        try:
            return self.process.ioctl(self.number, request, address), bytes(buffer)
        finally:
            self.process.memory.remove(address)

    def set_irqs(
        self, flags: int, index: int, *data: int, start: int = 0, count: int = -1
    ) -> int:
        """Perform a VFIO_DEVICE_SET_IRQS with these fds, or bools, or nothing."""
        kind = "i" if flags & EVENTFD else "B"
        body = struct.pack(f"={len(data)}{kind}", *data)
        count = len(data) if count < 0 else count
        head = struct.pack("=5I", 20 + len(body), flags, index, start, count)
        return self.ioctl(SET_IRQS, head + body)[0]

    def enable(self, *command: int) -> None:
        """Write the command register."""
        self.device.pwrite(sum(command).to_bytes(2, "little"), COMMAND)

    @property
    def bus(self) -> Bus:
        """The bus that the card was told of."""
        assert isinstance(self.card, Card)
        assert self.card.bus is not None
        return self.card.bus


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is what counts
        call()
    assert refused.value.errno is not None
    return errno.errorcode[refused.value.errno]
