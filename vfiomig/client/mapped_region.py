"""A migration region in use: registers by pread and pwrite, data by the shortest way.

Registers are never touched through a mapping, even where one covers them, because
only a trapped access has a meaning (V1-ACC-05).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from vfiomig.client.parts import parts_of, pieces_of

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from vfiomig.client.device import DeviceHandle
    from vfiomig.client.region import FoundRegion
    from vfiomig.protocol.region import SparseMmapArea
    from vfiomig.protocol.v1.registers import Register

# Told of data that went through a mapping: "read" or "write", offset, size.
Unseen = Callable[[str, int, int], None]


class MappedRegion:
    """The migration region of one open device.

    ``widths`` are those of trapped data (see `Conduct.data_widths`).  ``unseen`` is
    told of what goes through a mapping, where no handle could notice it.
    """

    def __init__(
        self,
        handle: DeviceHandle,
        region: FoundRegion,
        *,
        widths: tuple[int, ...] = (),
        unseen: Unseen | None = None,
    ) -> None:
        self._handle = handle
        self._base = region.offset
        self._listed = region.areas
        self._widths = widths
        self._unseen = unseen
        self._mappings: dict[SparseMmapArea, mmap.mmap] = {}
        self._views: list[memoryview] = []  # into the mappings, for one buffer
        self.size = region.size

    def read_register(self, register: Register) -> int:
        """Read a register at its native width.

        Raises:
            OSError: the driver's errno; EINVAL for a short read.
        """
        data = self._handle.pread(register.width, self._base + register.offset)
        if len(data) != register.width:
            _short(len(data), register.width)
        return int.from_bytes(data, "little")

    def write_register(self, register: Register, value: int) -> None:
        """Write a register at its native width.

        Raises:
            OSError: the driver's errno; EINVAL for a short write.
        """
        data = value.to_bytes(register.width, "little")
        taken = self._handle.pwrite(data, self._base + register.offset)
        if taken != register.width:
            _short(taken, register.width)

    def map(self) -> OSError | None:
        """Map the areas; if one cannot be, none is, and that failure is returned.

        All data is trapped then, as a user application may always have it
        (V1-MMAP-04).
        """
        try:
            for area in self._listed:
                place = self._base + area.offset
                self._mappings[area] = self._handle.mmap(area.size, place)
        except OSError as failure:
            self.unmap()
            return failure
        return None

    def unmap(self) -> None:
        """Give the mappings back, and every view of them that was handed out."""
        self._release_views()
        for mapping in self._mappings.values():
            # A view of a view that is held elsewhere keeps its pages until it goes.
            with contextlib.suppress(BufferError):
                mapping.close()
        self._mappings.clear()

    def data(self, offset: int, size: int) -> list[memoryview]:
        """Return the bytes of a buffer, part by part; a mapped part is not copied.

        The views are good until the next buffer is asked for, or `unmap`.  Where a
        buffer leaves the region, what lies inside is read before it fails, as QEMU
        does; the bytes behind the region are left alone, as QEMU's are not always.

        Raises:
            OSError: what a trapped access raised; EINVAL for a short one; ENOMEM,
                which is QEMU's word for it, where the buffer leaves the region.
        """
        self._release_views()
        inside = max(0, min(size, self.size - offset))
        views = []
        for part in parts_of(offset, inside, self._mappings):
            if part.area is not None:
                views.append(self._mapped("read", part.area, part.offset, part.size))
            else:
                views.append(memoryview(self._pread(part.offset, part.size)))
        if inside < size:
            message = f"{size:#x} bytes at {offset:#x} leave the migration region"
            raise OSError(errno.ENOMEM, message)
        return views

    def room(self, offset: int, size: int) -> Iterator[memoryview]:
        """Yield where the bytes of a buffer go; each view is filled before the next.

        The buffer lies in the region.  A mapped part is the mapping itself; a trapped
        one is written when it is full.

        Raises:
            OSError: what a trapped access raised; EINVAL for a short one.
        """
        self._release_views()
        for part in parts_of(offset, size, self._mappings):
            if part.area is not None:
                with self._mapped("write", part.area, part.offset, part.size) as view:
                    yield view
            else:
                piece = bytearray(part.size)
                with memoryview(piece) as view:
                    yield view
                self._pwrite(part.offset, piece)

    def _mapped(
        self, access: str, area: SparseMmapArea, offset: int, size: int
    ) -> memoryview:
        if self._unseen is not None:
            self._unseen(access, offset, size)
        start = offset - area.offset
        with memoryview(self._mappings[area]) as whole:
            view = whole[start : start + size]
        self._views.append(view)
        return view

    def _release_views(self) -> None:
        for view in self._views:
            view.release()
        self._views.clear()

    def _pread(self, offset: int, size: int) -> bytes:
        position = self._base + offset
        pieces = []
        for width in pieces_of(position, size, self._widths):
            piece = self._handle.pread(width, position)
            if len(piece) != width:
                _short(len(piece), width)
            pieces.append(piece)
            position += width
        return b"".join(pieces)

    def _pwrite(self, offset: int, data: bytearray) -> None:
        position, done = self._base + offset, 0
        for width in pieces_of(position, len(data), self._widths):
            piece = bytes(data[done : done + width])
            taken = self._handle.pwrite(piece, position)
            if taken != width:
                _short(taken, width)
            position += width
            done += width


def _short(got: int, wanted: int) -> NoReturn:
    raise OSError(errno.EINVAL, f"{got} bytes of {wanted} were moved")
