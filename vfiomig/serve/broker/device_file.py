"""A device as a program has it open: registers trapped, its data section mapped.

The fd that the program gets is the file behind the areas, so that the kernel maps it
without asking anybody but us, whether it is an area.  Offsets on it are opaque to users
(ABI-OFF-01): the migration region lies where its areas are in that file, and all other
regions far above it.
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from vfiomig.host.region import MIGRATION_INDEX, OFFSET_SHIFT
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.states import DEFAULT_STATE, DeviceState
from vfiomig.serve.broker.mapped_areas import MappedAreas, Place, mapped_areas
from vfiomig.uapi.ioctl import VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_RESET
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK
from vfiomig.uapi.vfio import vfio_region_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.host.user_process import HostFile, UserProcess
    from vfiomig.protocol.region import MigrationRegion

# Where the offsets of all other regions begin.
_ELSEWHERE: Final = 1 << 56
_MIGRATION: Final = MIGRATION_INDEX << OFFSET_SHIFT
_REGION: Final = 1 << OFFSET_SHIFT  # bytes that one may have
_U64: Final = (1 << 64) - 1
_GET_REGION_INFO: Final = VFIO_DEVICE_GET_REGION_INFO()
_RESET: Final = VFIO_DEVICE_RESET()


class Unseen(Protocol):
    """Who is told of data that nobody saw: the program may have moved it."""

    def __call__(self, access: str, offset: int, size: int) -> None:
        """Note it; ``offset`` is the region's."""


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
        self._size = region.size
        self._mapped = [each.area for each in places]
        self._unseen = unseen
        self._areas: MappedAreas | None = None
        if places:
            self._areas = mapped_areas(region, places)
        self._base = self._areas.base if self._areas is not None else 0
        self._state = int(DEFAULT_STATE)
        self._data_offset: int | None = None

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
            self._state, self._data_offset = int(DEFAULT_STATE), None
        return result

    def pread(self, size: int, offset: int) -> bytes:
        """Read; where data_size is, the data is shown first."""
        place = self._place(offset)
        try:
            data = self._device.pread(size, place)
        except DriverDiedError:
            self._bury()
            raise
        if self._areas is not None and len(data) == 8:
            self._follow_read(place - _MIGRATION, data)
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write; where data_size is, the driver is shown the data before."""
        place = self._place(offset)
        register = place - _MIGRATION
        is_size = register == Register.DATA_SIZE.offset and len(data) == 8
        if is_size and self._areas is not None and self._is_resuming:
            self._show_driver(int.from_bytes(data, "little"))
        try:
            taken = self._device.pwrite(data, place)
        except DriverDiedError:
            self._bury()
            raise
        if self._areas is not None:
            self._follow_write(self._areas, register, bytes(data))
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

    # -- data --------------------------------------------------------------------------

    @property
    def _is_resuming(self) -> bool:
        return self._state & VFIO_DEVICE_STATE_MASK == DeviceState.RESUMING

    def _follow_read(self, register: int, data: bytes) -> None:
        if register == Register.DATA_OFFSET.offset:
            self._data_offset = int.from_bytes(data, "little")
        elif register == Register.DATA_SIZE.offset and not self._is_resuming:
            self._show_program(int.from_bytes(data, "little"))

    def _follow_write(self, areas: MappedAreas, register: int, data: bytes) -> None:
        if register == Register.DEVICE_STATE.offset and len(data) == 4:
            self._state = int.from_bytes(data, "little")
            self._data_offset = None  # it was of a buffer of the state before
        elif 0 <= register < self._size:
            areas.written(register, data)

    def _show_program(self, size: int) -> None:
        assert self._areas is not None
        self._areas.before_data_is_read(*self._buffer(size))
        self._tell_unseen("read", size)

    def _show_driver(self, size: int) -> None:
        assert self._areas is not None
        self._areas.before_data_is_taken(*self._buffer(size))
        self._tell_unseen("write", size)

    def _buffer(self, size: int) -> tuple[int, int]:
        """Return where a buffer lies; all of the region, if nobody asked."""
        return (
            (0, self._size) if self._data_offset is None else (self._data_offset, size)
        )

    def _tell_unseen(self, access: str, size: int) -> None:
        if self._unseen is None or self._data_offset is None:
            return
        for area in self._mapped:
            start = max(self._data_offset, area.offset)
            end = min(self._data_offset + size, area.offset + area.size)
            if start < end:
                self._unseen(access, start, end - start)


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
