"""A serial port card as the kernel's mtty sample models it: one or two 16550s.

Rule 1: two ports are joined by a null modem cable; a single one ends in the air, and
is looped back by the built-in driver.

Rule 2: the card is small and migrates whole, once the device has stopped.

Rule 3: guest traffic comes from `serial_traffic` until a guest touches a register
through a BAR.  From then on, until power-on, the card is the guest's alone and `work`
does nothing: the ports share a cable, so whatever the built-in driver sent on the one
the guest would find on the other.

Rule 4: there is no clock.  For a guest a character time passes when it reads LSR (who
polls, waits), and any number of them at the end of an access, as long as no interrupt
is pending: then nothing but time could bring about the next event.  While one is
pending the guest will come, and time waits for it.  So FIFOs and shift registers hold
bytes between accesses, and never hold one that nothing would ever move.

Rule 5: a byte is delivered when it leaves on the line.  In the same instant it is
counted (``delivered``, which migrates), arrives at the other port, and is appended to
the log, by whoever runs: the source up to the switch, the destination from there on.
What has not left is in the snapshot.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Final

from vfiomig.host.pci import Bar, PciIdentity
from vfiomig.vendor import serial_traffic
from vfiomig.vendor.uart import Uart, UartState, check_state
from vfiomig.vendor.uart_registers import LSR, MCR, ModemControl, ModemStatus
from vfiomig.vendor.whole_image import WholeImage

if TYPE_CHECKING:
    from vfiomig.host.pci import Bus

MAX_PORTS: Final = 2

# A WCH CH352: Linux' 8250_pci takes it, with a BAR for each port, at 115200 base baud.
IDENTITY: Final = PciIdentity(
    vendor=0x4348,
    device=0x3253,
    subsystem_vendor=0x4348,
    subsystem=0x3253,
    class_code=0x070002,  # serial controller, 16550 compatible
    interrupt_pin=1,
)
_PORT: Final = Bar(8, "io")

# How many bytes a driver writes when THR is empty.  The ports differ, so that their
# FIFOs are not empty at the same times.
_BURSTS: Final = (16, 11)

# A null modem cable: what the one end drives is what the other end sees.
_CABLE: Final = (
    (ModemControl.RTS, ModemStatus.CTS),
    (ModemControl.DTR, ModemStatus.DSR | ModemStatus.DCD),
)

# The second layout of `PortState`: streams of the first are for another shape.
_LAYOUT: Final = 2


class PortState(ctypes.Structure):
    """One port and what its driver in the guest knows."""

    _fields_ = (
        ("uart", UartState),
        ("guest", ctypes.c_uint16),  # 1: a guest has touched it
        ("sent", ctypes.c_uint32),  # these three are the built-in driver's
        ("received", ctypes.c_uint32),
        ("mismatches", ctypes.c_uint32),
        ("delivered", ctypes.c_uint64),  # bytes that left on the line, by whomever
    )


_PORT_SIZE: Final = ctypes.sizeof(PortState)


class SerialModel:
    """A card with one or two ``ports``; a `PciModel`.

    What leaves port N is appended to the file ``log``.N, if there is a log.  Raises
    ``OSError`` if that cannot be opened.
    """

    kind: Final = int.from_bytes(b"UART", "big")
    identity: Final = IDENTITY

    def __init__(self, ports: int = MAX_PORTS, *, log: str | None = None) -> None:
        if not 1 <= ports <= MAX_PORTS:
            message = f"{ports} ports: a card has one or two"
            raise ValueError(message)
        self.shape = _LAYOUT << 32 | ports
        self.bars = (_PORT,) * ports
        self._image = image = WholeImage(ports * _PORT_SIZE)
        starts = range(0, ports * _PORT_SIZE, _PORT_SIZE)
        self.ports = tuple(PortState.from_buffer(image.view, at) for at in starts)
        self.uarts = tuple(Uart(image.view, at) for at in starts)
        self._bus: Bus | None = None
        self._logs = tuple(_LineLog(log, index) for index in range(ports))
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

    def close(self) -> None:
        """Close the logs."""
        for log in self._logs:
            log.close()

    def work(self, amount: int) -> None:
        """Let ``amount`` character times pass, with every transmitter kept busy.

        Not while a guest drives the card.
        """
        if self._is_guests:
            return
        for _ in range(amount):
            self._image.touch()
            for index, uart in enumerate(self.uarts):
                if not serial_traffic.is_set_up(uart):
                    serial_traffic.set_up(uart, loop=len(self.uarts) == 1)
                    self._connect_lines()
                    serial_traffic.enable(uart)
                port = self.ports[index]
                serial_traffic.serve_interrupts(uart, port, _BURSTS[index])
            self._pass_character_time()
        self._flush()

    def finish_loading(self) -> None:
        """Make what came the device's state.

        Raises ``OSError(EINVAL)`` if a part is missing or a field says what no port
        can be in.
        """
        self._image.finish_loading(_check_ports)

    # -- the guest

    def connect(self, bus: Bus) -> None:
        """Get to know who is to be interrupted."""
        self._bus = bus

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        """Read ``size`` registers of the port that has this BAR, one by one."""
        self._begin_access(bar)
        uart = self.uarts[bar]
        answer = bytearray()
        for register in range(offset, offset + size):
            if register == LSR and not self._would_overrun:
                self._pass_character_time()
            answer.append(uart.read(register))
        self._end_access()
        return bytes(answer)

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        """Write as many registers as there are ``data``, one by one."""
        self._begin_access(bar)
        uart = self.uarts[bar]
        for register, value in enumerate(data, offset):
            uart.write(register, value)
            if register == MCR:
                self._connect_lines()
        self._end_access()

    def drive_interrupt(self) -> None:
        """Let INTx be what the ports say, after one interrupt in any case.

        A user may have moved its own idea of the line, and that it was high, but not
        that it owes an acknowledgement: QEMU then keeps it high until the next one, and
        a guest drowns in interrupts.  One that finds no port pending is spurious to it.
        """
        if self._bus is not None and self._is_guests:
            self._bus.raise_interrupt(0)
        self._drive_line()

    def _drive_line(self) -> None:
        """Let INTx be what the ports say; before a guest came it is nobody's."""
        if self._bus is None:
            return
        if self._is_guests and self._is_interrupt_pending:
            self._bus.raise_interrupt(0)
        else:
            self._bus.lower_interrupt(0)

    @property
    def _is_guests(self) -> bool:
        return any(port.guest for port in self.ports)

    @property
    def _is_interrupt_pending(self) -> bool:
        return any(uart.interrupt_pending for uart in self.uarts)

    def _begin_access(self, bar: int) -> None:
        self._image.touch()
        self.ports[bar].guest = 1

    def _end_access(self) -> None:
        while not self._is_interrupt_pending and any(
            uart.awaits_time for uart in self.uarts
        ):
            self._pass_character_time()
        self._flush()
        self._drive_line()

    @property
    def _would_overrun(self) -> bool:
        """Whether time would take a byte from a guest that is told of every one.

        Only for a port that nobody listens at bytes go by, as they do on any line.
        """
        return any(
            uart.is_sending and self._end_of_line(index).is_full_and_heard
            for index, uart in enumerate(self.uarts)
        )

    # -- the line

    def _end_of_line(self, index: int) -> Uart:
        """Return where the bytes of a port arrive: its peer, or itself if looped."""
        uart = self.uarts[index]
        return uart if uart.state.mcr & ModemControl.LOOP else self.uarts[index - 1]

    def _pass_character_time(self) -> None:
        left = [uart.step() for uart in self.uarts]
        for index, byte in enumerate(left):
            if byte is None:
                continue
            self.ports[index].delivered += 1
            self._logs[index].append(byte)
            if len(self.uarts) == MAX_PORTS:
                self.uarts[1 - index].receive(byte)

    def _connect_lines(self) -> None:
        if len(self.uarts) == MAX_PORTS:
            for uart, peer in zip(self.uarts, reversed(self.uarts), strict=True):
                outputs = peer.outputs
                uart.set_inputs(sum(line for out, line in _CABLE if outputs & out))

    def _flush(self) -> None:
        for log in self._logs:
            log.flush()


class _LineLog:
    """What left a port, appended to a file; nothing without one.

    Appending is what makes one record of two devices with the same file: each writes
    only what left while it ran.
    """

    def __init__(self, path: str | None, port: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = None if path is None else os.open(f"{path}.{port}", flags, 0o644)
        self._waiting = bytearray()

    def append(self, byte: int) -> None:
        if self._fd is not None:
            self._waiting.append(byte)

    def flush(self) -> None:
        """Write what waits; it is out before the access that sent it returns."""
        if self._waiting and self._fd is not None:
            while self._waiting:
                del self._waiting[: os.write(self._fd, self._waiting)]

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _check_ports(image: memoryview) -> None:
    for at in range(0, len(image), _PORT_SIZE):
        port = PortState.from_buffer(image, at)
        if port.guest > 1:
            raise OSError(errno.EINVAL, f"no guest of port {at // _PORT_SIZE} is that")
        check_state(port.uart)
