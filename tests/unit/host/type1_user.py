"""A user application with a type1 container, that sees every byte it did not offer.

The numbers are those of kernel_uapi.md sections C and D, not those of our uapi package.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vfiomig.host.container import Container
from vfiomig.host.dev_vfio import DevVfio
from vfiomig.host.iommu import IommuLimits
from vfiomig.host.user_process import LocalProcess
from vfiomig.protocol.region import MigrationRegion

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.user_process import HostFile

GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU = 0x3B64, 0x3B65, 0x3B66
GET_STATUS, SET_CONTAINER, UNSET_CONTAINER, GET_DEVICE_FD = range(0x3B67, 0x3B6B)
GET_INFO, MAP_DMA, UNMAP_DMA, DIRTY_PAGES = 0x3B70, 0x3B71, 0x3B72, 0x3B75

TYPE1, TYPE1V2, NESTING = 1, 3, 6
READ, WRITE = 1, 2
WITH_BITMAP, ALL, VADDR = 1, 2, 4
START, STOP, GET = 1, 2, 4

PAGE = 0x1000
GUARD = 0xA5
GUARDS = bytes([GUARD]) * 64
NOWHERE = 0xDEAD_0000_0000

MAP = struct.Struct("<IIQQQ")  # argsz, flags, vaddr, iova, size
UNMAP = struct.Struct("<IIQQ")  # argsz, flags, iova, size
BITMAP = struct.Struct("<QQQ")  # pgsize, size, data
DIRTY = struct.Struct("<II")  # argsz, flags
RANGE = struct.Struct("<QQ")  # iova, size
STATUS = struct.Struct("<II")  # argsz, flags


class Silent:
    """A driver that does nothing; it says when it is closed."""

    migration_region = MigrationRegion(0x1000)

    def __init__(self) -> None:
        self.is_closed = False

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        pass

    def reset(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Bits:
    """A bitmap buffer between guards, and the pages that are set in it."""

    def __init__(self, process: LocalProcess, size: int, *, address: int) -> None:
        self.size = size
        self.address = address
        self._memory = process.memory
        self._buffer = bytearray(GUARDS + bytes(size) + GUARDS)
        process.memory.place(self._buffer, address - len(GUARDS))

    @property
    def data(self) -> bytes:
        """The bitmap; whatever lies around it must be as it was."""
        assert self._buffer[: len(GUARDS)] == GUARDS
        assert self._buffer[-len(GUARDS) :] == GUARDS
        return bytes(self._buffer[len(GUARDS) : -len(GUARDS)])

    @property
    def pages(self) -> set[int]:
        """Numbers of the bits that are set."""
        return {number for number in range(8 * self.size) if bit(self.data, number)}

    def fill(self, data: bytes) -> None:
        self._buffer[len(GUARDS) : -len(GUARDS)] = data

    def remove(self) -> None:
        self._memory.remove(self.address - len(GUARDS))


def bit(data: bytes, number: int) -> int:
    return data[number // 8] >> (number % 8) & 1


class User:
    """A process with group 1 in a container that has an IOMMU."""

    def __init__(
        self,
        limits: IommuLimits | None = None,
        *,
        iommu: int | None = TYPE1V2,
        groups: dict[int, dict[str, Callable[[], Silent]]] | None = None,
    ) -> None:
        self.opened: list[HostFile] = []
        groups = groups if groups is not None else {1: {"device": Silent}}
        self.dev = DevVfio(groups, limits or IommuLimits())
        self.process = LocalProcess(self._open)
        self.memory = self.process.memory
        self.group = self.process.open("/dev/vfio/1")
        self.container = self.process.open("/dev/vfio/vfio")
        if iommu is not None:
            self.join()
            assert self.ioctl(SET_IOMMU, iommu) == 0
        self._next_bitmap = 0x7000_0000_0000

    def _open(self, path: str) -> HostFile:
        self.opened.append(self.dev.open(path))
        return self.opened[-1]

    @property
    def dma(self) -> Container:
        found = self.opened[1]
        assert isinstance(found, Container)
        return found

    def join(self) -> None:
        self.call(SET_CONTAINER, self.container.to_bytes(4, "little"), fd=self.group)

    def ioctl(self, request: int, argument: int = 0, *, fd: int | None = None) -> int:
        number = self.container if fd is None else fd
        return self.process.ioctl(number, request, argument)

    def call(self, request: int, argument: bytes, *, fd: int | None = None) -> bytes:
        """Perform an ioctl with a structure; return what it has become."""
        buffer = bytearray(GUARDS + argument + GUARDS)
        address = self.memory.place(buffer)
        try:
            result = self.ioctl(request, address + len(GUARDS), fd=fd)
        finally:
            self.memory.remove(address)
            assert buffer[: len(GUARDS)] == GUARDS
            assert buffer[-len(GUARDS) :] == GUARDS
        assert result == 0
        return bytes(buffer[len(GUARDS) : -len(GUARDS)])

    def map(
        self, iova: int, size: int, *, vaddr: int | None = None, flags: int = 3
    ) -> bytearray:
        """Map fresh memory of the process, or an address of it."""
        memory = bytearray(size if vaddr is None else 0)
        if vaddr is None:
            vaddr = self.memory.place(memory)
        self.call(MAP_DMA, MAP.pack(32, flags, vaddr, iova, size))
        return memory

    def unmap(self, iova: int, size: int, flags: int = 0) -> int:
        answer = self.call(UNMAP_DMA, UNMAP.pack(24, flags, iova, size))
        return int(UNMAP.unpack(answer)[3])

    def bits(self, size: int, offset: int = 0) -> Bits:
        """Give room for a bitmap, at an offset in a page."""
        self._next_bitmap += 0x1000_0000
        return Bits(self.process, size, address=self._next_bitmap + offset)

    def unmap_with_bitmap(
        self, iova: int, size: int, bits: Bits, pgsize: int = PAGE
    ) -> int:
        tail = BITMAP.pack(pgsize, bits.size, bits.address)
        answer = self.call(UNMAP_DMA, UNMAP.pack(48, WITH_BITMAP, iova, size) + tail)
        assert answer[24:] == tail
        return int(UNMAP.unpack(answer[:24])[3])

    def start(self) -> None:
        self.call(DIRTY_PAGES, DIRTY.pack(8, START))

    def stop(self) -> None:
        self.call(DIRTY_PAGES, DIRTY.pack(8, STOP))

    def get(
        self,
        iova: int,
        size: int,
        bits: Bits,
        *,
        pgsize: int = PAGE,
        argsz: int = 48,
        room: int | None = None,
    ) -> None:
        room = bits.size if room is None else room
        argument = DIRTY.pack(argsz, GET) + RANGE.pack(iova, size)
        argument += BITMAP.pack(pgsize, room, bits.address)
        assert self.call(DIRTY_PAGES, argument) == argument

    def dirty(self, iova: int, size: int, pgsize: int = PAGE) -> set[int]:
        """Return which pages of a range are dirty, by number."""
        bits = self.bits(-(-size // pgsize // 64) * 8 or 8)
        self.get(iova, size, bits, pgsize=pgsize)
        pages = bits.pages
        bits.remove()
        return pages
