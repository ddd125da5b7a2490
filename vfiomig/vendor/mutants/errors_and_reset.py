"""Mutants that a reset, or the end of a session, does not bring back.

Rule 1: nothing is wrong before the first reset or close.
"""

from __future__ import annotations

import errno
from typing import ClassVar

from vfiomig.protocol.v1.states import DEFAULT_STATE, DeviceState
from vfiomig.vendor.mutants.mutable import MutableDriver, fail

__all__ = [
    "CloseFailsWhileSaving",
    "ResetKeepsTheContent",
    "ResetKeepsTheSession",
    "ResetLeavesError",
    "ResetLeavesTheState",
    "ResetMidwayCrashes",
    "ResetRefusedWhileSaving",
    "StrayWorkCrashes",
]


class ResetLeavesError(MutableDriver):
    """Resets everything but device_state, where that is ERROR."""

    violates: ClassVar = frozenset({"v1/errors-and-reset/reset-recovers-from-error"})

    def reset(self) -> None:
        """Reset; ERROR stays."""
        was_in_error = self._state is DeviceState.ERROR
        super().reset()
        if was_in_error:
            self._set_state(DeviceState.ERROR)


class ResetLeavesTheState(MutableDriver):
    """Stays in STOP over a reset (mtty of May 2020 left any state as it was)."""

    violates: ClassVar = frozenset({"v1/errors-and-reset/reset-enters-running"})

    def reset(self) -> None:
        """Reset; STOP stays."""
        was_stopped = self._state is DeviceState.STOP
        super().reset()
        if was_stopped:
            self._set_state(DeviceState.STOP)


class ResetKeepsTheSession(MutableDriver):
    """Sets RUNNING, and ends a session only in ERROR (BUG-PDS-03).

    The next saving session goes on where the one before the reset was.
    """

    violates: ClassVar = frozenset({"v1/errors-and-reset/reset-ends-sessions"})

    def reset(self) -> None:
        """Reset; a saving session stays open."""
        session, self._saving = self._saving, None
        if session is None:
            super().reset()
            return
        self.model.power_on()
        self._faults.clear()
        self._set_state(DEFAULT_STATE)
        self._saving = session


class ResetKeepsTheContent(MutableDriver):
    """Ends sessions and sets RUNNING, but the device keeps what it has become."""

    violates: ClassVar = frozenset(
        {"v1/errors-and-reset/reset-restores-power-on-state"}
    )

    def reset(self) -> None:
        """Reset all but the device itself."""
        self._end_sessions()
        self._faults.clear()
        self._clear_section()
        self._set_state(DEFAULT_STATE)


class ResetMidwayCrashes(MutableDriver):
    """Raises AttributeError when a reset cuts a RESUMING: it looks for a save."""

    violates: ClassVar = frozenset({"v1/discovery/reset-supported"})

    def reset(self) -> None:
        """Reset; not in RESUMING."""
        if self._state is DeviceState.RESUMING:
            message = "'NoneType' object has no attribute 'end'"
            raise AttributeError(message)
        super().reset()


class CloseFailsWhileSaving(MutableDriver):
    """Says EBUSY when it is closed with a saving session open."""

    violates: ClassVar = frozenset({"v1/errors-and-reset/close-ends-sessions"})

    def close(self) -> None:
        """Close, and complain."""
        is_busy = self._saving is not None
        super().close()
        if is_busy:
            fail(errno.EBUSY, "a saving session was open")


class ResetRefusedWhileSaving(MutableDriver):
    """Says EBUSY to a reset while a saving session is open, and to no other."""

    violates: ClassVar = frozenset({"v1/errors-and-reset/reset-enters-running"})

    def reset(self) -> None:
        """Reset, or complain."""
        if self._saving is not None:
            fail(errno.EBUSY, "a saving session is open")
        super().reset()


class StrayWorkCrashes(MutableDriver):
    """Raises AttributeError when guest traffic comes in STOP: its queue is gone."""

    violates: ClassVar = frozenset({"v1/errors-and-reset/stray-access-harmless"})

    def work(self, amount: int) -> None:
        """Let guest traffic reach the device, queue or none."""
        if amount and self._state is DeviceState.STOP:
            message = "'NoneType' object has no attribute 'append'"
            raise AttributeError(message)
        super().work(amount)
