"""The container: /dev/vfio/vfio, opened once, with the IO address space of its groups.

Rule 1: what an ioctl takes and gives lies in its caller's memory, and is copied from
and to there as the kernel does it: first as much as any version of the structure has,
then by argsz.  A pointer to nothing is EFAULT, whatever else may be wrong behind it.

Rule 2: groups keep the container alive.  Closing its fd ends ioctls, and no more; with
the last group the IOMMU goes, and every mapping (`Iommu`'s docstring says where that
one is stricter than the kernel).
"""

from __future__ import annotations

import errno
from ctypes import Structure, sizeof
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from vfiomig.host.iommu import DEFAULT_LIMITS, Iommu, IommuLimits, Mapping, UserBitmap
from vfiomig.host.iommu_info import iommu_info
from vfiomig.uapi import ioctl
from vfiomig.uapi.iommu_type1 import (
    VFIO_API_VERSION,
    VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_VADDR,
    VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_DMA_UNMAP_FLAG_ALL,
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
    VFIO_DMA_UNMAP_FLAG_VADDR,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
    VFIO_TYPE1_IOMMU,
    VFIO_TYPE1_NESTING_IOMMU,
    VFIO_UNMAP_ALL,
    VFIO_TYPE1v2_IOMMU,
    vfio_bitmap,
    vfio_iommu_type1_dirty_bitmap,
    vfio_iommu_type1_dirty_bitmap_get,
    vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap,
    vfio_iommu_type1_info,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.user_memory import UserMemory
    from vfiomig.host.user_process import UserProcess

_S = TypeVar("_S", bound=Structure)

# IOMMU types by number, and whether each unmaps as v2 does.
_TYPES: Final = {
    VFIO_TYPE1_IOMMU: False,
    VFIO_TYPE1v2_IOMMU: True,
    VFIO_TYPE1_NESTING_IOMMU: True,
}
_EXTENSIONS: Final = frozenset({*_TYPES, VFIO_UNMAP_ALL})

# How far vfio_iommu_type1_info went at first, and up to which member it may be filled.
_INFO_MIN: Final = vfio_iommu_type1_info.cap_offset.offset
_INFO_FILLED: Final = _INFO_MIN + vfio_iommu_type1_info.cap_offset.size

_MAP_FLAGS: Final = (
    VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE | VFIO_DMA_MAP_FLAG_VADDR
)
_UNMAP_FLAGS: Final = (
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
    | VFIO_DMA_UNMAP_FLAG_ALL
    | VFIO_DMA_UNMAP_FLAG_VADDR
)
_WITHOUT_BITMAP: Final = VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR
_DIRTY_OPERATIONS: Final = (
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
)


class Container:
    """One container; it is a `HostFile`, and the `Dma` of its groups' devices.

    ``make_iommu`` is there to be another for a mutant.
    """

    def __init__(
        self, limits: IommuLimits = DEFAULT_LIMITS, *, make_iommu: type[Iommu] = Iommu
    ) -> None:
        self._limits = limits
        self._make_iommu = make_iommu
        self._groups: dict[object, bool] = {}  # whether what it writes is logged
        self._iommu: Iommu | None = None
        self._is_open = True
        self._base: dict[int, Callable[[int], int]] = {
            ioctl.VFIO_GET_API_VERSION(): lambda _: VFIO_API_VERSION,
            ioctl.VFIO_CHECK_EXTENSION(): lambda number: int(number in _EXTENSIONS),
            ioctl.VFIO_SET_IOMMU(): self._set_iommu,
        }
        self._of_iommu: dict[int, Callable[[Iommu, int, UserMemory], None]] = {
            ioctl.VFIO_IOMMU_GET_INFO(): self._get_info,
            ioctl.VFIO_IOMMU_MAP_DMA(): self._map_dma,
            ioctl.VFIO_IOMMU_UNMAP_DMA(): self._unmap_dma,
            ioctl.VFIO_IOMMU_DIRTY_PAGES(): self._dirty_pages,
        }

    # -- the file ------------------------------------------------------------------

    def user_ioctl(self, request: int, argument: int, user: UserProcess) -> int:
        """Perform an ioctl.

        Raises:
            OSError: EBADF when closed; EINVAL for anything of an IOMMU before there is
                one, then ENOTTY for what is unknown; else what that ioctl says.
        """
        self._require_open()
        if request in self._base:
            return self._base[request](argument)
        if self._iommu is None:
            _refuse(errno.EINVAL, f"ioctl {request:#x} before VFIO_SET_IOMMU")
        if request not in self._of_iommu:
            _refuse(errno.ENOTTY, f"unknown ioctl {request:#x}")
        self._of_iommu[request](self._iommu, argument, user.memory)
        return 0

    def pread(self, size: int, offset: int) -> bytes:
        """Refuse: OSError(EINVAL)."""
        self._require_open()
        _refuse(errno.EINVAL, f"no {size} bytes at {offset:#x} of a container")

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Refuse: OSError(EINVAL)."""
        self._require_open()
        _refuse(errno.EINVAL, f"no {len(data)} bytes to {offset:#x} of a container")

    def close(self) -> None:
        """End all ioctls; a second close is EBADF."""
        self._require_open()
        self._is_open = False

    # -- its groups ----------------------------------------------------------------

    @property
    def has_iommu(self) -> bool:
        """Whether VFIO_SET_IOMMU was done since there are groups."""
        return self._iommu is not None

    @property
    def log_bytes(self) -> int:
        """Memory that dirty logs take: 0 while there is no tracking."""
        return self._iommu.log_bytes if self._iommu is not None else 0

    def attach(self, group: object, *, is_logged: bool = True) -> None:
        """Take a group in; one that is not logged has a hardware IOMMU (DIRTY-GET-09).

        Raises:
            OSError: EBADF when closed.
        """
        self._require_open()
        self._groups[group] = is_logged
        if self._iommu is not None:
            self._iommu.attach(is_logged=is_logged)

    def detach(self, group: object) -> None:
        """Let a group go; with the last one the IOMMU goes as well."""
        is_logged = self._groups.pop(group)
        if self._iommu is not None:
            self._iommu.detach(is_logged=is_logged)
        if not self._groups:
            self._iommu = None

    # -- what devices do -----------------------------------------------------------

    def dma_read(self, iova: int, size: int) -> bytes:
        """Return ``size`` bytes; OSError(EFAULT) where nothing is mapped to read."""
        return self._translating().dma_read(iova, size)

    def dma_write(
        self, iova: int, data: bytes | memoryview, *, is_logged: bool = True
    ) -> None:
        """Put ``data`` there and log its pages as dirty; OSError(EFAULT) as above."""
        self._translating().dma_write(iova, data, is_logged=is_logged)

    def _translating(self) -> Iommu:
        if self._iommu is None:
            _refuse(errno.EFAULT, "nothing is mapped: the container has no IOMMU")
        return self._iommu

    # -- the ioctls ----------------------------------------------------------------

    def _set_iommu(self, number: int) -> int:
        if not self._groups or self._iommu is not None:
            _refuse(errno.EINVAL, "no group yet, or an IOMMU already")
        if number not in _EXTENSIONS:
            _refuse(errno.ENODEV, f"there is no IOMMU of type {number}")
        if number not in _TYPES:
            _refuse(errno.EINVAL, f"{number} is an extension, and no IOMMU type")
        self._iommu = self._make_iommu(self._limits, is_v2=_TYPES[number])
        for is_logged in self._groups.values():
            self._iommu.attach(is_logged=is_logged)
        return 0

    def _get_info(self, iommu: Iommu, argument: int, memory: UserMemory) -> None:
        asked = _copied(vfio_iommu_type1_info, memory, argument, _INFO_MIN)
        _require_argsz(asked.argsz, _INFO_MIN)
        info = self._info(iommu)
        size = sizeof(vfio_iommu_type1_info)
        head = vfio_iommu_type1_info.from_buffer_copy(info)
        if asked.argsz < len(info):  # DIRTY-CAP-02, as ABI-INFO-03
            head.cap_offset = 0
        else:
            head.argsz = asked.argsz
            memory.write(argument + size, info[size:])
        filled = _INFO_FILLED if asked.argsz >= _INFO_FILLED else _INFO_MIN
        memory.write(argument, bytes(head)[:filled])

    def _info(self, iommu: Iommu) -> bytes:
        return iommu_info(
            iommu.limits, page_size=iommu.page_size, available=iommu.available
        )

    def _map_dma(self, iommu: Iommu, argument: int, memory: UserMemory) -> None:
        size = sizeof(vfio_iommu_type1_dma_map)
        asked = _copied(vfio_iommu_type1_dma_map, memory, argument, size)
        _require_argsz(asked.argsz, size)
        _require_flags(asked.flags, _MAP_FLAGS)
        is_readable = bool(asked.flags & VFIO_DMA_MAP_FLAG_READ)
        is_writable = bool(asked.flags & VFIO_DMA_MAP_FLAG_WRITE)
        if asked.flags & VFIO_DMA_MAP_FLAG_VADDR:
            _refuse_vaddr(asked.flags & ~VFIO_DMA_MAP_FLAG_VADDR)
        if not asked.flags:
            _refuse(errno.EINVAL, "a mapping that can be neither read nor written")
        iommu.map(
            Mapping(
                iova=asked.iova,
                size=asked.size,
                vaddr=asked.vaddr,
                memory=memory,
                is_readable=is_readable,
                is_writable=is_writable,
            )
        )

    def _unmap_dma(self, iommu: Iommu, argument: int, memory: UserMemory) -> None:
        size = sizeof(vfio_iommu_type1_dma_unmap)
        asked = _copied(vfio_iommu_type1_dma_unmap, memory, argument, size)
        _require_argsz(asked.argsz, size)
        _require_flags(asked.flags, _UNMAP_FLAGS)
        bitmap = None
        if asked.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP:
            self._require_range(asked.flags)
            _require_argsz(asked.argsz, size + sizeof(vfio_bitmap))
            bitmap = _user_bitmap(
                _copied(vfio_bitmap, memory, argument + size, sizeof(vfio_bitmap)),
                memory,
            )
        if asked.flags & VFIO_DMA_UNMAP_FLAG_VADDR:
            _refuse_vaddr(0)
        if asked.flags & VFIO_DMA_UNMAP_FLAG_ALL:
            if asked.iova or asked.size:
                _refuse(errno.EINVAL, "all is unmapped from 0 on, with size 0")
            asked.size = iommu.unmap_all()
        else:
            asked.size = iommu.unmap(asked.iova, asked.size, bitmap)
        memory.write(argument, bytes(asked))

    def _dirty_pages(self, iommu: Iommu, argument: int, memory: UserMemory) -> None:
        self._require_v2(iommu)
        size = sizeof(vfio_iommu_type1_dirty_bitmap)
        asked = _copied(vfio_iommu_type1_dirty_bitmap, memory, argument, size)
        _require_argsz(asked.argsz, size)
        operation = self._operation(asked.flags)
        if operation == VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
            iommu.start_tracking()
        elif operation == VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
            iommu.stop_tracking()
        else:
            wanted = sizeof(vfio_iommu_type1_dirty_bitmap_get)
            _require_argsz(asked.argsz, size + wanted)
            get = _copied(
                vfio_iommu_type1_dirty_bitmap_get, memory, argument + size, wanted
            )
            bitmap = _user_bitmap(get.bitmap, memory)
            iommu.get_bitmap(get.iova, get.size, bitmap)

    def _require_v2(self, iommu: Iommu) -> None:
        if not iommu.is_v2:
            _refuse(errno.EACCES, "VFIO_TYPE1_IOMMU tracks no dirty pages")

    def _require_range(self, flags: int) -> None:
        if flags & _WITHOUT_BITMAP:
            _refuse(errno.EINVAL, "a dirty bitmap of all, or of a vaddr")

    def _operation(self, flags: int) -> int:
        if flags not in _DIRTY_OPERATIONS:
            _refuse(errno.EINVAL, f"flags {flags:#x} are not one operation")
        return flags

    def _require_open(self) -> None:
        if not self._is_open:
            _refuse(errno.EBADF, "the container fd is closed")


class UnloggedDma:
    """The `Dma` of devices behind a hardware IOMMU: nobody sees what they write."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def dma_read(self, iova: int, size: int) -> bytes:
        """As `Container.dma_read`."""
        return self._container.dma_read(iova, size)

    def dma_write(self, iova: int, data: bytes | memoryview) -> None:
        """As `Container.dma_write`, but for the log."""
        self._container.dma_write(iova, data, is_logged=False)


def _copied(structure: type[_S], memory: UserMemory, address: int, minimum: int) -> _S:
    """Copy the first ``minimum`` bytes of a structure from its user."""
    data = memory.read(address, minimum)
    return structure.from_buffer_copy(data.ljust(sizeof(structure), b"\0"))


def _user_bitmap(bitmap: vfio_bitmap, memory: UserMemory) -> UserBitmap:
    return UserBitmap(memory, bitmap.pgsize, bitmap.size, bitmap.data)


def _require_argsz(argsz: int, minimum: int) -> None:
    if argsz < minimum:
        _refuse(errno.EINVAL, f"argsz {argsz} is less than {minimum}")


def _require_flags(flags: int, known: int) -> None:
    if flags & ~known:
        _refuse(errno.EINVAL, f"unknown flags {flags & ~known:#x}")


def _refuse_vaddr(others: int) -> NoReturn:
    """Refuse to move a mapping: no kernel does while there are mediated devices."""
    if others:
        _refuse(errno.EINVAL, "a new vaddr with other flags")
    _refuse(errno.EBUSY, "a vaddr cannot change under a mediated device")


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
