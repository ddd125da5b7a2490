"""Mutants of the standalone driver: registers, buffers and their sizes.

Rule 1: as `StandaloneDriver`, but for one method.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from vfiomig.vendor.mutants.standalone import (
    CHECKSUM,
    DATA_SIZE,
    DEVICE_STATE,
    ERROR,
    PENDING_BYTES,
    PRE_COPY,
    REGISTERS,
    RESERVED,
    SAVING,
    StandaloneDriver,
    refuse,
)

__all__ = [
    "BufferReadyLater",
    "HalfReadsAnswered",
    "NdmaBit",
    "NoDataSizeInSaving",
    "OffsetFromTheRegisters",
    "PendingIsWritable",
    "SizeLeavesOutTheChecksum",
    "SizeReadOnce",
    "SizeWriteConsumes",
    "StateUnreadableInError",
    "VersionInReserved",
    "ZeroSizeForever",
]

_NDMA: Final = 1 << 3
_VERSION: Final = 1


class NdmaBit(StandaloneDriver):
    """Shows in bit 3, which v1 never had, that a stopped device does no DMA."""

    violates: ClassVar = frozenset({"v1/discovery/no-ndma-bit"})

    def read_register(self, register: int) -> int:
        """Read; device_state has one bit too many."""
        value = super().read_register(register)
        if register == DEVICE_STATE and not self.is_running():
            return value | _NDMA
        return value


class StateUnreadableInError(StandaloneDriver):
    """Fails with EIO when device_state is read in ERROR."""

    violates: ClassVar = frozenset({"v1/register-access/device-state-always-readable"})

    def read_register(self, register: int) -> int:
        """Read; ERROR cannot be."""
        if register == DEVICE_STATE and self.state == ERROR:
            raise OSError(errno.EIO, "the device is in ERROR")
        return super().read_register(register)


class VersionInReserved(StandaloneDriver):
    """Has the version of its interface in the reserved field."""

    violates: ClassVar = frozenset({"v1/register-access/reserved-reads-zero"})

    def read_register(self, register: int) -> int:
        """Read; reserved is not 0."""
        return _VERSION if register == RESERVED else super().read_register(register)


class HalfReadsAnswered(StandaloneDriver):
    """Answers reads of half a 64-bit register, as a 32-bit VMM would like."""

    violates: ClassVar = frozenset({"v1/register-access/other-widths-refused"})

    def read(self, offset: int, size: int) -> bytes:
        """Read; a half will do."""
        register = offset & ~7
        if PENDING_BYTES <= register < REGISTERS and size == 4 and offset % 4 == 0:
            value = self.size if register == DATA_SIZE else 0
            return value.to_bytes(8, "little")[offset - register :][:size]
        return super().read(offset, size)


class PendingIsWritable(StandaloneDriver):
    """Takes a write to pending_bytes for a wish: 0 ends what is to be sent."""

    violates: ClassVar = frozenset(
        {"v1/register-access/read-only-registers-stay", "v1/pending-bytes/read-only"}
    )

    def write_register(self, register: int, value: int) -> None:
        """Write; pending_bytes, too."""
        if register == PENDING_BYTES and self.state in SAVING and not value:
            self.dirty.clear()
            self.has_ended = True
        super().write_register(register, value)


class OffsetFromTheRegisters(StandaloneDriver):
    """Counts data_offset from the end of the registers."""

    violates: ClassVar = frozenset(
        {
            "v1/data-offset/counts-from-the-region",
            "v1/data-offset/returns-when-data-is-there",
        }
    )

    def data_offset(self) -> int:
        """Return an offset from the wrong place."""
        return super().data_offset() - REGISTERS


class BufferReadyLater(StandaloneDriver):
    """Returns from data_offset at once; the first read of the data is EAGAIN."""

    violates: ClassVar = frozenset({"v1/data-offset/returns-when-data-is-there"})
    _is_late = False

    def queue(self) -> None:
        """Begin to put a chunk into the window."""
        super().queue()
        self._is_late = self.queued is not None

    def read_data(self, start: int, size: int) -> bytes:
        """Read; not yet."""
        if self._is_late and self.queued is not None:
            self._is_late = False
            raise OSError(errno.EAGAIN, "the buffer is not there yet")
        return super().read_data(start, size)


class SizeReadOnce(StandaloneDriver):
    """Says 0 when data_size is read again within one iteration."""

    violates: ClassVar = frozenset({"v1/data-size/stable-within-iteration"})

    def data_size(self) -> int:
        """Return the size, once."""
        size, self.size = self.size, 0
        return size


class SizeLeavesOutTheChecksum(StandaloneDriver):
    """Counts a chunk without the checksum behind it."""

    violates: ClassVar = frozenset(
        {"v1/data-size/is-the-buffers-length", "v1/transitions/resuming-to-running"}
    )

    def data_size(self) -> int:
        """Return four bytes too few."""
        return max(0, super().data_size() - CHECKSUM.size)


class ZeroSizeForever(StandaloneDriver):
    """Gets stuck at its second block in stop-and-copy: buffers of no bytes follow."""

    violates: ClassVar = frozenset({"v1/data-size/makes-progress"})

    def queue(self) -> None:
        """Queue; not the second block."""
        if 1 in self.dirty and 0 not in self.dirty and self.state != PRE_COPY:
            return
        super().queue()


class SizeWriteConsumes(StandaloneDriver):
    """Takes a write to data_size while SAVING for the end of the iteration."""

    violates: ClassVar = frozenset({"v1/data-size/not-written-while-saving"})

    def write_data_size(self, size: int) -> None:
        """Write; drop the chunk in the window."""
        if self.state in SAVING:
            self.acknowledge()
            return
        super().write_data_size(size)


class NoDataSizeInSaving(StandaloneDriver):
    """Refuses to say data_size in stop-and-copy: it is the same as in pre-copy."""

    violates: ClassVar = frozenset({"v1/saving/same-in-both-states"})

    def data_size(self) -> int:
        """Return the size, in pre-copy."""
        if self.state in SAVING and self.state != PRE_COPY:
            refuse("every buffer has the same size")
        return super().data_size()
