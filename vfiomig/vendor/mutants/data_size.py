"""Mutants that say a wrong data_size, or believe any that they are told.

Rule 1: the buffer itself is right.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from vfiomig.vendor.chunk import HEADER_SIZE
from vfiomig.vendor.mutants.mutable import MutableDriver

if TYPE_CHECKING:
    from vfiomig.protocol.v1.states import DeviceState

__all__ = [
    "EmptyBuffers",
    "HugeSizeExits",
    "HugeSizeIgnored",
    "LoadsAtTheNextAccess",
    "ShrinkingBuffer",
    "SizeBeyondTheRegion",
    "SizeIsWritableInSaving",
    "SizeWithoutHeader",
]

_SIGNED_INT: Final = 1 << 31
_SEGMENTATION_FAULT: Final = 139


class ShrinkingBuffer(MutableDriver):
    """Halves data_size each time it is read within one iteration."""

    violates: ClassVar = frozenset({"v1/data-size/stable-within-iteration"})

    def _read_data_size(self) -> bytes:
        answer = super()._read_data_size()
        self._registers.data_size //= 2
        return answer


class SizeWithoutHeader(MutableDriver):
    """Counts the payload alone, so that the end of each buffer is never read."""

    violates: ClassVar = frozenset(
        {"v1/data-size/is-the-buffers-length", "v1/transitions/resuming-to-running"}
    )

    def _read_data_offset(self) -> bytes:
        answer = super()._read_data_offset()
        if self._registers.data_size > HEADER_SIZE:
            self._registers.data_size -= HEADER_SIZE
        return answer


class SizeBeyondTheRegion(MutableDriver):
    """Says a data_size that leads out of the region (BUG-QV1-14, the other side)."""

    violates: ClassVar = frozenset({"v1/data-offset/inside-the-region"})

    def _read_data_offset(self) -> bytes:
        answer = super()._read_data_offset()
        if self._registers.data_size:
            self._registers.data_size += self.migration_region.size
        return answer


class EmptyBuffers(MutableDriver):
    """Has something pending, and gives buffers of no bytes for ever."""

    violates: ClassVar = frozenset({"v1/data-size/makes-progress"})

    def _read_data_offset(self) -> bytes:
        return self._bank[16:24]


class SizeIsWritableInSaving(MutableDriver):
    """Lets the user application change the size of the buffer that it reads."""

    violates: ClassVar = frozenset({"v1/data-size/not-written-while-saving"})

    def _write_data_size(self, size: int) -> None:
        if self._saving is not None:
            self._registers.data_size = size
            return
        super()._write_data_size(size)


class LoadsAtTheNextAccess(MutableDriver):
    """Consumes a chunk when data_offset is read again, or RESUMING is left."""

    violates: ClassVar = frozenset({"v1/data-size/returns-on-consumption"})
    _waiting: int | None = None

    def _write_data_size(self, size: int) -> None:
        if self._loading is not None and HEADER_SIZE <= size <= self._section.size:
            self._consume()
            self._waiting = size
            return
        super()._write_data_size(size)

    def _read_data_offset(self) -> bytes:
        self._consume()
        return super()._read_data_offset()

    def _enter(self, target: DeviceState) -> None:
        self._consume()
        super()._enter(target)

    def _end_sessions(self) -> None:
        self._waiting = None
        super()._end_sessions()

    def _consume(self) -> None:
        size, self._waiting = self._waiting, None
        if size is not None:
            super()._write_data_size(size)


class HugeSizeIgnored(MutableDriver):
    """Says that a chunk larger than the data section was taken."""

    violates: ClassVar = frozenset({"v1/data-size/refused-if-impossible"})

    def _write_data_size(self, size: int) -> None:
        if self._loading is not None and size > self._section.size:
            return
        super()._write_data_size(size)


class HugeSizeExits(MutableDriver):
    """Takes its process down with a data_size that no int holds.

    mtty of May 2020 copied as much as it was told.
    """

    violates: ClassVar = frozenset({"v1/data-size/refused-if-impossible"})

    def _write_data_size(self, size: int) -> None:
        if self._loading is not None and size >= _SIGNED_INT:
            os._exit(_SEGMENTATION_FAULT)
        super()._write_data_size(size)
