"""Drivers that differ in when they judge a stream, and what they do with a bad one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK
from vfiomig.vendor.conforming.records import LateRecordLoader, RecordLoader
from vfiomig.vendor.conforming.trapped import TrappedDevice

if TYPE_CHECKING:
    from vfiomig.vendor.conforming.trapped import Loader


class JudgesEachBuffer(TrappedDevice):
    """A bad buffer fails its write of data_size; the right one may come after it.

    V1-RES-06, V1-TRANS-28, AMB-12: a driver may check early, stay RESUMING, and take
    more.  It runs with nothing but the whole device.
    """

    kind = 0x45414348

    def _begin_loading(self) -> Loader:
        return RecordLoader(self.device_size, self.kind, is_forgiving=True)


class JudgesAtTheEnd(TrappedDevice):
    """Every buffer is taken as it is; the write that leaves RESUMING judges them.

    V1-RES-06, AMB-12: errors may surface there alone.  The device stays RESUMING, and
    the next session begins with a reset.
    """

    kind = 0x4C415445

    def _begin_loading(self) -> Loader:
        return LateRecordLoader(self.device_size, self.kind)


class ErrorAtBadStream(TrappedDevice):
    """A transition that fails takes the device to ERROR.

    V1-TRANS-03, V1-TRANS-06, AMB-12: ERROR comes of a failed write to device_state
    and of nothing else, so a bad buffer alone leaves it RESUMING.
    """

    kind = 0x4552524F

    def _write_device_state(self, value: int) -> None:
        bits = value & VFIO_DEVICE_STATE_MASK
        is_fault = "device_state" in self._faults and bits <= DeviceState.RESUMING
        try:
            super()._write_device_state(value)
        except OSError:
            if is_fault and bits != self._state:
                self._break_down()
            raise

    def _finish_loading(self) -> None:
        try:
            super()._finish_loading()
        except OSError:
            self._break_down()
            raise

    def _break_down(self) -> None:
        self._end_sessions()
        self._state = DeviceState.ERROR
