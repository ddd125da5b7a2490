"""What a driver is beyond its migration region: a PCI function with BARs, on a bus.

The public contract of design.md section 4: structural, and optional as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class PciIdentity:
    """Who a function says it is in its configuration space.

    ``class_code`` is all three bytes (0x070002: a serial port, 16550 compatible).
    ``interrupt_pin`` is 1 for INTA#, 0 for none; ``msi_vectors`` is 0 for no MSI,
    else a power of 2 up to 32.
    """

    vendor: int
    device: int
    subsystem_vendor: int
    subsystem: int
    class_code: int
    revision: int = 0
    interrupt_pin: int = 0
    msi_vectors: int = 0


class Bar(NamedTuple):
    """One base address register: ``size`` bytes, 0 for a BAR that is not there."""

    size: int
    space: Literal["io", "memory"] = "memory"


# Of a driver that says nothing of itself: no BAR, no interrupt.  The vendor is the one
# of the kernel's sample drivers; "unassigned class" keeps guests from touching it.
DEFAULT_IDENTITY: Final = PciIdentity(
    vendor=0x4348,
    device=0x5646,
    subsystem_vendor=0x4348,
    subsystem=0x5646,
    class_code=0xFF0000,
)


class Dma(Protocol):
    """Guest memory as devices see it: by IOVA, through the mappings of a container."""

    def dma_read(self, iova: int, size: int) -> bytes:
        """Return ``size`` bytes; OSError(EFAULT) where nothing is mapped to read."""

    def dma_write(self, iova: int, data: bytes | memoryview) -> None:
        """Put ``data`` there and log its pages as dirty; OSError(EFAULT) as above."""


class Bus(Dma, Protocol):
    """What a function can do by itself: interrupt its user, and reach its memory.

    ``vector`` is 0 for INTx; with MSI enabled it is the message's number.
    """

    def raise_interrupt(self, vector: int) -> None:
        """Drive INTx, or send a message; nobody may be listening."""

    def lower_interrupt(self, vector: int) -> None:
        """Let go of INTx; a message cannot be taken back."""


class PciDevice(Protocol):
    """A driver that is more than its migration region."""

    @property
    def identity(self) -> PciIdentity:
        """Who it is."""

    @property
    def bars(self) -> tuple[Bar, ...]:
        """Its BARs, at most six; they never change."""

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        """Answer one access of the guest."""

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        """Take one access of the guest."""

    def connect(self, bus: Bus) -> None:
        """Get to know the bus; called once, before anything else."""
