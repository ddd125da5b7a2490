"""What the host asks of a vendor driver (the public contract, design.md section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vfiomig.protocol.region import MigrationRegion, SparseMmapArea


class TrappedDriver(Protocol):
    """A vendor driver whose region has no areas: it needs no ``mmap``.

    The protocol is structural: a driver needs no base class.  One thread calls it at
    a time.  Where a driver in C returns ``-X``, it raises ``OSError(errno.X, why)``.
    """

    @property
    def migration_region(self) -> MigrationRegion:
        """Return size and mappable parts of the region; they never change."""

    def read(self, offset: int, size: int) -> bytes:
        """Answer one trapped read of ``size`` bytes at ``offset`` in the region.

        Fewer bytes than ``size`` are a short read, as they are for the kernel.
        """

    def write(self, offset: int, data: bytes) -> None:
        """Take one trapped write of ``data`` at ``offset`` in the region."""

    def reset(self) -> None:
        """VFIO_DEVICE_RESET: back to the state of a device that was just opened."""

    def close(self) -> None:
        """Let everything go: the last reference to the device fd is gone."""


class VendorDriver(TrappedDriver, Protocol):
    """One device: its registers, its data section, its reset.

    This is all that a host asks of one.  Where nothing can be mapped, what a
    `TrappedDriver` has is enough.
    """

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        """Return the file descriptor behind an area, and the area's offset in it.

        The descriptor stays the driver's: who keeps it duplicates it.
        """
