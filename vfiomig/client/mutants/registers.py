"""Mutants that access registers, or map data, as nobody may."""

from __future__ import annotations

from typing import ClassVar, Final

from vfiomig.client.mutants.careful import CarefulClient, Device
from vfiomig.protocol.region import SparseMmapArea
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register

__all__ = [
    "ForgetsRunning",
    "MapsTheWholeRegion",
    "MarksADeviceAsItsOwn",
    "ReadsAllRegistersAtOnce",
    "ReadsPendingByHalves",
]

_RUNNING: Final = 0b001
_RESUMING: Final = 0b100
_OWN: Final = 1 << 31


class ReadsPendingByHalves(CarefulClient):
    """Reads pending_bytes as two words of 32 bits."""

    violates: ClassVar = frozenset({"v1/register-access/native-width"})

    def save_some(self, device: Device) -> list[bytes]:
        """Save; ask in halves first."""
        for half in (0, 4):
            try:
                device.read_at(Register.PENDING_BYTES.offset + half, 4)
            except OSError:
                break
        return super().save_some(device)


class ReadsAllRegistersAtOnce(CarefulClient):
    """Reads the whole vfio_device_migration_info in one access, to look at a field."""

    violates: ClassVar = frozenset({"v1/register-access/native-width"})

    def load(self, device: Device, chunks: list[bytes]) -> None:
        """Load; look at everything first."""
        try:
            device.read_at(0, REGISTERS_SIZE)
        except OSError:
            device.read(Register.DEVICE_STATE)
        super().load(device, chunks)


class MarksADeviceAsItsOwn(CarefulClient):
    """Keeps a flag of its own in bit 31 of device_state, which is reserved."""

    violates: ClassVar = frozenset({"v1/device-state/reserved-bits-preserved"})

    def value_for(self, value: int, target: int) -> int:
        """Return it, with the flag."""
        return super().value_for(value, target) | _OWN


class ForgetsRunning(CarefulClient):
    """Sets RESUMING and leaves RUNNING as it is, which together are no state."""

    violates: ClassVar = frozenset({"v1/errors-and-reset/only-valid-states-written"})

    def value_for(self, value: int, target: int) -> int:
        """Return it; RUNNING is nobody's to clear."""
        written = super().value_for(value, target)
        if target == _RESUMING:
            written |= value & _RUNNING
        return written


class MapsTheWholeRegion(CarefulClient):
    """Maps the region from end to end, where areas of it are listed."""

    violates: ClassVar = frozenset({"v1/sparse-mmap/only-listed-areas-mapped"})

    def areas(self, device: Device) -> tuple[SparseMmapArea, ...]:
        """Return all of it."""
        return (SparseMmapArea(0, device.region.size),)
