"""Drivers that are unusual in what they let a user application ask for."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.v1.states import ARCS, ArcClass
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK
from vfiomig.vendor.conforming.trailer import TrailerLoader, TrailerSaver
from vfiomig.vendor.conforming.trapped import TrappedDevice, refuse

if TYPE_CHECKING:
    from vfiomig.protocol.v1.registers import Register
    from vfiomig.vendor.conforming.trapped import Loader, Saver


class RefusesOptionalArcs(TrappedDevice):
    """Every arc that is neither drawn nor needed for an abort is refused.

    V1-TRANS-24, AMB-01: eight arcs are optional; a clean refusal is an answer.
    """

    kind = 0x46455753
    declined = frozenset(
        (arc.source, arc.target) for arc in ARCS if arc.arc_class is ArcClass.OPT
    )


class AcceptsEveryArc(TrappedDevice):
    """Any valid state follows any other, back from stop-and-copy to pre-copy too.

    V1-TRANS-21, V1-TRANS-24, AMB-14: several bits may change at once.  Only what was
    not given whole is never left behind: RESUMING ends with a complete stream, or by
    a reset (V1-TRANS-27).
    """

    kind = 0x414E5941
    declined = frozenset()


class RefusesStrangeWrites(TrappedDevice):
    """A write to a read-only register is EPERM; a reserved bit that is set, EINVAL.

    V1-ACC-09, AMB-16, AMB-17: an error, and it has no effect.
    """

    kind = 0x524F4552

    def _write_read_only(self, register: Register) -> None:
        raise OSError(errno.EPERM, f"{register.value} is read only")

    def _write_device_state(self, value: int) -> None:
        if value & ~VFIO_DEVICE_STATE_MASK and "device_state" not in self._faults:
            refuse(f"reserved bits are set in {value:#x}")
        super()._write_device_state(value)


class IgnoresStrangeWrites(TrappedDevice):
    """What makes no sense to write is ignored: read-only registers, data in saving.

    V1-ACC-09, V1-SIZE-04, V1-ACC-10, AMB-16: ignored, with success and no effect.
    Dead space in front of the data section reads as zeros.
    """

    kind = 0x524F4947
    data_start = 0x40
    _ZEROS_FROM: Final = 0x20

    def _write_read_only(self, register: Register) -> None:
        """Do nothing."""

    def _write_data_size(self, size: int) -> None:
        if self._loader is not None:
            super()._write_data_size(size)

    def _write_data(self, offset: int, data: bytes) -> None:
        if self._loader is not None and offset >= self.data_start:
            super()._write_data(offset, data)

    def _require_data(self, offset: int, size: int) -> None:
        if offset < self._ZEROS_FROM or offset + size > self.region_size:
            refuse(f"neither register nor data: {size} bytes at {offset:#x}")

    def _begin_saving(self, *, is_running: bool) -> Saver:
        return TrailerSaver(self._memory, self.kind, 500, is_running=is_running)

    def _begin_loading(self) -> Loader:
        return TrailerLoader(self.device_size, self.kind)
