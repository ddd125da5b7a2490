"""A user application of one container, that knows what its bitmaps have to say.

Rule 1: the oracle is a set of pages.  It has none of the arithmetic that is judged.

Rule 2: every buffer lies between guards, and every page around them is the bench's
own: whatever is written where nothing was offered shows.

Rule 3: an errno is an answer.  Anything else that a container raises is its death.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.host.container import Container, UnloggedDma
from vfiomig.host.group import Group
from vfiomig.host.iommu import DEFAULT_LIMITS, IommuLimits, IovaRange
from vfiomig.host.user_process import LocalProcess
from vfiomig.uapi import ioctl
from vfiomig.uapi.iommu_type1 import (
    VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
    VFIO_TYPE1v2_IOMMU,
    vfio_bitmap,
    vfio_iommu_type1_dirty_bitmap,
    vfio_iommu_type1_dirty_bitmap_get,
    vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ctypes import Structure

    from vfiomig.host.user_process import HostFile

PAGE: Final = 4096
READ_WRITE: Final = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
EVERYWHERE: Final = IommuLimits(iova_ranges=(IovaRange(0, (1 << 64) - 1),))

_GUARD: Final = b"\xa5" * PAGE
_FIRST_BUFFER: Final = 0x7000_0000_0000
_FIRST_MEMORY: Final = 0x10_0000_0000
_UNBACKED: Final = 0x4000_0000_0000
_NOWHERE: Final = 0xDEAD_0000_0000


class MakeContainer(Protocol):
    """What makes the containers that are judged."""

    def __call__(self, limits: IommuLimits) -> Container:
        """Return a new container of an IOMMU that can do so much."""


class MakeBench(Protocol):
    """What gives a check as many benches as it asks for."""

    def __call__(self, limits: IommuLimits = ..., *, iommu_type: int = ...) -> Bench:
        """Return a bench with a new container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """Where a container departed from a rule; ``conversation`` is what led there."""

    expected: str
    actual: str
    conversation: tuple[str, ...]


class Buffer:
    """Room for a bitmap at an address of the process, between two pages of guards."""

    def __init__(self, process: LocalProcess, address: int, fill: bytes) -> None:
        self.address = address
        self.size = len(fill)
        self._fill = fill
        self._bytes = bytearray(_GUARD + fill + _GUARD)
        process.memory.place(self._bytes, address - len(_GUARD))

    @property
    def data(self) -> bytes:
        """What it holds now."""
        return bytes(self._bytes[len(_GUARD) : -len(_GUARD)])

    @property
    def pages(self) -> set[int]:
        """Numbers of the bits that are set."""
        return {
            8 * place + bit
            for place, byte in enumerate(self.data)
            for bit in range(8)
            if byte >> bit & 1
        }

    @property
    def is_untouched(self) -> bool:
        """Whether it is as it was offered, and so are its guards."""
        return bytes(self._bytes) == _GUARD + self._fill + _GUARD

    @property
    def is_guarded(self) -> bool:
        """Whether its guards are as they were."""
        before, behind = self._bytes[:PAGE], self._bytes[-PAGE:]
        return before == _GUARD and behind == _GUARD


class Bench:
    """A process with a container that has an IOMMU, and the pages it knows as dirty."""

    def __init__(
        self,
        make: MakeContainer,
        limits: IommuLimits = DEFAULT_LIMITS,
        *,
        iommu_type: int = VFIO_TYPE1v2_IOMMU,
    ) -> None:
        self.container = make(limits)
        self.said: list[str] = []
        files: dict[str, HostFile] = {"group": Group({}).open(), "c": self.container}
        self.process = LocalProcess(files.__getitem__)
        group, self._fd = self.process.open("group"), self.process.open("c")
        number = bytearray(self._fd.to_bytes(4, "little"))
        address = self.process.memory.place(number)
        self.process.ioctl(group, ioctl.VFIO_GROUP_SET_CONTAINER(), address)
        self.process.ioctl(self._fd, ioctl.VFIO_SET_IOMMU(), iommu_type)
        self._next_buffer = _FIRST_BUFFER
        self._next_memory = _FIRST_MEMORY
        self._memory: dict[int, bytearray] = {}

    # -- what a user application does: each returns an errno, 0 for success ------------

    def map(
        self, iova: int, size: int, *, flags: int = READ_WRITE, backed: bool = True
    ) -> int:
        """Map fresh memory; unless it is ``backed`` there is none, until `back`."""
        vaddr = self._next_memory if backed else _UNBACKED
        if backed:
            self._memory[iova] = bytearray(size)
            self.process.memory.place(self._memory[iova], vaddr)
            self._next_memory += -(-size // PAGE) * PAGE
        argument = vfio_iommu_type1_dma_map(
            argsz=32, flags=flags, vaddr=vaddr, iova=iova, size=size
        )
        what = f"MAP_DMA iova {iova:#x} size {size:#x} flags {flags}"
        return self._call(what, ioctl.VFIO_IOMMU_MAP_DMA(), argument)[0]

    def back(self, offset: int) -> None:
        """Put a page of memory into the last mapping that is not backed."""
        self.process.memory.place(bytearray(PAGE), _UNBACKED + offset)

    def unmap(
        self,
        iova: int,
        size: int,
        buffer: Buffer | None = None,
        *,
        flags: int = 0,
        pgsize: int = PAGE,
    ) -> tuple[int, int]:
        """Unmap, with a bitmap if there is a buffer; also return the size answered."""
        argument = vfio_iommu_type1_dma_unmap(
            argsz=48 if buffer else 24, flags=flags, iova=iova, size=size
        )
        tail: tuple[Structure, ...] = ()
        what = f"UNMAP_DMA iova {iova:#x} size {size:#x}"
        if buffer is not None:
            argument.flags |= VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
            tail = (_bitmap(buffer, buffer.size, pgsize),)
            what += f" with a bitmap of {buffer.size} bytes at {buffer.address:#x}"
        what += f" flags {argument.flags}"
        code, answer = self._call(what, ioctl.VFIO_IOMMU_UNMAP_DMA(), argument, *tail)
        return code, vfio_iommu_type1_dma_unmap.from_buffer_copy(answer).size

    def operate(self, flags: int, argsz: int = 8) -> int:
        """VFIO_IOMMU_DIRTY_PAGES with nothing behind its flags."""
        argument = vfio_iommu_type1_dirty_bitmap(argsz=argsz, flags=flags)
        what = f"DIRTY_PAGES flags {flags} argsz {argsz}"
        return self._call(what, ioctl.VFIO_IOMMU_DIRTY_PAGES(), argument)[0]

    def start(self) -> int:
        """Start tracking."""
        return self.operate(VFIO_IOMMU_DIRTY_PAGES_FLAG_START)

    def stop(self) -> int:
        """Stop tracking."""
        return self.operate(VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP)

    def get(
        self,
        iova: int,
        size: int,
        buffer: Buffer,
        *,
        pgsize: int = PAGE,
        room: int | None = None,
        argsz: int = 48,
        flags: int = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
    ) -> int:
        """Get a bitmap into a buffer; ``room`` is what its size is said to be."""
        room = buffer.size if room is None else room
        argument = vfio_iommu_type1_dirty_bitmap(argsz=argsz, flags=flags)
        wanted = vfio_iommu_type1_dirty_bitmap_get(
            iova=iova, size=size, bitmap=_bitmap(buffer, room, pgsize)
        )
        what = (
            f"DIRTY_PAGES GET_BITMAP iova {iova:#x} size {size:#x} pgsize {pgsize:#x}"
            f" into {room} bytes at {buffer.address:#x}"
        )
        return self._call(what, ioctl.VFIO_IOMMU_DIRTY_PAGES(), argument, wanted)[0]

    def info(self, argsz: int) -> tuple[int, bytes]:
        """VFIO_IOMMU_GET_INFO with so much room, at least 24 bytes."""
        room = bytearray(argsz.to_bytes(4, "little").ljust(argsz, b"\0"))
        what = f"GET_INFO argsz {argsz}"
        return self._call(what, ioctl.VFIO_IOMMU_GET_INFO(), room)

    def buffer(self, size: int, offset: int = 0, *, fill: bytes = b"\0") -> Buffer:
        """Give room for a bitmap at an offset in a page."""
        self._next_buffer += 4 * PAGE + -(-size // PAGE) * PAGE
        return Buffer(self.process, self._next_buffer + offset, fill * size)

    def lost_buffer(self, size: int) -> Buffer:
        """Give room where there is none."""
        buffer = self.buffer(size)
        buffer.address = _NOWHERE
        return buffer

    # -- what devices do ---------------------------------------------------------------

    def write(self, iova: int, size: int = 1, *, is_logged: bool = True) -> int:
        """Let a device write."""
        self.said.append(f"DMA write of {size} bytes at {iova:#x}")
        dma = self.container if is_logged else UnloggedDma(self.container)
        return _errno_of(lambda: dma.dma_write(iova, b"\x5a" * size))

    def read(self, iova: int, size: int) -> tuple[int, bytes]:
        """Let a device read."""
        self.said.append(f"DMA read of {size} bytes at {iova:#x}")
        data: list[bytes] = []
        code = _errno_of(lambda: data.append(self.container.dma_read(iova, size)))
        return code, b"".join(data)

    def memory_at(self, iova: int) -> bytearray:
        """Return the memory behind the mapping that begins at an IOVA."""
        return self._memory[iova]

    # -- what is found -----------------------------------------------------------------

    def breach(self, expected: object, actual: object) -> Breach:
        """Say what differs, with all that was done until now."""
        return Breach(
            expected=str(expected), actual=str(actual), conversation=tuple(self.said)
        )

    def must_be(self, expected: object, actual: object) -> Iterator[Breach]:
        """Find a difference."""
        if expected != actual:
            yield self.breach(expected, actual)

    def answers(self, code: int, actual: int) -> Iterator[Breach]:
        """Find an errno that is another one than ``code``, or 0 for success."""
        yield from self.must_be(_name(code), _name(actual))

    def dirty(
        self, iova: int, size: int, pages: set[int], *, may_be_more: bool = False
    ) -> Iterator[Breach]:
        """Find a bitmap of a range that has not the pages it should, by number."""
        buffer = self.buffer(-(-size // PAGE // 64) * 8)
        yield from self.answers(0, self.get(iova, size, buffer))
        yield from self.holds(buffer, pages, may_be_more=may_be_more)

    def holds(
        self, buffer: Buffer, pages: set[int], *, may_be_more: bool = False
    ) -> Iterator[Breach]:
        """Find a buffer that has not the pages it should, or broken guards."""
        found = buffer.pages & pages if may_be_more else buffer.pages
        yield from self.must_be(_pages(pages), _pages(found))
        yield from self.guarded(buffer)

    def guarded(self, buffer: Buffer) -> Iterator[Breach]:
        """Find bytes beside a buffer that changed."""
        if not buffer.is_guarded:
            yield self.breach("bytes beside the bitmap stay", "some were written")

    def untouched(self, buffer: Buffer) -> Iterator[Breach]:
        """Find a buffer that changed."""
        if not buffer.is_untouched:
            yield self.breach("the bitmap stays as it was", "it was written")

    def _call(
        self, what: str, request: int, *parts: Structure | bytearray
    ) -> tuple[int, bytes]:
        self.said.append(what)
        argument = bytearray(b"".join(map(bytes, parts)))
        address = self.process.memory.place(argument)
        try:
            code = _errno_of(lambda: self.process.ioctl(self._fd, request, address))
        finally:
            self.process.memory.remove(address)
        if code:
            self.said[-1] += f": {_name(code)}"
        return code, bytes(argument)


def _bitmap(buffer: Buffer, room: int, pgsize: int) -> vfio_bitmap:
    return vfio_bitmap(pgsize=pgsize, size=room, data=buffer.address)


def _errno_of(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0


def _name(code: int) -> str:
    return errno.errorcode.get(code, str(code)) if code else "success"


def _pages(pages: set[int]) -> str:
    return f"dirty pages {sorted(pages)}"
