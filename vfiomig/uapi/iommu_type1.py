"""The type1 container of linux/vfio.h: mappings, their dirty bitmap, capabilities.

A structure that ends in a flexible array is given without it; each says what follows.
"""

from __future__ import annotations

import ctypes
from typing import Final

from vfiomig.uapi.vfio import vfio_info_cap_header

VFIO_API_VERSION: Final = 0

# What VFIO_CHECK_EXTENSION is asked for; the first and third are also IOMMU types.
VFIO_TYPE1_IOMMU: Final = 1
VFIO_SPAPR_TCE_IOMMU: Final = 2
VFIO_TYPE1v2_IOMMU: Final = 3
VFIO_DMA_CC_IOMMU: Final = 4
VFIO_EEH: Final = 5
VFIO_TYPE1_NESTING_IOMMU: Final = 6
VFIO_SPAPR_TCE_v2_IOMMU: Final = 7
VFIO_NOIOMMU_IOMMU: Final = 8
VFIO_UNMAP_ALL: Final = 9
VFIO_UPDATE_VADDR: Final = 10

# struct vfio_iommu_type1_info, flags
VFIO_IOMMU_INFO_PGSIZES: Final = 1 << 0
VFIO_IOMMU_INFO_CAPS: Final = 1 << 1

# Capability ids of an IOMMU info
VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE: Final = 1
VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION: Final = 2
VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL: Final = 3

# struct vfio_iommu_type1_dma_map, flags
VFIO_DMA_MAP_FLAG_READ: Final = 1 << 0
VFIO_DMA_MAP_FLAG_WRITE: Final = 1 << 1
VFIO_DMA_MAP_FLAG_VADDR: Final = 1 << 2

# struct vfio_iommu_type1_dma_unmap, flags
VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP: Final = 1 << 0
VFIO_DMA_UNMAP_FLAG_ALL: Final = 1 << 1
VFIO_DMA_UNMAP_FLAG_VADDR: Final = 1 << 2

# struct vfio_iommu_type1_dirty_bitmap, flags
VFIO_IOMMU_DIRTY_PAGES_FLAG_START: Final = 1 << 0
VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP: Final = 1 << 1
VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: Final = 1 << 2


class vfio_iommu_type1_info(ctypes.Structure):
    """What VFIO_IOMMU_GET_INFO fills; capabilities may follow."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00  in and out
        ("flags", ctypes.c_uint32),  # 0x04
        ("iova_pgsizes", ctypes.c_uint64),  # 0x08  a bit for each page size
        ("cap_offset", ctypes.c_uint32),  # 0x10  from the start of this structure
    )


class vfio_iova_range(ctypes.Structure):
    """One range that can be mapped."""

    _fields_ = (
        ("start", ctypes.c_uint64),  # 0x00
        ("end", ctypes.c_uint64),  # 0x08  inclusive
    )


class vfio_iommu_type1_info_cap_iova_range(ctypes.Structure):
    """Which IOVAs can be mapped; ``nr_iovas`` ranges follow."""

    _fields_ = (
        ("header", vfio_info_cap_header),  # 0x00
        ("nr_iovas", ctypes.c_uint32),  # 0x08
        ("reserved", ctypes.c_uint32),  # 0x0c
    )


class vfio_iommu_type1_info_cap_migration(ctypes.Structure):
    """That there is dirty tracking, and what it can do."""

    _fields_ = (
        ("header", vfio_info_cap_header),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x08
        ("pgsize_bitmap", ctypes.c_uint64),  # 0x10
        ("max_dirty_bitmap_size", ctypes.c_uint64),  # 0x18  in bytes
    )


class vfio_iommu_type1_info_dma_avail(ctypes.Structure):
    """How many more mappings there can be."""

    _fields_ = (
        ("header", vfio_info_cap_header),  # 0x00
        ("avail", ctypes.c_uint32),  # 0x08
    )


class vfio_iommu_type1_dma_map(ctypes.Structure):
    """What VFIO_IOMMU_MAP_DMA takes."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("vaddr", ctypes.c_uint64),  # 0x08  in the caller's memory
        ("iova", ctypes.c_uint64),  # 0x10
        ("size", ctypes.c_uint64),  # 0x18  in bytes
    )


class vfio_bitmap(ctypes.Structure):
    """Where the user has room for a bitmap, a bit a page."""

    _fields_ = (
        ("pgsize", ctypes.c_uint64),  # 0x00
        ("size", ctypes.c_uint64),  # 0x08  in bytes
        ("data", ctypes.c_uint64),  # 0x10  a pointer
    )


class vfio_iommu_type1_dma_unmap(ctypes.Structure):
    """What VFIO_IOMMU_UNMAP_DMA takes; with GET_DIRTY_BITMAP a vfio_bitmap follows."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("iova", ctypes.c_uint64),  # 0x08
        ("size", ctypes.c_uint64),  # 0x10  in and out, in bytes
    )


class vfio_iommu_type1_dirty_bitmap(ctypes.Structure):
    """What VFIO_IOMMU_DIRTY_PAGES takes; with GET_BITMAP the next structure follows."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
    )


class vfio_iommu_type1_dirty_bitmap_get(ctypes.Structure):
    """Whose bitmap is wanted, and where to put it."""

    _fields_ = (
        ("iova", ctypes.c_uint64),  # 0x00
        ("size", ctypes.c_uint64),  # 0x08  of the IOVA range, in bytes
        ("bitmap", vfio_bitmap),  # 0x10
    )
