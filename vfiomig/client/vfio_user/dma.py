"""Memory that a server may reach: mapped and unmapped, and which pages it wrote."""

from __future__ import annotations

import errno
import os
from ctypes import sizeof
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.client.vfio_user import requests
from vfiomig.client.vfio_user.memory import DmaMapping
from vfiomig.protocol.dirty_bitmap import bitmap_size
from vfiomig.protocol.vfio_user.dma import Bitmap, DirtyPages, DmaMap, DmaUnmap
from vfiomig.uapi.iommu_type1 import (
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
)
from vfiomig.uapi.vfio_user import (
    VFIO_USER_F_DMA_REGION_READ,
    VFIO_USER_F_DMA_REGION_WRITE,
    vfio_user_bitmap,
    vfio_user_bitmap_range,
    vfio_user_dirty_pages,
    vfio_user_dma_unmap,
)

if TYPE_CHECKING:
    from vfiomig.client.vfio_user.memory import DmaMemory
    from vfiomig.client.vfio_user.session import Session

_END_OF_IOVAS: Final = 1 << 64
_NO_FILE: Final = -1
_UNMAP_SIZE: Final = sizeof(vfio_user_dma_unmap) + sizeof(vfio_user_bitmap)
_GET_SIZE: Final = sizeof(vfio_user_dirty_pages) + sizeof(vfio_user_bitmap_range)


class Dma:
    """The mappings of a session, on both sides; ``most`` bytes of bits fit a reply."""

    def __init__(
        self, session: Session, memory: DmaMemory, *, most: int, max_msg_fds: int
    ) -> None:
        self._session = session
        self._memory = memory
        self._most = most
        self._max_msg_fds = max_msg_fds

    def map(
        self,
        iova: int,
        size: int,
        memory: memoryview | None,
        file: tuple[int, int] | None,
        *,
        readable: bool,
        writable: bool,
    ) -> None:
        """Map; see `VfioUserDevice.map_dma`."""
        self._session.require_open()
        _require_range(iova, size)
        mapping = _mapping(
            iova, size, memory, file, readable=readable, writable=writable
        )
        flags = VFIO_USER_F_DMA_REGION_READ * readable
        flags |= VFIO_USER_F_DMA_REGION_WRITE * writable
        asked = DmaMap(flags, mapping.offset, iova, size)
        # A server of which no message may bring a file asks for what is in it.
        fds = [mapping.fd] if mapping.fd >= 0 and self._max_msg_fds else []
        try:
            self._memory.add(mapping)  # first: the server may reach for it at once
        except OSError:
            mapping.close()
            raise
        try:
            self._session.ask(requests.dma_map(asked, fds))
        except BaseException:
            self._memory.remove(iova, size)
            raise

    def unmap(self, iova: int, size: int, pgsize: int | None) -> bytes | None:
        """Unmap; see `VfioUserDevice.unmap_dma`."""
        self._session.require_open()
        _require_range(iova, size)
        asked = DmaUnmap(0, iova, size)
        if pgsize is not None:
            bitmap = self._bitmap(size, pgsize)
            asked = DmaUnmap(
                VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
                iova,
                size,
                bitmap,
                argsz=_UNMAP_SIZE + bitmap.size,
            )
        bits = self._session.ask(requests.dma_unmap(asked))
        self._memory.remove(iova, size)
        return None if pgsize is None else bits

    def start(self) -> None:
        """Begin dirty tracking."""
        asked = DirtyPages(VFIO_IOMMU_DIRTY_PAGES_FLAG_START)
        self._session.ask(requests.dirty_pages(asked, "start"))

    def stop(self) -> None:
        """End dirty tracking."""
        asked = DirtyPages(VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP)
        self._session.ask(requests.dirty_pages(asked, "stop"))

    def bits(self, iova: int, size: int, pgsize: int) -> bytes:
        """Get the bitmap of a range; see `VfioUserDevice.dirty_bitmap`."""
        self._session.require_open()
        _require_range(iova, size)
        bitmap = self._bitmap(size, pgsize)
        asked = DirtyPages(
            VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
            iova,
            size,
            bitmap,
            argsz=_GET_SIZE + bitmap.size,
        )
        what = f"bitmap of {size:#x} bytes at {iova:#x}"
        return self._session.ask(requests.dirty_pages(asked, what))

    def _bitmap(self, size: int, pgsize: int) -> Bitmap:
        if pgsize <= 0 or pgsize & (pgsize - 1) or pgsize >= _END_OF_IOVAS:
            _refuse(f"no page has {pgsize} bytes")
        needed = bitmap_size(-(-size // pgsize))
        if needed > self._most:
            _refuse(f"a bitmap of {needed} bytes: a message has {self._most}")
        return Bitmap(pgsize, needed)


def _mapping(
    iova: int,
    size: int,
    memory: memoryview | None,
    file: tuple[int, int] | None,
    *,
    readable: bool,
    writable: bool,
) -> DmaMapping:
    """Make a mapping with a view and a file of its own."""
    if memory is not None and memory.nbytes < size:
        _refuse(f"memory of {memory.nbytes:#x} bytes, less than {size:#x}")
    fd, offset = file if file is not None else (_NO_FILE, 0)
    if not 0 <= offset < _END_OF_IOVAS:
        _refuse(f"no file has an offset {offset:#x}")
    view = None if memory is None else memory.cast("B")
    return DmaMapping(
        iova=iova,
        size=size,
        memory=view,
        fd=_NO_FILE if file is None else os.dup(fd),
        offset=offset,
        readable=readable,
        writable=writable,
    )


def _require_range(iova: int, size: int) -> None:
    if iova < 0 or size <= 0 or iova + size > _END_OF_IOVAS:
        _refuse(f"no {size:#x} bytes lie at {iova:#x}")


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
