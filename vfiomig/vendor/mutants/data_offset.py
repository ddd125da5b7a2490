"""Mutants whose data_offset leads to the wrong place, or does too much.

Rule 1: the data stays where the reference driver puts it, unless the bug is where.
"""

from __future__ import annotations

from typing import ClassVar, Final

from vfiomig.protocol.v1.registers import Register
from vfiomig.vendor.mutants.mutable import MutableDriver, refuse

__all__ = [
    "NoOffsetInResuming",
    "OffsetBehindTheRegion",
    "OffsetInTheRegisters",
    "OffsetReadAdvances",
    "OffsetWanders",
    "UnalignedMappedOffset",
    "ZeroOffset",
]

_UNALIGNED: Final = 64


def _answer(value: int) -> bytes:
    return value.to_bytes(8, "little")


class ZeroOffset(MutableDriver):
    """Says 0: its buffer is the first thing in the data section."""

    violates: ClassVar = frozenset({"v1/data-offset/behind-the-registers"})

    def _read_data_offset(self) -> bytes:
        super()._read_data_offset()
        return _answer(0)


class OffsetInTheRegisters(MutableDriver):
    """Puts its buffers over its own registers, at data_offset."""

    violates: ClassVar = frozenset({"v1/data-offset/behind-the-registers"})

    def _read_data_offset(self) -> bytes:
        super()._read_data_offset()
        return _answer(Register.DATA_OFFSET.offset)


class OffsetReadAdvances(MutableDriver):
    """Goes on to the next buffer whenever data_offset is read."""

    violates: ClassVar = frozenset({"v1/data-offset/stable-within-iteration"})

    def _read_data_offset(self) -> bytes:
        if self._saving is not None and self._saving.has_buffer:
            self._saving.pending_bytes()
        return super()._read_data_offset()


class OffsetWanders(MutableDriver):
    """Says another place each time it is asked about the same buffer."""

    violates: ClassVar = frozenset({"v1/data-offset/stable-within-iteration"})
    _asked = 0

    def _read_pending_bytes(self) -> bytes:
        self._asked = 0
        return super()._read_pending_bytes()

    def _read_data_offset(self) -> bytes:
        answer = super()._read_data_offset()
        if self._saving is None or not self._saving.has_buffer:
            return answer
        self._asked += 1
        return _answer(self._section.offset + 8 * (self._asked - 1))


class OffsetBehindTheRegion(MutableDriver):
    """Says a place behind the end of the region."""

    violates: ClassVar = frozenset({"v1/data-offset/inside-the-region"})

    def _read_data_offset(self) -> bytes:
        super()._read_data_offset()
        return _answer(self.migration_region.size)


class UnalignedMappedOffset(MutableDriver):
    """Has its buffers 64 bytes into the area that may be mapped."""

    violates: ClassVar = frozenset(
        {
            "v1/data-offset/page-aligned-where-mapped",
            "v1/sparse-mmap/mapped-chunk-page-aligned",
        }
    )
    data_section: ClassVar = "mapped"

    def __init__(self) -> None:
        super().__init__()
        self._section.view = self._section.view[_UNALIGNED:]
        self._registers.data_offset = self._section.offset + _UNALIGNED

    def _clear_section(self) -> None:
        self._section.view[:] = bytes(len(self._section.view))


class NoOffsetInResuming(MutableDriver):
    """Refuses to say where a buffer is to be written in RESUMING."""

    violates: ClassVar = frozenset({"v1/data-offset/says-where-to-write"})

    def _read_data_offset(self) -> bytes:
        if self._loading is not None:
            refuse("data_offset is for saving")
        return super()._read_data_offset()
