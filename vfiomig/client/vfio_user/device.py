"""A device in another process, held over a vfio-user socket.

It has the shape of any device handle: what a server refuses is an ``OSError`` with its
errno, as if a kernel had said it.  A server that ends, hangs or talks garbage is
`DriverLostError`, the same one whatever is asked later.
"""

from __future__ import annotations

import errno
import mmap as _mmap
from typing import TYPE_CHECKING, Final

from vfiomig.client.vfio_user import requests
from vfiomig.client.vfio_user.dma import Dma
from vfiomig.client.vfio_user.ioctls import Ioctls
from vfiomig.client.vfio_user.regions import (
    END_OF_OFFSETS,
    OFFSET_MASK,
    OFFSET_SHIFT,
    Regions,
    split_offset,
)

if TYPE_CHECKING:
    from vfiomig.client.vfio_user.memory import DmaMemory
    from vfiomig.client.vfio_user.session import Session
    from vfiomig.protocol.vfio_user.negotiation import Capabilities

_U32: Final = (1 << 32) - 1


class VfioUserDevice:
    """A `DeviceHandle` over a session, which it owns; `connect` makes one.

    ``agreed`` is what one message may carry, whichever party sends it.  One thread
    uses a device at a time.
    """

    def __init__(
        self, session: Session, memory: DmaMemory, agreed: Capabilities
    ) -> None:
        self._session = session
        self._memory = memory
        self._most = agreed.max_data_xfer_size
        self._regions = Regions(session)
        self._ioctls = Ioctls(session, self._regions, agreed.max_msg_fds)
        self._dma = Dma(
            session, memory, most=self._most, max_msg_fds=agreed.max_msg_fds
        )
        session.allow_quick(self._most)

    def pread(self, size: int, offset: int) -> bytes:
        """Read ``size`` bytes at ``offset`` of the handle; fewer are a short read.

        Where the server takes fewer at once it is several requests, and one that fails
        is the answer to all.

        Raises:
            OSError: the server's errno; EINVAL where no region is; EBADF when closed.
            DriverLostError: there is no server any more, or it is not understood.
        """
        session = self._session
        if 0 < size <= session.quick and 0 <= offset < END_OF_OFFSETS:
            index = offset >> OFFSET_SHIFT
            return session.read_quickly(index, offset & OFFSET_MASK, size)
        return self._read_in_parts(size, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write ``data`` at ``offset`` of the handle and return the bytes taken.

        Raises:
            OSError, DriverLostError: as `pread`.
        """
        session = self._session
        payload = bytes(data)
        if 0 < len(payload) <= session.quick and 0 <= offset < END_OF_OFFSETS:
            index = offset >> OFFSET_SHIFT
            return session.write_quickly(index, offset & OFFSET_MASK, payload)
        return self._write_in_parts(payload, offset)

    def mmap(self, length: int, offset: int) -> _mmap.mmap:
        """Map a part of the server's file, shared, for reading and writing.

        Raises:
            OSError: as `backing`; EACCES where the server passed no file for writing.
            DriverLostError: as `pread`.
        """
        fd, place = self.backing(length, offset)
        return _mmap.mmap(fd, length, offset=place)

    def backing(self, length: int, offset: int) -> tuple[int, int]:
        """Return the file behind mappable bytes, which stays ours, and their place.

        Raises:
            OSError: EINVAL: they are not inside one area, not aligned to pages, or the
                file ends before them; the server's errno; EBADF when closed.
            DriverLostError: as `pread`.
        """
        index, place = split_offset(offset)
        access = f"mmap of {length:#x} bytes at {place:#x}"
        return self._regions.region(index, access).file_of(length, place)

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        """Perform an ioctl of a device fd; its structure is changed in place.

        There are those of information, of interrupts, and the reset.  eventfds in an
        argument are this process's.

        Raises:
            OSError: ENOTTY for any other; EFAULT and EINVAL as the kernel has them;
                the server's errno.
            DriverLostError: as `pread`.
        """
        return self._ioctls.perform(request, argument)

    def forget_region(self, index: int) -> None:
        """See that the server is asked for a region again when it is needed."""
        self._regions.forget(index)

    def map_dma(
        self,
        iova: int,
        size: int,
        *,
        memory: memoryview | None = None,
        file: tuple[int, int] | None = None,
        readable: bool = True,
        writable: bool = True,
    ) -> None:
        """Let the device reach ``size`` bytes at ``iova``.

        ``file`` is an fd and an offset in it, which the server is passed.  It asks
        for what it cannot map itself, and gets it of ``memory``, or else of ``file``;
        with neither it gets EFAULT.  Both are held until they are unmapped.

        Raises:
            OSError: EINVAL: the range, the memory or the offset cannot be; EEXIST:
                it overlaps another one; EBADF; the server's errno.
            DriverLostError: as `pread`.
        """
        self._dma.map(iova, size, memory, file, readable=readable, writable=writable)

    def unmap_dma(
        self, iova: int, size: int, *, pgsize: int | None = None
    ) -> bytes | None:
        """Take a range away from the device; with ``pgsize`` return its dirty bitmap.

        Raises:
            OSError: EINVAL: the range or the pages cannot be, or the bitmap is larger
                than a message; the server's errno.
            DriverLostError: as `pread`.
        """
        return self._dma.unmap(iova, size, pgsize)

    def start_dirty_tracking(self) -> None:
        """Have the server note which pages its device writes.

        Raises:
            OSError: the server's errno.
            DriverLostError: as `pread`.
        """
        self._dma.start()

    def stop_dirty_tracking(self) -> None:
        """Have the server forget them.

        Raises:
            OSError: the server's errno.
            DriverLostError: as `pread`.
        """
        self._dma.stop()

    def dirty_bitmap(self, iova: int, size: int, pgsize: int) -> bytes:
        """Return which pages of a range were written: a bit for ``pgsize`` bytes.

        It has whole words of 64 bits (see `vfiomig.protocol.dirty_bitmap`).

        Raises:
            OSError: as `unmap_dma`.
            DriverLostError: as `pread`.
        """
        return self._dma.bits(iova, size, pgsize)

    def close(self) -> None:
        """Close the socket, the files and what was mapped for DMA; once is enough."""
        self._session.close()
        self._regions.close()
        self._memory.close()

    def _read_in_parts(self, size: int, offset: int) -> bytes:
        index, place = split_offset(offset)
        if not 0 <= size <= _U32:
            raise OSError(errno.EINVAL, f"a read of {size} bytes")
        parts: list[bytes] = []
        left = size
        while True:
            wanted = min(left, self._most)
            request = requests.region_read(index, place, wanted)
            part = self._session.ask(request)
            parts.append(part)
            place += len(part)
            left -= len(part)
            if len(part) < wanted or not left:
                return b"".join(parts)

    def _write_in_parts(self, data: bytes, offset: int) -> int:
        index, place = split_offset(offset)
        done = 0
        while True:
            part = data[done : done + self._most]
            request = requests.region_write(index, place + done, part)
            taken = self._session.ask(request)
            done += taken
            if taken < len(part) or done == len(data):
                return done
