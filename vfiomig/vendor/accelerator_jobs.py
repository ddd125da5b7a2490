"""The jobs that a guest gives an accelerator through BAR 0: DMA both ways.

Rule 1: a guest sets the parameters, then writes ``command``: that is the doorbell.
The job is done within that write: ``status`` says how it ended, ``jobs`` is one more,
and a message (vector 0) tells the guest.

Rule 2: a job that makes no sense is refused before anything moves.  One whose memory
is not there stops at the first page that is not; what it moved before stays, and
``fault`` is the IOVA where it stopped.

Registers are little-endian.  Any part of a parameter can be written with 1, 2, 4 or 8
bytes, ``command`` with its own 4 alone; the others ignore writes.
"""

from __future__ import annotations

import ctypes
import enum
import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.host.pci import Bus

MAX_LENGTH: Final = 1 << 20
_PAGE: Final = 4096
_END: Final = 1 << 64


class GuestRegisters(ctypes.Structure):
    """What BAR 0 begins with; the rest of it reads as 0."""

    _fields_ = (
        ("address", ctypes.c_uint64),  # 0x00  of guest memory, an IOVA
        ("local", ctypes.c_uint64),  # 0x08  in local memory, in bytes
        ("length", ctypes.c_uint32),  # 0x10  in bytes, at most 1 MiB
        ("command", ctypes.c_uint32),  # 0x14  see `Command`; writing it is the doorbell
        ("value", ctypes.c_uint64),  # 0x18  what FILL repeats
        ("status", ctypes.c_uint32),  # 0x20  see `Status`; read only from here on
        ("error", ctypes.c_uint32),  # 0x24  the errno of a FAULT, or 0
        ("fault", ctypes.c_uint64),  # 0x28  the IOVA of a FAULT, or 0
        ("jobs", ctypes.c_uint64),  # 0x30  how many have ended, however
        ("memory", ctypes.c_uint64),  # 0x38  bytes of local memory
    )


class Command(enum.IntEnum):
    """What a job is to do with ``length`` bytes."""

    COPY_IN = 1  # guest memory to local memory
    COPY_OUT = 2  # local memory to guest memory
    FILL = 3  # guest memory with ``value``, over and over


class Status(enum.IntEnum):
    """How the last job ended."""

    IDLE = 0  # there was none
    DONE = 1
    REFUSED = 2
    FAULT = 3


_COMMAND: Final = GuestRegisters.command.offset
_PARAMETERS: Final = (
    range(_COMMAND),
    range(GuestRegisters.value.offset, GuestRegisters.status.offset),
)


def read_registers(
    registers: GuestRegisters, memory: int, offset: int, size: int
) -> bytes:
    """Return ``size`` bytes of the BAR, of a device with ``memory`` bytes of its own.

    Its size is no state, so it is not among what a device stores.
    """
    shown = GuestRegisters.from_buffer_copy(registers)
    shown.memory = memory
    return bytes(shown)[offset : offset + size].ljust(size, b"\0")


def write_registers(registers: GuestRegisters, offset: int, data: bytes) -> bool:
    """Take a write to the BAR; return whether it rang the doorbell."""
    view = memoryview(registers).cast("B")
    rung = False
    for place, byte in enumerate(data, offset):
        if any(place in part for part in _PARAMETERS):
            view[place] = byte
    start = _COMMAND - offset
    command = data[start : start + 4] if start >= 0 else b""
    if len(command) == 4:
        registers.command = int.from_bytes(command, "little")
        rung = True
    return rung


class Job:
    """One job of the registers on ``local``, all of local memory."""

    def __init__(
        self, registers: GuestRegisters, local: memoryview, bus: Bus | None
    ) -> None:
        self._registers = registers
        self._local = local
        self._bus = bus

    @property
    def touched(self) -> range:
        """The bytes of local memory that it may change."""
        registers = self._registers
        if registers.command != Command.COPY_IN or not self._makes_sense:
            return range(0)
        return range(registers.local, registers.local + registers.length)

    def run(self) -> None:
        """Do it and say in the registers how it ended."""
        registers = self._registers
        registers.error = registers.fault = 0
        registers.status = Status.DONE if self._makes_sense else Status.REFUSED
        if self._makes_sense:
            for done, length in self._pieces():
                try:
                    self._move(done, length)
                except OSError as error:
                    registers.status = Status.FAULT
                    registers.error = error.errno or errno.EFAULT
                    registers.fault = registers.address + done
                    break
        registers.jobs += 1

    @property
    def _makes_sense(self) -> bool:
        registers = self._registers
        length = int(registers.length)
        if length > MAX_LENGTH or registers.address + length > _END:
            return False
        if registers.command == Command.FILL:
            return True
        is_copy = registers.command in (Command.COPY_IN, Command.COPY_OUT)
        return is_copy and registers.local + length <= len(self._local)

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Yield how much is done and how much comes next, page by page."""
        done, length = 0, int(self._registers.length)
        while done < length:
            in_page = (int(self._registers.address) + done) % _PAGE
            step = min(_PAGE - in_page, length - done)
            yield done, step
            done += step

    def _move(self, done: int, length: int) -> None:
        if self._bus is None:
            raise OSError(errno.EFAULT, "the device is on no bus")
        registers = self._registers
        iova = int(registers.address) + done
        start = int(registers.local) + done
        if registers.command == Command.COPY_IN:
            self._local[start : start + length] = self._bus.dma_read(iova, length)
        elif registers.command == Command.COPY_OUT:
            self._bus.dma_write(iova, self._local[start : start + length])
        else:
            pattern = int(registers.value).to_bytes(8, "little")
            turned = pattern[done % 8 :] + pattern[: done % 8]
            self._bus.dma_write(iova, (turned * (length // 8 + 1))[:length])
