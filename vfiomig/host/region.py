"""Region information and its capability chain, as the kernel lays them out.

Offsets on the device fd are the region's index shifted, as vfio-pci does it
(VFIO_PCI_OFFSET_SHIFT); users must not assume that (ABI-OFF-01).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from vfiomig.uapi.migration_v1 import (
    VFIO_REGION_SUBTYPE_MIGRATION,
    VFIO_REGION_TYPE_MIGRATION,
)
from vfiomig.uapi.vfio import (
    VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_CAP_SPARSE_MMAP,
    VFIO_REGION_INFO_CAP_TYPE,
    VFIO_REGION_INFO_FLAG_CAPS,
    VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
    vfio_info_cap_header,
    vfio_region_info,
    vfio_region_info_cap_sparse_mmap,
    vfio_region_info_cap_type,
    vfio_region_sparse_mmap_area,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

OFFSET_SHIFT: Final = 40
OFFSET_MASK: Final = (1 << OFFSET_SHIFT) - 1

# The first index that no PCI region has (V1-DISC-03).
MIGRATION_INDEX: Final = VFIO_PCI_NUM_REGIONS
NUM_REGIONS: Final = MIGRATION_INDEX + 1

_INFO_SIZE: Final = 32
_READ_WRITE: Final = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE


@functools.cache
def absent_region_info(index: int) -> bytes:
    """Return the info of a region that the device does not have: size 0.

    That is success, not an error (ABI-INFO-02).
    """
    return bytes(
        vfio_region_info(argsz=_INFO_SIZE, index=index, offset=index << OFFSET_SHIFT)
    )


@functools.lru_cache(maxsize=64)
def plain_region_info(index: int, size: int) -> bytes:
    """Return the info of a region that is read and written, and not mapped."""
    info = vfio_region_info(
        argsz=_INFO_SIZE,
        flags=_READ_WRITE,
        index=index,
        size=size,
        offset=index << OFFSET_SHIFT,
    )
    return bytes(info)


def migration_region_info(region: MigrationRegion) -> bytes:
    """Return the info of the migration region with its whole capability chain."""
    flags = _READ_WRITE | VFIO_REGION_INFO_FLAG_CAPS
    capabilities = [_type_capability()]
    if region.areas:
        flags |= VFIO_REGION_INFO_FLAG_MMAP
        capabilities.append(_sparse_mmap_capability(region.areas))
    chain = _chain(capabilities)
    info = vfio_region_info(
        argsz=_INFO_SIZE + len(chain),
        flags=flags,
        index=MIGRATION_INDEX,
        cap_offset=_INFO_SIZE,
        size=region.size,
        offset=MIGRATION_INDEX << OFFSET_SHIFT,
    )
    return bytes(info) + chain


def _type_capability() -> bytes:
    return bytes(
        vfio_region_info_cap_type(
            header=vfio_info_cap_header(id=VFIO_REGION_INFO_CAP_TYPE, version=1),
            type=VFIO_REGION_TYPE_MIGRATION,
            subtype=VFIO_REGION_SUBTYPE_MIGRATION,
        )
    )


def _sparse_mmap_capability(areas: Iterable[SparseMmapArea]) -> bytes:
    listed = b"".join(
        bytes(vfio_region_sparse_mmap_area(offset=offset, size=size))
        for offset, size in areas
    )
    head = vfio_region_info_cap_sparse_mmap(
        header=vfio_info_cap_header(id=VFIO_REGION_INFO_CAP_SPARSE_MMAP, version=1),
        nr_areas=len(listed) // 16,
    )
    return bytes(head) + listed


def _chain(capabilities: Sequence[bytes]) -> bytes:
    """Join capabilities: each ``next`` leads to the following one, the last is 0."""
    chain = bytearray()
    for capability in capabilities:
        end = len(chain)
        chain += capability
        if capability is not capabilities[-1]:
            header = vfio_info_cap_header.from_buffer(chain, end)
            header.next = _INFO_SIZE + end + len(capability)
            del header  # it pins the bytearray, which could not grow
    return bytes(chain)
