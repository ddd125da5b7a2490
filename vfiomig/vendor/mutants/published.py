"""Mutants of bugs that others have published, of drivers that speak v2, moved to v1.

Rule 1: the docstring has the bug's id on the page of published bugs; the sections'
modules have those that fit a mutant of theirs.

Rule 2: a fix that was wrong stands behind its bug, with the same id.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from vfiomig.vendor.mutants.standalone import (
    PRE_COPY,
    SAVING,
    StandaloneDriver,
    refuse,
)

__all__ = [
    "AddressFixedWrongly",
    "AddressFromSwappedHalves",
    "DisabledForGood",
    "EventIsNotSent",
    "GrownSinceTheQuery",
    "ResetBeforeTheFirstSession",
]

_NOT_WHAT_CAME: Final = frozenset(
    {"v1/data-size/applied-to-the-device", "v1/transitions/resuming-to-running"}
)
_HALF: Final = 4  # bytes of an address of 64 bits
_EVENT: Final = 1  # the bit of the first byte that an event has not been told of


class AddressFromSwappedHalves(StandaloneDriver):
    """Puts the halves of a 64-bit address together in the wrong order (BUG-HISI-02)."""

    violates: ClassVar = _NOT_WHAT_CAME

    def finish(self) -> None:
        """Finish; the address is made of two registers."""
        super().finish()
        low, high = self.memory[:_HALF], self.memory[_HALF : 2 * _HALF]
        self.memory[: 2 * _HALF] = high + low


class AddressFixedWrongly(StandaloneDriver):
    """Takes the low half of an address for both (the first fix of BUG-HISI-02)."""

    violates: ClassVar = _NOT_WHAT_CAME

    def finish(self) -> None:
        """Finish; the address is made of two registers, read by one index."""
        super().finish()
        low = self.memory[:_HALF]
        self.memory[: 2 * _HALF] = low + low


class EventIsNotSent(StandaloneDriver):
    """Loads a device without the event that waits to be told of (BUG-HISI-06)."""

    violates: ClassVar = _NOT_WHAT_CAME

    def finish(self) -> None:
        """Finish; nothing is waiting."""
        super().finish()
        self.memory[0] &= ~_EVENT


class GrownSinceTheQuery(StandaloneDriver):
    """Fails to save a chunk where the device changed after it was sized (BUG-MLX5-10).

    The size is asked for with data_offset; while the device runs it may be another
    when data_size is read.
    """

    violates: ClassVar = frozenset({"v1/saving/same-in-both-states"})
    _has_grown = False

    def note(self, block: int) -> None:
        """Note; a chunk that is queued is out of date."""
        super().note(block)
        self._has_grown |= self.state == PRE_COPY and self.queued is not None

    def queue(self) -> None:
        """Queue what the device is now."""
        super().queue()
        self._has_grown = False

    def data_size(self) -> int:
        """Return the size, if it is still the one that was asked for."""
        if self._has_grown and self.queued is not None:
            self._has_grown = False
            refuse("the state has grown since its size was asked for")
        return super().data_size()


class DisabledForGood(StandaloneDriver):
    """Disables the data of a save that a reset cut, and of those that follow.

    It is the fix of BUG-PDS-04 gone too far: a file must not be read after a reset,
    but the next session has one of its own.
    """

    violates: ClassVar = frozenset(
        {
            "v1/errors-and-reset/reset-ends-sessions",
            "v1/data-offset/returns-when-data-is-there",
        }
    )
    _is_disabled = False

    def reset(self) -> None:
        """Reset, and disable what was open."""
        self._is_disabled |= self.state in SAVING
        super().reset()

    def read_data(self, start: int, size: int) -> bytes:
        """Return bytes of the window, unless that is disabled."""
        if self._is_disabled:
            raise OSError(errno.ENODEV, "the migration data is disabled")
        return super().read_data(start, size)


class ResetBeforeTheFirstSession(StandaloneDriver):
    """Crashes in a reset that comes before any session (BUG-PDS-07, as BUG-XE-01).

    What the reset locks is made when device_state is first written.
    """

    violates: ClassVar = frozenset({"v1/discovery/reset-supported"})
    _lock: set[int] | None = None

    def enter(self, target: int) -> None:
        """Enter a state; there is a lock from then on."""
        if self._lock is None:
            self._lock = set()
        super().enter(target)

    def reset(self) -> None:
        """Reset, under the lock."""
        if self._lock is None:
            message = "'NoneType' object has no attribute 'acquire'"
            raise AttributeError(message)
        super().reset()
