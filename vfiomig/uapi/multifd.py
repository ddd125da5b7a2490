"""Layouts and numbers of QEMU's multifd channels (migration/multifd.h and multifd.c).

All of them stand in the stream big-endian. C packs the structures; their fields lie at
their natural alignment anyway.
"""

from __future__ import annotations

import ctypes
from typing import Final

MULTIFD_MAGIC: Final = 0x11223344
MULTIFD_VERSION: Final = 1

MULTIFD_FLAG_SYNC: Final = 1 << 0
# Three bits in 7.2; five since 9.1 and 9.2, which added the last three methods.
MULTIFD_FLAG_COMPRESSION_MASK: Final = 0x1F << 1
MULTIFD_FLAG_ZLIB: Final = 1 << 1
MULTIFD_FLAG_ZSTD: Final = 2 << 1
MULTIFD_FLAG_QPL: Final = 4 << 1
MULTIFD_FLAG_UADK: Final = 8 << 1
MULTIFD_FLAG_QATZIP: Final = 16 << 1
# Since 10.0: what follows is a MultiFDPacketDeviceState_t.
MULTIFD_FLAG_DEVICE_STATE: Final = 32 << 1

# The pages of one packet, in bytes.
MULTIFD_PACKET_SIZE: Final = 512 * 1024


class MultiFDInit_t(ctypes.BigEndianStructure):
    """The first bytes of every channel but the main one (multifd.c)."""

    _fields_ = (
        ("magic", ctypes.c_uint32),  # 0x00
        ("version", ctypes.c_uint32),  # 0x04
        ("uuid", ctypes.c_uint8 * 16),  # 0x08  the VM's, zero if it has none
        ("id", ctypes.c_uint8),  # 0x18
        ("unused1", ctypes.c_uint8 * 7),  # 0x19
        ("unused2", ctypes.c_uint64 * 4),  # 0x20
    )


class MultiFDPacket_t(ctypes.BigEndianStructure):
    """The head of every packet of QEMU 7.2; ``offset[]`` follows."""

    _fields_ = (
        ("magic", ctypes.c_uint32),  # 0x00
        ("version", ctypes.c_uint32),  # 0x04
        ("flags", ctypes.c_uint32),  # 0x08
        ("pages_alloc", ctypes.c_uint32),  # 0x0c  room of offset[]
        ("normal_pages", ctypes.c_uint32),  # 0x10  pages that are not zero
        ("next_packet_size", ctypes.c_uint32),  # 0x14  bytes of them, behind this
        ("packet_num", ctypes.c_uint64),  # 0x18
        ("unused", ctypes.c_uint64 * 4),  # 0x20
        ("ramblock", ctypes.c_uint8 * 256),  # 0x40
    )


class MultiFDPacket_9_0_t(ctypes.BigEndianStructure):
    """`MultiFDPacket_t` of QEMU 9.0 and later, where it counts zero pages as well.

    9.0 is the first release with QEMU's commit 303e6f54f9 ("migration/multifd:
    Implement zero page transmission on the multifd thread.").
    """

    _fields_ = (
        ("magic", ctypes.c_uint32),  # 0x00
        ("version", ctypes.c_uint32),  # 0x04
        ("flags", ctypes.c_uint32),  # 0x08
        ("pages_alloc", ctypes.c_uint32),  # 0x0c
        ("normal_pages", ctypes.c_uint32),  # 0x10
        ("next_packet_size", ctypes.c_uint32),  # 0x14
        ("packet_num", ctypes.c_uint64),  # 0x18
        ("zero_pages", ctypes.c_uint32),  # 0x20  theirs follow in offset[]
        ("unused32", ctypes.c_uint32 * 1),  # 0x24
        ("unused64", ctypes.c_uint64 * 3),  # 0x28
        ("ramblock", ctypes.c_uint8 * 256),  # 0x40
    )
