"""A vendor driver with nothing mapped, for those that are unusual in one thing.

Rule 1: what fails changes nothing; a fault goes off before there is an effect.

Rule 2: a class that is unusual overrides the one method in which it is.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn, Protocol

from vfiomig.protocol.region import MigrationRegion
from vfiomig.protocol.v1.registers import REGISTER_AT, REGISTERS_SIZE, Register
from vfiomig.protocol.v1.states import DEFAULT_STATE, DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK
from vfiomig.vendor.conforming.memory import DeviceMemory
from vfiomig.vendor.conforming.records import RecordLoader, RecordSaver

if TYPE_CHECKING:
    from collections.abc import Iterable

Arcs = frozenset[tuple[int, int]]

# Back to pre-copy: the stream may have ended already (AMB-14).
STOP_AND_COPY_TO_PRE_COPY: Final[Arcs] = frozenset(
    {(DeviceState.STOP_AND_COPY, DeviceState.PRE_COPY)}
)


class Saver(Protocol):
    """A session of saving: from the write that sets SAVING to that which clears it."""

    def touch(self, places: Iterable[int]) -> None:
        """Note which bytes of the device changed."""

    def pending(self) -> int:
        """Return about how many bytes are left; reading it changes nothing."""

    def make(self) -> bytes:
        """Return the next buffer; `pending` is not 0."""

    def consumed(self) -> None:
        """Take the buffer that was made as read."""

    def switch(self, *, is_running: bool) -> None:
        """Go on in the other of pre-copy and stop-and-copy; a buffer may be unread."""


class Loader(Protocol):
    """A session of resuming."""

    def take(self, chunk: bytes) -> None:
        """Consume a buffer; ``OSError`` if it is refused."""

    def finish(self) -> bytearray:
        """Return the bytes of the device; ``OSError`` if they are not all there."""


class TrappedDevice:
    """One device of ``device_size`` bytes behind a region of ``region_size`` bytes.

    ``data_start`` is where the data section begins: at once behind the registers,
    which no alignment forbids where nothing is mapped (V1-MMAP-03).
    """

    kind: ClassVar[int] = 0
    device_size: ClassVar[int] = 1337
    block: ClassVar[int] = 256
    region_size: ClassVar[int] = 0x800
    data_start: ClassVar[int] = REGISTERS_SIZE
    declined: ClassVar[Arcs] = STOP_AND_COPY_TO_PRE_COPY

    def __init__(self) -> None:
        self.migration_region = MigrationRegion(self.region_size)
        self._memory = DeviceMemory(self.device_size)
        self._section = bytearray(self.region_size)
        self._faults: dict[str, int] = {}
        self._state = DEFAULT_STATE
        self._saver: Saver | None = None
        self._loader: Loader | None = None
        self._buffer: tuple[int, int] | None = None  # the queued one: place, size

    # -- the contract --------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read; EINVAL for what is neither register nor data."""
        register = REGISTER_AT.get((offset, size))
        if register is not None:
            return self._read_register(register).to_bytes(size, "little")
        self._reach_data(offset, size)
        return bytes(self._section[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write; EINVAL for what is neither register nor data."""
        register = REGISTER_AT.get((offset, len(data)))
        if register is not None:
            self._write_register(register, int.from_bytes(data, "little"))
            return
        self._reach_data(offset, len(data))
        self._write_data(offset, data)

    def reset(self) -> None:
        """Go back to power-on and RUNNING (V1-RST-01 to -04)."""
        self._end_sessions()
        self._faults.clear()
        self._memory.power_on()
        self._state = DEFAULT_STATE

    def close(self) -> None:
        """End what is open; there is nothing else to let go."""
        self._end_sessions()

    # -- the bench -----------------------------------------------------------------

    def work(self, amount: int) -> None:
        """Let guest traffic change the device, if it runs."""
        if self._state.is_running:
            places = self._memory.work(amount)
            if self._saver is not None:
                self._saver.touch(places)

    def snapshot(self) -> bytes:
        """Return the bytes of the device."""
        return bytes(self._memory.bytes)

    def fail(self, on: str, code: int) -> None:
        """Let the next access ``on`` fail; for "device_state", the next write."""
        self._faults[on] = code

    # -- accesses ------------------------------------------------------------------

    def _read_register(self, register: Register) -> int:
        match register:
            case Register.DEVICE_STATE:
                return self._state
            case Register.PENDING_BYTES:
                self._trip("pending_bytes")
                return self._pending_bytes()
            case Register.DATA_OFFSET:
                self._trip("data_offset")
                return self._data_offset()
            case Register.DATA_SIZE:
                self._trip("data_size")
                return self._data_size()
            case _:
                return 0

    def _write_register(self, register: Register, value: int) -> None:
        match register:
            case Register.DEVICE_STATE:
                self._write_device_state(value)
            case Register.DATA_SIZE:
                self._trip("data_size")
                self._write_data_size(value)
            case Register.PENDING_BYTES | Register.DATA_OFFSET:
                self._write_read_only(register)

    def _write_read_only(self, register: Register) -> None:
        refuse(f"{register.value} is read only")

    def _pending_bytes(self) -> int:
        if self._saver is None:
            return 0
        if self._buffer is not None:
            self._buffer = None
            self._saver.consumed()
        return self._saver.pending()

    def _data_offset(self) -> int:
        if self._saver is None:
            return self._place()
        if self._buffer is None:
            if not self._saver.pending():
                return self._place()
            self._queue(self._saver.make())
        assert self._buffer is not None
        return self._buffer[0]

    def _queue(self, chunk: bytes) -> None:
        place = self._place()
        self._section[place : place + len(chunk)] = chunk
        self._buffer = (place, len(chunk))

    def _data_size(self) -> int:
        return self._buffer[1] if self._buffer is not None else 0

    def _place(self) -> int:
        """Return where the current buffer is, or goes."""
        return self.data_start

    def _write_data(self, offset: int, data: bytes) -> None:
        if self._loader is None:
            refuse("the data section is written in RESUMING")
        self._section[offset : offset + len(data)] = data

    def _write_data_size(self, size: int) -> None:
        if self._loader is None:
            refuse("data_size is written in RESUMING")
        place = self._place()
        if size > self.region_size - place:
            refuse(f"there is no room for {size} bytes at {place:#x}")
        if size:
            chunk = bytes(self._section[place : place + size])
            self._clear_section()  # nothing may be taken twice
            self._loader.take(chunk)

    def _reach_data(self, offset: int, size: int) -> None:
        if offset >= REGISTERS_SIZE:
            self._trip("data")
        self._require_data(offset, size)

    def _require_data(self, offset: int, size: int) -> None:
        if offset < self.data_start or offset + size > self.region_size:
            refuse(f"neither register nor data: {size} bytes at {offset:#x}")

    def _trip(self, on: str) -> None:
        if (code := self._faults.pop(on, None)) is not None:
            raise OSError(code, f"{os.strerror(code)}: a fault on {on}")

    # -- transitions ---------------------------------------------------------------

    def _write_device_state(self, value: int) -> None:
        bits = value & VFIO_DEVICE_STATE_MASK
        self._trip("device_state")
        if self._state is DeviceState.ERROR or bits > DeviceState.RESUMING:
            refuse(f"{self._state.name} to {bits:03b}b")
        if bits == self._state:
            return
        target = DeviceState(bits)
        if (self._state, target) in self.declined:
            refuse(f"{self._state.name} to {target.name} is not supported")
        if self._loader is not None:
            self._finish_loading()
        self._enter(target)

    def _finish_loading(self) -> None:
        assert self._loader is not None
        self._memory.bytes[:] = self._loader.finish()

    def _enter(self, target: DeviceState) -> None:
        if self._saver is not None and target.is_saving:
            self._saver.switch(is_running=target.is_running)
            self._buffer = None
        else:
            self._end_sessions()
            if target.is_saving:
                self._saver = self._begin_saving(is_running=target.is_running)
            elif target is DeviceState.RESUMING:
                self._loader = self._begin_loading()
        self._state = target

    def _begin_saving(self, *, is_running: bool) -> Saver:
        return RecordSaver(self._memory, self.kind, self.block, is_running=is_running)

    def _begin_loading(self) -> Loader:
        return RecordLoader(self.device_size, self.kind)

    def _end_sessions(self) -> None:
        self._saver = self._loader = self._buffer = None
        self._clear_section()

    def _clear_section(self) -> None:
        self._section[:] = bytes(self.region_size)


def refuse(why: str) -> NoReturn:
    """Fail with EINVAL, which is the custom for what is not supported."""
    raise OSError(errno.EINVAL, why)
