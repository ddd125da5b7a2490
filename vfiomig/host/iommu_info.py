"""The information of a type1 IOMMU and its capability chain, as the kernel lays it out.

The order is the kernel's: migration, mappings left, IOVA ranges; each begins at a
multiple of 8 bytes, as it does since v6.7.
"""

from __future__ import annotations

from ctypes import sizeof
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.dirty_bitmap import MAX_BITMAP_SIZE
from vfiomig.uapi.iommu_type1 import (
    VFIO_IOMMU_INFO_CAPS,
    VFIO_IOMMU_INFO_PGSIZES,
    VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
    VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
    vfio_iommu_type1_info,
    vfio_iommu_type1_info_cap_iova_range,
    vfio_iommu_type1_info_cap_migration,
    vfio_iommu_type1_info_dma_avail,
    vfio_iova_range,
)
from vfiomig.uapi.vfio import vfio_info_cap_header

if TYPE_CHECKING:
    from vfiomig.host.iommu import IommuLimits

_ALIGNMENT: Final = 8


def iommu_info(limits: IommuLimits, *, page_size: int, available: int) -> bytes:
    """Return the info with its whole chain.

    Dirty pages are of ``page_size`` bytes, and ``available`` mappings can be added.
    """
    ids = (
        VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
        VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
        VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    )
    bodies = (_migration(page_size), _available(available), _ranges(limits))
    start = sizeof(vfio_iommu_type1_info)
    chain = b""
    for number, body in zip(ids, bodies, strict=True):
        end = start + len(chain) + len(body)
        following = 0 if number == ids[-1] else end
        header = vfio_info_cap_header(id=number, version=1, next=following)
        chain += bytes(header) + body[sizeof(header) :]
    info = vfio_iommu_type1_info(
        argsz=start + len(chain),
        flags=VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
        iova_pgsizes=limits.page_sizes,
        cap_offset=start,
    )
    return bytes(info) + chain


# Each of these is a capability whose header is still empty.


def _migration(page_size: int) -> bytes:
    return bytes(
        vfio_iommu_type1_info_cap_migration(
            pgsize_bitmap=page_size,
            max_dirty_bitmap_size=MAX_BITMAP_SIZE,
        )
    )


def _available(available: int) -> bytes:
    capability = bytes(vfio_iommu_type1_info_dma_avail(avail=available))
    return capability.ljust(-(-len(capability) // _ALIGNMENT) * _ALIGNMENT, b"\0")


def _ranges(limits: IommuLimits) -> bytes:
    ranges = [vfio_iova_range(start, end) for start, end in limits.iova_ranges]
    head = vfio_iommu_type1_info_cap_iova_range(nr_iovas=len(ranges))
    return bytes(head) + b"".join(map(bytes, ranges))
