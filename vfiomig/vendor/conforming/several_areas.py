"""A driver whose data section is mapped in parts, on the two parts for authors."""

from __future__ import annotations

import errno
import os
from typing import Final, NoReturn

from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
from vfiomig.protocol.v1.registers import REGISTER_AT, REGISTERS_SIZE, Register
from vfiomig.vendor.conforming.memory import DeviceMemory
from vfiomig.vendor.conforming.records import RECORD_SIZE, RecordLoader, RecordSaver
from vfiomig.vendor.data_section import PAGE, DataSection
from vfiomig.vendor.register_bank import RegisterBank

_STOP, _RUNNING, _STOP_AND_COPY, _PRE_COPY, _RESUMING = range(5)
_KIND: Final = 0x41524541
_PAGES: Final = 6
_MAPPED: Final = ((0, 1), (2, 2))  # first page, pages
_ROOM: Final = _PAGES * PAGE
_BLOCK: Final = _ROOM - RECORD_SIZE

# What is left out here: back to pre-copy, and whatever would join two sessions.
_FOLLOWING: Final = {
    _STOP: (_RUNNING, _STOP_AND_COPY, _RESUMING),
    _RUNNING: (_STOP, _STOP_AND_COPY, _PRE_COPY, _RESUMING),
    _STOP_AND_COPY: (_STOP, _RUNNING),
    _PRE_COPY: (_STOP, _RUNNING, _STOP_AND_COPY),
    _RESUMING: (_STOP, _RUNNING),
}


class SeveralAreas:
    """Two areas with a trapped page before the second and two behind it.

    V1-MMAP-02, V1-MMAP-08: a buffer begins in a mapped page and lies across mapped
    and trapped ones; all of it can be trapped as well (V1-MMAP-05).
    """

    def __init__(self) -> None:
        section = DataSection(_ROOM)
        areas = tuple(
            SparseMmapArea(section.offset + first * PAGE, pages * PAGE)
            for first, pages in _MAPPED
        )
        self.migration_region = MigrationRegion(section.offset + _ROOM, areas)
        self._bank = RegisterBank(section)
        self._section = section
        self._memory = DeviceMemory(_BLOCK + 77)
        self._faults: dict[str, int] = {}
        self._saver: RecordSaver | None = None
        self._loader: RecordLoader | None = None
        self._has_buffer = False
        self._bank.registers.device_state = _RUNNING

    # -- the contract --------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read from the bank, after what it sets in motion."""
        match REGISTER_AT.get((offset, size)):
            case Register.PENDING_BYTES:
                self._trip("pending_bytes", "data")
                self._take_back()
            case Register.DATA_OFFSET:
                self._trip("data_offset")
                self._queue()
            case Register.DATA_SIZE:
                self._trip("data_size")
            case None if offset >= REGISTERS_SIZE:
                self._trip("data")
        return self._bank.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write; data only in RESUMING."""
        if offset >= REGISTERS_SIZE:
            self._trip("data")
            if self._loader is None:
                _refuse("the data section is written in RESUMING")
        match self._bank.written(offset, data):
            case (Register.DEVICE_STATE, value):
                self._trip("device_state")
                self._write_device_state(value & 7)
            case (Register.DATA_SIZE, value):
                self._trip("data_size", "data")
                self._write_data_size(value)

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        """Return the section's file, and the area's place in it."""
        return self._section.mmap(area)

    def reset(self) -> None:
        """Go back to power-on and RUNNING."""
        self._end_sessions()
        self._faults.clear()
        self._memory.power_on()
        self._section.view[:] = bytes(_ROOM)
        self._bank.registers.device_state = _RUNNING

    def close(self) -> None:
        """Let registers and data section go."""
        self._bank.close()

    # -- the bench -----------------------------------------------------------------

    def work(self, amount: int) -> None:
        """Let guest traffic change the device, if it runs."""
        if self._bank.registers.device_state & _RUNNING:
            places = self._memory.work(amount)
            if self._saver is not None:
                self._saver.touch(places)

    def snapshot(self) -> bytes:
        """Return the bytes of the device."""
        return bytes(self._memory.bytes)

    def fail(self, on: str, code: int) -> None:
        """Let the next access ``on`` fail.

        One on "data" is found at the next trapped access to data, or, where data is
        mapped, at the register access that follows (V1-SAVE-09).
        """
        self._faults[on] = code

    # -- saving and resuming -------------------------------------------------------

    def _take_back(self) -> None:
        if self._saver is None:
            return
        if self._has_buffer:
            self._saver.consumed()
            self._has_buffer = False
            self._bank.registers.data_size = 0
        self._bank.registers.pending_bytes = self._saver.pending()

    def _queue(self) -> None:
        if self._saver is None or self._has_buffer or not self._saver.pending():
            return
        record = self._saver.make()
        self._section.view[: len(record)] = record
        self._bank.registers.data_size = len(record)
        self._has_buffer = True

    def _write_data_size(self, size: int) -> None:
        if self._loader is None or size > _ROOM:
            _refuse(f"no buffer of {size} bytes is taken here")
        if size:
            record = bytes(self._section.view[:size])  # the pages are the user's too
            self._section.view[:size] = bytes(size)
            self._loader.take(record)

    def _write_device_state(self, target: int) -> None:
        state = self._bank.registers.device_state
        if target == state:
            return
        if target not in _FOLLOWING[state]:
            _refuse(f"{state:03b}b to {target:03b}b is not supported")
        if self._loader is not None:
            self._memory.bytes[:] = self._loader.finish()
        if (state, target) == (_PRE_COPY, _STOP_AND_COPY) and self._saver is not None:
            self._saver.switch(is_running=False)
            self._has_buffer = False
            self._bank.registers.data_size = 0
        else:
            self._end_sessions()
            self._begin(target)
        self._bank.registers.device_state = target

    def _begin(self, target: int) -> None:
        if target == _RESUMING:
            self._section.view[:] = bytes(_ROOM)  # V1-TRANS-26
            self._loader = RecordLoader(len(self._memory.bytes), _KIND)
        elif target in (_PRE_COPY, _STOP_AND_COPY):
            runs = target == _PRE_COPY
            self._saver = RecordSaver(self._memory, _KIND, _BLOCK, is_running=runs)

    def _end_sessions(self) -> None:
        self._saver = self._loader = None
        self._has_buffer = False
        self._bank.registers.pending_bytes = self._bank.registers.data_size = 0

    def _trip(self, *sites: str) -> None:
        for on in sites:
            if (code := self._faults.pop(on, None)) is not None:
                raise OSError(code, f"{os.strerror(code)}: a fault on {on}")


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
