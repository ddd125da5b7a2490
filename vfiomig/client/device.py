"""The handle by which a user application holds a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import mmap as _mmap


class DeviceHandle(Protocol):
    """What a device fd can do, wherever it leads.

    A simulated device, a vfio-user socket and a real file of /dev/vfio have this
    shape.  Offsets are those of the fd; every failure is an ``OSError`` with the
    kernel's errno.
    """

    def pread(self, size: int, offset: int) -> bytes:
        """Read ``size`` bytes at ``offset``; fewer are a short read."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write ``data`` at ``offset`` and return how many bytes were taken."""

    def mmap(self, length: int, offset: int) -> _mmap.mmap:
        """Map ``length`` bytes at ``offset``, shared, for reading and writing."""

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        """Perform an ioctl; its structure is changed in place."""

    def close(self) -> None:
        """Let go of the device."""
