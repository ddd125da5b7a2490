"""The v1 migration region of linux/vfio.h (v5.8 to v5.17).

Since v5.18 the header calls the region type and subtype ``..._DEPRECATED`` and the
bits ``VFIO_DEVICE_STATE_V1_...``; the numbers are the same.
"""

from __future__ import annotations

import ctypes
from typing import Final

VFIO_REGION_TYPE_MIGRATION: Final = 3
VFIO_REGION_SUBTYPE_MIGRATION: Final = 1

VFIO_DEVICE_STATE_STOP: Final = 0
VFIO_DEVICE_STATE_RUNNING: Final = 1 << 0
VFIO_DEVICE_STATE_SAVING: Final = 1 << 1
VFIO_DEVICE_STATE_RESUMING: Final = 1 << 2
VFIO_DEVICE_STATE_MASK: Final = (
    VFIO_DEVICE_STATE_RUNNING | VFIO_DEVICE_STATE_SAVING | VFIO_DEVICE_STATE_RESUMING
)


def VFIO_DEVICE_STATE_VALID(state: int) -> bool:  # noqa: N802 -- C's name
    """Tell whether RESUMING, if it is set, stands alone: C's macro of this name."""
    if state & VFIO_DEVICE_STATE_RESUMING:
        return state & VFIO_DEVICE_STATE_MASK == VFIO_DEVICE_STATE_RESUMING
    return True


def VFIO_DEVICE_STATE_IS_ERROR(state: int) -> bool:  # noqa: N802 -- C's name
    """Tell whether the low bits are SAVING and RESUMING: C's macro of this name."""
    return state & VFIO_DEVICE_STATE_MASK == (
        VFIO_DEVICE_STATE_SAVING | VFIO_DEVICE_STATE_RESUMING
    )


class vfio_device_migration_info(ctypes.Structure):
    """The trapped registers at offset 0 of the migration region."""

    _fields_ = (
        ("device_state", ctypes.c_uint32),  # 0x00  read/write
        ("reserved", ctypes.c_uint32),  # 0x04  reads zero, writes ignored
        ("pending_bytes", ctypes.c_uint64),  # 0x08  read only
        ("data_offset", ctypes.c_uint64),  # 0x10  read only
        ("data_size", ctypes.c_uint64),  # 0x18  read/write
    )
