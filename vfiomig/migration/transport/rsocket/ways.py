"""How to wait for rsockets, which no selector knows: by turns of the loop's own.

Rule 1: a connection that begins, and a window that has to be opened again, move only
when someone is in the library with that socket.  Whoever is here for one socket of a
library takes the others along (`InTurns.go_on`): both ends may be in one thread.

Rule 2: until a connection stands, its socket is asked for nothing but that.  rpoll(),
rsend() and rrecv() of librdmacm 44 all make the next step of connecting, and without a
lock; the last two do not look whether it has failed before.
"""

from __future__ import annotations

import math
import select
import selectors
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.migration.transport.rsocket.library import RsocketLibrary

BOTH: Final = selectors.EVENT_READ | selectors.EVENT_WRITE
# rpoll() of librdmacm 44 may sleep for 5 s (wake_up_interval) after a thread of its own
# has dealt with what it waits for.
SLICE_MS: Final = 20
# Whatever is wrong with a socket, it will not go away by waiting.
ERRORS: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Way(Protocol):
    """A way to wait for the rsockets of one library; ``event`` is of ``selectors``."""

    def add(self, number: int, event: int, *, connects: bool = False) -> None:
        """Take a new socket in; ``connects`` if it does not stand yet."""

    def remove(self, number: int) -> None:
        """Let go of a socket: when this returns, its number may be closed."""

    def undisturbed(self, action: Callable[[], None]) -> None:
        """Do something while no other socket makes a step of connecting."""

    def stands(self, number: int) -> bool:
        """Return whether a socket has ended connecting, well or not."""

    def once_standing(self, number: int, action: Callable[[], None]) -> None:
        """Do something when the socket stands: now, if it does already."""

    def ran_dry(self, number: int, event: int) -> None:
        """Hear that a call for ``event`` answered EAGAIN."""

    def took(self, number: int) -> None:
        """Hear that bytes were received, so that the window may have to be opened."""

    def go_on(self) -> None:
        """Let go on what only moves in the library."""

    def fileno(self, number: int) -> int | None:
        """Return what a selector can wait on, if there is something."""

    @property
    def poll(self) -> Callable[[int, int, float], bool] | None:
        """``poll(number, event, seconds)``, where that is how to wait."""


class InTurns:
    """Nobody but who calls is ever in the library; a `Way` without a descriptor.

    With ``yields`` a wait returns at once, for the loop to try again in its next turn,
    as a coroutine of QEMU's does on EAGAIN: nothing sleeps.  Without, it sleeps in
    rpoll(), as was asked for on QEMU's list (Peter Xu, 2024-06).
    """

    def __init__(self, library: RsocketLibrary, *, yields: bool) -> None:
        self._library = library
        self._yields = yields
        self._connecting: dict[int, Callable[[], None] | None] = {}
        self._owing: set[int] = set()  # whose receiver was not in the library since

    def add(self, number: int, event: int, *, connects: bool = False) -> None:
        """Take a new socket in."""
        if connects:
            self._connecting[number] = None

    def remove(self, number: int) -> None:
        """Let go of a socket."""
        self._connecting.pop(number, None)
        self._owing.discard(number)

    def undisturbed(self, action: Callable[[], None]) -> None:
        """Do it."""
        action()

    def stands(self, number: int) -> bool:
        """Return whether it stands, having made the next steps."""
        if number in self._connecting:
            self._connect()
        return number not in self._connecting

    def once_standing(self, number: int, action: Callable[[], None]) -> None:
        """Do it now, or within somebody's later turn."""
        if self.stands(number):
            action()
        else:
            self._connecting[number] = action

    def ran_dry(self, number: int, event: int) -> None:
        """Take the others along: this socket cannot go on before they do."""
        self._owing.discard(number)
        self.go_on()

    def took(self, number: int) -> None:
        """Note that its window has to be opened if nobody comes back for more."""
        self._owing.add(number)

    def go_on(self) -> None:
        """Make the next steps of those that connect, and open windows."""
        if self._owing:
            ask(self._library, [(each, select.POLLIN) for each in self._owing], 0)
            self._owing.clear()
        if self._connecting:
            self._connect()

    def fileno(self, number: int) -> None:
        """Return None: there is nothing."""

    def poll(self, number: int, event: int, seconds: float) -> bool:
        """Wait until that socket has changed; those that connect go on meanwhile."""
        self.go_on()
        if self._yields:
            return True
        if number in self._connecting:
            return bool(self._connect(seconds))
        limit = time.monotonic() + seconds
        while ready := self._connect(seconds, (number, flags_of(event))):
            if number in ready:
                return True
            seconds = max(0.0, limit - time.monotonic())
        return False

    def _connect(self, seconds: float = 0, *others: tuple[int, int]) -> list[int]:
        """Make steps of those that connect; return which of all have changed."""
        watched = [*others, *((each, select.POLLOUT) for each in self._connecting)]
        ready = ask(self._library, watched, seconds)
        for number, _ in ready:
            if (action := self._connecting.pop(number, None)) is not None:
                action()
        return [number for number, _ in ready]


def ask(
    library: RsocketLibrary, watched: Sequence[tuple[int, int]], seconds: float
) -> list[tuple[int, int]]:
    """Wait in rpoll(), slice by slice; return which are ready.

    None are where a signal interrupts it.
    """
    limit = time.monotonic() + seconds if seconds else 0
    left = seconds
    while True:
        try:
            ready = library.rpoll(watched, min(math.ceil(left * 1000), SLICE_MS))
        except InterruptedError:
            return []
        if ready or not limit or (left := limit - time.monotonic()) <= 0:
            return ready


def flags_of(event: int) -> int:
    """Return poll(2)'s flags for an event of ``selectors``."""
    return (event & selectors.EVENT_READ and select.POLLIN) | (
        event & selectors.EVENT_WRITE and select.POLLOUT
    )


def events_of(revents: int) -> int:
    """Return the events of ``selectors`` that poll(2)'s answer wakes: errors, both."""
    if revents & ERRORS:
        return BOTH
    return (revents & select.POLLIN and selectors.EVENT_READ) | (
        revents & select.POLLOUT and selectors.EVENT_WRITE
    )
