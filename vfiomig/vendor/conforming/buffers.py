"""Drivers that are unusual in their buffers: where they are, and how large."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from vfiomig.vendor.conforming.trailer import TrailerLoader, TrailerSaver
from vfiomig.vendor.conforming.trapped import TrappedDevice, refuse

if TYPE_CHECKING:
    from vfiomig.vendor.conforming.trapped import Loader, Saver

_EMPTY_OF_FOUR: Final = (1, 2)


class MovingDataOffset(TrappedDevice):
    """Each buffer has another place, in saving and in resuming, on any boundary.

    V1-OFF-06: data_offset may differ from one iteration to the next.
    """

    kind = 0x4D4F5645
    region_size = 0x1003
    _PLACES: Final = (0x20, 0x777, 0x41, 0x9F0)

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0

    def _place(self) -> int:
        return self._PLACES[self._turn % len(self._PLACES)]

    def _pending_bytes(self) -> int:
        self._turn += self._buffer is not None
        return super()._pending_bytes()

    def _write_data_size(self, size: int) -> None:
        super()._write_data_size(size)
        self._turn += 1


class EmptyBuffers(TrappedDevice):
    """Two buffers of four have a data_size of 0, although bytes are pending.

    V1-SIZE-03, AMB-06: that is legal while there is progress, here after two.
    QEMU 7.2 takes such a buffer for the end of stop-and-copy, which it is not.
    """

    kind = 0x454D5054

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._is_empty = False

    def _data_offset(self) -> int:
        if self._saver is None or self._buffer or not self._saver.pending():
            return super()._data_offset()
        self._is_empty = self._number % 4 in _EMPTY_OF_FOUR
        self._number += 1
        self._queue(b"" if self._is_empty else self._saver.make())
        return self._place()

    def _pending_bytes(self) -> int:
        if self._is_empty:
            self._is_empty = False
            self._buffer = None  # the saver knows nothing of it
        return super()._pending_bytes()

    def _end_sessions(self) -> None:
        super()._end_sessions()
        self._number = 0
        self._is_empty = False


class SingleByteBuffers(TrappedDevice):
    """Every buffer has one byte, in a data section of one byte.

    V1-SIZE-10: data_size has neither alignment nor a least value; V1-DISC-05: a
    region is larger than its registers, and no more is asked of it.
    """

    kind = 0x42595445
    device_size = 19
    region_size = 33

    def _begin_saving(self, *, is_running: bool) -> Saver:
        return TrailerSaver(self._memory, self.kind, 1, is_running=is_running)

    def _begin_loading(self) -> Loader:
        return TrailerLoader(self.device_size, self.kind)


class DeadSpace(TrappedDevice):
    """Between registers and data lie 0x1301 bytes that nobody can access: EINVAL.

    V1-ACC-10: an access to dead space may fail, or read zeros.
    """

    kind = 0x44454144
    region_size = 0x1801
    data_start = 0x1321
    _most: ClassVar[int] = 301

    def _begin_saving(self, *, is_running: bool) -> Saver:
        return TrailerSaver(self._memory, self.kind, self._most, is_running=is_running)

    def _begin_loading(self) -> Loader:
        return TrailerLoader(self.device_size, self.kind)


class NothingInPreCopy(TrappedDevice):
    """Pre-copy has no data at all: pending_bytes is 0 until the device stops.

    V1-TRANS-15, V1-SAVE-05: pre-copy is supported, and its stream may be empty.
    """

    kind = 0x4E4F5448

    def _pending_bytes(self) -> int:
        return 0 if self._state.is_running else super()._pending_bytes()

    def _data_offset(self) -> int:
        return self._place() if self._state.is_running else super()._data_offset()

    def _data_size(self) -> int:
        if self._saver is None:
            refuse("data_size is read while saving")  # V1-SIZE-09
        return super()._data_size()
