"""A guest's RAM as its devices reach it: behind a container, as QEMU has it.

All slots of RAM are mapped at iova = gpa.  The container belongs to the host, and what
it knows of dirty pages is asked for by ioctl alone.  Its group has no device of its
own: devices are mdevs made in sysfs, opened with the container's memory on their bus.

Nothing is opened before the first access, so a device without DMA costs nothing; what
was not there yet when tracking began has logged nothing that is missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.client.container import PAGE_SIZE, Container
from vfiomig.host.dev_vfio import DevVfio
from vfiomig.host.user_process import LocalProcess

if TYPE_CHECKING:
    from vfiomig.host.container import Container as HostContainer
    from vfiomig.host.user_process import HostFile
    from vfiomig.vm.memory import GuestMemory

_GROUP: Final = 1
_CONTAINER: Final = "/dev/vfio/vfio"


class GuestDma:
    """The `Dma` of all devices of one guest, and its log for a migration."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._dev = DevVfio({_GROUP: {}})
        self._process = LocalProcess(self._open)
        self._behind: HostContainer | None = None
        self._container: Container | None = None
        self._placed: list[int] = []
        self._is_tracking = False

    # -- what devices do ---------------------------------------------------------------

    def dma_read(self, iova: int, size: int) -> bytes:
        """Return ``size`` bytes of the guest; OSError(EFAULT) where there is no RAM."""
        return self._reached().dma_read(iova, size)

    def dma_write(self, iova: int, data: bytes | memoryview) -> None:
        """Put ``data`` there, and log it; OSError(EFAULT) where there is no RAM."""
        self._reached().dma_write(iova, data)

    # -- what a migration does ---------------------------------------------------------

    def start(self) -> None:
        """Log what devices write (log_global_start)."""
        self._is_tracking = True
        if self._container is not None:
            self._container.start_tracking()

    def sync(self) -> int:
        """Take what they wrote into the migration's log; return pages newly dirty."""
        if self._container is None or not self._is_tracking:
            return 0
        fresh = 0
        for slot in self._memory.slots:
            bitmap = self._container.dirty_bitmap(slot.gpa, slot.size)
            fresh += self._memory.merge(bitmap, slot.gpa, slot.size, PAGE_SIZE)
        return fresh

    def stop(self) -> None:
        """Log no more (log_global_stop)."""
        if self._container is not None and self._is_tracking:
            self._container.stop_tracking()
        self._is_tracking = False

    def close(self) -> None:
        """Let go of the container, and of the guest's memory."""
        if self._container is not None:
            self._container.close()
        self._container = self._behind = None
        while self._placed:
            self._process.memory.remove(self._placed.pop())

    def _open(self, path: str) -> HostFile:
        file = self._dev.open(path)
        if path == _CONTAINER:
            self._behind = file  # type: ignore[assignment]  # that is what it leads to
        return file

    def _reached(self) -> HostContainer:
        if self._container is None:
            container = Container(self._process, f"/dev/vfio/{_GROUP}")
            self._container = container
            for slot in self._memory.slots:
                end = slot.offset + slot.size
                view = slot.block.view[slot.offset : end]
                self._placed.append(self._process.memory.place(view))
                container.map(slot.gpa, slot.size, self._placed[-1])
            if self._is_tracking:
                container.start_tracking()
        assert self._behind is not None, "a container was opened"
        return self._behind
