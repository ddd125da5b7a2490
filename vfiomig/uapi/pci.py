"""The configuration space of a conventional PCI function (linux/pci_regs.h).

C has no structures for it, only offsets: a field here is the macro's name in small
letters without ``PCI_``, and its place is the macro's value.
"""

from __future__ import annotations

import ctypes
from typing import Final

PCI_CFG_SPACE_SIZE: Final = 256
PCI_STD_HEADER_SIZEOF: Final = 64
PCI_STD_NUM_BARS: Final = 6

# PCI_COMMAND
PCI_COMMAND_IO: Final = 0x1
PCI_COMMAND_MEMORY: Final = 0x2
PCI_COMMAND_MASTER: Final = 0x4
PCI_COMMAND_PARITY: Final = 0x40
PCI_COMMAND_SERR: Final = 0x100
PCI_COMMAND_INTX_DISABLE: Final = 0x400

# PCI_STATUS
PCI_STATUS_INTERRUPT: Final = 0x08
PCI_STATUS_CAP_LIST: Final = 0x10

# PCI_HEADER_TYPE
PCI_HEADER_TYPE_NORMAL: Final = 0

# PCI_BASE_ADDRESS_0 to _5
PCI_BASE_ADDRESS_SPACE_IO: Final = 0x01
PCI_BASE_ADDRESS_SPACE_MEMORY: Final = 0x00
PCI_BASE_ADDRESS_MEM_TYPE_32: Final = 0x00

PCI_CAP_ID_MSI: Final = 0x05

# PCI_MSI_FLAGS
PCI_MSI_FLAGS_ENABLE: Final = 0x0001
PCI_MSI_FLAGS_QMASK: Final = 0x000E
PCI_MSI_FLAGS_QSIZE: Final = 0x0070
PCI_MSI_FLAGS_64BIT: Final = 0x0080


class pci_header(ctypes.Structure):
    """The header of type 0: what every function that is no bridge begins with."""

    _fields_ = (
        ("vendor_id", ctypes.c_uint16),  # 0x00
        ("device_id", ctypes.c_uint16),  # 0x02
        ("command", ctypes.c_uint16),  # 0x04
        ("status", ctypes.c_uint16),  # 0x06
        ("revision_id", ctypes.c_uint8),  # 0x08
        ("class_prog", ctypes.c_uint8),  # 0x09
        ("class_device", ctypes.c_uint16),  # 0x0a
        ("cache_line_size", ctypes.c_uint8),  # 0x0c
        ("latency_timer", ctypes.c_uint8),  # 0x0d
        ("header_type", ctypes.c_uint8),  # 0x0e
        ("bist", ctypes.c_uint8),  # 0x0f
        ("base_address_0", ctypes.c_uint32 * PCI_STD_NUM_BARS),  # 0x10  all six
        ("cardbus_cis", ctypes.c_uint32),  # 0x28
        ("subsystem_vendor_id", ctypes.c_uint16),  # 0x2c
        ("subsystem_id", ctypes.c_uint16),  # 0x2e
        ("rom_address", ctypes.c_uint32),  # 0x30
        ("capability_list", ctypes.c_uint8),  # 0x34
        ("reserved", ctypes.c_uint8 * 7),  # 0x35
        ("interrupt_line", ctypes.c_uint8),  # 0x3c
        ("interrupt_pin", ctypes.c_uint8),  # 0x3d
        ("min_gnt", ctypes.c_uint8),  # 0x3e
        ("max_lat", ctypes.c_uint8),  # 0x3f
    )


class pci_msi(ctypes.Structure):
    """The MSI capability with 64-bit addresses and without masks (14 bytes)."""

    _fields_ = (
        ("cap_list_id", ctypes.c_uint8),  # 0x00
        ("cap_list_next", ctypes.c_uint8),  # 0x01
        ("msi_flags", ctypes.c_uint16),  # 0x02
        ("msi_address_lo", ctypes.c_uint32),  # 0x04
        ("msi_address_hi", ctypes.c_uint32),  # 0x08
        ("msi_data_64", ctypes.c_uint16),  # 0x0c
    )
