"""What a client asks of a server: each command, its name, how its reply is read.

A reply is held against its request: what does not fit is a `MessageError`, as is what
cannot be read at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from vfiomig.protocol.vfio_user.dma import DirtyPages, DmaMap, DmaUnmap
from vfiomig.protocol.vfio_user.messages import (
    DeviceInfo,
    IrqInfo,
    RegionAccess,
    RegionData,
    RegionInfo,
    SetIrqs,
    refuse,
    require_nothing,
)
from vfiomig.protocol.vfio_user.negotiation import Version, require_agreement
from vfiomig.uapi.vfio_user import (
    VFIO_USER_DEVICE_GET_INFO,
    VFIO_USER_DEVICE_GET_IRQ_INFO,
    VFIO_USER_DEVICE_GET_REGION_INFO,
    VFIO_USER_DEVICE_RESET,
    VFIO_USER_DEVICE_SET_IRQS,
    VFIO_USER_DIRTY_PAGES,
    VFIO_USER_DMA_MAP,
    VFIO_USER_DMA_UNMAP,
    VFIO_USER_REGION_READ,
    VFIO_USER_REGION_WRITE,
    VFIO_USER_VERSION,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


class Reply(NamedTuple):
    """What came back.  The fds are its reader's, and closed if it cannot be read."""

    payload: bytes
    fds: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Generic[T]):
    """A command, and how its reply is read.

    ``access`` is what the user application does, as `DriverDiedError` has it; ``name``
    is what goes over the socket.  The reply may bring ``most_fds``.
    """

    command: int
    access: str
    name: str
    payload: bytes
    read: Callable[[Reply], T]
    fds: Sequence[int] = ()
    most_fds: int = 0


def version(proposed: Version) -> Request[Version]:
    """Ask which version is spoken."""

    def read(reply: Reply) -> Version:
        said = Version.decode(reply.payload)
        require_agreement(proposed, said)
        return said

    return Request(
        command=VFIO_USER_VERSION,
        access="connect",
        name="VERSION",
        payload=proposed.encode(),
        read=read,
    )


def device_info() -> Request[DeviceInfo]:
    """Ask what the device is."""
    return Request(
        command=VFIO_USER_DEVICE_GET_INFO,
        access="VFIO_DEVICE_GET_INFO",
        name="DEVICE_GET_INFO",
        payload=DeviceInfo().encode(),
        read=lambda reply: DeviceInfo.decode(reply.payload),
    )


def region_info(
    index: int, argsz: int, access: str, *, most: int
) -> Request[tuple[RegionInfo, int | None]]:
    """Ask for a region and its file, with room for ``argsz`` bytes.

    None is believed to need more than ``most``.
    """

    def read(reply: Reply) -> tuple[RegionInfo, int | None]:
        info = RegionInfo.decode(reply.payload)
        if info.index != index:
            refuse(f"the info of region {info.index}, not {index}")
        if info.argsz > most:
            refuse(f"the info of region {index} needs {info.argsz} bytes")
        return info, reply.fds[0] if reply.fds else None

    return Request(
        command=VFIO_USER_DEVICE_GET_REGION_INFO,
        access=access,
        name=f"DEVICE_GET_REGION_INFO of region {index}",
        payload=RegionInfo(argsz=argsz, index=index).encode(),
        read=read,
        most_fds=1,
    )


def irq_info(index: int) -> Request[IrqInfo]:
    """Ask for an interrupt."""

    def read(reply: Reply) -> IrqInfo:
        info = IrqInfo.decode(reply.payload)
        if info.index != index:
            refuse(f"the info of interrupt {info.index}, not {index}")
        return info

    return Request(
        command=VFIO_USER_DEVICE_GET_IRQ_INFO,
        access="VFIO_DEVICE_GET_IRQ_INFO",
        name=f"DEVICE_GET_IRQ_INFO of interrupt {index}",
        payload=IrqInfo(index=index).encode(),
        read=read,
    )


def set_irqs(irqs: SetIrqs, fds: Sequence[int] = ()) -> Request[None]:
    """Set interrupts up; eventfds go beside it."""
    return Request(
        command=VFIO_USER_DEVICE_SET_IRQS,
        access="VFIO_DEVICE_SET_IRQS",
        name=f"DEVICE_SET_IRQS of interrupt {irqs.index}",
        payload=irqs.encode(),
        read=_nothing("DEVICE_SET_IRQS"),
        fds=fds,
    )


def reset() -> Request[None]:
    """Reset the device."""
    return Request(
        command=VFIO_USER_DEVICE_RESET,
        access="VFIO_DEVICE_RESET",
        name="DEVICE_RESET",
        payload=b"",
        read=_nothing("DEVICE_RESET"),
    )


def region_read(index: int, place: int, size: int) -> Request[bytes]:
    """Read bytes of a region; fewer are a short read."""
    access = f"{size} bytes at {place:#x}"

    def read(reply: Reply) -> bytes:
        given = RegionData.decode(reply.payload)
        count = len(given.data)
        _require_place(given.region, given.offset, index, place)
        _require_count(count, size)
        return given.data

    return Request(
        command=VFIO_USER_REGION_READ,
        access=f"read of {access}",
        name=f"REGION_READ of {access} of region {index}",
        payload=RegionAccess(place, index, size).encode(),
        read=read,
    )


def region_write(index: int, place: int, data: bytes) -> Request[int]:
    """Write bytes of a region; say how many were taken."""
    access = f"{len(data)} bytes at {place:#x}"

    def read(reply: Reply) -> int:
        taken = RegionAccess.decode(reply.payload)
        _require_place(taken.region, taken.offset, index, place)
        _require_count(taken.count, len(data))
        return taken.count

    return Request(
        command=VFIO_USER_REGION_WRITE,
        access=f"write of {access}",
        name=f"REGION_WRITE of {access} of region {index}",
        payload=RegionData(place, index, data).encode(),
        read=read,
    )


def dma_map(asked: DmaMap, fds: Sequence[int] = ()) -> Request[None]:
    """Let the server reach memory, by its file if one goes beside."""
    place = f"{asked.size:#x} bytes at {asked.address:#x}"
    return Request(
        command=VFIO_USER_DMA_MAP,
        access=f"DMA map of {place}",
        name=f"DMA_MAP of {place}",
        payload=asked.encode(),
        read=_nothing("DMA_MAP", asked.encode()),
        fds=fds,
    )


def dma_unmap(asked: DmaUnmap) -> Request[bytes]:
    """Take memory away again; return the bits asked for, or none."""
    place = f"{asked.size:#x} bytes at {asked.address:#x}"

    def read(reply: Reply) -> bytes:
        given = DmaUnmap.decode(reply.payload)
        if (given.address, given.size) != (asked.address, asked.size):
            refuse(f"{given.size:#x} bytes at {given.address:#x} were unmapped")
        if given.bitmap != asked.bitmap:
            refuse(f"the bits are of {given.bitmap}, not of {asked.bitmap}")
        _require_bits(given.bits, 0 if asked.bitmap is None else asked.bitmap.size)
        return given.bits

    return Request(
        command=VFIO_USER_DMA_UNMAP,
        access=f"DMA unmap of {place}",
        name=f"DMA_UNMAP of {place}",
        payload=asked.encode(),
        read=read,
    )


def dirty_pages(asked: DirtyPages, what: str) -> Request[bytes]:
    """Begin or end dirty tracking, or get the bits; ``what`` says which of them."""

    def read(reply: Reply) -> bytes:
        if asked.bitmap is None:
            _nothing("DIRTY_PAGES", asked.encode())(reply)
            return b""
        given = DirtyPages.decode(reply.payload)
        if (given.iova, given.size, given.bitmap) != _range_of(asked):
            refuse("the bits are of another range, or of other pages")
        _require_bits(given.bits, asked.bitmap.size)
        return given.bits

    return Request(
        command=VFIO_USER_DIRTY_PAGES,
        access=f"DIRTY_PAGES, {what}",
        name=f"DIRTY_PAGES, {what}",
        payload=asked.encode(),
        read=read,
    )


def _range_of(asked: DirtyPages) -> tuple[object, ...]:
    return asked.iova, asked.size, asked.bitmap


def _nothing(name: str, echo: bytes = b"") -> Callable[[Reply], None]:
    """Make a reader of replies without a payload; some servers repeat the command's."""

    def read(reply: Reply) -> None:
        if reply.payload != echo:
            require_nothing(reply.payload, f"the reply to {name}")

    return read


def _require_place(region: int, offset: int, index: int, place: int) -> None:
    if (region, offset) != (index, place):
        refuse(f"an answer for {offset:#x} of region {region}")


def _require_count(count: int, most: int) -> None:
    if count > most:
        refuse(f"{count} bytes, more than were asked for")


def _require_bits(bits: bytes, size: int) -> None:
    if len(bits) != size:
        refuse(f"{len(bits)} bytes of bits, not {size}")
