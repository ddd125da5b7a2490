"""Every message of vfio-user in each direction, byte by byte.

Written by hand, a field or two a word, from the protocol's tables; everything is
little-endian.  A header is: msg_id, command, msg_size, flags, error_no.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from vfiomig.protocol.vfio_user.dma import (
    Bitmap,
    DirtyPages,
    DmaAccess,
    DmaData,
    DmaMap,
    DmaUnmap,
)
from vfiomig.protocol.vfio_user.messages import (
    DeviceInfo,
    IrqInfo,
    RegionAccess,
    RegionData,
    RegionInfo,
    RegionIoFds,
    SetIrqs,
)
from vfiomig.protocol.vfio_user.negotiation import Capabilities, Version


class Payload(Protocol):
    """What all payloads do."""

    def encode(self) -> bytes: ...

    @classmethod
    def decode(cls, payload: bytes, /) -> Payload: ...


class Example(NamedTuple):
    """A message: who is meant, its bytes, and what they say."""

    name: str
    wire: str
    msg_id: int
    command: int
    is_reply: bool
    value: Payload | None  # None: no payload

    @property
    def message(self) -> bytes:
        return bytes.fromhex(self.wire)


TYPE_AND_SPARSE = bytes.fromhex(
    "0200 0100 30000000  03000000 01000000"  # TYPE v1, next 0x30: type 3, subtype 1
    "0100 0100 00000000  01000000 00000000"  # SPARSE_MMAP v1, the last: 1 area
    "0010000000000000 0040000000000000"  # 0x4000 bytes at 0x1000
)

EXAMPLES = (
    Example(
        "VERSION, command",
        # 0.2 and {"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576}} NUL
        "0100 0100 54000000 00000000 00000000  0000 0200"
        "7b226361706162696c6974696573223a"
        "7b226d61785f6d73675f666473223a31"
        "2c226d61785f646174615f786665725f"
        "73697a65223a313034383537367d7d 00",
        1,
        1,
        False,
        Version(),
    ),
    Example(
        "VERSION, reply",
        # ... {"max_msg_fds":8,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}
        "0100 0100 70000000 01000000 00000000  0000 0200"
        "7b226361706162696c6974696573223a"
        "7b226d61785f6d73675f666473223a38"
        "2c226d61785f646174615f786665725f"
        "73697a65223a313034383537362c226d"
        "6967726174696f6e223a7b2270677369"
        "7a65223a343039367d7d7d 00",
        1,
        1,
        True,
        Version(capabilities=Capabilities(max_msg_fds=8, pgsize=4096)),
    ),
    Example(
        "DMA_MAP, command",
        "0200 0200 30000000 00000000 00000000"
        "20000000 03000000 0030000000000000 0000008000000000 0000100000000000",
        2,
        2,
        False,
        DmaMap(3, 0x3000, 0x8000_0000, 0x10_0000),
    ),
    Example(
        "DMA_MAP, reply",
        "0200 0200 10000000 01000000 00000000",
        2,
        2,
        True,
        None,
    ),
    Example(
        "DMA_UNMAP, command",
        "0300 0300 28000000 00000000 00000000"
        "18000000 00000000 0000008000000000 0000100000000000",
        3,
        3,
        False,
        DmaUnmap(0, 0x8000_0000, 0x10_0000),
    ),
    Example(
        "DMA_UNMAP, reply",
        "0300 0300 28000000 01000000 00000000"
        "18000000 00000000 0000008000000000 0000100000000000",
        3,
        3,
        True,
        DmaUnmap(0, 0x8000_0000, 0x10_0000),
    ),
    Example(
        "DMA_UNMAP that gets a bitmap, command",
        "0400 0300 38000000 00000000 00000000"
        "30000000 01000000 0000008000000000 0040000000000000"
        "0010000000000000 0800000000000000",
        4,
        3,
        False,
        DmaUnmap(1, 0x8000_0000, 0x4000, Bitmap(4096, 8), argsz=48),
    ),
    Example(
        "DMA_UNMAP that gets a bitmap, reply",
        "0400 0300 40000000 01000000 00000000"
        "30000000 01000000 0000008000000000 0040000000000000"
        "0010000000000000 0800000000000000  0500000000000000",
        4,
        3,
        True,
        DmaUnmap(
            1, 0x8000_0000, 0x4000, Bitmap(4096, 8), b"\5\0\0\0\0\0\0\0", argsz=48
        ),
    ),
    Example(
        "DEVICE_GET_INFO, command",
        "0500 0400 20000000 00000000 00000000  10000000 00000000 00000000 00000000",
        5,
        4,
        False,
        DeviceInfo(),
    ),
    Example(
        "DEVICE_GET_INFO, reply",
        "0500 0400 20000000 01000000 00000000  10000000 03000000 0a000000 05000000",
        5,
        4,
        True,
        DeviceInfo(16, 3, 10, 5),
    ),
    Example(
        "DEVICE_GET_REGION_INFO, command",
        "0600 0500 30000000 00000000 00000000"
        "00100000 00000000 09000000 00000000 0000000000000000 0000000000000000",
        6,
        5,
        False,
        RegionInfo(argsz=4096, index=9),
    ),
    Example(
        "DEVICE_GET_REGION_INFO, reply",
        "0600 0500 60000000 01000000 00000000"
        "50000000 0f000000 09000000 20000000 0050000000000000 0030000000000000"
        "0200 0100 30000000  03000000 01000000"
        "0100 0100 00000000  01000000 00000000  0010000000000000 0040000000000000",
        6,
        5,
        True,
        RegionInfo(80, 0xF, 9, 32, 0x5000, 0x3000, TYPE_AND_SPARSE),
    ),
    Example(
        "DEVICE_GET_REGION_IO_FDS, command",
        "0700 0600 20000000 00000000 00000000  10000000 00000000 02000000 00000000",
        7,
        6,
        False,
        RegionIoFds(index=2),
    ),
    Example(
        "DEVICE_GET_REGION_IO_FDS, reply",
        "0700 0600 20000000 01000000 00000000  10000000 00000000 02000000 00000000",
        7,
        6,
        True,
        RegionIoFds(index=2),
    ),
    Example(
        "DEVICE_GET_IRQ_INFO, command",
        "0800 0700 20000000 00000000 00000000  10000000 00000000 01000000 00000000",
        8,
        7,
        False,
        IrqInfo(index=1),
    ),
    Example(
        "DEVICE_GET_IRQ_INFO, reply",
        "0800 0700 20000000 01000000 00000000  10000000 09000000 01000000 04000000",
        8,
        7,
        True,
        IrqInfo(16, 9, 1, 4),
    ),
    Example(
        "DEVICE_SET_IRQS with eventfds beside it, command",
        "0900 0800 24000000 00000000 00000000"
        "14000000 24000000 01000000 00000000 02000000",
        9,
        8,
        False,
        SetIrqs(20, 0x24, 1, 0, 2),
    ),
    Example(
        "DEVICE_SET_IRQS with flags, command",
        "0a00 0800 27000000 00000000 00000000"
        "17000000 22000000 01000000 01000000 03000000 010001",
        10,
        8,
        False,
        SetIrqs(23, 0x22, 1, 1, 3, b"\1\0\1"),
    ),
    Example(
        "DEVICE_SET_IRQS, reply",
        "0a00 0800 10000000 01000000 00000000",
        10,
        8,
        True,
        None,
    ),
    Example(
        "REGION_READ, command",
        "0b00 0900 20000000 00000000 00000000  0800000000000000 09000000 08000000",
        11,
        9,
        False,
        RegionAccess(8, 9, 8),
    ),
    Example(
        "REGION_READ, reply",
        "0b00 0900 28000000 01000000 00000000  0800000000000000 09000000 08000000"
        "0010000000000000",
        11,
        9,
        True,
        RegionData(8, 9, b"\0\x10\0\0\0\0\0\0"),
    ),
    Example(
        "REGION_WRITE, command",
        "0c00 0a00 24000000 00000000 00000000  0000000000000000 09000000 04000000"
        "03000000",
        12,
        10,
        False,
        RegionData(0, 9, b"\3\0\0\0"),
    ),
    Example(
        "REGION_WRITE, reply",
        "0c00 0a00 20000000 01000000 00000000  0000000000000000 09000000 04000000",
        12,
        10,
        True,
        RegionAccess(0, 9, 4),
    ),
    Example(
        "DMA_READ, command",
        "0d00 0b00 20000000 00000000 00000000  0010008000000000 0400000000000000",
        13,
        11,
        False,
        DmaAccess(0x8000_1000, 4),
    ),
    Example(
        "DMA_READ, reply",
        "0d00 0b00 24000000 01000000 00000000  0010008000000000 0400000000000000"
        "61626364",
        13,
        11,
        True,
        DmaData(0x8000_1000, b"abcd"),
    ),
    Example(
        "DMA_WRITE, command",
        "0e00 0c00 24000000 00000000 00000000  0010008000000000 0400000000000000"
        "61626364",
        14,
        12,
        False,
        DmaData(0x8000_1000, b"abcd"),
    ),
    Example(
        "DMA_WRITE, reply",
        "0e00 0c00 20000000 01000000 00000000  0010008000000000 0400000000000000",
        14,
        12,
        True,
        DmaAccess(0x8000_1000, 4),
    ),
    Example(
        "DEVICE_RESET, command",
        "0f00 0d00 10000000 00000000 00000000",
        15,
        13,
        False,
        None,
    ),
    Example(
        "DEVICE_RESET, reply",
        "0f00 0d00 10000000 01000000 00000000",
        15,
        13,
        True,
        None,
    ),
    Example(
        "DIRTY_PAGES that starts, command",
        "1000 0e00 18000000 00000000 00000000  08000000 01000000",
        16,
        14,
        False,
        DirtyPages(1),
    ),
    Example(
        "DIRTY_PAGES that starts, reply",
        "1000 0e00 10000000 01000000 00000000",
        16,
        14,
        True,
        None,
    ),
    Example(
        "DIRTY_PAGES that stops, command",
        "1100 0e00 18000000 00000000 00000000  08000000 02000000",
        17,
        14,
        False,
        DirtyPages(2),
    ),
    Example(
        "DIRTY_PAGES that gets a bitmap, command",
        "1200 0e00 38000000 00000000 00000000  30000000 04000000"
        "0000008000000000 0040000000000000 0010000000000000 0800000000000000",
        18,
        14,
        False,
        DirtyPages(4, 0x8000_0000, 0x4000, Bitmap(4096, 8), argsz=48),
    ),
    Example(
        "DIRTY_PAGES that gets a bitmap, reply",
        "1200 0e00 40000000 01000000 00000000  30000000 04000000"
        "0000008000000000 0040000000000000 0010000000000000 0800000000000000"
        "0a00000000000000",
        18,
        14,
        True,
        DirtyPages(
            4, 0x8000_0000, 0x4000, Bitmap(4096, 8), b"\n\0\0\0\0\0\0\0", argsz=48
        ),
    ),
)
