"""The vfio-user protocol 0.2 (libvfio-user's vfio-user.h, while it spoke v1).

Everything is little-endian.  A structure that ends in a flexible array is given
without it; each says what follows.  Device, region and interrupt information are the
structures of linux/vfio.h.
"""

from __future__ import annotations

import ctypes
from typing import Final

VFIO_USER_MAJOR: Final = 0
VFIO_USER_MINOR: Final = 2

# enum vfio_user_command
VFIO_USER_VERSION: Final = 1
VFIO_USER_DMA_MAP: Final = 2
VFIO_USER_DMA_UNMAP: Final = 3
VFIO_USER_DEVICE_GET_INFO: Final = 4
VFIO_USER_DEVICE_GET_REGION_INFO: Final = 5
VFIO_USER_DEVICE_GET_REGION_IO_FDS: Final = 6
VFIO_USER_DEVICE_GET_IRQ_INFO: Final = 7
VFIO_USER_DEVICE_SET_IRQS: Final = 8
VFIO_USER_REGION_READ: Final = 9
VFIO_USER_REGION_WRITE: Final = 10
VFIO_USER_DMA_READ: Final = 11  # the server asks
VFIO_USER_DMA_WRITE: Final = 12  # the server asks
VFIO_USER_DEVICE_RESET: Final = 13
VFIO_USER_DIRTY_PAGES: Final = 14  # until v2 of the migration protocol

# struct vfio_user_header, flags
VFIO_USER_F_TYPE_MASK: Final = 0xF
VFIO_USER_F_TYPE_COMMAND: Final = 0
VFIO_USER_F_TYPE_REPLY: Final = 1
VFIO_USER_F_NO_REPLY: Final = 1 << 4
VFIO_USER_F_ERROR: Final = 1 << 5

# struct vfio_user_dma_map, flags
VFIO_USER_F_DMA_REGION_READ: Final = 1 << 0
VFIO_USER_F_DMA_REGION_WRITE: Final = 1 << 1

# What a party takes that does not say; "max_data_xfer_size" counts data alone.
VFIO_USER_DEFAULT_MAX_MSG_FDS: Final = 1
VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE: Final = 1 << 20


class vfio_user_header(ctypes.Structure):
    """What every message begins with."""

    _fields_ = (
        ("msg_id", ctypes.c_uint16),  # 0x00  a reply has its command's
        ("cmd", ctypes.c_uint16),  # 0x02
        ("msg_size", ctypes.c_uint32),  # 0x04  of all of it, this header included
        ("flags", ctypes.c_uint32),  # 0x08
        ("error_no", ctypes.c_uint32),  # 0x0c  of a reply with VFIO_USER_F_ERROR
    )


class vfio_user_version(ctypes.Structure):
    """Of VFIO_USER_VERSION, both ways; JSON and a NUL may follow."""

    _fields_ = (
        ("major", ctypes.c_uint16),  # 0x00
        ("minor", ctypes.c_uint16),  # 0x02
    )


class vfio_user_dma_map(ctypes.Structure):
    """Of VFIO_USER_DMA_MAP; the file comes beside it, or there is none."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("offset", ctypes.c_uint64),  # 0x08  in the file
        ("addr", ctypes.c_uint64),  # 0x10  the IOVA
        ("size", ctypes.c_uint64),  # 0x18
    )


class vfio_user_dma_unmap(ctypes.Structure):
    """Of VFIO_USER_DMA_UNMAP; a vfio_user_bitmap follows one that asks for it."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04  VFIO_DMA_UNMAP_FLAG_*
        ("addr", ctypes.c_uint64),  # 0x08
        ("size", ctypes.c_uint64),  # 0x10
    )


class vfio_user_bitmap(ctypes.Structure):
    """A bitmap; its bits follow in a reply."""

    _fields_ = (
        ("pgsize", ctypes.c_uint64),  # 0x00  bytes a bit
        ("size", ctypes.c_uint64),  # 0x08  bytes of the bitmap
    )


class vfio_user_bitmap_range(ctypes.Structure):
    """A bitmap of a range of IOVAs; its bits follow in a reply."""

    _fields_ = (
        ("iova", ctypes.c_uint64),  # 0x00
        ("size", ctypes.c_uint64),  # 0x08
        ("bitmap", vfio_user_bitmap),  # 0x10
    )


class vfio_user_dirty_pages(ctypes.Structure):
    """Of VFIO_USER_DIRTY_PAGES; to get a bitmap, a vfio_user_bitmap_range follows."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04  VFIO_IOMMU_DIRTY_PAGES_FLAG_*
    )


class vfio_user_device_info(ctypes.Structure):
    """Of VFIO_USER_DEVICE_GET_INFO: ``vfio_device_info`` before it had capabilities."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("num_regions", ctypes.c_uint32),  # 0x08
        ("num_irqs", ctypes.c_uint32),  # 0x0c
    )


class vfio_user_region_io_fds(ctypes.Structure):
    """Of VFIO_USER_DEVICE_GET_REGION_IO_FDS; ``count`` sub-regions may follow."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("index", ctypes.c_uint32),  # 0x08
        ("count", ctypes.c_uint32),  # 0x0c
    )


class vfio_user_region_access(ctypes.Structure):
    """Of VFIO_USER_REGION_READ and WRITE; a write and a read's reply have data."""

    _fields_ = (
        ("offset", ctypes.c_uint64),  # 0x00  in the region
        ("region", ctypes.c_uint32),  # 0x08  its index
        ("count", ctypes.c_uint32),  # 0x0c  bytes
    )


class vfio_user_dma_region_access(ctypes.Structure):
    """Of VFIO_USER_DMA_READ and WRITE; a write and a read's reply have data."""

    _fields_ = (
        ("addr", ctypes.c_uint64),  # 0x00  the IOVA
        ("count", ctypes.c_uint64),  # 0x08  bytes
    )
