"""A device handle whose trapped accesses take virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vfiomig.client.device import DeviceHandle
    from vfiomig.migration.clock import VirtualClock


class TimedHandle:
    """A `DeviceHandle` in front of another: each pread and pwrite costs ``cost`` ns.

    What goes through a mapping is not trapped, and costs nothing here.
    """

    def __init__(self, handle: DeviceHandle, clock: VirtualClock, cost: int) -> None:
        self._handle = handle
        self._clock = clock
        self._cost = cost
        self.mmap = handle.mmap
        self.ioctl = handle.ioctl
        self.close = handle.close

    def pread(self, size: int, offset: int) -> bytes:
        """Read, and let the time of a trap pass."""
        self._clock.advance(self._cost)
        return self._handle.pread(size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write, and let the time of a trap pass."""
        self._clock.advance(self._cost)
        return self._handle.pwrite(data, offset)
