"""What commands and replies carry that are about the client's memory.

Replies to VFIO_USER_DMA_MAP, and to VFIO_USER_DIRTY_PAGES that gets no bitmap, have no
payload.  Some servers repeat the command's; that is taken as well.
"""

from __future__ import annotations

import struct
from ctypes import sizeof
from dataclasses import dataclass
from typing import Final, Self

from vfiomig.protocol.vfio_user.messages import (
    fields_of,
    require_at_least,
    require_exactly,
)
from vfiomig.uapi.iommu_type1 import (
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
)
from vfiomig.uapi.vfio_user import (
    vfio_user_bitmap,
    vfio_user_bitmap_range,
    vfio_user_dirty_pages,
    vfio_user_dma_map,
    vfio_user_dma_region_access,
    vfio_user_dma_unmap,
)

_MAP: Final = struct.Struct("<IIQQQ")
_UNMAP: Final = struct.Struct("<IIQQ")
_BITMAP: Final = struct.Struct("<QQ")
_DIRTY: Final = struct.Struct("<II")
_RANGE: Final = struct.Struct("<QQ")
_ACCESS: Final = struct.Struct("<QQ")

_MAP_SIZE: Final = sizeof(vfio_user_dma_map)
_UNMAP_SIZE: Final = sizeof(vfio_user_dma_unmap)
_BITMAP_SIZE: Final = sizeof(vfio_user_bitmap)
_DIRTY_SIZE: Final = sizeof(vfio_user_dirty_pages)
_RANGE_SIZE: Final = sizeof(vfio_user_bitmap_range)
DMA_ACCESS_SIZE: Final = sizeof(vfio_user_dma_region_access)


@dataclass(frozen=True, slots=True)
class Bitmap:
    """``struct vfio_user_bitmap``: bytes a bit, and bytes of the bitmap."""

    pgsize: int
    size: int

    def encode(self) -> bytes:
        """Return the structure."""
        return _BITMAP.pack(self.pgsize, self.size)


@dataclass(frozen=True, slots=True)
class DmaMap:
    """VFIO_USER_DMA_MAP; a file may come beside it, with the memory at ``offset``."""

    flags: int
    offset: int
    address: int
    size: int
    argsz: int = _MAP_SIZE

    def encode(self) -> bytes:
        """Return the payload."""
        return _MAP.pack(self.argsz, self.flags, self.offset, self.address, self.size)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        require_exactly(payload, _MAP_SIZE, "DMA map")
        argsz, flags, offset, address, size = fields_of(_MAP, payload, "DMA map")
        return cls(flags, offset, address, size, argsz)


@dataclass(frozen=True, slots=True)
class DmaUnmap:
    """VFIO_USER_DMA_UNMAP, and its reply, which has the ``bits`` asked for."""

    flags: int
    address: int
    size: int
    bitmap: Bitmap | None = None
    bits: bytes = b""
    argsz: int = _UNMAP_SIZE

    def encode(self) -> bytes:
        """Return the payload."""
        head = _UNMAP.pack(self.argsz, self.flags, self.address, self.size)
        if self.bitmap is None:
            return head
        return head + self.bitmap.encode() + self.bits

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload of a command, or of a reply."""
        argsz, flags, address, size = fields_of(_UNMAP, payload, "DMA unmap")
        bitmap, bits = None, b""
        if flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP:
            end = _UNMAP_SIZE + _BITMAP_SIZE
            require_at_least(payload, end, "DMA unmap that gets a bitmap")
            bitmap = Bitmap(*_BITMAP.unpack_from(payload, _UNMAP_SIZE))
            bits = _bits(payload[end:], bitmap)
        else:
            require_exactly(payload, _UNMAP_SIZE, "DMA unmap")
        return cls(flags, address, size, bitmap, bits, argsz)


@dataclass(frozen=True, slots=True)
class DirtyPages:
    """VFIO_USER_DIRTY_PAGES, and its reply, which has the ``bits`` asked for.

    ``iova``, ``size`` and ``bitmap`` are of one that gets a bitmap.
    """

    flags: int
    iova: int = 0
    size: int = 0
    bitmap: Bitmap | None = None
    bits: bytes = b""
    argsz: int = _DIRTY_SIZE

    def encode(self) -> bytes:
        """Return the payload."""
        head = _DIRTY.pack(self.argsz, self.flags)
        if self.bitmap is None:
            return head
        place = _RANGE.pack(self.iova, self.size)
        return head + place + self.bitmap.encode() + self.bits

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload of a command, or of a reply."""
        argsz, flags = fields_of(_DIRTY, payload, "dirty pages")
        if not flags & VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
            require_exactly(payload, _DIRTY_SIZE, "dirty pages")
            return cls(flags, argsz=argsz)
        end = _DIRTY_SIZE + _RANGE_SIZE
        require_at_least(payload, end, "dirty pages that get a bitmap")
        iova, size = _RANGE.unpack_from(payload, _DIRTY_SIZE)
        bitmap = Bitmap(*_BITMAP.unpack_from(payload, end - _BITMAP_SIZE))
        return cls(flags, iova, size, bitmap, _bits(payload[end:], bitmap), argsz)


@dataclass(frozen=True, slots=True)
class DmaAccess:
    """VFIO_USER_DMA_READ, and the reply to VFIO_USER_DMA_WRITE: no data."""

    address: int
    count: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _ACCESS.pack(self.address, self.count)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        require_exactly(payload, DMA_ACCESS_SIZE, "DMA access")
        return cls(*_ACCESS.unpack(payload))


@dataclass(frozen=True, slots=True)
class DmaData:
    """VFIO_USER_DMA_WRITE, and the reply to VFIO_USER_DMA_READ."""

    address: int
    data: bytes

    def encode(self) -> bytes:
        """Return the payload; its count is that of the data."""
        return _ACCESS.pack(self.address, len(self.data)) + self.data

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        require_at_least(payload, DMA_ACCESS_SIZE, "DMA access")
        address, count = _ACCESS.unpack_from(payload)
        size = DMA_ACCESS_SIZE + count
        require_exactly(payload, size, f"DMA access with {count} bytes")
        return cls(address, bytes(payload[DMA_ACCESS_SIZE:]))


def _bits(rest: bytes, bitmap: Bitmap) -> bytes:
    """Return the bits behind a bitmap: none in a command, all of them in a reply."""
    if rest:
        require_exactly(rest, bitmap.size, "the bits of a bitmap")
    return bytes(rest)
