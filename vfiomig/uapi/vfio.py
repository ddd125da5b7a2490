"""Group, device, region and interrupt information of linux/vfio.h (v5.8 to v5.17).

Newer kernels append a pad to ``vfio_device_info`` (20 bytes become 24) and align the
64-bit members explicitly; the offsets are the same.
"""

from __future__ import annotations

import ctypes
from typing import Final

# struct vfio_group_status, flags
VFIO_GROUP_FLAGS_VIABLE: Final = 1 << 0
VFIO_GROUP_FLAGS_CONTAINER_SET: Final = 1 << 1

# struct vfio_device_info, flags
VFIO_DEVICE_FLAGS_RESET: Final = 1 << 0
VFIO_DEVICE_FLAGS_PCI: Final = 1 << 1
VFIO_DEVICE_FLAGS_PLATFORM: Final = 1 << 2
VFIO_DEVICE_FLAGS_AMBA: Final = 1 << 3
VFIO_DEVICE_FLAGS_CCW: Final = 1 << 4
VFIO_DEVICE_FLAGS_AP: Final = 1 << 5
VFIO_DEVICE_FLAGS_FSL_MC: Final = 1 << 6
VFIO_DEVICE_FLAGS_CAPS: Final = 1 << 7

# struct vfio_region_info, flags
VFIO_REGION_INFO_FLAG_READ: Final = 1 << 0
VFIO_REGION_INFO_FLAG_WRITE: Final = 1 << 1
VFIO_REGION_INFO_FLAG_MMAP: Final = 1 << 2
VFIO_REGION_INFO_FLAG_CAPS: Final = 1 << 3

# struct vfio_irq_info, flags
VFIO_IRQ_INFO_EVENTFD: Final = 1 << 0
VFIO_IRQ_INFO_MASKABLE: Final = 1 << 1
VFIO_IRQ_INFO_AUTOMASKED: Final = 1 << 2
VFIO_IRQ_INFO_NORESIZE: Final = 1 << 3

# struct vfio_irq_set, flags: what the data are, and what is to be done
VFIO_IRQ_SET_DATA_NONE: Final = 1 << 0
VFIO_IRQ_SET_DATA_BOOL: Final = 1 << 1
VFIO_IRQ_SET_DATA_EVENTFD: Final = 1 << 2
VFIO_IRQ_SET_ACTION_MASK: Final = 1 << 3
VFIO_IRQ_SET_ACTION_UNMASK: Final = 1 << 4
VFIO_IRQ_SET_ACTION_TRIGGER: Final = 1 << 5
VFIO_IRQ_SET_DATA_TYPE_MASK: Final = (
    VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_DATA_EVENTFD
)
VFIO_IRQ_SET_ACTION_TYPE_MASK: Final = (
    VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER
)

# struct vfio_device_feature, flags: the feature's index and what is asked of it
VFIO_DEVICE_FEATURE_MASK: Final = 0xFFFF
VFIO_DEVICE_FEATURE_GET: Final = 1 << 16
VFIO_DEVICE_FEATURE_SET: Final = 1 << 17
VFIO_DEVICE_FEATURE_PROBE: Final = 1 << 18

# Capability ids of a region info; the id space is one an INFO ioctl.
VFIO_REGION_INFO_CAP_SPARSE_MMAP: Final = 1
VFIO_REGION_INFO_CAP_TYPE: Final = 2
VFIO_REGION_INFO_CAP_MSIX_MAPPABLE: Final = 3

# Indexes that are fixed for PCI devices.
VFIO_PCI_BAR0_REGION_INDEX: Final = 0
VFIO_PCI_BAR1_REGION_INDEX: Final = 1
VFIO_PCI_BAR2_REGION_INDEX: Final = 2
VFIO_PCI_BAR3_REGION_INDEX: Final = 3
VFIO_PCI_BAR4_REGION_INDEX: Final = 4
VFIO_PCI_BAR5_REGION_INDEX: Final = 5
VFIO_PCI_ROM_REGION_INDEX: Final = 6
VFIO_PCI_CONFIG_REGION_INDEX: Final = 7
VFIO_PCI_VGA_REGION_INDEX: Final = 8
VFIO_PCI_NUM_REGIONS: Final = 9

VFIO_PCI_INTX_IRQ_INDEX: Final = 0
VFIO_PCI_MSI_IRQ_INDEX: Final = 1
VFIO_PCI_MSIX_IRQ_INDEX: Final = 2
VFIO_PCI_ERR_IRQ_INDEX: Final = 3
VFIO_PCI_REQ_IRQ_INDEX: Final = 4
VFIO_PCI_NUM_IRQS: Final = 5


class vfio_info_cap_header(ctypes.Structure):
    """What every capability of an info chain begins with."""

    _fields_ = (
        ("id", ctypes.c_uint16),  # 0x00
        ("version", ctypes.c_uint16),  # 0x02
        ("next", ctypes.c_uint32),  # 0x04  from the start of the info, 0 = the last
    )


class vfio_group_status(ctypes.Structure):
    """What VFIO_GROUP_GET_STATUS fills."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
    )


class vfio_device_info(ctypes.Structure):
    """What VFIO_DEVICE_GET_INFO fills."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00  in and out
        ("flags", ctypes.c_uint32),  # 0x04
        ("num_regions", ctypes.c_uint32),  # 0x08
        ("num_irqs", ctypes.c_uint32),  # 0x0c
        ("cap_offset", ctypes.c_uint32),  # 0x10  since v5.9
    )


class vfio_region_info(ctypes.Structure):
    """What VFIO_DEVICE_GET_REGION_INFO fills for the region ``index``."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00  in and out
        ("flags", ctypes.c_uint32),  # 0x04
        ("index", ctypes.c_uint32),  # 0x08  in
        ("cap_offset", ctypes.c_uint32),  # 0x0c  from the start of this structure
        ("size", ctypes.c_uint64),  # 0x10
        ("offset", ctypes.c_uint64),  # 0x18  of the region on the device fd
    )


class vfio_region_sparse_mmap_area(ctypes.Structure):
    """One mappable part of a region."""

    _fields_ = (
        ("offset", ctypes.c_uint64),  # 0x00  from the start of the region
        ("size", ctypes.c_uint64),  # 0x08
    )


class vfio_region_info_cap_sparse_mmap(ctypes.Structure):
    """Which parts of a region can be mapped; ``nr_areas`` areas follow."""

    _fields_ = (
        ("header", vfio_info_cap_header),  # 0x00
        ("nr_areas", ctypes.c_uint32),  # 0x08
        ("reserved", ctypes.c_uint32),  # 0x0c
    )


class vfio_region_info_cap_type(ctypes.Structure):
    """What a device-specific region is for."""

    _fields_ = (
        ("header", vfio_info_cap_header),  # 0x00
        ("type", ctypes.c_uint32),  # 0x08
        ("subtype", ctypes.c_uint32),  # 0x0c
    )


class vfio_irq_info(ctypes.Structure):
    """What VFIO_DEVICE_GET_IRQ_INFO fills for the interrupt ``index``."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("index", ctypes.c_uint32),  # 0x08  in
        ("count", ctypes.c_uint32),  # 0x0c
    )


class vfio_irq_set(ctypes.Structure):
    """What VFIO_DEVICE_SET_IRQS takes; ``count`` bytes, or fds as s32, may follow."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("index", ctypes.c_uint32),  # 0x08
        ("start", ctypes.c_uint32),  # 0x0c
        ("count", ctypes.c_uint32),  # 0x10
    )


class vfio_pci_dependent_device(ctypes.Structure):
    """A function that a hot reset would reset as well."""

    _fields_ = (
        ("group_id", ctypes.c_uint32),  # 0x00
        ("segment", ctypes.c_uint16),  # 0x04
        ("bus", ctypes.c_uint8),  # 0x06
        ("devfn", ctypes.c_uint8),  # 0x07
    )


class vfio_pci_hot_reset_info(ctypes.Structure):
    """What VFIO_DEVICE_GET_PCI_HOT_RESET_INFO fills; ``count`` functions follow."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("count", ctypes.c_uint32),  # 0x08
    )


class vfio_pci_hot_reset(ctypes.Structure):
    """What VFIO_DEVICE_PCI_HOT_RESET takes; ``count`` fds of groups (s32) follow."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
        ("count", ctypes.c_uint32),  # 0x08
    )


class vfio_device_feature(ctypes.Structure):
    """What VFIO_DEVICE_FEATURE takes or fills; the feature's own structure follows."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
    )
