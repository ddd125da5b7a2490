"""A guest's 8250 driver on one port of a card, register by register.

What it does, and in what order, is Linux 6.1's ``drivers/tty/serial/8250``: the probe
of ``autoconfig()``, ``serial8250_do_startup()``, the interrupt routine.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import TYPE_CHECKING

from vfiomig.host.device_fd import DeviceFd

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.device_ops import TrappedDriver

RX = TX = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7

RDI, THRI, RLSI = 1, 2, 4
DR, OE, THRE, TEMT = 1, 2, 0x20, 0x40
DTR, RTS, OUT2, LOOP = 1, 2, 8, 0x10
NO_INT = 1
FIFO_SIZE = 16

SET_IRQS = 0x3B6E
UNMASK, EVENTFD_TRIGGER = 0x11, 0x24


class Board:
    """A card in one machine: its device fd, and the eventfd of its INTx."""

    def __init__(self, driver: TrappedDriver) -> None:
        self.driver = driver
        self.fd = DeviceFd(driver)
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        head = struct.pack("=5Ii", 24, EVENTFD_TRIGGER, 0, 0, 1, self.event)
        self.fd.ioctl(SET_IRQS, bytearray(head))

    def has_fired(self) -> bool:
        try:
            return os.eventfd_read(self.event) > 0
        except BlockingIOError:
            return False

    def unmask(self) -> None:
        self.fd.ioctl(SET_IRQS, bytearray(struct.pack("=5I", 20, UNMASK, 0, 0, 1)))

    def close(self) -> None:
        self.fd.close()
        os.close(self.event)


class Guest:
    """A guest with the card of a board, which may become another one meanwhile.

    ``before_access`` is called before each access of a register: a guest can be
    stopped and moved between any two.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.ports = [Port(self, bar) for bar in range(2)]
        self.interrupts = 0
        self.before_access: Callable[[], None] = lambda: None

    def serve(self) -> int:
        """Handle interrupts until none comes; return how many there were."""
        count = 0
        while self.board.has_fired():
            count += 1
            while self._handle_interrupts():
                pass
            self.board.unmask()
        self.interrupts += count
        return count

    def _handle_interrupts(self) -> bool:
        handled = [port.handle_interrupt() for port in self.ports]
        return any(handled)


class Port:
    """The guest's side of one port: what it still has to send, what it has read."""

    def __init__(self, guest: Guest, bar: int) -> None:
        self._guest = guest
        self._base = bar << 40
        self.queue: deque[int] = deque()
        self.read = bytearray()
        self.overruns = 0
        self._ier = 0

    def get(self, register: int) -> int:
        self._guest.before_access()
        return self._guest.board.fd.pread(1, self._base + register)[0]

    def put(self, register: int, value: int) -> None:
        self._guest.before_access()
        fd = self._guest.board.fd
        assert fd.pwrite(bytes([value]), self._base + register) == 1

    def probe(self) -> str:
        """Tell what it is, as ``autoconfig()`` does."""
        self.put(IER, 0)
        scratch2 = self.get(IER) & 0x0F
        self.put(IER, 0x0F)
        scratch3 = self.get(IER) & 0x0F
        self.put(IER, 0)
        if (scratch2, scratch3) != (0, 0x0F):
            return "none"
        saved_mcr, saved_lcr = self.get(MCR), self.get(LCR)
        self.put(MCR, LOOP | OUT2 | RTS)
        status = self.get(MSR) & 0xF0
        self.put(MCR, saved_mcr)
        if status != 0x90:
            return "no loop-back"
        self.put(LCR, 0xBF)
        self.put(FCR, 0)  # EFR, if there is one
        self.put(LCR, 0)
        self.put(FCR, 1)
        kind = {0: "8250", 2: "16550", 3: "16550A"}.get(self.get(IIR) >> 6, "unknown")
        self.put(LCR, saved_lcr)
        self.put(FCR, 7)
        self.put(FCR, 0)
        self.get(RX)
        return kind

    def start(self) -> list[str]:
        """Open the port: ``serial8250_do_startup()``; return the bugs it found."""
        for value in (1, 7, 0):
            self.put(FCR, value)
        for register in (LSR, RX, IIR, MSR):
            self.get(register)
        self.put(LCR, 3)
        bugs = self._test_thre() + self._test_tx_enable()
        for register in (LSR, RX, IIR, MSR):
            self.get(register)
        # set_termios: 115200 baud, FIFOs with a trigger level of 8
        self.put(LCR, 0x83)
        self.put(DLL, 1)
        self.put(DLM, 0)
        self.put(LCR, 3)
        self.put(FCR, 1)
        self.put(FCR, 0x81)
        self.put(MCR, DTR | RTS | OUT2)
        self._set_ier(RDI | RLSI)
        return bugs

    def _test_thre(self) -> list[str]:
        self.put(IER, THRI)
        first = self.get(IIR)
        self.put(IER, 0)
        self.put(IER, THRI)
        again = self.get(IIR)
        self.put(IER, 0)
        return ["THRE"] if not first & NO_INT and again & NO_INT else []

    def _test_tx_enable(self) -> list[str]:
        self.put(IER, THRI)
        lsr, iir = self.get(LSR), self.get(IIR)
        self.put(IER, 0)
        return ["TXEN"] if lsr & TEMT and iir & NO_INT else []

    def send(self, data: bytes) -> None:
        """Queue bytes and enable the transmitter's interrupt (``start_tx``)."""
        self.queue.extend(data)
        if not self._ier & THRI:
            self._set_ier(self._ier | THRI)

    def handle_interrupt(self) -> bool:
        """Do what ``serial8250_handle_irq()`` does; return whether it was for us."""
        if self.get(IIR) & NO_INT:
            return False
        status = self.get(LSR)
        while status & DR:
            self.overruns += bool(status & OE)
            self.read.append(self.get(RX))
            status = self.get(LSR)
        self.get(MSR)
        if status & THRE and self._ier & THRI:
            for _ in range(min(FIFO_SIZE, len(self.queue))):
                self.put(TX, self.queue.popleft())
            if not self.queue:
                self._set_ier(self._ier & ~THRI)
        return True

    def print(self, data: bytes) -> None:
        """Write as the console does: without interrupts, waiting for each byte."""
        self.put(IER, 0)
        for byte in data:
            self._wait_for(THRE)
            self.put(TX, byte)
        self._wait_for(THRE | TEMT)
        self.put(IER, self._ier)

    def _wait_for(self, bits: int) -> None:
        for _ in range(100):
            if self.get(LSR) & bits == bits:
                return
        message = f"LSR never had {bits:#x}"
        raise AssertionError(message)

    def _set_ier(self, value: int) -> None:
        self._ier = value
        self.put(IER, value)
