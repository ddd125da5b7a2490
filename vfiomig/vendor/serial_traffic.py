"""The driver that a guest without a driver seems to have: it keeps a port busy.

It works as a guest's does: an interrupt routine that asks IIR, fills the transmit
FIFO and empties the receive FIFO.  It numbers what it sends and compares what it
reads.  There is no guest memory here, so what it knows is kept beside its port: one
snapshot covers both ends, and a byte that a migration loses shows in ``mismatches``
for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
)

if TYPE_CHECKING:
    from vfiomig.vendor.serial import PortState
    from vfiomig.vendor.uart import Uart

_BAUD_DIVISOR: Final = 1  # 115200 baud at the usual 1.8432 MHz
_DLAB: Final = 0x80
_EIGHT_BITS: Final = 0x03
_TRIGGER_AT_8: Final = 0x80
_ALL_INTERRUPTS: Final = 0x0F


def is_set_up(uart: Uart) -> bool:
    """Tell whether `set_up` was done since power-on."""
    return bool(uart.state.lcr == _EIGHT_BITS)


def set_up(uart: Uart, *, loop: bool) -> None:
    """Program the port, all but `enable`; ``loop`` is for one without a cable."""
    uart.write(LCR, _DLAB)
    uart.write(DLL, _BAUD_DIVISOR)
    uart.write(DLM, 0)
    uart.write(LCR, _EIGHT_BITS)
    uart.write(FCR, FifoControl.ENABLE | _TRIGGER_AT_8)
    lines = ModemControl.DTR | ModemControl.RTS | ModemControl.OUT2
    uart.write(MCR, lines | ModemControl.LOOP if loop else lines)


def enable(uart: Uart) -> None:
    """Enable its interrupts: once its lines are connected."""
    uart.write(IER, _ALL_INTERRUPTS)


def serve_interrupts(uart: Uart, port: PortState, burst: int) -> None:
    """Do what a port asks for; ``burst`` bytes are sent when THR is empty."""
    while True:
        match uart.read(IIR) & 0x0F:
            case Interrupt.LINE_STATUS:
                uart.read(LSR)
            case Interrupt.DATA_AVAILABLE | Interrupt.CHARACTER_TIMEOUT:
                _drain(uart, port)
            case Interrupt.TRANSMITTER_EMPTY:
                _fill(uart, port, burst)
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
