"""Mutants that get the accesses to their registers wrong.

Rule 1: accesses at native width and place do what they should, unless the bug is
about just these.
"""

from __future__ import annotations

from typing import ClassVar, cast

from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
from vfiomig.protocol.v1.registers import REGISTER_AT, REGISTERS_SIZE, Register
from vfiomig.vendor.mutants.mutable import MutableDriver, refuse

__all__ = [
    "AllRegistersAreRead",
    "AnyWidthIsRead",
    "MappableRegisters",
    "NarrowSizeIsTaken",
    "NarrowWriteMovesTheState",
    "OddAccessCrashes",
    "OddReadConsumes",
    "OffsetIsWritable",
    "PendingWriteConsumes",
    "RefusesAfterActing",
    "ReservedIsRefused",
    "ReservedIsStored",
    "ReservedIsText",
    "ShortPendingBytes",
    "StateReadConsumes",
]


def _is_odd(offset: int, size: int) -> bool:
    return offset < REGISTERS_SIZE and (offset, size) not in REGISTER_AT


class AnyWidthIsRead(MutableDriver):
    """Answers reads of any width within a register or across the end of one."""

    violates: ClassVar = frozenset({"v1/register-access/other-widths-refused"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if _is_odd(offset, size) and offset + size <= REGISTERS_SIZE and size < 8:
            return self._bank[offset : offset + size]
        return super().read(offset, size)


class AllRegistersAreRead(MutableDriver):
    """Answers one read of all registers with the whole structure."""

    violates: ClassVar = frozenset(
        {"v1/register-access/many-registers-at-once-refused"}
    )

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if (offset, size) == (0, REGISTERS_SIZE):
            return self._bank[:REGISTERS_SIZE]
        return super().read(offset, size)


class NarrowWriteMovesTheState(MutableDriver):
    """Takes one byte for device_state: its three bits are all there."""

    violates: ClassVar = frozenset(
        {
            "v1/register-access/other-widths-refused",
            "v1/register-access/other-widths-change-nothing",
        }
    )

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write, with the bug."""
        if offset == Register.DEVICE_STATE.offset and len(data) == 1:
            data += bytes(3)
        super().write(offset, data)


class NarrowSizeIsTaken(MutableDriver):
    """Takes half of data_size for all of it: no chunk is so large."""

    violates: ClassVar = frozenset({"v1/register-access/other-widths-refused"})

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write, with the bug."""
        if offset == Register.DATA_SIZE.offset and len(data) == 4:
            data += bytes(4)
        super().write(offset, data)


class RefusesAfterActing(MutableDriver):
    """Moves on the first four bytes of a wide write, then notices the width."""

    violates: ClassVar = frozenset({"v1/register-access/other-widths-change-nothing"})

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write, with the bug."""
        if offset == Register.DEVICE_STATE.offset and len(data) == 8:
            self._write_device_state(int.from_bytes(data[:4], "little"))
        super().write(offset, data)


class OddReadConsumes(MutableDriver):
    """Takes the buffer back on half a read of pending_bytes, and then refuses it."""

    violates: ClassVar = frozenset({"v1/register-access/other-widths-change-nothing"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if offset == Register.PENDING_BYTES.offset and size == 4:
            self._read_pending_bytes()
        return super().read(offset, size)


class OddAccessCrashes(MutableDriver):
    """Looks any access up in a table of registers that has the native ones alone."""

    violates: ClassVar = frozenset({"v1/register-access/other-widths-change-nothing"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if offset < REGISTERS_SIZE:
            return self._readers[offset, size]()
        return super().read(offset, size)


class ShortPendingBytes(MutableDriver):
    """Answers a read of pending_bytes with its lower four bytes."""

    violates: ClassVar = frozenset({"v1/register-access/whole-or-error"})

    def _read_pending_bytes(self) -> bytes:
        return super()._read_pending_bytes()[:4]


class MappableRegisters(MutableDriver):
    """Lists the page of the registers as an area of its own."""

    violates: ClassVar = frozenset({"v1/register-access/registers-trapped"})
    data_section: ClassVar = "mapped"

    def __init__(self) -> None:
        super().__init__()
        region = self.migration_region
        page = SparseMmapArea(0, self._section.offset)
        self.migration_region = MigrationRegion(region.size, (page, *region.areas))


class StateReadConsumes(MutableDriver):
    """Takes a read of device_state for the end of the iteration."""

    violates: ClassVar = frozenset({"v1/register-access/device-state-always-readable"})

    def _read_device_state(self) -> bytes:
        if self._saving is not None:
            self._saving.pending_bytes()
        return super()._read_device_state()


class ReservedIsStored(MutableDriver):
    """Keeps what is written to the reserved field, and reads it back."""

    violates: ClassVar = frozenset(
        {
            "v1/register-access/reserved-reads-zero",
            "v1/register-access/reserved-writes-ignored",
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self._readers[Register.RESERVED.offset, 4] = lambda: self._bank[4:8]

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write, with the bug."""
        super().write(offset, data)
        if (offset, len(data)) == (Register.RESERVED.offset, 4):
            self._bank[4:8] = data


class ReservedIsText(MutableDriver):
    """Answers a read of the reserved field with text; no such answer is bytes."""

    violates: ClassVar = frozenset({"v1/register-access/reserved-reads-zero"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if (offset, size) == (Register.RESERVED.offset, 4):
            return cast("bytes", "\0" * size)
        return super().read(offset, size)


class ReservedIsRefused(MutableDriver):
    """Refuses writes to the reserved field, as libvfio-user did."""

    violates: ClassVar = frozenset({"v1/register-access/reserved-writes-ignored"})

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write, with the bug."""
        if (offset, len(data)) == (Register.RESERVED.offset, 4):
            refuse("the field is reserved")
        super().write(offset, data)


class OffsetIsWritable(MutableDriver):
    """Lets the user application say where its buffers are."""

    violates: ClassVar = frozenset(
        {"v1/data-offset/read-only", "v1/register-access/read-only-registers-stay"}
    )

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write, with the bug."""
        if (offset, len(data)) == (Register.DATA_OFFSET.offset, 8):
            self._registers.data_offset = int.from_bytes(data, "little")
            return
        super().write(offset, data)


class PendingWriteConsumes(MutableDriver):
    """Takes a write to pending_bytes for the end of the iteration."""

    violates: ClassVar = frozenset({"v1/register-access/read-only-registers-stay"})

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write, with the bug."""
        if (offset, len(data)) == (Register.PENDING_BYTES.offset, 8):
            self._read_pending_bytes()
            return
        super().write(offset, data)
