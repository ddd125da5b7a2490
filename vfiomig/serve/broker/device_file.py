"""A device as a program has it open: registers trapped, its data section mapped.

The fd that the program gets is the file behind the areas, so that the kernel maps it
without asking anybody but us, whether it is an area.  Offsets on it are opaque to users
(ABI-OFF-01): the migration region lies where its areas are in that file, and all other
regions far above it.
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.host.region import MIGRATION_INDEX, OFFSET_SHIFT
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.serve.data_follower import DataFollower
from vfiomig.serve.mapped_areas import MappedAreas, Place, mapped_areas
from vfiomig.uapi.ioctl import VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_RESET
from vfiomig.uapi.vfio import vfio_region_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.host.user_process import HostFile, UserProcess
    from vfiomig.protocol.region import MigrationRegion
    from vfiomig.serve.data_follower import Unseen

# Where the offsets of all other regions begin.
_ELSEWHERE: Final = 1 << 56
_MIGRATION: Final = MIGRATION_INDEX << OFFSET_SHIFT
_REGION: Final = 1 << OFFSET_SHIFT  # bytes that one may have
_U64: Final = (1 << 64) - 1
_GET_REGION_INFO: Final = VFIO_DEVICE_GET_REGION_INFO()
_RESET: Final = VFIO_DEVICE_RESET()


class DeviceFile:
    """A `HostFile` in front of a device's, with another layout of its offsets.

    Once the driver has died, everything is EIO.
    """

    def __init__(
        self,
        device: HostFile,
        region: MigrationRegion,
        places: Sequence[Place],
        *,
        unseen: Unseen | None = None,
    ) -> None:
        self._opened = self._device = device
        self._mapped = [each.area for each in places]
        self._areas: MappedAreas | None = None
        self._follower = DataFollower(region.size, unseen=unseen)
        if places:
            self._areas = mapped_areas(region, places)
            self._follower.provide(self._areas, places)
        self._base = self._areas.base if self._areas is not None else 0

    def backing_fd(self) -> int | None:
        """Return the file whose pages are the areas."""
        return self._areas.fd if self._areas is not None else None

    def require_mappable(self, length: int, offset: int, flags: int) -> None:
        """Raise OSError(EINVAL) for what is not inside an area, or not shared."""
        start = offset - self._base
        end = start + length
        if flags & mmap.MAP_SHARED:
            for area in self._mapped:
                if area.offset <= start and end <= area.offset + area.size:
                    return
        _refuse(errno.EINVAL, f"no mapping of {length:#x} bytes at {start:#x}")

    def user_ioctl(self, request: int, argument: int, user: UserProcess) -> int:
        """Perform an ioctl; a region's offset is told as it is on this fd."""
        try:
            result = self._device.user_ioctl(request, argument, user)
        except DriverDiedError:
            self._bury()
            raise
        if request == _GET_REGION_INFO:
            self._move_region(argument, user)
        elif request == _RESET:
            self._follower.reset()
        return result

    def pread(self, size: int, offset: int) -> bytes:
        """Read; where data_size is, the data is shown first."""
        place = self._place(offset)
        try:
            data = self._device.pread(size, place)
        except DriverDiedError:
            self._bury()
            raise
        if self._areas is not None:
            self._follower.was_read(place - _MIGRATION, data)
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write; where data_size is, the driver is shown the data before."""
        place = self._place(offset)
        if self._areas is not None:
            self._follower.to_be_written(place - _MIGRATION, data)
        try:
            taken = self._device.pwrite(data, place)
        except DriverDiedError:
            self._bury()
            raise
        if self._areas is not None:
            self._follower.was_written(place - _MIGRATION, data)
        return taken

    def close(self) -> None:
        """Close the device, and let the file go."""
        try:
            self._opened.close()
        finally:
            if self._areas is not None:
                self._areas.close()

    # -- offsets -----------------------------------------------------------------------

    def _place(self, offset: int) -> int:
        """Return the device's own offset for one of this fd."""
        if offset >= _ELSEWHERE:
            return offset - _ELSEWHERE
        register = offset - self._base
        if not 0 <= register < _REGION:
            _refuse(errno.EINVAL, f"no region lies at {offset:#x}")
        return _MIGRATION + register

    def _bury(self) -> None:
        self._device = _Dead()

    def _move_region(self, argument: int, user: UserProcess) -> None:
        at = argument + vfio_region_info.index.offset
        index = int.from_bytes(user.memory.read(at, 4), "little")
        offset = (index << OFFSET_SHIFT) + _ELSEWHERE & _U64
        if index == MIGRATION_INDEX:
            offset = self._base
        at = argument + vfio_region_info.offset.offset
        user.memory.write(at, offset.to_bytes(8, "little"))


class _Dead:
    """What is left of a device whose driver has died: a `HostFile` that fails."""

    def user_ioctl(self, _: int, __: int, ___: UserProcess) -> int:
        _refuse(errno.EIO, "the driver has died")

    def pread(self, _: int, __: int) -> bytes:
        _refuse(errno.EIO, "the driver has died")

    def pwrite(self, _: bytes | memoryview, __: int) -> int:
        _refuse(errno.EIO, "the driver has died")

    def close(self) -> None:
        """Nothing is open."""


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
