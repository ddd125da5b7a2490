"""Mutants of the standalone driver: device_state, transitions, reset and close.

Rule 1: as `StandaloneDriver`, but for one method.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from vfiomig.vendor.mutants.standalone import (
    DEVICE_STATE,
    ERROR,
    PRE_COPY,
    RESUMING,
    RUNNING,
    SAVING,
    STOP,
    STOP_AND_COPY,
    StandaloneDriver,
    refuse,
)

__all__ = [
    "CancelledSessionIsHeld",
    "CloseRefusedWhileRunning",
    "DemandsTheBuffer",
    "ErrorIsSeven",
    "ErrorLeftByStop",
    "ErrorRequestIgnored",
    "FallsBackToRunning",
    "HalfwayOnFault",
    "InvalidStatesStored",
    "NeedsAReset",
    "PollFaultIsError",
    "RefusalDropsTheBuffer",
    "RefusesItsOwnBits",
    "RemembersTheLastUser",
    "ResetAppliesWhatCame",
    "ResetKeepsASpoiledStream",
    "ResetNotSupported",
    "ResetOnlyInStopAndCopy",
    "RunsInStopAndCopy",
    "SelfArcRefused",
]

_HIGHEST: Final = 1 << 31
_PATIENCE: Final = 8


class ResetNotSupported(StandaloneDriver):
    """Has no reset."""

    violates: ClassVar = frozenset({"v1/discovery/reset-supported"})

    def reset(self) -> None:
        """Fail."""
        raise OSError(errno.ENOTTY, "the device has no reset")


class RemembersTheLastUser(StandaloneDriver):
    """Opens in the state in which it was closed, and not in RUNNING."""

    violates: ClassVar = frozenset({"v1/device-state/running-on-every-open"})
    _left_in: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.state = self._left_in.get("state", RUNNING)

    def close(self) -> None:
        """Write down the state for the next user."""
        self._left_in["state"] = self.state if self.state in (STOP, ERROR) else RUNNING


class InvalidStatesStored(StandaloneDriver):
    """Stores 101b and 111b as it stores any state."""

    violates: ClassVar = frozenset(
        {
            "v1/device-state/no-invalid-state-reported",
            "v1/device-state/invalid-values-refused",
        }
    )

    def write_device_state(self, value: int) -> None:
        """Write; every combination of bits will do."""
        if value & 5 == 5 and self.state != ERROR:
            self.end_session()
            self.state = value & 7
            return
        super().write_device_state(value)


class ErrorRequestIgnored(StandaloneDriver):
    """Says that a write of 110b went well, and does nothing."""

    violates: ClassVar = frozenset({"v1/device-state/error-not-for-the-asking"})

    def write_device_state(self, value: int) -> None:
        """Write; 110b is nothing."""
        if value & 7 != ERROR or self.state == ERROR:
            super().write_device_state(value)


class RefusesItsOwnBits(StandaloneDriver):
    """Reads with bit 31 set, and refuses a write that has it."""

    violates: ClassVar = frozenset({"v1/device-state/reserved-bits-accepted-back"})

    def read_register(self, register: int) -> int:
        """Read; device_state has the bit."""
        value = super().read_register(register)
        return value | _HIGHEST if register == DEVICE_STATE else value

    def write_device_state(self, value: int) -> None:
        """Write; the bit must be zero."""
        if value & _HIGHEST:
            refuse("a reserved bit is set")
        super().write_device_state(value)


class FallsBackToRunning(StandaloneDriver):
    """Leaves pre-copy by itself once nothing was left to read a few times."""

    violates: ClassVar = frozenset({"v1/device-state/moves-only-when-asked"})
    _idle = 0

    def pending_bytes(self) -> int:
        """Return what is left; when nothing is, become impatient."""
        left = super().pending_bytes()
        self._idle = 0 if left or self.state != PRE_COPY else self._idle + 1
        if self._idle >= _PATIENCE:
            self._idle = 0
            self.end_session()
            self.state = RUNNING
        return left


class ErrorIsSeven(StandaloneDriver):
    """Sets all three bits to say ERROR."""

    violates: ClassVar = frozenset(
        {"v1/device-state/error-is-110b", "v1/device-state/no-invalid-state-reported"}
    )

    def read_register(self, register: int) -> int:
        """Read; ERROR is 111b."""
        value = super().read_register(register)
        return 7 if register == DEVICE_STATE and value == ERROR else value


class RunsInStopAndCopy(StandaloneDriver):
    """Looks at SAVING for whether it runs, and forgets that RUNNING was cleared."""

    violates: ClassVar = frozenset({"v1/device-state/no-progress-while-stopped"})

    def is_running(self) -> bool:
        """Tell whether RUNNING or SAVING is set."""
        return self.state in (RUNNING, PRE_COPY, STOP_AND_COPY)

    def note(self, block: int) -> None:
        """Note what changes in stop-and-copy as well."""
        if self.state in SAVING and not self.has_ended:
            self.dirty.add(block)


class HalfwayOnFault(StandaloneDriver):
    """Clears RUNNING, fails to set SAVING, and stays there (V1-TRANS-22)."""

    violates: ClassVar = frozenset(
        {
            "v1/transitions/several-bits-unwound",
            "v1/transitions/failure-leaves-previous-state-or-error",
        }
    )

    def enter(self, target: int) -> None:
        """Enter; RUNNING to stop-and-copy in two steps, without a way back."""
        if (self.state, target) == (RUNNING, STOP_AND_COPY):
            code = self.armed.pop("device_state", None)
            if code is not None:
                self.state = STOP
                raise OSError(code, "SAVING could not be set")
        super().enter(target)


class PollFaultIsError(StandaloneDriver):
    """Goes to ERROR when a read of pending_bytes fails."""

    violates: ClassVar = frozenset({"v1/transitions/error-only-by-failed-transition"})

    def trip(self, on: str) -> None:
        """Set off a fault; on pending_bytes with all that it takes."""
        try:
            super().trip(on)
        except OSError:
            if on == "pending_bytes":
                self.end_session()
                self.state = ERROR
            raise


class ErrorLeftByStop(StandaloneDriver):
    """Lets a write of STOP lead out of ERROR."""

    violates: ClassVar = frozenset({"v1/transitions/no-write-leaves-error"})

    def write_device_state(self, value: int) -> None:
        """Write; ERROR to STOP is an arc."""
        if (self.state, value & 7) == (ERROR, STOP):
            self.state = STOP
            return
        super().write_device_state(value)


class CloseRefusedWhileRunning(StandaloneDriver):
    """Wants to be stopped before it is closed."""

    violates: ClassVar = frozenset({"v1/transitions/shutdown-without-stop"})

    def close(self) -> None:
        """Close; not while RUNNING."""
        if self.state == RUNNING:
            raise OSError(errno.EBUSY, "the device is running")


class DemandsTheBuffer(StandaloneDriver):
    """Keeps to pre-copy while a buffer is queued that pending_bytes did not end."""

    violates: ClassVar = frozenset({"v1/transitions/no-draining-required"})

    def switch_over(self) -> None:
        """Switch over; not with a buffer."""
        if self.queued is not None:
            raise OSError(errno.EBUSY, "the buffer was not read yet")


class CancelledSessionIsHeld(StandaloneDriver):
    """Keeps its firmware in pre-copy mode after a cancel (BUG-MLX5-12)."""

    violates: ClassVar = frozenset({"v1/transitions/pre-copy-without-data"})
    _is_held = False

    def enter(self, target: int) -> None:
        """Enter; pre-copy no more than once."""
        if target == PRE_COPY and self._is_held:
            raise OSError(errno.EBUSY, "the firmware is in pre-copy mode")
        was_cancelled = (self.state, target) == (PRE_COPY, RUNNING)
        super().enter(target)
        self._is_held |= was_cancelled

    def power_on(self) -> None:
        """Let the firmware out of pre-copy mode."""
        self._is_held = False
        super().power_on()


class NeedsAReset(StandaloneDriver):
    """Resumes only a device that did nothing since its last reset."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-without-reset"})

    def enter(self, target: int) -> None:
        """Enter; RESUMING with a blank memory alone."""
        if target == RESUMING and any(self.memory):
            refuse("reset the device first")
        super().enter(target)


class SelfArcRefused(StandaloneDriver):
    """Has no arc from pre-copy to pre-copy, as libvfio-user had none."""

    violates: ClassVar = frozenset({"v1/transitions/same-state-again"})

    def write_device_state(self, value: int) -> None:
        """Write; pre-copy only from elsewhere."""
        if self.state == value & 7 == PRE_COPY:
            refuse("011b to 011b is not supported")
        super().write_device_state(value)


class RefusalDropsTheBuffer(StandaloneDriver):
    """Loses the block in the window when it refuses a write to device_state."""

    violates: ClassVar = frozenset({"v1/transitions/rejection-without-side-effects"})

    def write_device_state(self, value: int) -> None:
        """Write; refuse with a loss."""
        try:
            super().write_device_state(value)
        except OSError:
            if self.state in SAVING:
                self.acknowledge()
            raise


class ResetOnlyInStopAndCopy(StandaloneDriver):
    """Compares its state with the wrong one in the reset handler (BUG-HISI-10).

    From pre-copy it comes back in pre-copy.
    """

    violates: ClassVar = frozenset({"v1/errors-and-reset/reset-enters-running"})

    def reset(self) -> None:
        """Reset; pre-copy stays."""
        was_in_pre_copy = self.state == PRE_COPY
        super().reset()
        if was_in_pre_copy:
            self.enter(PRE_COPY)


class ResetKeepsASpoiledStream(StandaloneDriver):
    """Refuses every stream after one that was bad, over a reset too."""

    violates: ClassVar = frozenset(
        {
            "v1/errors-and-reset/reset-ends-sessions",
            "v1/transitions/resuming-starts-afresh",
        }
    )

    def end_session(self) -> None:
        """End a session; what was spoiled stays so."""
        was_spoiled = getattr(self, "is_spoiled", False)
        super().end_session()
        self.is_spoiled = was_spoiled


class ResetAppliesWhatCame(StandaloneDriver):
    """Makes a half loaded memory its own when a reset cuts a RESUMING."""

    violates: ClassVar = frozenset(
        {"v1/errors-and-reset/reset-restores-power-on-state"}
    )

    def reset(self) -> None:
        """Reset; keep what came."""
        came = self.staged if self.state == RESUMING else None
        super().reset()
        if came is not None:
            self.memory = came
