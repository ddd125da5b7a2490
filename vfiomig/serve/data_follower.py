"""What a program has mapped of a data section, shown to it and to the driver in time.

A mirrored data section is copied when data_size is read, and when it is written while
resuming; where the current buffer lies is known from data_offset, and which of both it
is from device_state.  So the accesses are followed, whoever makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.states import DEFAULT_STATE, DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.serve.mapped_areas import MappedAreas, Place

_DATA_OFFSET = Register.DATA_OFFSET.offset
_DATA_SIZE = Register.DATA_SIZE.offset
_DEVICE_STATE = Register.DEVICE_STATE.offset


class Unseen(Protocol):
    """Who is told of data that nobody saw: the program may have moved it."""

    def __call__(self, access: str, offset: int, size: int) -> None:
        """Note it; ``offset`` is the region's."""


class DataFollower:
    """The session of one device, as far as mapped data depend on it.

    It may follow before there are areas: see `provide`.  Offsets are the region's.
    """

    def __init__(self, size: int, *, unseen: Unseen | None = None) -> None:
        self._size = size
        self._unseen = unseen
        self._areas: MappedAreas | None = None
        self._mapped: Sequence[Place] = ()
        self.reset()

    def provide(self, areas: MappedAreas, places: Sequence[Place]) -> None:
        """Say what the program maps from now on."""
        self._areas, self._mapped = areas, places

    def reset(self) -> None:
        """Follow a reset of the device."""
        self._state = int(DEFAULT_STATE)
        self._data_offset: int | None = None

    def was_read(self, register: int, data: bytes) -> None:
        """Follow a read; where data_size was, the program is shown the data."""
        if len(data) != 8:
            return
        if register == _DATA_OFFSET:
            self._data_offset = int.from_bytes(data, "little")
        elif register == _DATA_SIZE and not self._is_resuming:
            self._show_program(int.from_bytes(data, "little"))

    def to_be_written(self, register: int, data: bytes | memoryview) -> None:
        """Precede a write; where data_size is, the driver is shown the data."""
        if register == _DATA_SIZE and len(data) == 8 and self._is_resuming:
            self._show_driver(int.from_bytes(data, "little"))

    def was_written(self, register: int, data: bytes | memoryview) -> None:
        """Follow a write that the driver took."""
        if register == _DEVICE_STATE and len(data) == 4:
            self._state = int.from_bytes(data, "little")
            self._data_offset = None  # it was of a buffer of the state before
        elif self._areas is not None and 0 <= register < self._size:
            self._areas.written(register, bytes(data))

    @property
    def _is_resuming(self) -> bool:
        return self._state & VFIO_DEVICE_STATE_MASK == DeviceState.RESUMING

    def _show_program(self, size: int) -> None:
        if self._areas is not None:
            self._areas.before_data_is_read(*self._buffer(size))
            self._tell_unseen("read", size)

    def _show_driver(self, size: int) -> None:
        if self._areas is not None:
            self._areas.before_data_is_taken(*self._buffer(size))
            self._tell_unseen("write", size)

    def _buffer(self, size: int) -> tuple[int, int]:
        """Return where a buffer lies; all of the region, if nobody asked."""
        return (
            (0, self._size) if self._data_offset is None else (self._data_offset, size)
        )

    def _tell_unseen(self, access: str, size: int) -> None:
        if self._unseen is None or self._data_offset is None:
            return
        for area, _, _ in self._mapped:
            start = max(self._data_offset, area.offset)
            end = min(self._data_offset + size, area.offset + area.size)
            if start < end:
                self._unseen(access, start, end - start)
