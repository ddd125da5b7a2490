"""Mutants that refuse, botch or half make a transition.

Rule 1: an arc that a mutant refuses is refused cleanly, unless that is the bug.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from vfiomig.protocol.v1.states import ArcClass, DeviceState, arc_between, named_state
from vfiomig.vendor.mutants.mutable import MutableDriver, fail, refuse

if TYPE_CHECKING:
    from vfiomig.vendor.loading import LoadingSession
    from vfiomig.vendor.saving import SavingSession

__all__ = [
    "DemandsADrain",
    "EmptyStreamAccepted",
    "EntersErrorOnABadChunk",
    "FailsButMoves",
    "FailureIsSuccess",
    "ForgetsWhatCame",
    "LeavesErrorByWrite",
    "NeverEndsSaving",
    "NeverResumes",
    "NeverStops",
    "NoAbort",
    "NoPreCopy",
    "NoResuming",
    "NoSuspend",
    "NoSwitchOver",
    "OptionalArcKills",
    "PollsFailInPreCopy",
    "RejectedWriteRestarts",
    "SavesNothing",
    "SecondSessionGoesOn",
    "SelfArcRestarts",
    "ThirdStateAfterFault",
    "TruncatedStreamAccepted",
]

_STOP, _RUNNING, _STOP_AND_COPY, _PRE_COPY, _RESUMING = 0, 1, 2, 3, 4


class _Refusing(MutableDriver):
    """Refuses the arcs in ``refused``, each a pair of device_state's bits."""

    refused: ClassVar[frozenset[tuple[int, int]]] = frozenset()

    def _enter(self, target: DeviceState) -> None:
        if (self._state, target) in self.refused:
            refuse(f"{self._state.name} to {target.name}: not supported")
        super()._enter(target)


class NeverStops(_Refusing):
    """Cannot go from RUNNING to STOP."""

    violates: ClassVar = frozenset({"v1/transitions/running-to-stop"})
    refused: ClassVar = frozenset({(_RUNNING, _STOP)})


class NoSuspend(_Refusing):
    """Saves only after a pre-copy: RUNNING to stop-and-copy is refused."""

    violates: ClassVar = frozenset({"v1/transitions/running-to-stop-and-copy"})
    refused: ClassVar = frozenset({(_RUNNING, _STOP_AND_COPY)})


class NeverEndsSaving(_Refusing):
    """Cannot go from stop-and-copy to STOP."""

    violates: ClassVar = frozenset({"v1/transitions/stop-and-copy-to-stop"})
    refused: ClassVar = frozenset({(_STOP_AND_COPY, _STOP)})


class NoPreCopy(_Refusing):
    """Refuses pre-copy, where it might as well have had nothing to offer."""

    violates: ClassVar = frozenset({"v1/transitions/pre-copy-without-data"})
    refused: ClassVar = frozenset({(_RUNNING, _PRE_COPY)})


class NoSwitchOver(_Refusing):
    """Cannot go from pre-copy to stop-and-copy."""

    violates: ClassVar = frozenset({"v1/transitions/pre-copy-to-stop-and-copy"})
    refused: ClassVar = frozenset({(_PRE_COPY, _STOP_AND_COPY)})


class NoResuming(_Refusing):
    """Wants to be stopped before RESUMING (the table of mlx5, September 2021)."""

    violates: ClassVar = frozenset({"v1/transitions/running-to-resuming"})
    refused: ClassVar = frozenset({(_RUNNING, _RESUMING)})


class NeverResumes(_Refusing):
    """Goes from RESUMING to STOP alone, as v2 devices do."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-to-running"})
    refused: ClassVar = frozenset({(_RESUMING, _RUNNING)})


class NoAbort(_Refusing):
    """Gets out of saving by STOP or a reset, never straight to RUNNING."""

    violates: ClassVar = frozenset({"v1/transitions/abort-without-reset"})
    refused: ClassVar = frozenset({(_STOP_AND_COPY, _RUNNING), (_PRE_COPY, _RUNNING)})


class FailureIsSuccess(MutableDriver):
    """Finds that a transition failed, and returns 0 (as BUG-HISI-03 did)."""

    violates: ClassVar = frozenset({"v1/transitions/failure-is-an-errno"})

    def _enter(self, target: DeviceState) -> None:
        try:
            super()._enter(target)
        except OSError:
            return


class ThirdStateAfterFault(MutableDriver):
    """Falls back to STOP when a transition fails, wherever it came from."""

    violates: ClassVar = frozenset(
        {"v1/transitions/failure-leaves-previous-state-or-error"}
    )

    def _enter(self, target: DeviceState) -> None:
        try:
            super()._enter(target)
        except OSError:
            if self._state is not DeviceState.ERROR:
                self._end_sessions()
                self._set_state(DeviceState.STOP)
            raise


class FailsButMoves(MutableDriver):
    """Makes a transition on which a fault is injected, and reports the fault."""

    violates: ClassVar = frozenset(
        {
            "v1/transitions/failure-leaves-previous-state-or-error",
            "v1/transitions/success-is-returned",
        }
    )

    def _enter(self, target: DeviceState) -> None:
        try:
            self._faults.trip("device_state")
        except OSError:
            super()._enter(target)
            raise
        super()._enter(target)


class EntersErrorOnABadChunk(MutableDriver):
    """Goes to ERROR in the write to data_size that brings a bad chunk."""

    violates: ClassVar = frozenset({"v1/transitions/error-only-by-failed-transition"})

    def _write_data_size(self, size: int) -> None:
        try:
            super()._write_data_size(size)
        except OSError:
            if self._loading is not None and self._loading.is_refused:
                self._end_sessions()
                self._set_state(DeviceState.ERROR)
            raise


class LeavesErrorByWrite(MutableDriver):
    """Lets a write of RUNNING lead out of ERROR."""

    violates: ClassVar = frozenset({"v1/transitions/no-write-leaves-error"})

    def _write_device_state(self, value: int) -> None:
        if (self._state, named_state(value)) == (DeviceState.ERROR, _RUNNING):
            self._set_state(DeviceState.RUNNING)
            return
        super()._write_device_state(value)


class SavesNothing(MutableDriver):
    """Has nothing to send in stop-and-copy, whatever its state is."""

    violates: ClassVar = frozenset({"v1/device-state/saving-hands-out-state"})

    def _read_pending_bytes(self) -> bytes:
        if self._state is DeviceState.STOP_AND_COPY:
            return bytes(8)
        return super()._read_pending_bytes()


class PollsFailInPreCopy(MutableDriver):
    """Enters pre-copy, and fails when it is asked there what is pending."""

    violates: ClassVar = frozenset({"v1/transitions/running-to-pre-copy"})

    def _read_pending_bytes(self) -> bytes:
        if self._state is DeviceState.PRE_COPY:
            refuse("the device is not stopped")
        return super()._read_pending_bytes()


class DemandsADrain(MutableDriver):
    """Keeps to pre-copy, with EBUSY, until pending_bytes is 0."""

    violates: ClassVar = frozenset(
        {
            "v1/transitions/no-draining-required",
            "v1/pending-bytes/no-condition-of-stopping",
        }
    )

    def _enter(self, target: DeviceState) -> None:
        if self._state is DeviceState.PRE_COPY and target is DeviceState.STOP_AND_COPY:
            waiting = self.model.pending(running=True)
            if waiting:
                fail(errno.EBUSY, f"{waiting} bytes were not read yet")
        super()._enter(target)


class ForgetsWhatCame(MutableDriver):
    """Starts from power-on when it leaves RESUMING, after all was taken and checked."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-to-running"})

    def _enter(self, target: DeviceState) -> None:
        was_resuming = self._state is DeviceState.RESUMING
        super()._enter(target)
        if was_resuming:
            self.model.power_on()


class OptionalArcKills(MutableDriver):
    """Goes to ERROR where it is asked to stop in the middle of pre-copy."""

    violates: ClassVar = frozenset({"v1/transitions/undrawn-arc-refused-cleanly"})

    def _enter(self, target: DeviceState) -> None:
        if (self._state, target) == (_PRE_COPY, _STOP):
            self._end_sessions()
            self._set_state(DeviceState.ERROR)
            refuse("PRE_COPY to STOP: not supported")
        super()._enter(target)


class SecondSessionGoesOn(MutableDriver):
    """Keeps a saving session that was left, and goes on with it in the next one."""

    violates: ClassVar = frozenset({"v1/transitions/saving-starts-afresh"})
    _kept: SavingSession | None = None

    def _enter(self, target: DeviceState) -> None:
        session = self._saving
        if session is not None and not target.is_saving:
            self._saving = None
            self._kept = session
        if self._kept is not None and target is DeviceState.RESUMING:
            self._forget()
        super()._enter(target)

    def _save(self, *, running: bool) -> None:
        if self._saving is None and self._kept is not None:
            self._saving, self._kept = self._kept, None
        super()._save(running=running)

    def _forget(self) -> None:
        if self._kept is not None:
            self._kept.end()
        self._kept = None

    def reset(self) -> None:
        """Reset, the kept session included."""
        self._forget()
        super().reset()


class TruncatedStreamAccepted(MutableDriver):
    """Runs as before when a stream breaks off, instead of refusing to."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-ends-with-a-verdict"})

    def _enter(self, target: DeviceState) -> None:
        session = self._loading
        if session is not None and _breaks_off(session):
            session.drop()
            self._loading = None
        super()._enter(target)


def _breaks_off(session: LoadingSession) -> bool:
    came = session._expected > 0
    return came and not session._complete and not session.is_refused


class EmptyStreamAccepted(MutableDriver):
    """Takes nothing at all for a stream that went well (BUG-HISI-04)."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-ends-with-a-verdict"})

    def _enter(self, target: DeviceState) -> None:
        session = self._loading
        if session is not None and not session._expected and not session.is_refused:
            session.drop()
            self._loading = None
        super()._enter(target)


class SelfArcRestarts(MutableDriver):
    """Begins the stream again when the state that it is in is written."""

    violates: ClassVar = frozenset({"v1/transitions/same-state-again"})

    def _write_device_state(self, value: int) -> None:
        arc = arc_between(self._state, value)
        super()._write_device_state(value)
        if arc.arc_class is ArcClass.SELF and self._saving is not None:
            _restart(self, self._state)


class RejectedWriteRestarts(MutableDriver):
    """Refuses an invalid state, but begins the stream again."""

    violates: ClassVar = frozenset({"v1/transitions/rejection-without-side-effects"})

    def _write_device_state(self, value: int) -> None:
        arc = arc_between(self._state, value)
        if arc.arc_class is ArcClass.INV and self._saving is not None:
            _restart(self, self._state)
        super()._write_device_state(value)


def _restart(driver: MutableDriver, state: DeviceState) -> None:
    driver._end_sessions()
    driver._save(running=state.is_running)
