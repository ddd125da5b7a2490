"""Waiting for several streams at once: by a selector, or as each one can.

Streams with a ``fileno()`` are waited on together.  One that has a ``poll`` of its own
is asked for a slice of time in its turn: whoever has the library that moves its bytes
must be in it for them to move.
"""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.base import poll_of

if TYPE_CHECKING:
    from vfiomig.migration.transport.base import ByteStream, Listener, Poll

_SLICE: Final = 0.001  # seconds that one may keep the others waiting


class Waiting:
    """What one loop waits for; used once."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}
        self._polls: list[tuple[Poll, int]] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to wait for."""
        return not (self._events or self._polls)

    def add(self, stream: ByteStream | Listener, event: int) -> None:
        """Wait for ``event`` (of ``selectors``) of ``stream`` too, if one can."""
        if (poll := poll_of(stream)) is not None:
            self._polls.append((poll, event))
        elif (number := stream.fileno()) is not None:
            self.add_descriptor(number, event)

    def add_descriptor(self, number: int, event: int) -> None:
        """Wait for ``event`` of a descriptor too."""
        self._events[number] = self._events.get(number, 0) | event

    def wait(self, seconds: float) -> bool:
        """Wait until one of them may go on; False if none could in that time.

        At once where there is nothing to wait for.  A stream that is called again to
        see (`Poll`) is one that may go on, so that who waits in vain has to look at the
        time as well.
        """
        if self.is_empty:
            return False
        with selectors.DefaultSelector() as selector:
            for number, event in self._events.items():
                selector.register(number, event)
            if not self._polls:
                return bool(selector.select(seconds))
            return self._wait_in_turns(selector, time.monotonic() + seconds)

    def _wait_in_turns(self, selector: selectors.BaseSelector, limit: float) -> bool:
        slice_ = 0.0  # at first nobody waits: another may be ready
        while True:
            if self._events and selector.select(0):
                return True
            for poll, event in self._polls:
                if poll(event, slice_):
                    return True
            left = limit - time.monotonic()
            if left <= 0:
                return False
            is_alone = len(self._polls) == 1 and not self._events
            slice_ = left if is_alone else min(left, _SLICE)
