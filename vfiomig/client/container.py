"""Guest memory for devices, through a container: mappings, and what was written.

The ioctls and their order are those of QEMU 7.2 (hw/vfio/common.c):
vfio_connect_container, vfio_listener_region_add, vfio_listener_log_global_start and
vfio_get_dirty_bitmap.
"""

from __future__ import annotations

import errno
from ctypes import Structure, sizeof
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from vfiomig.uapi import ioctl
from vfiomig.uapi.iommu_type1 import (
    VFIO_API_VERSION,
    VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
    VFIO_IOMMU_INFO_CAPS,
    VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
    VFIO_TYPE1v2_IOMMU,
    vfio_bitmap,
    vfio_iommu_type1_dirty_bitmap,
    vfio_iommu_type1_dirty_bitmap_get,
    vfio_iommu_type1_dma_map,
    vfio_iommu_type1_info,
    vfio_iommu_type1_info_cap_migration,
)
from vfiomig.uapi.vfio import vfio_info_cap_header

if TYPE_CHECKING:
    from collections.abc import Iterator

_S = TypeVar("_S", bound=Structure)

CONTAINER_PATH: Final = "/dev/vfio/vfio"
PAGE_SIZE: Final = 4096  # the host's, in which dirty pages are counted
_WORD_PAGES: Final = 64  # bits of a bitmap come in whole words
_LONGEST_INFO: Final = 1 << 16


class Buffers(Protocol):
    """Where a buffer of ours lies for whoever is given a pointer to it."""

    def place(self, buffer: bytearray | memoryview) -> int:
        """Return its address; it stays there until it is removed."""

    def remove(self, address: int) -> None:
        """Forget the buffer at an address."""


class Process(Protocol):
    """Whoever has the fds: a process, and its memory.  Failures are OSErrors."""

    @property
    def memory(self) -> Buffers:
        """Its memory."""

    def open(self, path: str) -> int:
        """Open a path of /dev/vfio; return an fd."""

    def ioctl(self, number: int, request: int, argument: int = 0) -> int:
        """Perform an ioctl, with a number or an address."""

    def close(self, number: int) -> None:
        """Close an fd."""


class Container:
    """A container with one group, and a type 1 IOMMU (v2) that tracks dirty pages.

    ``number`` is its fd.

    Raises:
        OSError: it cannot be opened, or is not of that kind (ENODEV); EOPNOTSUPP
            without dirty pages of the host's page size.
    """

    def __init__(self, process: Process, group: str) -> None:
        self._process = process
        self._numbers: list[int] = []
        try:
            self._numbers.append(process.open(CONTAINER_PATH))
            self.number = self._numbers[0]
            self._connect(group)
        except BaseException:
            self.close()
            raise

    def map(self, iova: int, size: int, vaddr: int) -> None:
        """Let devices read and write ``size`` bytes of ours at ``iova``.

        Raises:
            OSError: as VFIO_IOMMU_MAP_DMA says.
        """
        asked = vfio_iommu_type1_dma_map(
            argsz=sizeof(vfio_iommu_type1_dma_map),
            flags=VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
            vaddr=vaddr,
            iova=iova,
            size=size,
        )
        self._call(ioctl.VFIO_IOMMU_MAP_DMA(), bytearray(asked))

    def start_tracking(self) -> None:
        """Log what devices write from now on."""
        self._dirty_pages(VFIO_IOMMU_DIRTY_PAGES_FLAG_START)

    def stop_tracking(self) -> None:
        """Log no more."""
        self._dirty_pages(VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP)

    def dirty_bitmap(self, iova: int, size: int) -> bytearray:
        """Return which pages of a whole mapping were written since the last time.

        A bit for each page of `PAGE_SIZE`, in whole 64-bit words.

        Raises:
            OSError: as VFIO_IOMMU_DIRTY_PAGES says.
        """
        words = -(-size // (PAGE_SIZE * _WORD_PAGES))
        room = bytearray(8 * words)
        address = self._process.memory.place(room)
        try:
            get = vfio_iommu_type1_dirty_bitmap_get(
                iova=iova,
                size=size,
                bitmap=vfio_bitmap(pgsize=PAGE_SIZE, size=len(room), data=address),
            )
            self._dirty_pages(VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, bytes(get))
        finally:
            self._process.memory.remove(address)
        return room

    def close(self) -> None:
        """Let go of the group and the container."""
        while self._numbers:
            self._process.close(self._numbers.pop())

    def _connect(self, group: str) -> None:
        number = self._process.open(group)
        self._numbers.append(number)
        word = bytearray(self.number.to_bytes(4, "little"))
        self._call(ioctl.VFIO_GROUP_SET_CONTAINER(), word, number)
        process = self._process
        version = process.ioctl(self.number, ioctl.VFIO_GET_API_VERSION())
        kind = VFIO_TYPE1v2_IOMMU
        has_kind = process.ioctl(self.number, ioctl.VFIO_CHECK_EXTENSION(), kind)
        if version != VFIO_API_VERSION or not has_kind:
            message = (
                f"no container of version 0 with a type1v2 IOMMU (it is {version})"
            )
            raise OSError(errno.ENODEV, message)
        process.ioctl(self.number, ioctl.VFIO_SET_IOMMU(), kind)
        if not self._page_sizes() & PAGE_SIZE:
            message = "the container tracks no dirty pages of 4096 bytes"
            raise OSError(errno.EOPNOTSUPP, message)

    def _page_sizes(self) -> int:
        """Return the sizes of pages that it tracks (vfio_get_iommu_info_migration)."""
        info = self._info()
        for at, head in _capabilities(info):
            if head.id == VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION:
                found = _at(vfio_iommu_type1_info_cap_migration, info, at)
                return int(found.pgsize_bitmap)
        return 0

    def _info(self) -> bytearray:
        """Return the info with its capabilities: the second answer has all of them."""
        size = sizeof(vfio_iommu_type1_info)
        info = bytearray(vfio_iommu_type1_info(argsz=size)).ljust(size, b"\0")
        self._call(ioctl.VFIO_IOMMU_GET_INFO(), info)
        wanted = min(_at(vfio_iommu_type1_info, info, 0).argsz, _LONGEST_INFO)
        if wanted > size:
            info = bytearray(vfio_iommu_type1_info(argsz=wanted)).ljust(wanted, b"\0")
            self._call(ioctl.VFIO_IOMMU_GET_INFO(), info)
        return info

    def _dirty_pages(self, flags: int, rest: bytes = b"") -> None:
        size = sizeof(vfio_iommu_type1_dirty_bitmap) + len(rest)
        head = vfio_iommu_type1_dirty_bitmap(argsz=size, flags=flags)
        self._call(ioctl.VFIO_IOMMU_DIRTY_PAGES(), bytearray(bytes(head) + rest))

    def _call(self, request: int, structure: bytearray, fd: int | None = None) -> None:
        """Perform an ioctl with a structure, which is changed in place."""
        address = self._process.memory.place(structure)
        try:
            number = self.number if fd is None else fd
            self._process.ioctl(number, request, address)
        finally:
            self._process.memory.remove(address)


def _capabilities(info: bytearray) -> Iterator[tuple[int, vfio_info_cap_header]]:
    """Yield where each capability is, and its header; a chain only leads forwards."""
    head = _at(vfio_iommu_type1_info, info, 0)
    at = head.cap_offset if head.flags & VFIO_IOMMU_INFO_CAPS else 0
    while at and at + sizeof(vfio_info_cap_header) <= len(info):
        header = _at(vfio_info_cap_header, info, at)
        yield at, header
        if header.next <= at:
            return
        at = header.next


def _at(structure: type[_S], data: bytearray, at: int) -> _S:
    piece = bytes(data[at : at + sizeof(structure)])
    return structure.from_buffer_copy(piece.ljust(sizeof(structure), b"\0"))
