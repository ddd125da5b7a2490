"""One device as one client has it open: what it is asked for, in vfio-user's terms.

Everything is the device fd's answer.  What differs: the file of the mapped data comes
with the info of the migration region, whose offset is then its place in that file; and
the eventfds of interrupts come beside the message.
"""

from __future__ import annotations

import errno
import mmap
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.host import device_info
from vfiomig.host.device_fd import DeviceFd
from vfiomig.host.driver_death import reraise
from vfiomig.host.region import MIGRATION_INDEX, OFFSET_MASK, OFFSET_SHIFT
from vfiomig.protocol.region import SparseMmapArea
from vfiomig.protocol.vfio_user.framing import ROOM_FOR_ALL_BUT_DATA
from vfiomig.protocol.vfio_user.messages import (
    DEVICE_INFO_SIZE,
    IRQ_INFO_SIZE,
    REGION_INFO_SIZE,
    DeviceInfo,
    IrqInfo,
    RegionInfo,
    SetIrqs,
)
from vfiomig.serve.data_follower import DataFollower
from vfiomig.serve.mapped_areas import MirroredAreas, Place, mapped_areas
from vfiomig.serve.vfio_user.channel import MAX_FDS, refuse
from vfiomig.uapi.vfio import (
    VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_REGION_INFO_FLAG_CAPS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.pci import Dma
    from vfiomig.protocol.region import MigrationRegion
    from vfiomig.serve.mapped_areas import MappedAreas

_INT: Final = struct.Struct("=i")
_LONGEST_INFO: Final = ROOM_FOR_ALL_BUT_DATA // 2
_WHOLE_REGION: Final = 1 << 63  # more than any has


class Described(NamedTuple):
    """The info of a region, and the file of what can be mapped of it."""

    payload: bytes
    fd: int | None


class ServedDevice:
    """A driver behind a device fd of its own; ``dma`` is the client's memory.

    ``pread`` and ``pwrite`` are those of the device fd, at an index shifted by
    OFFSET_SHIFT.  They may be others after a `region_info`: ask for them again.

    Raises OSError or `DriverDiedError` as `DeviceFd` does.
    """

    pread: Callable[[int, int], bytes]
    pwrite: Callable[[bytes, int], int]

    def __init__(self, driver: TrappedDriver, dma: Dma) -> None:
        self._driver = driver
        self._fd = DeviceFd(driver, dma=dma)
        self._areas: MappedAreas | None = None
        self._has_mapped = False
        # Which driver has areas, and whether they need us, shows when one asks.
        self._follower = DataFollower(_WHOLE_REGION)
        self.pread, self.pwrite = self._followed_read, self._followed_write

    def close(self) -> None:
        """Close the device fd, and the file.

        Raises:
            OSError, DriverDiedError: the driver's.
        """
        try:
            self._fd.close()
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close the file alone: the driver has died, and is not called again."""
        if self._areas is not None:
            self._areas.close()
            self._areas = None

    # -- information -------------------------------------------------------------------

    def info(self, asked: DeviceInfo) -> bytes:
        """Answer VFIO_USER_DEVICE_GET_INFO."""
        del asked  # its argsz is enough, or it would not be one
        return self._answer(device_info.GET_INFO, DeviceInfo(DEVICE_INFO_SIZE).encode())

    def irq_info(self, asked: IrqInfo) -> bytes:
        """Answer VFIO_USER_DEVICE_GET_IRQ_INFO; OSError(EINVAL)."""
        question = IrqInfo(IRQ_INFO_SIZE, index=asked.index).encode()
        return self._answer(device_info.GET_IRQ_INFO, question)

    def region_info(self, asked: RegionInfo) -> Described:
        """Answer VFIO_USER_DEVICE_GET_REGION_INFO; the file stays ours.

        With too small an argsz there are neither capabilities nor a file.

        Raises:
            OSError: EINVAL; E2BIG for more capabilities than a message has.
            DriverDiedError: there is an area, and no memory behind it.
        """
        info = self._whole_region_info(asked.index)
        needed = len(info.encode())
        if asked.argsz < needed:
            flags = info.flags & ~VFIO_REGION_INFO_FLAG_CAPS
            cut = RegionInfo(needed, flags, info.index, 0, info.size).encode()
            return Described(cut.ljust(asked.argsz, b"\0"), None)
        fd, base = None, 0
        if info.index == MIGRATION_INDEX:
            self._provide_areas()
            if self._areas is not None:
                fd, base = self._areas.fd, self._areas.base
        return Described(replace(info, argsz=needed, offset=base).encode(), fd)

    def _whole_region_info(self, index: int) -> RegionInfo:
        """Return the info with all its capabilities."""
        size = REGION_INFO_SIZE
        while True:
            question = RegionInfo(size, index=index).encode().ljust(size, b"\0")
            answer = self._answer(device_info.GET_REGION_INFO, question)
            info = RegionInfo.decode(answer)
            if info.argsz <= size:
                return info
            size = info.argsz
            if size > _LONGEST_INFO:
                raise OSError(errno.E2BIG, f"the info of region {index}: {size} bytes")

    def _answer(self, request: int, question: bytes) -> bytes:
        argument = bytearray(question)
        self._fd.ioctl(request, argument)
        return bytes(argument)

    # -- interrupts, and reset ---------------------------------------------------------

    def set_irqs(self, asked: SetIrqs, fds: Sequence[int]) -> None:
        """Perform VFIO_USER_DEVICE_SET_IRQS; eventfds are duplicated.

        Without any, those of the interrupts are taken away.

        Raises:
            MessageError, OSError: EINVAL and the like.
        """
        data = asked.data
        if asked.flags & VFIO_IRQ_SET_DATA_EVENTFD:
            if asked.count > MAX_FDS or (fds and len(fds) != asked.count):
                refuse(f"{len(fds)} eventfds for {asked.count} interrupts")
            data = b"".join(map(_INT.pack, fds or [-1] * asked.count))
        header = SetIrqs(0, asked.flags, asked.index, asked.start, asked.count)
        size = len(header.encode())
        # A kernel is told by argsz how much there is: no more than came.
        argsz = size + len(data)
        if not asked.flags & VFIO_IRQ_SET_DATA_EVENTFD:
            argsz = min(argsz, asked.argsz)
        whole = SetIrqs(
            argsz, asked.flags, asked.index, asked.start, asked.count, data
        ).encode()
        self._fd.ioctl(device_info.SET_IRQS, bytearray(whole))

    def reset(self) -> None:
        """Perform VFIO_USER_DEVICE_RESET."""
        self._fd.ioctl(device_info.RESET)
        self._follower.reset()

    # -- mapped data -------------------------------------------------------------------

    def _provide_areas(self) -> None:
        """Have the file of the areas, once; none if one of them cannot be mapped."""
        if self._has_mapped:
            return
        self._has_mapped = True
        region = self._region()
        places = self._places(region)
        if places:
            self._areas = mapped_areas(region, places)
            if isinstance(self._areas, MirroredAreas):
                self._follower.provide(self._areas, places)
                return
        self.pread, self.pwrite = self._fd.pread, self._fd.pwrite

    def _region(self) -> MigrationRegion:
        try:
            return self._driver.migration_region
        except BaseException as error:
            reraise(
                self._driver, error, "VFIO_DEVICE_GET_REGION_INFO", "migration_region"
            )

    def _places(self, region: MigrationRegion) -> list[Place]:
        """Return where the areas are; nowhere, if its client could not map one.

        What is wrong with such an area it sees in the info, or by there being no file.
        """
        places = []
        for area in map(SparseMmapArea._make, region.areas):
            end = area.offset + area.size
            if area.offset % mmap.PAGESIZE or not area.offset < end <= region.size:
                return []
            try:
                places.append(Place(area, *self._fd.area_file(area)))
            except OSError:  # as its mmap would fail
                return []
        return places

    def _followed_read(self, size: int, offset: int) -> bytes:
        data = self._fd.pread(size, offset)
        if offset >> OFFSET_SHIFT == MIGRATION_INDEX:
            self._follower.was_read(offset & OFFSET_MASK, data)
        return data

    def _followed_write(self, data: bytes, offset: int) -> int:
        if offset >> OFFSET_SHIFT != MIGRATION_INDEX:
            return self._fd.pwrite(data, offset)
        self._follower.to_be_written(offset & OFFSET_MASK, data)
        taken = self._fd.pwrite(data, offset)
        self._follower.was_written(offset & OFFSET_MASK, data)
        return taken
