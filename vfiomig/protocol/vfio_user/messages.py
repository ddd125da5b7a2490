"""What commands and replies carry: information about a device, accesses, interrupts.

Each is a value that encodes itself, and is decoded from a whole payload; bytes that are
too few, too many, or say so of themselves, are a `MessageError` with EINVAL.  What
memory has to do with is in `dma`.
"""

from __future__ import annotations

import errno
import struct
from ctypes import sizeof
from dataclasses import dataclass
from typing import Final, NoReturn, Self

from vfiomig.protocol.errors import MessageError
from vfiomig.protocol.vfio_user.framing import HEADER_SIZE
from vfiomig.uapi.vfio import vfio_irq_info, vfio_irq_set, vfio_region_info
from vfiomig.uapi.vfio_user import (
    VFIO_USER_REGION_READ,
    vfio_user_device_info,
    vfio_user_region_access,
    vfio_user_region_io_fds,
)

_FOUR: Final = struct.Struct("<IIII")
_REGION_INFO: Final = struct.Struct("<IIIIQQ")
_IRQ_SET: Final = struct.Struct("<IIIII")
_ACCESS: Final = struct.Struct("<QII")
# A whole REGION_READ, which is what is sent most.
_REGION_READ: Final = struct.Struct("<HHIIIQII")

DEVICE_INFO_SIZE: Final = sizeof(vfio_user_device_info)
REGION_INFO_SIZE: Final = sizeof(vfio_region_info)
IRQ_INFO_SIZE: Final = sizeof(vfio_irq_info)
REGION_IO_FDS_SIZE: Final = sizeof(vfio_user_region_io_fds)
ACCESS_SIZE: Final = sizeof(vfio_user_region_access)
_IRQ_SET_SIZE: Final = sizeof(vfio_irq_set)


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """VFIO_USER_DEVICE_GET_INFO; a command says ``argsz`` alone."""

    argsz: int = DEVICE_INFO_SIZE
    flags: int = 0
    num_regions: int = 0
    num_irqs: int = 0

    def encode(self) -> bytes:
        """Return the payload."""
        return _FOUR.pack(self.argsz, self.flags, self.num_regions, self.num_irqs)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload; more than is known of it is left alone."""
        return cls(*fields_of(_FOUR, payload, "device info"))


@dataclass(frozen=True, slots=True)
class RegionInfo:
    """VFIO_USER_DEVICE_GET_REGION_INFO; a command says ``argsz`` and ``index``.

    ``capabilities`` are the bytes behind the structure; offsets in their chain count
    from its beginning.  ``offset`` is the region's place in the file that comes beside.
    """

    argsz: int = REGION_INFO_SIZE
    flags: int = 0
    index: int = 0
    cap_offset: int = 0
    size: int = 0
    offset: int = 0
    capabilities: bytes = b""

    def encode(self) -> bytes:
        """Return the payload, a ``struct vfio_region_info`` and its capabilities."""
        head = _REGION_INFO.pack(
            self.argsz, self.flags, self.index, self.cap_offset, self.size, self.offset
        )
        return head + self.capabilities

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        fields = fields_of(_REGION_INFO, payload, "region info")
        argsz, flags, index, chain, size, offset = fields
        rest = bytes(payload[REGION_INFO_SIZE:])
        return cls(argsz, flags, index, chain, size, offset, rest)


@dataclass(frozen=True, slots=True)
class RegionIoFds:
    """VFIO_USER_DEVICE_GET_REGION_IO_FDS; ``sub_regions`` are left encoded."""

    argsz: int = REGION_IO_FDS_SIZE
    flags: int = 0
    index: int = 0
    count: int = 0
    sub_regions: bytes = b""

    def encode(self) -> bytes:
        """Return the payload."""
        head = _FOUR.pack(self.argsz, self.flags, self.index, self.count)
        return head + self.sub_regions

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        argsz, flags, index, count = fields_of(_FOUR, payload, "region I/O fds")
        return cls(argsz, flags, index, count, bytes(payload[REGION_IO_FDS_SIZE:]))


@dataclass(frozen=True, slots=True)
class IrqInfo:
    """VFIO_USER_DEVICE_GET_IRQ_INFO; a command says ``argsz`` and ``index``."""

    argsz: int = IRQ_INFO_SIZE
    flags: int = 0
    index: int = 0
    count: int = 0

    def encode(self) -> bytes:
        """Return the payload, a ``struct vfio_irq_info``."""
        return _FOUR.pack(self.argsz, self.flags, self.index, self.count)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        return cls(*fields_of(_FOUR, payload, "interrupt info"))


@dataclass(frozen=True, slots=True)
class SetIrqs:
    """VFIO_USER_DEVICE_SET_IRQS; eventfds come beside it, not in ``data``."""

    argsz: int
    flags: int
    index: int
    start: int
    count: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Return the payload, a ``struct vfio_irq_set`` and its data."""
        head = _IRQ_SET.pack(self.argsz, self.flags, self.index, self.start, self.count)
        return head + self.data

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        fields = fields_of(_IRQ_SET, payload, "set of interrupts")
        argsz, flags, index, start, count = fields
        data = bytes(payload[_IRQ_SET_SIZE:])
        return cls(argsz, flags, index, start, count, data)


@dataclass(frozen=True, slots=True)
class RegionAccess:
    """VFIO_USER_REGION_READ, and the reply to VFIO_USER_REGION_WRITE: no data."""

    offset: int
    region: int
    count: int

    def encode(self) -> bytes:
        """Return the payload."""
        return _ACCESS.pack(self.offset, self.region, self.count)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        require_exactly(payload, ACCESS_SIZE, "region access")
        return cls(*_ACCESS.unpack(payload))


@dataclass(frozen=True, slots=True)
class RegionData:
    """VFIO_USER_REGION_WRITE, and the reply to VFIO_USER_REGION_READ."""

    offset: int
    region: int
    data: bytes

    def encode(self) -> bytes:
        """Return the payload; its count is that of the data."""
        return _ACCESS.pack(self.offset, self.region, len(self.data)) + self.data

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read the payload."""
        require_at_least(payload, ACCESS_SIZE, "region access")
        offset, region, count = _ACCESS.unpack_from(payload)
        require_exactly(payload, ACCESS_SIZE + count, f"access with {count} bytes")
        return cls(offset, region, bytes(payload[ACCESS_SIZE:]))


def region_read_message(msg_id: int, offset: int, region: int, count: int) -> bytes:
    """Return a whole VFIO_USER_REGION_READ as it is sent, its header included."""
    return _REGION_READ.pack(
        msg_id,
        VFIO_USER_REGION_READ,
        HEADER_SIZE + ACCESS_SIZE,
        0,
        0,
        offset,
        region,
        count,
    )


def fields_of(layout: struct.Struct, payload: bytes, what: str) -> tuple[int, ...]:
    """Return the fields of a structure that a payload begins with, argsz the first.

    Raises:
        MessageError: EINVAL: it is shorter than the structure, or says so.
    """
    require_at_least(payload, layout.size, what)
    fields: tuple[int, ...] = layout.unpack_from(payload)
    if fields[0] < layout.size:
        refuse(f"{what}: argsz {fields[0]}, less than {layout.size}")
    return fields


def require_nothing(payload: bytes, what: str) -> None:
    """Raise MessageError(EINVAL) for a payload where none belongs."""
    require_exactly(payload, 0, what)


def require_at_least(payload: bytes, size: int, what: str) -> None:
    """Raise MessageError(EINVAL) for a payload that is too short."""
    if len(payload) < size:
        refuse(f"{what}: {len(payload)} bytes, less than {size}")


def require_exactly(payload: bytes, size: int, what: str) -> None:
    """Raise MessageError(EINVAL) for a payload of another size."""
    if len(payload) != size:
        refuse(f"{what}: {len(payload)} bytes, not {size}")


def refuse(why: str) -> NoReturn:
    """Raise MessageError(EINVAL)."""
    raise MessageError(why, code=errno.EINVAL)
