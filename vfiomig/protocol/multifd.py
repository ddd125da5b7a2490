"""What the channels of a migration with ``multifd`` carry, as bytes.

::

    main channel:     the migration stream: 'QEVM' and so on
    another channel:  64 bytes that say which one it is, then packets
    packet:           1344 bytes: flags, counts, a RAM block's name, up to 128 offsets;
                      then the pages that are not zero, in the order of their offsets

Rule 1: all packets have the same size, whatever they hold.  What stands behind the
last offset is left over from another packet, and so are block and size of a packet
without pages: QEMU neither clears nor reads them.

Rule 2: a SYNC goes to every channel, and what a channel carries behind it may be newer
than what another carries before its own.  Who reads goes on behind a SYNC when every
channel has come to it.

Read from QEMU's migration/multifd.h and multifd.c; tests/interop compares with 7.2.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vfiomig.protocol.errors import StreamError
from vfiomig.uapi.multifd import (
    MULTIFD_FLAG_COMPRESSION_MASK,
    MULTIFD_FLAG_DEVICE_STATE,
    MULTIFD_FLAG_SYNC,
    MULTIFD_MAGIC,
    MULTIFD_PACKET_SIZE,
    MULTIFD_VERSION,
    MultiFDInit_t,
    MultiFDPacket_9_0_t,
    MultiFDPacket_t,
)
from vfiomig.uapi.qemu_stream import QEMU_VM_FILE_MAGIC

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Mapping
    from typing import TypeAlias

    from numpy.typing import NDArray

    Offsets: TypeAlias = NDArray[np.uint64]

PAGE_SIZE: Final = 4096
PAGES: Final = MULTIFD_PACKET_SIZE // PAGE_SIZE  # of one packet

NO_UUID: Final = bytes(16)  # a VM that was given none
MAGIC_SIZE: Final = 4
_OFFSET: Final = np.dtype(">u8")


class _Structure(NamedTuple):
    """A structure of the table below: its class, and its size in bytes."""

    of: type[ctypes.BigEndianStructure]
    size: int


def _sized(of: type[ctypes.BigEndianStructure]) -> _Structure:
    return _Structure(of, len(bytes(of())))


_INIT: Final = _sized(MultiFDInit_t)
_HEADS: Final = {"7.2": _sized(MultiFDPacket_t), "9.0": _sized(MultiFDPacket_9_0_t)}

INITIAL_SIZE: Final = _INIT.size
PACKET_SIZE: Final = _HEADS["7.2"].size + PAGES * _OFFSET.itemsize


class Layout(enum.Enum):
    """How a packet is laid out, named by the first QEMU version that does it so.

    The head is as long in each.
    """

    QEMU_7_2 = "7.2"  # and all before 9.0
    QEMU_9_0 = "9.0"  # up to 10.0: with zero pages

    @property
    def has_zero_pages(self) -> bool:
        """Whether a packet can name pages that are all zero."""
        return hasattr(_HEADS[self.value].of, "zero_pages")


# The layout of a version of QEMU, by the version.
LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        "7.2": Layout.QEMU_7_2,
        "9.0": Layout.QEMU_9_0,
        "9.1": Layout.QEMU_9_0,
        "10.0": Layout.QEMU_9_0,
    }
)


class InitialPacket(NamedTuple):
    """Which channel this is, and of which VM."""

    channel: int  # 0 to 255
    uuid: bytes = NO_UUID  # 16 of them


def _no_offsets() -> Offsets:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packet:
    """Pages of one RAM block, or a SYNC; a packet of a source before 9.0 may be both.

    ``number`` counts the packets of all channels together.  ``offsets`` are byte
    offsets in the block of the pages that follow the packet, ``zero_offsets`` of those
    that are all zero; whether the block has them is for who knows the block.
    """

    number: int
    block: str = ""  # "" where there are no pages
    offsets: Offsets = field(default_factory=_no_offsets)
    zero_offsets: Offsets = field(default_factory=_no_offsets)
    is_sync: bool = False

    @property
    def size(self) -> int:
        """The bytes of the pages that follow it."""
        return len(self.offsets) * PAGE_SIZE


def is_main(magic: bytes) -> bool:
    """Tell by a channel's first four bytes whether it is the main one.

    Raises:
        StreamError: neither that nor a multifd channel begins so.
    """
    value = int.from_bytes(magic, "big")
    if value not in (QEMU_VM_FILE_MAGIC, MULTIFD_MAGIC):
        message = (
            f"magic {value:#010x}: the main channel has {QEMU_VM_FILE_MAGIC:#010x}, "
            f"and the others {MULTIFD_MAGIC:#010x}"
        )
        raise StreamError(message, position=0)
    return value == QEMU_VM_FILE_MAGIC


def encode_initial(initial: InitialPacket) -> bytes:
    """Return the first `INITIAL_SIZE` bytes of a multifd channel.

    Raises ValueError for a channel beyond 255 and for a UUID that has not 16 bytes.
    """
    if not 0 <= initial.channel <= 0xFF:
        message = f"a channel is 0 to 255, not {initial.channel}"
        raise ValueError(message)
    if len(initial.uuid) != len(NO_UUID):
        message = f"a UUID has {len(NO_UUID)} bytes, not {len(initial.uuid)}"
        raise ValueError(message)
    made = MultiFDInit_t(magic=MULTIFD_MAGIC, version=MULTIFD_VERSION)
    made.id = initial.channel
    made.uuid[:] = initial.uuid
    return bytes(made)


def decode_initial(data: bytes | bytearray | memoryview) -> InitialPacket:
    """Read the first `INITIAL_SIZE` bytes of a multifd channel.

    Raises:
        StreamError: they are fewer, or of another magic or version.
    """
    head: Any = _INIT.of.from_buffer_copy(_whole(data, _INIT.size, 0))
    _check_version(head, 0)
    return InitialPacket(head.id, bytes(head.uuid))


def encode_packet(packet: Packet, layout: Layout) -> bytes:
    """Return the `PACKET_SIZE` bytes of a packet; its pages follow.

    Raises ValueError for more than `PAGES` pages, for zero pages in a layout that has
    none, and for pages without the name of a block, or with one of over 255 bytes.
    """
    offsets = np.concatenate((packet.offsets, packet.zero_offsets))
    _check_pages(packet, len(offsets), layout)
    name = packet.block.encode()
    head: Any = _HEADS[layout.value].of(
        magic=MULTIFD_MAGIC,
        version=MULTIFD_VERSION,
        flags=MULTIFD_FLAG_SYNC if packet.is_sync else 0,
        pages_alloc=PAGES,
        normal_pages=len(packet.offsets),
        next_packet_size=packet.size,
        packet_num=packet.number,
    )
    if layout.has_zero_pages:
        head.zero_pages = len(packet.zero_offsets)
    head.ramblock[: len(name)] = name
    rest = bytes((PAGES - len(offsets)) * _OFFSET.itemsize)
    return b"".join((bytes(head), offsets.astype(_OFFSET).tobytes(), rest))


def decode_packet(
    data: bytes | bytearray | memoryview, layout: Layout, *, position: int = 0
) -> Packet:
    """Read a packet of `PACKET_SIZE` bytes that stands at ``position`` of its channel.

    The offsets are its own, and stay when ``data`` is filled anew.

    Raises:
        StreamError: it is cut, of another magic or version, compressed or no RAM; it
            names more pages than it has room for, or other bytes behind it than theirs;
            its block has no name, or one without an end; its reserved bytes say what
            this layout does not know.
    """
    kind = _HEADS[layout.value]
    head: Any = kind.of.from_buffer_copy(_whole(data, PACKET_SIZE, position))
    _check_version(head, position)
    _check_flags(head, position)
    normal, zero = _counts(head, layout, position)
    pages = normal + zero
    places = np.frombuffer(data, _OFFSET, pages, kind.size).astype(np.uint64)
    return Packet(
        number=head.packet_num,
        block=_block(head, position) if pages else "",
        offsets=places[:normal],
        zero_offsets=places[normal:],
        is_sync=bool(head.flags & MULTIFD_FLAG_SYNC),
    )


def _check_pages(packet: Packet, pages: int, layout: Layout) -> None:
    name = packet.block.encode()
    room = MultiFDPacket_t.ramblock.size - 1
    if pages > PAGES:
        message = f"{pages} pages: a packet has room for {PAGES}"
    elif len(packet.zero_offsets) and not layout.has_zero_pages:
        message = f"a packet of QEMU {layout.value} names no zero pages"
    elif len(name) > room or b"\0" in name:
        message = f"a RAM block's name has up to {room} bytes and no NUL: {name!r}"
    elif pages and not name:
        message = "pages of a RAM block without a name"
    else:
        return
    raise ValueError(message)


def _whole(
    data: bytes | bytearray | memoryview, size: int, position: int
) -> bytes | bytearray | memoryview:
    if len(data) < size:
        message = f"it ends after {len(data)} of {size} bytes of a packet"
        raise StreamError(message, position=position + len(data))
    return data


def _refuse(head: Any, name: str, position: int, message: str) -> StreamError:
    """Return the error that a field of a structure is worth."""
    place: int = getattr(type(head), name).offset
    return StreamError(message, position=position + place)


def _check_version(head: Any, position: int) -> None:
    if head.magic != MULTIFD_MAGIC:
        message = f"magic {head.magic:#010x} of a packet, not {MULTIFD_MAGIC:#010x}"
        raise _refuse(head, "magic", position, message)
    if head.version != MULTIFD_VERSION:
        message = f"version {head.version} of multifd, not {MULTIFD_VERSION}"
        raise _refuse(head, "version", position, message)


def _check_flags(head: Any, position: int) -> None:
    if head.flags & MULTIFD_FLAG_COMPRESSION_MASK:
        message = f"flags {head.flags:#x}: compressed pages are not read"
    elif head.flags & MULTIFD_FLAG_DEVICE_STATE:
        message = f"flags {head.flags:#x}: a device's state is not read"
    elif head.flags & ~MULTIFD_FLAG_SYNC:
        message = f"flags {head.flags:#x}: only {MULTIFD_FLAG_SYNC:#x}, SYNC, is known"
    else:
        return
    raise _refuse(head, "flags", position, message)


def _counts(head: Any, layout: Layout, position: int) -> tuple[int, int]:
    """Return how many pages follow a packet, and how many are zero."""
    has_zero = layout.has_zero_pages
    normal, zero = head.normal_pages, head.zero_pages if has_zero else 0
    if head.pages_alloc > PAGES:
        message = f"room for {head.pages_alloc} pages, more than {PAGES}"
        raise _refuse(head, "pages_alloc", position, message)
    if normal + zero > head.pages_alloc:
        message = f"{normal} + {zero} pages in room for {head.pages_alloc}"
        raise _refuse(head, "normal_pages", position, message)
    if normal and head.next_packet_size != normal * PAGE_SIZE:
        message = f"{head.next_packet_size} bytes follow for {normal} pages"
        raise _refuse(head, "next_packet_size", position, message)
    for name in ("unused32", "unused64") if has_zero else ("unused",):
        if any(getattr(head, name)):
            message = f"reserved bytes that QEMU {layout.value} leaves zero are not"
            raise _refuse(head, name, position, message)
    return normal, zero


def _block(head: Any, position: int) -> str:
    name, end, _ = bytes(head.ramblock).partition(b"\0")
    if not end:
        raise _refuse(head, "ramblock", position, "a RAM block's name has no end")
    if not name:
        raise _refuse(head, "ramblock", position, "pages of a RAM block without a name")
    try:
        return name.decode()
    except UnicodeDecodeError:
        message = f"a RAM block's name is not text: {name[:40]!r}"
        raise _refuse(head, "ramblock", position, message) from None
