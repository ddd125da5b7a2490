"""Mutants that give a destination something else than came out of the source."""

from __future__ import annotations

from typing import ClassVar

from vfiomig.client.mutants.careful import CarefulClient, Device
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register
from vfiomig.protocol.v1.saving import check_buffer

__all__ = [
    "AnnouncesTheWholeRoom",
    "CutsLargeBuffers",
    "JoinsBuffers",
    "KeepsTheFirstOffset",
    "LastBufferFirst",
    "LosesTheLastByte",
    "SizeBeforeTheData",
    "WritesWhereTheRegistersEnd",
]


class SizeBeforeTheData(CarefulClient):
    """Writes data_size first, and the data behind it."""

    violates: ClassVar = frozenset({"v1/resuming/in-sequence"})

    def load_buffer(self, device: Device, chunk: bytes) -> None:
        """Load a buffer that is consumed before it is there."""
        offset = device.read(Register.DATA_OFFSET)
        check_buffer(offset, len(chunk), device.region.size)
        device.write(Register.DATA_SIZE, len(chunk))
        device.write_at(offset, chunk)


class KeepsTheFirstOffset(CarefulClient):
    """Reads data_offset for the first buffer, and puts the others there as well."""

    violates: ClassVar = frozenset({"v1/resuming/in-sequence"})

    def load(self, device: Device, chunks: list[bytes]) -> None:
        """Load, with no place known yet."""
        self._offset: int | None = None
        super().load(device, chunks)

    def load_buffer(self, device: Device, chunk: bytes) -> None:
        """Load a buffer to the place of the first."""
        if self._offset is None:
            self._offset = device.read(Register.DATA_OFFSET)
        check_buffer(self._offset, len(chunk), device.region.size)
        device.write_at(self._offset, chunk)
        device.write(Register.DATA_SIZE, len(chunk))


class WritesWhereTheRegistersEnd(CarefulClient):
    """Takes the data section to begin at 0x20, and does not ask the device."""

    violates: ClassVar = frozenset({"v1/resuming/in-sequence"})

    def load_buffer(self, device: Device, chunk: bytes) -> None:
        """Load a buffer to where it would be in a device without areas."""
        check_buffer(REGISTERS_SIZE, len(chunk), device.region.size)
        device.write_at(REGISTERS_SIZE, chunk)
        device.write(Register.DATA_SIZE, len(chunk))


class AnnouncesTheWholeRoom(CarefulClient):
    """Writes the bytes of a buffer, and the size of the data section for its size."""

    violates: ClassVar = frozenset(
        {
            "v1/data-size/tells-what-was-written",
            "v1/resuming/length-from-the-source",
            "v1/resuming/order-and-sizes-kept",
        }
    )

    def load_buffer(self, device: Device, chunk: bytes) -> None:
        """Load a buffer, with more than its size."""
        offset = device.read(Register.DATA_OFFSET)
        check_buffer(offset, len(chunk), device.region.size)
        device.write_at(offset, chunk)
        device.write(Register.DATA_SIZE, device.region.size - offset)


class LosesTheLastByte(CarefulClient):
    """Loads buffers without their last byte, size included."""

    violates: ClassVar = frozenset(
        {"v1/resuming/length-from-the-source", "v1/resuming/order-and-sizes-kept"}
    )

    def load_buffer(self, device: Device, chunk: bytes) -> None:
        """Load what is left of a buffer."""
        super().load_buffer(device, chunk[:-1])


class CutsLargeBuffers(CarefulClient):
    """Splits a buffer for which the destination has no room (BUG-QV1-14).

    Each piece gets a data_size of its own, as in QEMU 7.2 (vfio_load_buffer).
    """

    violates: ClassVar = frozenset(
        {"v1/resuming/length-from-the-source", "v1/resuming/order-and-sizes-kept"}
    )

    def load_buffer(self, device: Device, chunk: bytes) -> None:
        """Load a buffer in pieces that fit."""
        while chunk:
            room = device.region.size - device.read(Register.DATA_OFFSET)
            super().load_buffer(device, chunk[:room])
            chunk = chunk[room:]


class JoinsBuffers(CarefulClient):
    """Gives the destination two small buffers as one."""

    violates: ClassVar = frozenset(
        {"v1/resuming/length-from-the-source", "v1/resuming/order-and-sizes-kept"}
    )

    def load(self, device: Device, chunks: list[bytes]) -> None:
        """Load, with the first two buffers as one."""
        super().load(device, [b"".join(chunks[:2]), *chunks[2:]])


class LastBufferFirst(CarefulClient):
    """Gives the destination the newest buffer first."""

    violates: ClassVar = frozenset({"v1/resuming/order-and-sizes-kept"})

    def load(self, device: Device, chunks: list[bytes]) -> None:
        """Load from the end."""
        super().load(device, chunks[::-1])
