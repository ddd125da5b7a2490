"""Finding the migration region of a device, as QEMU finds it.

QEMU asks for the information of each region in turn, skips the ones that fail, and
takes the first whose capability chain says type 3, subtype 1 (vfio_get_dev_region_info
of 7.2).  Its index and its place on the fd are the driver's to choose.
"""

from __future__ import annotations

import ctypes
import struct
from ctypes import sizeof
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from vfiomig.protocol.errors import VendorDriverError
from vfiomig.protocol.region import SparseMmapArea
from vfiomig.uapi.ioctl import VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_REGION_INFO
from vfiomig.uapi.migration_v1 import (
    VFIO_REGION_SUBTYPE_MIGRATION,
    VFIO_REGION_TYPE_MIGRATION,
)
from vfiomig.uapi.vfio import (
    VFIO_REGION_INFO_CAP_SPARSE_MMAP,
    VFIO_REGION_INFO_CAP_TYPE,
    VFIO_REGION_INFO_FLAG_CAPS,
    VFIO_REGION_INFO_FLAG_MMAP,
    vfio_device_info,
    vfio_info_cap_header,
    vfio_region_info,
    vfio_region_info_cap_sparse_mmap,
    vfio_region_info_cap_type,
    vfio_region_sparse_mmap_area,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.client.device import DeviceHandle

_Structure = TypeVar("_Structure", bound=ctypes.Structure)

# The members of a vfio_region_info that go in: argsz and, behind flags, index.
_ASKED: Final = struct.Struct("<III")
# Those that come out in front of size and offset: the same, and cap_offset.
_TOLD: Final = struct.Struct("<IIII")
_GET_REGION_INFO: Final = VFIO_DEVICE_GET_REGION_INFO()

_CAPABILITIES_LIMIT: Final = 256  # a chain that is longer goes in circles

# What no honest device exceeds; a hostile one must not keep us asking for ever.
_REGIONS_LIMIT: Final = 1 << 12
_ASKS_LIMIT: Final = 8
_ARGSZ_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRegion:
    """The migration region as the device fd describes it.

    ``offset`` is its place on the fd, ``size`` its bytes; ``listed`` are the areas that
    can be mapped, in the driver's order, and ``areas`` those that are not empty.
    """

    index: int
    offset: int
    size: int
    listed: tuple[SparseMmapArea, ...]

    @property
    def areas(self) -> tuple[SparseMmapArea, ...]:
        """What a user application maps."""
        return tuple(area for area in self.listed if area.size)


def find_migration_region(
    handle: DeviceHandle, *, first: int | None = None
) -> FoundRegion:
    """Look for the v1 migration region (V1-DISC-01).

    Where one is known already, ``first`` is its index: it is asked about that one, and
    about others only if it is none any more.

    Raises:
        OSError: the device does not even answer VFIO_DEVICE_GET_INFO.
        VendorDriverError: the device has none, an empty one, or a capability chain
            that cannot be followed or is never told.
    """
    for index in _indexes(handle, first):
        try:
            answer = _region_info(handle, index)
        except OSError:
            continue
        if _is_migration_region(answer):
            return _found(index, answer)
    message = (
        "no region of this device has type "
        f"{VFIO_REGION_TYPE_MIGRATION}, subtype {VFIO_REGION_SUBTYPE_MIGRATION}: "
        "it does not offer v1 migration"
    )
    raise VendorDriverError(message)


def _indexes(handle: DeviceHandle, first: int | None) -> Iterator[int]:
    if first is not None:
        yield first
    yield from range(_number_of_regions(handle))


def _number_of_regions(handle: DeviceHandle) -> int:
    argument = bytearray(bytes(vfio_device_info(argsz=sizeof(vfio_device_info))))
    handle.ioctl(VFIO_DEVICE_GET_INFO(), argument)
    number = int(vfio_device_info.from_buffer_copy(argument).num_regions)
    return min(number, _REGIONS_LIMIT)


def region_info(handle: DeviceHandle, index: int) -> vfio_region_info:
    """Ask for a region: VFIO_DEVICE_GET_REGION_INFO.

    Raises:
        OSError: the device has no such region.
        VendorDriverError: the answer has no end.
    """
    return vfio_region_info.from_buffer_copy(_region_info(handle, index))


def _region_info(handle: DeviceHandle, index: int) -> bytes:
    """Ask for a region, again while the answer needs more room than was given.

    Raises:
        VendorDriverError: it never has enough.
    """
    argsz = sizeof(vfio_region_info)
    for _ in range(_ASKS_LIMIT):
        argument = bytearray(argsz)
        _ASKED.pack_into(argument, 0, argsz, 0, index)
        handle.ioctl(_GET_REGION_INFO, argument)
        needed = int.from_bytes(argument[:4], "little")
        if needed <= argsz:
            return bytes(argument)
        argsz = needed
        if argsz > _ARGSZ_LIMIT:
            break
    message = f"the info of region {index} has no end: now it is {argsz:#x} bytes"
    raise VendorDriverError(message)


def _capabilities(answer: bytes) -> Iterator[tuple[int, int]]:
    """Yield id and position of each capability, following ``next``.

    Raises:
        VendorDriverError: the chain leaves the answer or does not end.
    """
    _, flags, index, position = _TOLD.unpack_from(answer)
    if not flags & VFIO_REGION_INFO_FLAG_CAPS:
        return
    for _ in range(_CAPABILITIES_LIMIT):
        if not position:
            return
        header = _at(vfio_info_cap_header, answer, position)
        yield header.id, position
        position = header.next
    message = f"the capability chain of region {index} does not end"
    raise VendorDriverError(message)


def _at(structure: type[_Structure], answer: bytes, position: int) -> _Structure:
    """Read a structure of the chain.

    Raises:
        VendorDriverError: it leaves the answer.
    """
    if position < sizeof(vfio_region_info) or (
        position + sizeof(structure) > len(answer)
    ):
        message = (
            f"a capability at {position:#x} of a region info of {len(answer):#x} bytes"
        )
        raise VendorDriverError(message)
    return structure.from_buffer_copy(answer, position)


def _is_migration_region(answer: bytes) -> bool:
    for identity, position in _capabilities(answer):
        if identity == VFIO_REGION_INFO_CAP_TYPE:
            kind = _at(vfio_region_info_cap_type, answer, position)
            return (kind.type, kind.subtype) == (
                VFIO_REGION_TYPE_MIGRATION,
                VFIO_REGION_SUBTYPE_MIGRATION,
            )
    return False


def _found(index: int, answer: bytes) -> FoundRegion:
    info = vfio_region_info.from_buffer_copy(answer)
    if not info.size:
        message = f"the migration region, index {index}, has size 0"
        raise VendorDriverError(message)
    return FoundRegion(
        index=index, offset=info.offset, size=info.size, listed=areas_of(answer)
    )


def areas_of(answer: bytes) -> tuple[SparseMmapArea, ...]:
    """List what can be mapped: all of a region where no capability says less.

    Raises:
        VendorDriverError: the chain cannot be followed.
    """
    info = vfio_region_info.from_buffer_copy(answer)
    if not info.flags & VFIO_REGION_INFO_FLAG_MMAP:
        return ()
    for identity, position in _capabilities(answer):
        if identity == VFIO_REGION_INFO_CAP_SPARSE_MMAP:
            return tuple(_listed_areas(answer, position))
    return (SparseMmapArea(0, info.size),)


def _listed_areas(answer: bytes, position: int) -> Iterator[SparseMmapArea]:
    head = _at(vfio_region_info_cap_sparse_mmap, answer, position)
    position += sizeof(vfio_region_info_cap_sparse_mmap)
    for number in range(head.nr_areas):
        place = position + number * sizeof(vfio_region_sparse_mmap_area)
        area = _at(vfio_region_sparse_mmap_area, answer, place)
        yield SparseMmapArea(area.offset, area.size)
