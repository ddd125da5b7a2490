"""What of a client's memory the device reaches by DMA, and what it wrote there.

The mappings and their logs are those of a container (`host.iommu`).  Behind one is
either the client's file, mapped, or the client itself, which is asked.
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vfiomig.host.iommu import Iommu, IommuLimits, IovaRange, Mapping, UserBitmap
from vfiomig.host.user_memory import LocalMemory
from vfiomig.protocol.errors import MessageError
from vfiomig.protocol.vfio_user.dma import (
    Bitmap,
    DirtyPages,
    DmaAccess,
    DmaData,
    DmaMap,
    DmaUnmap,
)
from vfiomig.serve.broker.process_memory import ProcessMemory
from vfiomig.serve.vfio_user.channel import refuse
from vfiomig.serve.vfio_user.file_mapping import map_file, unmap
from vfiomig.uapi.iommu_type1 import (
    VFIO_DMA_UNMAP_FLAG_ALL,
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
)
from vfiomig.uapi.vfio_user import (
    VFIO_USER_DMA_READ,
    VFIO_USER_DMA_WRITE,
    VFIO_USER_F_DMA_REGION_READ,
    VFIO_USER_F_DMA_REGION_WRITE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vfiomig.host.user_memory import UserMemory

# All IOVAs: no interrupts are written to any of them.  The rest bounds what a client
# can make us spend: VMAs, memory for logs (enough for 2 TiB), and addresses.
_LIMITS: Final = IommuLimits(
    iova_ranges=(IovaRange(0, (1 << 64) - 1),),
    max_mappings=4096,
    max_log_bytes=64 << 20,
)
_MOST_MAPPED: Final = 16 << 40  # bytes of files
_READ_WRITE: Final = VFIO_USER_F_DMA_REGION_READ | VFIO_USER_F_DMA_REGION_WRITE


class ClientMemory:
    """The memory of one client, as a `Dma` of the device.

    ``ask`` sends a command and returns what its reply carries, or raises OSError
    (EFAULT); ``max_data_size`` is how much data a message takes.  Files may be reached
    from any thread of a driver's, the client only from the one that made this.
    """

    def __init__(
        self, ask: Callable[[int, bytes], bytes], *, max_data_size: int
    ) -> None:
        self._iommu = Iommu(_LIMITS, is_v2=True)
        self._asked: UserMemory = _AskedMemory(ask, max_data_size)
        self._own = ProcessMemory(os.getpid())
        self._max_data_size = max_data_size
        self._mapped: dict[int, tuple[int, int]] = {}  # IOVA: address, bytes
        self._lock = threading.RLock()

    def close(self) -> None:
        """Let all of it go."""
        with self._lock:
            self._iommu.unmap_all()
            for iova in [*self._mapped]:
                unmap(*self._mapped.pop(iova))

    # -- the client's side -------------------------------------------------------------

    def map(self, asked: DmaMap, fds: Sequence[int]) -> None:
        """Perform VFIO_USER_DMA_MAP; the file stays the caller's.

        Raises:
            MessageError: EINVAL: other flags, or several files.
            OSError: as of `Iommu.map` and `map_file`.
        """
        if not asked.flags & _READ_WRITE or asked.flags & ~_READ_WRITE:
            refuse(f"DMA map: flags {asked.flags:#x}")
        if len(fds) > 1:
            refuse(f"DMA map: {len(fds)} files")
        with self._lock:
            if not fds:
                self._iommu.map(self._mapping(asked, asked.address, self._asked))
                return
            if sum(size for _, size in self._mapped.values()) > (
                _MOST_MAPPED - asked.size
            ):
                raise OSError(errno.ENOMEM, f"more than {_MOST_MAPPED:#x} bytes")
            is_writable = bool(asked.flags & VFIO_USER_F_DMA_REGION_WRITE)
            place = map_file(fds[0], asked.size, asked.offset, is_writable=is_writable)
            try:
                self._iommu.map(self._mapping(asked, place, self._own))
            except BaseException:
                unmap(place, asked.size)
                raise
            self._mapped[asked.address] = place, asked.size

    def unmap(self, asked: DmaUnmap) -> DmaUnmap:
        """Perform VFIO_USER_DMA_UNMAP; return what is to be replied.

        Its size is what was unmapped; nothing there is no error, as for the kernel.

        Raises:
            MessageError, OSError: EINVAL; E2BIG for a bitmap that no message takes.
        """
        known = VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
        is_all = bool(asked.flags & VFIO_DMA_UNMAP_FLAG_ALL)
        if asked.flags & ~known or (
            is_all and (asked.bitmap or asked.address or asked.size)
        ):
            refuse(f"DMA unmap: flags {asked.flags:#x}, or more than they allow")
        with self._lock:
            if is_all:
                size = self._iommu.unmap_all()
                self._let_go(0, 1 << 64)
                return replace(asked, size=size)
            if asked.bitmap is None:
                size = self._iommu.unmap(asked.address, asked.size)
                bits = b""
            else:
                room = self._room(asked.bitmap)
                bitmap = _user_bitmap(room, asked.bitmap)
                size = self._iommu.unmap(asked.address, asked.size, bitmap)
                bits = bytes(room)
            self._let_go(asked.address, asked.address + asked.size)
        reply = replace(asked, size=size, bits=bits)
        return replace(reply, argsz=len(reply.encode()))

    def dirty_pages(self, asked: DirtyPages) -> bytes:
        """Perform VFIO_USER_DIRTY_PAGES; return what the reply carries.

        A bitmap is replied whole, whatever room argsz claims: who has asked for so
        many bytes has room for them.

        Raises:
            MessageError, OSError: EINVAL; E2BIG for a bitmap that no message takes.
        """
        with self._lock:
            if asked.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
                self._iommu.start_tracking()
            elif asked.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
                self._iommu.stop_tracking()
            elif (
                asked.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP
                and asked.bitmap is not None
            ):
                return self._dirty_bitmap(asked, asked.bitmap)
            else:
                refuse(f"dirty pages: flags {asked.flags:#x}")
        return b""

    def _dirty_bitmap(self, asked: DirtyPages, bitmap: Bitmap) -> bytes:
        room = self._room(bitmap)
        place = _user_bitmap(room, bitmap)
        self._iommu.get_bitmap(asked.iova, asked.size, place)
        reply = replace(asked, bits=bytes(room))
        return replace(reply, argsz=len(reply.encode())).encode()

    def _room(self, bitmap: Bitmap) -> bytearray:
        if bitmap.size > self._max_data_size:
            refuse(f"a bitmap of {bitmap.size} bytes", errno.E2BIG)
        return bytearray(bitmap.size)

    def _mapping(self, asked: DmaMap, place: int, memory: UserMemory) -> Mapping:
        return Mapping(
            iova=asked.address,
            size=asked.size,
            vaddr=place,
            memory=memory,
            is_readable=bool(asked.flags & VFIO_USER_F_DMA_REGION_READ),
            is_writable=bool(asked.flags & VFIO_USER_F_DMA_REGION_WRITE),
        )

    def _let_go(self, start: int, end: int) -> None:
        """Unmap the files of what began in a range, and is mapped no more."""
        for iova in [each for each in self._mapped if start <= each < end]:
            unmap(*self._mapped.pop(iova))

    # -- the device's side -------------------------------------------------------------

    def dma_read(self, iova: int, size: int) -> bytes:
        """Return ``size`` bytes; OSError(EFAULT) where nothing is mapped to read."""
        with self._lock:
            return self._iommu.dma_read(iova, size)

    def dma_write(self, iova: int, data: bytes | memoryview) -> None:
        """Put ``data`` there, and log its pages; OSError(EFAULT) as above."""
        with self._lock:
            self._iommu.dma_write(iova, data)


class _AskedMemory:
    """Memory without a file: a `UserMemory` whose addresses are IOVAs."""

    def __init__(self, ask: Callable[[int, bytes], bytes], max_data_size: int) -> None:
        self._ask = ask
        self._max_data_size = max_data_size
        self._thread = threading.get_ident()

    def read(self, address: int, size: int) -> bytes:
        """Ask for bytes, as many at a time as a message takes."""
        return b"".join(
            self._read_piece(place, length)
            for place, length in self._cut(address, size)
        )

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Send bytes, as many at a time as a message takes."""
        for place, length in self._cut(address, len(data)):
            piece = bytes(data[place - address : place - address + length])
            payload = DmaData(place, piece).encode()
            self._ask_here(VFIO_USER_DMA_WRITE, payload)

    def _read_piece(self, address: int, size: int) -> bytes:
        payload = DmaAccess(address, size).encode()
        reply = self._ask_here(VFIO_USER_DMA_READ, payload)
        try:
            answer = DmaData.decode(reply)
        except MessageError as error:
            raise OSError(errno.EFAULT, str(error)) from error
        if (answer.address, len(answer.data)) != (address, size):
            got = f"{len(answer.data)} bytes of {answer.address:#x}"
            raise OSError(errno.EFAULT, f"{got}: asked for {size} of {address:#x}")
        return answer.data

    def _ask_here(self, command: int, payload: bytes) -> bytes:
        if threading.get_ident() != self._thread:
            why = "only while the client waits for an access, it can be asked"
            raise OSError(errno.EFAULT, why)
        return self._ask(command, payload)

    def _cut(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        end = address + size
        while address < end:
            length = min(end - address, self._max_data_size)
            yield address, length
            address += length


def _user_bitmap(room: bytearray, bitmap: Bitmap) -> UserBitmap:
    memory = LocalMemory()
    return UserBitmap(memory, bitmap.pgsize, bitmap.size, memory.place(room))
