"""One thread that waits for all rsockets of a library, and a descriptor for each.

::

    rpoll(control, rsockets ...) --- ready ---> Signal: a descriptor, readable, writable
            ^                                        |
            +--- watch again <--- EAGAIN seen <--- the loop's own selector

Rule 1: a descriptor is ready from when rpoll() said so until a call answered EAGAIN.
What is ready is not asked for.  So a socket whose calls never answer EAGAIN, a blocking
one, stays ready for ever (`watch` shows what comes of that).

Rule 2: what may change in a round of the thread is guarded by one lock, and rpoll() is
called without it, with numbers that nobody closes meanwhile: `Poller.remove` returns
when the thread is out of the last rpoll() that knew the number.

Rule 3: the thread is there as long as there are sockets, and whoever removes the last
one waits for its end.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.ways import (
    BOTH,
    SLICE_MS,
    events_of,
    flags_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.rsocket.library import RsocketLibrary

_PATIENCE: Final = 10.0  # seconds: a thread that is not stuck answers within a round
_FULL: Final = bytes(2048)  # half of the smallest send buffer there is


class Poller:
    """The poll thread of a library; a `Way` whose descriptors any selector knows."""

    poll = None

    def __init__(self, library: RsocketLibrary) -> None:
        self._library = library
        self._changed = threading.Condition()  # guards all that follows
        self._watched: dict[int, _Watched] = {}
        self._control: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._asked = self._taken = self._done = 0  # changes, by how far they have got
        self._errands: list[tuple[Callable[[], None], Future[None]]] = []
        self._hurry = 0  # the change that a round without a wait must have seen

    @property
    def is_running(self) -> bool:
        """Whether there is a thread: as long as there are sockets."""
        return self._thread is not None

    def add(self, number: int, event: int = BOTH, *, connects: bool = False) -> None:
        """Watch a new socket for ``event``; it is not ready before rpoll() says so.

        Raises OSError when the process has no descriptors left, and RuntimeError when
        it can have no more threads.
        """
        watched = _Watched(event, connects=connects)
        with self._changed:
            self._watched[number] = watched
            try:
                if self._thread is None:
                    self._start()
            except BaseException:
                del self._watched[number]
                watched.signal.close()
                raise
            self._change()

    def remove(self, number: int) -> None:
        """Watch a socket no more, and close its descriptor.

        The number may be closed then. Raises TimeoutError if the thread does not answer
        in 10 s: it may be using the number.
        """
        with self._changed:
            watched = self._watched.pop(number, None)
            if watched is None:
                return
            watched.signal.close()
            thread = self._thread
            change = self._change()
            self._wait_for(lambda: self._taken >= change or self._thread is not thread)
            is_last = self._thread is not thread
        if is_last and thread is not None:
            thread.join(_PATIENCE)

    def undisturbed(self, action: Callable[[], None]) -> None:
        """Do it in the thread, between two rounds."""
        done: Future[None] = Future()
        with self._changed:
            if self._thread is None:
                action()
                return
            self._errands.append((action, done))
            self._change()
        done.result(_PATIENCE)

    def stands(self, number: int) -> bool:
        """Return whether it stands, after a round that began now."""
        with self._changed:
            watched = self._watched[number]
            if watched.connects:
                self._hurry = change = self._change()
                self._wait_for(lambda: self._done >= change)
            return not watched.connects

    def once_standing(self, number: int, action: Callable[[], None]) -> None:
        """Do it now, or in the poll thread."""
        with self._changed:
            watched = self._watched[number]
            if watched.connects:
                watched.action = action
                return
        action()

    def ran_dry(self, number: int, event: int) -> None:
        """Take back that it is ready, and watch it again."""
        with self._changed:
            watched = self._watched[number]
            if watched.ready & event:
                watched.take_back(event)
                self._change()

    def took(self, number: int) -> None:
        """Open the window: the thread does not ask for what is ready."""
        self._library.rpoll([(number, select.POLLIN)], 0)

    def go_on(self) -> None:
        """Do nothing: the thread does."""

    def fileno(self, number: int) -> int:
        """Return the descriptor that stands for a socket."""
        return self._watched[number].signal.fileno()

    # -- the thread -------------------------------------------------------------------

    def _start(self) -> None:
        ours, control = _make_pair()
        self._thread = threading.Thread(
            target=self._run, args=(control,), name="rpoller", daemon=True
        )
        self._control = ours
        try:
            self._thread.start()
        except BaseException:
            self._end(control)
            raise

    def _run(self, control: socket.socket) -> None:
        while True:
            self._run_errands()
            with self._changed:
                if self._errands:
                    continue
                self._taken = self._asked
                self._changed.notify_all()
                if not self._watched:
                    self._end(control)
                    return
                wanted = [
                    (number, flags)
                    for number, each in self._watched.items()
                    if (flags := each.wanted)
                ]
                timeout = 0 if self._hurry > self._done else SLICE_MS
            ready = self._ask([(control.fileno(), select.POLLIN), *wanted], timeout)
            for action in self._mark(control, ready):
                action()

    def _run_errands(self) -> None:
        with self._changed:
            errands, self._errands = self._errands, []
        for action, done in errands:
            try:
                action()
            except Exception as error:  # it is raised by who asked for it
                done.set_exception(error)
            else:
                done.set_result(None)

    def _mark(
        self, control: socket.socket, ready: list[tuple[int, int]]
    ) -> list[Callable[[], None]]:
        """Say what is ready, and return what is to be done for who stands now."""
        with self._changed:
            with contextlib.suppress(BlockingIOError):
                control.recv(4096)
            actions = [
                action
                for number, revents in ready
                if (watched := self._watched.get(number)) is not None
                and (action := watched.mark(events_of(revents))) is not None
            ]
            self._done = self._taken
            self._changed.notify_all()
            return actions

    def _ask(
        self, watched: list[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        try:
            return self._library.rpoll(watched, timeout)
        except InterruptedError:
            return []
        except OSError:
            # One of them is no socket any more: whoever uses it is to see that.
            return [
                (number, select.POLLNVAL)
                for number, flags in watched
                if not self._is_known(number, flags)
            ]

    def _is_known(self, number: int, flags: int) -> bool:
        try:
            self._library.rpoll([(number, flags)], 0)
        except InterruptedError:
            return True
        except OSError:
            return False
        return True

    def _end(self, control: socket.socket) -> None:
        control.close()
        if self._control is not None:
            self._control.close()
        self._control = self._thread = None
        self._changed.notify_all()

    def _change(self) -> int:
        """Let the thread begin another round; return the number of the change."""
        if self._asked == self._taken and self._control is not None:
            self._control.send(b"!")
        self._asked += 1
        return self._asked

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        if not self._changed.wait_for(condition, _PATIENCE):
            message = f"the poll thread did not answer within {_PATIENCE:g} s"
            raise TimeoutError(message)


class _Watched:
    """A socket as the thread knows it; guarded by the poller's lock."""

    def __init__(self, event: int, *, connects: bool) -> None:
        self._event = event
        self.connects = connects
        self.ready = 0
        self.action: Callable[[], None] | None = None
        self.signal = Signal()

    @property
    def wanted(self) -> int:
        """What to ask for, as flags of poll(2)."""
        return flags_of(self._event & ~self.ready)

    def mark(self, event: int) -> Callable[[], None] | None:
        """Say that it is ready; return what waited for it to stand."""
        new = event & ~self.ready
        self.ready |= new
        self.signal.set(new)
        self.connects = False
        action, self.action = self.action, None
        return action

    def take_back(self, event: int) -> None:
        """Say that it is not ready."""
        self.signal.clear(self.ready & event)
        self.ready &= ~event


class Signal:
    """A descriptor that is readable, writable, both or neither, as it is told.

    One of two connected sockets: there is a byte for it to read, or not, and its send
    buffer is full, or empty.  An eventfd cannot say "neither".
    """

    def __init__(self) -> None:
        self._face, self._back = _make_pair()
        # The kernel has a least size (SOCK_MIN_SNDBUF), and says "writable" as long as
        # three quarters are free (unix_writable()).
        self._face.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.clear(selectors.EVENT_WRITE)

    def set(self, event: int) -> None:
        """Become ready for what it was not ready for."""
        if event & selectors.EVENT_READ:
            self._back.send(b"!")
        if event & selectors.EVENT_WRITE:
            self._back.recv(len(_FULL))

    def clear(self, event: int) -> None:
        """Be ready no more for what it was ready for."""
        if event & selectors.EVENT_READ:
            self._face.recv(1)
        if event & selectors.EVENT_WRITE:
            self._face.send(_FULL)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._face.fileno()

    def close(self) -> None:
        """Close it."""
        self._face.close()
        self._back.close()


def _make_pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.settimeout(0)
    other.settimeout(0)
    return one, other
