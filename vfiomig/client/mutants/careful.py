"""A small user application that obeys every v1 rule; the mutants are made of it.

Rule 1: each step of the protocol is a method, so that a mutant overrides one.

Rule 2: it meets what a user application has to cope with: an access that fails, a
write that is refused, a device in ERROR, a stream that a destination does not take.
It copes, and nothing that a device does makes it raise or go on for ever.

`V1Client` is the one that migrations are made with; this one moves a few buffers, and
is short.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar, Final

from vfiomig.client.region import find_migration_region
from vfiomig.protocol.errors import VendorDriverError
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.saving import EMPTY_BUFFERS_LIMIT, check_buffer
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.client.device import DeviceHandle
    from vfiomig.protocol.bench import BenchAccess
    from vfiomig.protocol.region import SparseMmapArea

_TRAFFIC: Final = 40  # units of work
_ROUNDS: Final = 2  # of pre-copy
_BUFFERS: Final = 2  # in a round
_BUFFERS_LIMIT: Final = 1000  # in stop-and-copy


class Device:
    """An open device: its handle, its region, and what the bench does to it."""

    def __init__(self, handle: DeviceHandle, bench: BenchAccess) -> None:
        self.handle = handle
        self.region = find_migration_region(handle)
        self._bench = bench

    def read(self, register: Register) -> int:
        """Read a register; raises OSError."""
        return int.from_bytes(self.read_at(register.offset, register.width), "little")

    def write(self, register: Register, value: int) -> None:
        """Write a register; raises OSError."""
        self.write_at(register.offset, value.to_bytes(register.width, "little"))

    def read_at(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes of the region; raises OSError, EIO for a short read."""
        data = self.handle.pread(size, self.region.offset + offset)
        if len(data) != size:
            raise OSError(errno.EIO, f"{len(data)} of {size} bytes came")
        return data

    def write_at(self, offset: int, data: bytes) -> None:
        """Write to the region; raises OSError."""
        self.handle.pwrite(data, self.region.offset + offset)

    def map(self, area: SparseMmapArea) -> None:
        """Map an area once and let it go; a refusal is none of our business."""
        try:
            mapping = self.handle.mmap(area.size, self.region.offset + area.offset)
        except OSError:
            return
        mapping.close()

    def reset(self) -> None:
        """VFIO_DEVICE_RESET; raises OSError."""
        self.handle.ioctl(VFIO_DEVICE_RESET())

    def work(self) -> None:
        """Let some guest traffic reach the device."""
        if self._bench.work is not None:
            self._bench.work(_TRAFFIC)

    def fail(self, on: str, code: int) -> None:
        """Let the next access ``on`` fail inside the device."""
        if self._bench.fail is not None:
            self._bench.fail(on, code)


class CarefulClient:
    """Migrates a device, after trying what can go wrong on the way."""

    violates: ClassVar[frozenset[str]] = frozenset()

    def drive(self, source: Device, destination: Device) -> None:
        """Drive two fresh devices in RUNNING, from open to the end."""
        for area in self.areas(source):
            source.map(area)
        for on in ("pending_bytes", "data_size"):
            self._trying(self.save_with_a_failure, source, on)
        for code in (errno.EIO, errno.ENOTRECOVERABLE):
            self._trying(self.save_with_a_refusal, source, code)
        self._trying(self.migrate, source, destination)

    def areas(self, device: Device) -> tuple[SparseMmapArea, ...]:
        """Return what to map."""
        return device.region.areas

    # -- device_state ------------------------------------------------------------------

    def set_state(self, device: Device, target: int) -> bool:
        """Write device_state; tell whether the device took it."""
        value = device.read(Register.DEVICE_STATE)
        if value & VFIO_DEVICE_STATE_MASK == DeviceState.ERROR:
            self.leave_error(device)
            value = device.read(Register.DEVICE_STATE)
        try:
            device.write(Register.DEVICE_STATE, self.value_for(value, target))
        except OSError:
            self.after_refusal(device)
            return False
        return True

    def value_for(self, value: int, target: int) -> int:
        """Return what to write, given what was read."""
        return value & ~VFIO_DEVICE_STATE_MASK | target

    def after_refusal(self, device: Device) -> None:
        """Learn which state a refused write left, and go on from there."""
        value = device.read(Register.DEVICE_STATE)
        if value & VFIO_DEVICE_STATE_MASK == DeviceState.ERROR:
            self.leave_error(device)

    def leave_error(self, device: Device) -> None:
        """Bring a device back that is in ERROR."""
        device.reset()

    # -- what goes wrong ---------------------------------------------------------------

    def save_with_a_failure(self, device: Device, on: str) -> None:
        """Begin a save in which an access fails, and give it up."""
        self.set_state(device, DeviceState.PRE_COPY)
        device.fail(on, errno.EIO)
        try:
            self.save_some(device)
        except OSError:
            self.after_failure(device)
        self.set_state(device, DeviceState.RUNNING)

    def after_failure(self, device: Device) -> None:
        """Do what is left to do in a save that failed."""

    def save_with_a_refusal(self, device: Device, code: int) -> None:
        """Begin a save at a moment when the device cannot."""
        device.fail("device_state", code)
        if self.set_state(device, DeviceState.PRE_COPY):
            self.set_state(device, DeviceState.RUNNING)

    # -- a migration -------------------------------------------------------------------

    def migrate(self, source: Device, destination: Device) -> None:
        """Move the state from one device to the other."""
        chunks = self.save(source)
        if self.set_state(source, DeviceState.STOP):
            self.load(destination, chunks)

    def save(self, device: Device) -> list[bytes]:
        """Save a running device, in pre-copy and in stop-and-copy."""
        device.work()
        self.set_state(device, DeviceState.PRE_COPY)
        chunks: list[bytes] = []
        for _ in range(_ROUNDS):
            chunks += self.save_some(device)
            device.work()
        self.set_state(device, DeviceState.STOP_AND_COPY)
        return chunks + self.save_rest(device)

    def save_some(self, device: Device) -> list[bytes]:
        """Save a few buffers of a device that runs."""
        chunks: list[bytes] = []
        while len(chunks) < _BUFFERS and device.read(Register.PENDING_BYTES):
            chunks.append(self.save_buffer(device))
        return chunks

    def save_rest(self, device: Device) -> list[bytes]:
        """Save what is left in a device that stands still."""
        chunks: list[bytes] = []
        while device.read(Register.PENDING_BYTES):
            chunks.append(self.save_buffer(device))
            is_stuck = not any(chunks[-EMPTY_BUFFERS_LIMIT:])
            if len(chunks) >= EMPTY_BUFFERS_LIMIT and is_stuck:
                message = "one empty buffer after another"
                raise VendorDriverError(message)
            if len(chunks) >= _BUFFERS_LIMIT:
                message = f"there is no end after {len(chunks)} buffers"
                raise VendorDriverError(message)
        return chunks

    def save_buffer(self, device: Device) -> bytes:
        """Save the current buffer: steps (b), (c) and (d)."""
        offset = device.read(Register.DATA_OFFSET)
        size = device.read(Register.DATA_SIZE)
        check_buffer(offset, size, device.region.size)
        return device.read_at(offset, size) if size else b""

    def load(self, device: Device, chunks: list[bytes]) -> None:
        """Give a device its state, and let it run; or give up, and reset it."""
        self.set_state(device, DeviceState.RESUMING)
        try:
            for chunk in chunks:
                if chunk:
                    self.load_buffer(device, chunk)
        except (OSError, VendorDriverError):
            device.reset()
            return
        self.set_state(device, DeviceState.RUNNING)

    def load_buffer(self, device: Device, chunk: bytes) -> None:
        """Give a device one buffer: steps (a), (b) and (c)."""
        offset = device.read(Register.DATA_OFFSET)
        check_buffer(offset, len(chunk), device.region.size)
        device.write_at(offset, chunk)
        device.write(Register.DATA_SIZE, len(chunk))

    def _trying(
        self, attempt: Callable[..., None], device: Device, *rest: object
    ) -> None:
        """Make an attempt; a device that fails in it is taken back to RUNNING."""
        try:
            attempt(device, *rest)
        except (OSError, VendorDriverError):
            self.set_state(device, DeviceState.RUNNING)
