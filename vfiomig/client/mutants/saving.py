"""Mutants that lose, repeat or cut off what a device hands out.

Rule 1: a stream that came out wrong is given to the destination all the same, unless
it cannot be told from one that failed.
"""

from __future__ import annotations

from typing import ClassVar

from vfiomig.client.mutants.careful import CarefulClient, Device
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.saving import check_buffer
from vfiomig.protocol.v1.states import DeviceState

__all__ = [
    "AsksBeforeItReads",
    "AsksForNothing",
    "AsksOnlyAtTheStart",
    "ComputesPendingBytes",
    "EmptyBufferIsTheEnd",
    "EndsAtAFailureOfPendingBytes",
    "NeverAsksFirst",
    "ReadsOnAfterAnError",
    "ReadsTheSizeFirst",
    "ReadsTheWholeSection",
    "TakesEachBufferTwice",
]


class AsksForNothing(CarefulClient):
    """Asks for one buffer more, to see that it is empty, when nothing is pending."""

    violates: ClassVar = frozenset(
        {
            "v1/pending-bytes/zero-means-no-iteration",
            "v1/data-offset/read-only-while-bytes-are-pending",
            "v1/saving/in-sequence",
        }
    )

    def save_rest(self, device: Device) -> list[bytes]:
        """Save, and look whether there is more."""
        chunks = super().save_rest(device)
        device.read(Register.DATA_OFFSET)
        return chunks


class NeverAsksFirst(CarefulClient):
    """Begins pre-copy with data_offset: a device that saves has something to say."""

    violates: ClassVar = frozenset(
        {
            "v1/data-offset/read-only-while-bytes-are-pending",
            "v1/saving/in-sequence",
        }
    )

    def save_some(self, device: Device) -> list[bytes]:
        """Save a buffer, and then ask for more."""
        return [self.save_buffer(device), *super().save_some(device)]


class TakesEachBufferTwice(CarefulClient):
    """Goes on to the next buffer without pending_bytes, and gets the same again."""

    violates: ClassVar = frozenset({"v1/pending-bytes/read-between-buffers"})

    def save_some(self, device: Device) -> list[bytes]:
        """Save two buffers for each time that it asks."""
        if not device.read(Register.PENDING_BYTES):
            return []
        first, _ = self.save_buffer(device), self.save_buffer(device)
        return [first]


class AsksOnlyAtTheStart(CarefulClient):
    """Reads pending_bytes once, and takes the buffers that this should come to."""

    violates: ClassVar = frozenset({"v1/pending-bytes/read-between-buffers"})

    def save_rest(self, device: Device) -> list[bytes]:
        """Save until as many bytes came as were pending."""
        pending = device.read(Register.PENDING_BYTES)
        chunks: list[bytes] = []
        while sum(map(len, chunks)) < pending:
            chunks.append(self.save_buffer(device))
            if not chunks[-1]:
                break
        return chunks


class ComputesPendingBytes(CarefulClient):
    """Takes data_size off pending_bytes, and ends when the difference is nothing.

    A buffer's size says nothing about what is left (V1-PEND-07).
    """

    violates: ClassVar = frozenset({"v1/pending-bytes/iterated-until-zero"})

    def save_rest(self, device: Device) -> list[bytes]:
        """Save; ask again only where something should be left."""
        chunks = []
        while pending := device.read(Register.PENDING_BYTES):
            chunks.append(self.save_buffer(device))
            if not chunks[-1] or pending <= len(chunks[-1]):
                break
        return chunks


class EmptyBufferIsTheEnd(CarefulClient):
    """Ends stop-and-copy at a data_size of 0, whatever is pending (BUG-QV1-12)."""

    violates: ClassVar = frozenset({"v1/pending-bytes/iterated-until-zero"})

    def save_rest(self, device: Device) -> list[bytes]:
        """Save until a buffer is empty."""
        chunks = []
        while device.read(Register.PENDING_BYTES):
            chunks.append(self.save_buffer(device))
            if not chunks[-1]:
                break
        return chunks


class AsksBeforeItReads(CarefulClient):
    """Reads pending_bytes for its statistics, between data_size and the data."""

    violates: ClassVar = frozenset(
        {"v1/pending-bytes/read-after-consumption", "v1/saving/in-sequence"}
    )

    def save_buffer(self, device: Device) -> bytes:
        """Save a buffer that the driver may have taken back by then."""
        offset = device.read(Register.DATA_OFFSET)
        size = device.read(Register.DATA_SIZE)
        check_buffer(offset, size, device.region.size)
        device.read(Register.PENDING_BYTES)
        return device.read_at(offset, size) if size else b""


class ReadsTheSizeFirst(CarefulClient):
    """Reads data_size, and only then data_offset, which makes the buffer ready."""

    violates: ClassVar = frozenset(
        {"v1/data-offset/read-before-data-size", "v1/saving/in-sequence"}
    )

    def save_buffer(self, device: Device) -> bytes:
        """Save a buffer by the size that it had before there was one."""
        size = device.read(Register.DATA_SIZE)
        offset = device.read(Register.DATA_OFFSET)
        check_buffer(offset, size, device.region.size)
        return device.read_at(offset, size) if size else b""


class ReadsTheWholeSection(CarefulClient):
    """Reads the data section to its end, whatever data_size says, and cuts it."""

    violates: ClassVar = frozenset({"v1/saving/in-sequence"})

    def save_buffer(self, device: Device) -> bytes:
        """Save a buffer, and what lies behind it."""
        offset = device.read(Register.DATA_OFFSET)
        size = device.read(Register.DATA_SIZE)
        check_buffer(offset, size, device.region.size)
        return device.read_at(offset, device.region.size - offset)[:size]


class ReadsOnAfterAnError(CarefulClient):
    """Takes the next buffer where a register of this one could not be read."""

    violates: ClassVar = frozenset({"v1/saving/ends-at-an-error"})

    def after_failure(self, device: Device) -> None:
        """Go on as if nothing were wrong."""
        self.save_some(device)


class EndsAtAFailureOfPendingBytes(CarefulClient):
    """Takes a pending_bytes that cannot be read for 0, and stops (BUG-QV1-13).

    So pre-copy seems to have converged, and the save goes on in stop-and-copy.
    """

    violates: ClassVar = frozenset({"v1/saving/ends-at-an-error"})

    def after_failure(self, device: Device) -> None:
        """Save the rest of a device that has failed."""
        self.set_state(device, DeviceState.STOP_AND_COPY)
        self.save_rest(device)
