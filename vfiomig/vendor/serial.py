"""A serial port card as the kernel's mtty sample models it: one or two 16550s.

Rule 1: two ports are joined by a null modem cable; a single one is looped back by
its driver.

Rule 2: the card is small and migrates whole, once the device has stopped.

Rule 3: guest traffic comes from a driver as guests have them: an interrupt routine
that asks IIR, fills the transmit FIFO and empties the receive FIFO.  It numbers what
it sends and compares what it reads.  There is no guest memory here, so what the
driver knows is kept beside its port: one snapshot covers both ends, and a byte that a
migration loses shows in ``mismatches`` for ever.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from vfiomig.vendor.uart import Uart, UartState, check_state
from vfiomig.vendor.uart_registers import (
    DLL,
    DLM,
    FCR,
    IER,
    IIR,
    LCR,
    LSR,
    MCR,
    MSR,
    RBR,
    THR,
    FifoControl,
    Interrupt,
    LineStatus,
    ModemControl,
    ModemStatus,
)
from vfiomig.vendor.whole_image import WholeImage

MAX_PORTS: Final = 2

_BAUD_DIVISOR: Final = 1  # 115200 baud at the usual 1.8432 MHz
_DLAB: Final = 0x80
_EIGHT_BITS: Final = 0x03
_TRIGGER_AT_8: Final = 0x80
_ALL_INTERRUPTS: Final = 0x0F

# How many bytes a driver writes when THR is empty.  The ports differ, so that their
# FIFOs are not empty at the same times.
_BURSTS: Final = (16, 11)

# A null modem cable: what the one end drives is what the other end sees.
_CABLE: Final = (
    (ModemControl.RTS, ModemStatus.CTS),
    (ModemControl.DTR, ModemStatus.DSR | ModemStatus.DCD),
)


class PortState(ctypes.Structure):
    """One port and what its driver in the guest knows."""

    _fields_ = (
        ("uart", UartState),
        ("reserved", ctypes.c_uint16),
        ("sent", ctypes.c_uint32),
        ("received", ctypes.c_uint32),
        ("mismatches", ctypes.c_uint32),
    )


_PORT_SIZE: Final = ctypes.sizeof(PortState)


class SerialModel:
    """A card with one or two ``ports``; a `DeviceModel`."""

    kind: Final = int.from_bytes(b"UART", "big")

    def __init__(self, ports: int = MAX_PORTS) -> None:
        if not 1 <= ports <= MAX_PORTS:
            message = f"{ports} ports: a card has one or two"
            raise ValueError(message)
        self.shape = ports
        self._image = image = WholeImage(ports * _PORT_SIZE)
        starts = range(0, ports * _PORT_SIZE, _PORT_SIZE)
        self.ports = tuple(PortState.from_buffer(image.view, at) for at in starts)
        self.uarts = tuple(Uart(image.view, at) for at in starts)
        self.snapshot = image.snapshot
        self.power_on = image.power_on
        self.begin_saving = image.begin_saving
        self.pending = image.pending
        self.save = image.save
        self.requeue = image.requeue
        self.end_saving = image.end_saving
        self.begin_loading = image.begin_loading
        self.load = image.load
        self.drop_loading = image.drop_loading

    def work(self, amount: int) -> None:
        """Let ``amount`` character times pass, with every transmitter kept busy."""
        for _ in range(amount):
            self._image.touch()
            for index in range(self.shape):
                self._serve_interrupts(index)
            self._pass_character_time()

    def finish_loading(self) -> None:
        """Make what came the device's state.

        Raises ``OSError(EINVAL)`` if a part is missing or a field says what no port
        can be in.
        """
        self._image.finish_loading(_check_ports)

    # -- the line

    def _pass_character_time(self) -> None:
        left = [uart.step() for uart in self.uarts]
        if self.shape == MAX_PORTS:
            for uart, byte in zip(self.uarts, reversed(left), strict=True):
                if byte is not None:
                    uart.receive(byte)

    def _connect_lines(self) -> None:
        if self.shape == MAX_PORTS:
            for uart, peer in zip(self.uarts, reversed(self.uarts), strict=True):
                outputs = peer.outputs
                uart.set_inputs(sum(line for out, line in _CABLE if outputs & out))

    # -- the driver in the guest

    def _set_up(self, index: int) -> None:
        uart = self.uarts[index]
        uart.write(LCR, _DLAB)
        uart.write(DLL, _BAUD_DIVISOR)
        uart.write(DLM, 0)
        uart.write(LCR, _EIGHT_BITS)
        uart.write(FCR, FifoControl.ENABLE | _TRIGGER_AT_8)
        lines = ModemControl.DTR | ModemControl.RTS | ModemControl.OUT2
        if self.shape == 1:
            lines |= ModemControl.LOOP
        uart.write(MCR, lines)
        self._connect_lines()
        uart.write(IER, _ALL_INTERRUPTS)

    def _serve_interrupts(self, index: int) -> None:
        uart, port = self.uarts[index], self.ports[index]
        if uart.state.lcr != _EIGHT_BITS:
            self._set_up(index)
        while True:
            match uart.read(IIR) & 0x0F:
                case Interrupt.LINE_STATUS:
                    uart.read(LSR)
                case Interrupt.DATA_AVAILABLE | Interrupt.CHARACTER_TIMEOUT:
                    _drain(uart, port)
                case Interrupt.TRANSMITTER_EMPTY:
                    _fill(uart, port, _BURSTS[index])
                case Interrupt.MODEM_STATUS:
                    uart.read(MSR)
                case _:
                    return


def _drain(uart: Uart, port: PortState) -> None:
    while uart.line_status & LineStatus.DATA_READY:
        if uart.read(RBR) != port.received & 0xFF:
            port.mismatches += 1
        port.received += 1


def _fill(uart: Uart, port: PortState, burst: int) -> None:
    for _ in range(burst):
        uart.write(THR, port.sent)
        port.sent += 1


def _check_ports(image: memoryview) -> None:
    for at in range(0, len(image), _PORT_SIZE):
        port = PortState.from_buffer(image, at)
        if port.reserved:
            raise OSError(errno.EINVAL, f"reserved bits of port {at // _PORT_SIZE}")
        check_state(port.uart)
