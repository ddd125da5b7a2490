"""The registers of a 16550 and their bits, as the PC16550D data sheet names them.

The bits are IntEnums: a combination of them is a plain int (an IntFlag would check
every one anew, and a UART does little else than mask bits).
"""

from __future__ import annotations

import enum
from typing import Final

# The registers.  The first two are the divisor latch while LCR bit 7 (DLAB) is set.
RBR: Final = 0  # read
THR: Final = 0  # written
DLL: Final = 0  # with DLAB
IER: Final = 1
DLM: Final = 1  # with DLAB
IIR: Final = 2  # read
FCR: Final = 2  # written
LCR: Final = 3
MCR: Final = 4
LSR: Final = 5
MSR: Final = 6
SCR: Final = 7


class InterruptEnable(enum.IntEnum):
    """The bits of IER."""

    DATA_AVAILABLE = 0x01
    TRANSMITTER_EMPTY = 0x02
    LINE_STATUS = 0x04
    MODEM_STATUS = 0x08


class FifoControl(enum.IntEnum):
    """The bits of FCR; 6 and 7 choose the trigger level."""

    ENABLE = 0x01
    RESET_RECEIVER = 0x02
    RESET_TRANSMITTER = 0x04
    DMA_MODE = 0x08


class ModemControl(enum.IntEnum):
    """The bits of MCR."""

    DTR = 0x01
    RTS = 0x02
    OUT1 = 0x04
    OUT2 = 0x08
    LOOP = 0x10


class LineStatus(enum.IntEnum):
    """The bits of LSR that a perfect line can set."""

    DATA_READY = 0x01
    OVERRUN = 0x02
    THR_EMPTY = 0x20
    TRANSMITTER_EMPTY = 0x40


class ModemStatus(enum.IntEnum):
    """The lines of MSR; each one's delta stands four bits lower."""

    CTS = 0x10
    DSR = 0x20
    RI = 0x40
    DCD = 0x80


class Interrupt(enum.IntEnum):
    """Bits 0 to 3 of IIR, in order of priority."""

    LINE_STATUS = 0x6
    DATA_AVAILABLE = 0x4
    CHARACTER_TIMEOUT = 0xC
    TRANSMITTER_EMPTY = 0x2
    MODEM_STATUS = 0x0
    NONE = 0x1
