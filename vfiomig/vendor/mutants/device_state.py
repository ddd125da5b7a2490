"""Mutants whose device_state does not mean what it says.

Rule 1: the bug is in the values and their meaning; which value may follow which is
the subject of ``transitions``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from vfiomig.protocol.v1.states import DeviceState, named_state
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK
from vfiomig.vendor.mutants.mutable import MutableDriver

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AppliesAtTheNextRead",
    "ErrorOnRequest",
    "ErrorReadsAsStop",
    "InvalidStateHangs",
    "InvalidStatesAccepted",
    "InvalidStatesBesideReservedBits",
    "OpensStopped",
    "PreCopyReadsAsRunning",
    "RunsInError",
    "RunsWhileStopped",
    "StandsStillInPreCopy",
    "StopsAfterTheNextWork",
    "StopsByItselfWhenDrained",
    "TicksWhileStopped",
]

_NO_STATE: Final = bytes(4)


class OpensStopped(MutableDriver):
    """Is in STOP when it is opened, as a zeroed structure is (mtty, May 2020)."""

    violates: ClassVar = frozenset({"v1/device-state/running-on-open"})

    def __init__(self) -> None:
        super().__init__()
        self._set_state(DeviceState.STOP)


class StandsStillInPreCopy(MutableDriver):
    """Stops as soon as SAVING is set, RUNNING or not."""

    violates: ClassVar = frozenset({"v1/device-state/bit-0-is-running"})

    def work(self, amount: int) -> None:
        """Work in RUNNING alone."""
        if self._state is DeviceState.RUNNING:
            super().work(amount)


class StopsAfterTheNextWork(MutableDriver):
    """Returns from the write that stops it with one piece of work still under way."""

    violates: ClassVar = frozenset({"v1/device-state/stopped-when-the-write-returns"})
    _is_coasting = False

    def _set_state(self, state: DeviceState) -> None:
        self._is_coasting = self._state.is_running and not state.is_running
        super()._set_state(state)

    def work(self, amount: int) -> None:
        """Work once more after the device was stopped."""
        if self._is_coasting:
            self.model.work(amount)
        self._is_coasting = False
        super().work(amount)


class RunsWhileStopped(MutableDriver):
    """Does not look at device_state when there is work."""

    violates: ClassVar = frozenset({"v1/device-state/no-progress-while-stopped"})

    def work(self, amount: int) -> None:
        """Work in any state."""
        self.model.work(amount)


class TicksWhileStopped(MutableDriver):
    """Changes its state with each read of pending_bytes in STOP."""

    violates: ClassVar = frozenset({"v1/device-state/no-progress-while-stopped"})

    def _read_pending_bytes(self) -> bytes:
        if self._state is DeviceState.STOP:
            self.model.work(1)
        return super()._read_pending_bytes()


class InvalidStatesAccepted(MutableDriver):
    """Says that a write of 101b or 111b went well, and does nothing."""

    violates: ClassVar = frozenset({"v1/device-state/invalid-values-refused"})

    def _write_device_state(self, value: int) -> None:
        if named_state(value) is None and self._state is not DeviceState.ERROR:
            return
        super()._write_device_state(value)


class InvalidStatesBesideReservedBits(MutableDriver):
    """Knows 101b to 111b by the whole value: with a reserved bit it says success."""

    violates: ClassVar = frozenset({"v1/device-state/invalid-values-refused"})

    def _write_device_state(self, value: int) -> None:
        if value > VFIO_DEVICE_STATE_MASK and named_state(value) is None:
            return
        super()._write_device_state(value)


class InvalidStateHangs(MutableDriver):
    """Looks for a way to 101b and 111b for ever (BUG-CORE-01, moved to v1)."""

    violates: ClassVar = frozenset({"v1/device-state/invalid-values-refused"})

    def _write_device_state(self, value: int) -> None:
        steps: Callable[[int], int] = int  # the next step is where one is: no step
        state = int(self._state)
        while named_state(value) is None and state != value:
            state = steps(state)
        super()._write_device_state(value)


class ErrorOnRequest(MutableDriver):
    """Goes to ERROR when the user application writes it, as libvfio-user did."""

    violates: ClassVar = frozenset({"v1/device-state/error-not-for-the-asking"})

    def _write_device_state(self, value: int) -> None:
        if named_state(value) is DeviceState.ERROR:
            self._end_sessions()
            self._set_state(DeviceState.ERROR)
            return
        super()._write_device_state(value)


class PreCopyReadsAsRunning(MutableDriver):
    """Leaves SAVING out when device_state is read in pre-copy."""

    violates: ClassVar = frozenset({"v1/device-state/reads-as-written"})

    def _read_device_state(self) -> bytes:
        if self._state is DeviceState.PRE_COPY:
            return int(DeviceState.RUNNING).to_bytes(4, "little")
        return super()._read_device_state()


class AppliesAtTheNextRead(MutableDriver):
    """Makes a transition behind the next read of device_state, not in the write."""

    violates: ClassVar = frozenset(
        {
            "v1/device-state/reads-as-written",
            "v1/device-state/complete-when-the-write-returns",
        }
    )
    _late: DeviceState | None = None

    def _enter(self, target: DeviceState) -> None:
        self._late = target

    def _read_device_state(self) -> bytes:
        before = super()._read_device_state()
        target, self._late = self._late, None
        if target is not None and target is not self._state:
            super()._enter(target)
        return before

    def reset(self) -> None:
        """Reset, and forget the transition that was to come."""
        self._late = None
        super().reset()


class StopsByItselfWhenDrained(MutableDriver):
    """Goes to STOP as soon as stop-and-copy has no more to send."""

    violates: ClassVar = frozenset({"v1/device-state/moves-only-when-asked"})

    def _read_pending_bytes(self) -> bytes:
        answer = super()._read_pending_bytes()
        if self._state is DeviceState.STOP_AND_COPY and not any(answer):
            self._end_sessions()
            self._set_state(DeviceState.STOP)
        return answer


class ErrorReadsAsStop(MutableDriver):
    """Reports ERROR as 0: the header's macro for it never compiled (BUG-CORE-02)."""

    violates: ClassVar = frozenset(
        {"v1/transitions/failure-leaves-previous-state-or-error"}
    )

    def _read_device_state(self) -> bytes:
        if self._state is DeviceState.ERROR:
            return _NO_STATE
        return super()._read_device_state()


class RunsInError(MutableDriver):
    """Goes on working in ERROR."""

    violates: ClassVar = frozenset({"v1/device-state/quiesced-in-error"})

    def work(self, amount: int) -> None:
        """Work while RUNNING, and in ERROR."""
        if self._state is DeviceState.ERROR:
            self.model.work(amount)
        super().work(amount)
