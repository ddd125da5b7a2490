"""A 16550 UART: what the guest sees at its eight registers.

Rule 1: all state is in `UartState`, laid over memory that is given; the object holds
nothing else.  Who copies the memory has copied the UART.

Rule 2: time passes only in `step`, one character time a call.  A byte written to THR
goes into the transmit shift register (it is in flight), or behind others into the
transmit FIFO, and leaves with the first step after it got into the shift register.

Rule 3: the line belongs to the owner: `step` returns what left and `receive` takes
what arrived.  In loop-back (MCR bit 4) the byte arrives here and the line is idle.

Source: National Semiconductor, PC16550D data sheet; where that is silent, what
drivers rely on (setting IER bit 1 while THR is empty raises the THRE interrupt).
Left out: parity, framing and break errors, which a perfect line does not make; the
DMA mode; and the delay of a THRE interrupt by one character time in FIFO mode.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from vfiomig.vendor.uart_registers import (
    FifoControl,
    Interrupt,
    InterruptEnable,
    LineStatus,
    ModemControl,
    ModemStatus,
)

FIFO_SIZE: Final = 16

# "no characters have been removed from or input to the RCVR FIFO during the last 4
# char. times" (character timeout interrupt).
_TIMEOUT: Final = 4

_FCR_STORED: Final = 0xC9  # the FIFO resets clear themselves, bits 4 and 5 are reserved
_TRIGGER_LEVELS: Final = (1, 4, 8, 14)
_DLAB: Final = 0x80


# What loop-back connects: "DTR, RTS, OUT1 and OUT2 are internally connected to DSR,
# CTS, RI and DCD".
_LOOPED: Final = (
    (ModemControl.RTS, ModemStatus.CTS),
    (ModemControl.DTR, ModemStatus.DSR),
    (ModemControl.OUT1, ModemStatus.RI),
    (ModemControl.OUT2, ModemStatus.DCD),
)


class UartFifo(ctypes.Structure):
    """A FIFO; without FIFO mode it is a register, one byte deep."""

    _fields_ = (
        ("data", ctypes.c_uint8 * FIFO_SIZE),
        ("head", ctypes.c_uint8),
        ("count", ctypes.c_uint8),
    )
    data: ctypes.Array[ctypes.c_uint8]
    head: int
    count: int

    def push(self, byte: int) -> None:
        """Put a byte behind the others; the caller knows that there is room."""
        self.data[(self.head + self.count) % FIFO_SIZE] = byte
        self.count += 1

    def pop(self) -> int:
        """Take the oldest byte; the caller knows that there is one."""
        byte = int(self.data[self.head])
        self.head = (self.head + 1) % FIFO_SIZE
        self.count -= 1
        return byte


class UartState(ctypes.Structure):
    """All that a UART remembers (natural layout); all zero after power-on."""

    _fields_ = (
        ("divisor", ctypes.c_uint16),
        ("ier", ctypes.c_uint8),
        ("fcr", ctypes.c_uint8),
        ("lcr", ctypes.c_uint8),
        ("mcr", ctypes.c_uint8),
        ("scr", ctypes.c_uint8),
        ("inputs", ctypes.c_uint8),  # the lines as ModemStatus, not the loop-back
        ("deltas", ctypes.c_uint8),  # bits 0 to 3 of MSR
        ("overrun", ctypes.c_uint8),
        ("thre_interrupt", ctypes.c_uint8),  # THR became empty, and nobody was told
        ("idle", ctypes.c_uint8),  # character times that received bytes waited
        ("in_flight", ctypes.c_uint8),
        ("shift_register", ctypes.c_uint8),
        ("receive", UartFifo),
        ("transmit", UartFifo),
    )


class Uart:
    """One UART over ``memory``, `ctypes.sizeof` (`UartState`) bytes from ``offset``."""

    def __init__(self, memory: bytearray | memoryview, offset: int = 0) -> None:
        self.state = UartState.from_buffer(memory, offset)

    # -- what the guest does

    def read(self, register: int) -> int:
        """Read one register, with what reading does to it.

        An empty RBR reads as 0.  Raises ``ValueError`` if there is no such register.
        """
        state = self.state
        match register:
            case 0 | 1 if state.lcr & _DLAB:
                return int(state.divisor) >> 8 * register & 0xFF
            case 0:
                return self._read_byte()
            case 1:
                return int(state.ier)
            case 2:
                return self._read_identification()
            case 3:
                return int(state.lcr)
            case 4:
                return int(state.mcr)
            case 5:
                status = self.line_status
                state.overrun = 0
                return status
            case 6:
                status = self._lines() | state.deltas
                state.deltas = 0
                return int(status)
            case 7:
                return int(state.scr)
        raise ValueError(_no_register(register))

    def write(self, register: int, value: int) -> None:
        """Write the low 8 bits of ``value``; LSR and MSR are read-only here.

        Raises ``ValueError`` if there is no such register.
        """
        state = self.state
        value &= 0xFF
        match register:
            case 0 | 1 if state.lcr & _DLAB:
                shift = 8 * register
                state.divisor = state.divisor & ~(0xFF << shift) | value << shift
            case 0:
                self._write_byte(value)
            case 1:
                self._enable_interrupts(value & 0x0F)
            case 2:
                self._control_fifos(value)
            case 3:
                state.lcr = value
            case 4:
                before = self._lines()
                state.mcr = value & 0x1F
                self._note_deltas(before)
            case 5 | 6:
                pass
            case 7:
                state.scr = value
            case _:
                raise ValueError(_no_register(register))

    # -- what the line does

    def step(self) -> int | None:
        """Let one character time pass; return the byte that left on the line.

        ``None`` if none left, or if loop-back kept it here.
        """
        state = self.state
        if state.receive.count:
            state.idle = min(state.idle + 1, _TIMEOUT)
        if not state.in_flight:
            return None
        byte = int(state.shift_register)
        state.in_flight = state.shift_register = 0
        self._fill_shift_register()
        if state.mcr & ModemControl.LOOP:
            self._take(byte)
            return None
        return byte

    def receive(self, byte: int) -> None:
        """Take a byte that arrived on the line; in loop-back it is not heard."""
        if not self.state.mcr & ModemControl.LOOP:
            self._take(byte)

    @property
    def outputs(self) -> int:
        """The bits of MCR whose lines are active: none of them in loop-back."""
        mcr = int(self.state.mcr)
        return 0 if mcr & ModemControl.LOOP else mcr

    def set_inputs(self, lines: int) -> None:
        """Let the lines of MSR (see `ModemStatus`) be these."""
        before = self._lines()
        self.state.inputs = lines
        self._note_deltas(before)

    # -- what it is in

    @property
    def line_status(self) -> int:
        """LSR, without what reading it does."""
        state = self.state
        status = 0
        if state.receive.count:
            status |= LineStatus.DATA_READY
        if state.overrun:
            status |= LineStatus.OVERRUN
        if not state.transmit.count:
            status |= LineStatus.THR_EMPTY
            if not state.in_flight:
                status |= LineStatus.TRANSMITTER_EMPTY
        return status

    @property
    def interrupt(self) -> Interrupt:
        """The interrupt of highest priority that is enabled and pending."""
        state = self.state
        enabled = state.ier
        if enabled & InterruptEnable.LINE_STATUS and state.overrun:
            return Interrupt.LINE_STATUS
        if enabled & InterruptEnable.DATA_AVAILABLE:
            if state.receive.count >= self._trigger_level:
                return Interrupt.DATA_AVAILABLE
            if state.receive.count and state.idle >= _TIMEOUT:
                return Interrupt.CHARACTER_TIMEOUT
        if enabled & InterruptEnable.TRANSMITTER_EMPTY and state.thre_interrupt:
            return Interrupt.TRANSMITTER_EMPTY
        if enabled & InterruptEnable.MODEM_STATUS and state.deltas:
            return Interrupt.MODEM_STATUS
        return Interrupt.NONE

    @property
    def interrupt_pending(self) -> bool:
        """Whether the INTR pin is active; a board may gate it with OUT2."""
        return self.interrupt is not Interrupt.NONE

    @property
    def is_sending(self) -> bool:
        """Whether a byte is in the shift register, to leave with the next `step`."""
        return bool(self.state.in_flight)

    @property
    def is_full_and_heard(self) -> bool:
        """Whether the receiver has no room, and an interrupt says so."""
        state = self.state
        heard = state.ier & InterruptEnable.DATA_AVAILABLE
        return bool(heard) and state.receive.count >= self._depth

    @property
    def awaits_time(self) -> bool:
        """Whether time alone would move it: a byte out, or on to its timeout."""
        state = self.state
        heard = state.ier & InterruptEnable.DATA_AVAILABLE
        waits = heard and state.receive.count and state.idle < _TIMEOUT
        return bool(state.in_flight or waits)

    @property
    def _has_fifos(self) -> bool:
        return bool(self.state.fcr & FifoControl.ENABLE)

    @property
    def _depth(self) -> int:
        return FIFO_SIZE if self._has_fifos else 1

    @property
    def _trigger_level(self) -> int:
        return _TRIGGER_LEVELS[self.state.fcr >> 6] if self._has_fifos else 1

    def _lines(self) -> int:
        mcr = self.state.mcr
        if not mcr & ModemControl.LOOP:
            return int(self.state.inputs)
        return sum(line for output, line in _LOOPED if mcr & output)

    # -- how it gets there

    def _read_byte(self) -> int:
        state = self.state
        state.idle = 0
        return int(state.receive.pop()) if state.receive.count else 0

    def _read_identification(self) -> int:
        interrupt = self.interrupt
        if interrupt is Interrupt.TRANSMITTER_EMPTY:
            self.state.thre_interrupt = 0
        return interrupt | (0xC0 if self._has_fifos else 0)

    def _write_byte(self, byte: int) -> None:
        state = self.state
        state.thre_interrupt = 0
        if state.transmit.count < self._depth:
            state.transmit.push(byte)
        elif not self._has_fifos:
            state.transmit.data[state.transmit.head] = byte
        # A byte for a full FIFO has nowhere to go.
        if not state.in_flight:
            self._fill_shift_register()

    def _fill_shift_register(self) -> None:
        state = self.state
        if not state.transmit.count:
            return
        word = (1 << 5 + (state.lcr & 3)) - 1
        state.shift_register = state.transmit.pop() & word
        state.in_flight = 1
        if not state.transmit.count:
            state.thre_interrupt = 1

    def _take(self, byte: int) -> None:
        state = self.state
        state.idle = 0
        if state.receive.count < self._depth:
            state.receive.push(byte)
            return
        state.overrun = 1
        if not self._has_fifos:
            # Without FIFOs the new character replaces the one that nobody read; with
            # them it is the new one that is lost.
            state.receive.data[state.receive.head] = byte

    def _enable_interrupts(self, ier: int) -> None:
        state = self.state
        newly = ier & ~state.ier
        if newly & InterruptEnable.TRANSMITTER_EMPTY and not state.transmit.count:
            state.thre_interrupt = 1
        state.ier = ier

    def _control_fifos(self, value: int) -> None:
        state = self.state
        if not value & FifoControl.ENABLE:
            # "This bit must be a 1 when other FCR bits are written to or they will
            # not be programmed."
            value = 0
        resets = value
        if (value ^ state.fcr) & FifoControl.ENABLE:
            # "Data is cleared from the FIFOs when changing from FIFO mode to 16450
            # mode and vice versa".
            resets = FifoControl.RESET_RECEIVER | FifoControl.RESET_TRANSMITTER
        state.fcr = value & _FCR_STORED
        if resets & FifoControl.RESET_RECEIVER:
            state.receive = UartFifo()
            state.idle = 0
        if resets & FifoControl.RESET_TRANSMITTER and state.transmit.count:
            state.transmit = UartFifo()
            state.thre_interrupt = 1

    def _note_deltas(self, before: int) -> None:
        after = self._lines()
        # Of RI only the trailing edge counts (TERI).
        self.state.deltas |= ((before ^ after) & ~(after & ModemStatus.RI)) >> 4


def check_state(state: UartState) -> None:
    """Refuse what no UART can be in, with ``OSError(EINVAL)``."""
    has_fifos = bool(state.fcr & FifoControl.ENABLE)
    depth = FIFO_SIZE if has_fifos else 1
    receive, transmit = state.receive, state.transmit
    possible = {
        "ier": state.ier <= 0x0F,
        "fcr": not state.fcr & ~_FCR_STORED and (has_fifos or not state.fcr),
        "mcr": state.mcr <= 0x1F,
        "inputs": not state.inputs & 0x0F,
        "deltas": state.deltas <= 0x0F,
        "overrun": state.overrun <= 1,
        "thre_interrupt": state.thre_interrupt <= (0 if transmit.count else 1),
        "idle": state.idle <= (_TIMEOUT if receive.count else 0),
        "in_flight": state.in_flight <= 1,
        "shift_register": bool(state.in_flight) or not state.shift_register,
        "receive.head": receive.head < FIFO_SIZE,
        "receive.count": receive.count <= depth,
        "transmit.head": transmit.head < FIFO_SIZE,
        "transmit.count": transmit.count <= (depth if state.in_flight else 0),
    }
    for field, is_possible in possible.items():
        if not is_possible:
            raise OSError(errno.EINVAL, f"no UART has such a {field}")


def _no_register(register: int) -> str:
    return f"a 16550 has no register {register}"
