"""Drivers that are unusual in what pending_bytes, and its neighbours, say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.vendor.conforming.trailer import TrailerLoader, TrailerSaver
from vfiomig.vendor.conforming.trapped import TrappedDevice, refuse

if TYPE_CHECKING:
    from vfiomig.vendor.conforming.trapped import Loader, Saver

_MULTIPLIER: Final = 6364136223846793005


class PendingIsBoolean(TrappedDevice):
    """pending_bytes is 1 until all is saved, while a buffer has up to 16 KiB.

    V1-PEND-01, V1-PEND-08: it is an estimate, and only zero or not zero counts.
    """

    kind = 0x424F4F4C
    device_size = 20_000
    region_size = 0x4020

    def _pending_bytes(self) -> int:
        return int(bool(super()._pending_bytes()))

    def _begin_saving(self, *, is_running: bool) -> Saver:
        return TrailerSaver(self._memory, self.kind, 0x4000, is_running=is_running)

    def _begin_loading(self) -> Loader:
        return TrailerLoader(self.device_size, self.kind)


class TickingClock(TrappedDevice):
    """Its clock ticks at each access while it runs, so pending_bytes grows.

    V1-PEND-09, V1-PEND-10: while the device runs pending_bytes may grow, from 0 too.
    The clock is state that a migration carries; it stands while the device is
    stopped (V1-STATE-05), and for a snapshot.
    """

    kind = 0x5449434B
    block = 64

    def read(self, offset: int, size: int) -> bytes:
        """Let time pass, then answer."""
        self._tick()
        return super().read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Let time pass, then take it: the write that stops the device is after it."""
        self._tick()
        super().write(offset, data)

    def _tick(self) -> None:
        if self._state.is_running:
            places = self._memory.tick()
            if self._saver is not None:
                self._saver.touch(places)


class UndefinedOutsideSessions(TrappedDevice):
    """Where a register has no meaning it says anything, and never twice the same.

    V1-PEND-16, V1-OFF-10, V1-SIZE-09: pending_bytes outside of saving, data_offset
    outside of both sessions (here now a number, now EINVAL), data_size without a
    buffer.  The data section is no better there (AMB-18).
    """

    kind = 0x554E4445

    def __init__(self) -> None:
        super().__init__()
        self._noise = 1

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with noise for data that is nobody's."""
        data = super().read(offset, size)
        if offset >= self.data_start and self._saver is None and self._loader is None:
            return bytes(self._any() >> 40 & 0xFF for _ in data)
        return data

    def _pending_bytes(self) -> int:
        return super()._pending_bytes() if self._saver is not None else self._any()

    def _data_offset(self) -> int:
        if self._saver is None and self._loader is None:
            noise = self._any()
            if noise >> 32 & 1:
                refuse("data_offset has no meaning here")
            return noise
        return super()._data_offset()

    def _data_size(self) -> int:
        return super()._data_size() if self._buffer is not None else self._any()

    def _any(self) -> int:
        self._noise = (self._noise * _MULTIPLIER + 1) & (1 << 64) - 1
        return self._noise
