"""QEMU's watch on an rsocket, the hang that a blocking one makes of it, and its name.

The series of 2024 for QEMU ("refactor RDMA live migration based on rsocket API") lets
a main loop poll what the poll thread says of a socket.  That is taken back only when a
call answers EAGAIN, which a blocking socket's never does: once it was ready its watch
fires for ever, and as soon as nothing is left to read the callback sleeps in rrecv(),
and with it the loop.

::

    MainLoop: poll --> callback --> rrecv() --> EAGAIN --> taken back, polled on
                          |             `-----> bytes ---> still "ready"
                          `-- not back within the limit: HangError says which, and where

Whoever runs the loop is its watchdog, and the loop has a thread of its own: what hangs
cannot tell.
"""

from __future__ import annotations

import fcntl
import os
import select
import selectors
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.migration.transport.rsocket.library import RsocketLibrary
from vfiomig.migration.transport.rsocket.ways import ERRORS, events_of, flags_of
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from vfiomig.migration.transport.rsocket.poller import Poller

_CALLS: Final = frozenset(name for name in vars(RsocketLibrary) if name[0] == "r")
_LIMIT: Final = 1.0  # seconds: no callback of a main loop may take that long


class HangError(VfiomigError):
    """A callback of the main loop does not come back; ``str()`` says which, and why.

    ``call`` is the call of the library that it is in, or else the function; ``where``
    is its innermost line.
    """

    def __init__(self, message: str, *, call: str, where: str) -> None:
        super().__init__(message)
        self.call = call
        self.where = where


class Watched(Protocol):
    """What can be watched: a stream, or anything else with a descriptor."""

    def fileno(self) -> int | None:
        """Return what poll(2) knows."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Call ``callback`` when ``event`` (of ``selectors``) has come, as long as it says.

    ``name`` says in an error what is watched, and ``advice`` what may be wrong with it.
    """

    source: Watched | int
    event: int
    callback: Callable[[], bool]
    name: str = field(default="", kw_only=True)
    advice: Callable[[], str] = field(default=str, kw_only=True)

    def descriptor(self) -> int:
        """Return what to poll; ValueError where there is nothing."""
        number = self.source if isinstance(self.source, int) else self.source.fileno()
        if number is None:
            message = "there is no descriptor to watch"
            raise ValueError(message)
        return number

    def __str__(self) -> str:
        return f"the watch on {self.name or f'descriptor {self.descriptor()}'}"


class WatchedRsocket:
    """An rsocket as a main loop has it: I/O that tells the poll thread of EAGAIN.

    The socket stays its caller's, and blocking or not as it is.
    """

    def __init__(self, library: RsocketLibrary, poller: Poller, number: int) -> None:
        self._library = library
        self._poller = poller
        self.number = number
        poller.add(number)

    @property
    def is_blocking(self) -> bool:
        """Whether it has no O_NONBLOCK."""
        return not self._library.rfcntl(self.number, fcntl.F_GETFL) & os.O_NONBLOCK

    def set_blocking(self, *, blocking: bool) -> None:
        """Set O_NONBLOCK, or take it away."""
        flags = self._library.rfcntl(self.number, fcntl.F_GETFL) & ~os.O_NONBLOCK
        wanted = flags if blocking else flags | os.O_NONBLOCK
        self._library.rfcntl(self.number, fcntl.F_SETFL, wanted)

    def read(self, buffer: memoryview) -> int | None:
        """Receive; None for EAGAIN. A blocking socket waits for a byte."""
        try:
            return self._library.rrecv(self.number, buffer)
        except BlockingIOError:
            self._poller.ran_dry(self.number, selectors.EVENT_READ)
            return None

    def write(self, data: memoryview) -> int | None:
        """Send; None for EAGAIN. A blocking socket waits for the window."""
        try:
            return self._library.rsend(self.number, data)
        except BlockingIOError:
            self._poller.ran_dry(self.number, selectors.EVENT_WRITE)
            return None

    def fileno(self) -> int:
        """Return the poll thread's descriptor for it."""
        return self._poller.fileno(self.number)

    def create_watch(self, event: int, callback: Callable[[], bool]) -> Watch:
        """Return a watch on it: for reading, for writing, or for both."""
        name = f"rsocket {self.number}"
        return Watch(self, event, callback, name=name, advice=self._advise)

    def close(self) -> None:
        """Let go of the socket: the poll thread knows it no more."""
        self._poller.remove(self.number)

    def _advise(self) -> str:
        if not self.is_blocking:
            return ""
        return "a blocking rsocket is never cleared (no EAGAIN); set O_NONBLOCK"


class MainLoop:
    """Polls what is watched and calls back, in one thread; used once.

    A callback may take ``limit`` seconds.
    """

    def __init__(self, *watches: Watch, limit: float = _LIMIT) -> None:
        self._watches = list(watches)
        self._limit = limit
        self._changed = threading.Condition()  # guards all that follows
        self._in_hand: Watch | None = None
        self._began = 0.0
        self._is_over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(name="main loop", daemon=True)

    def run(self, until: Callable[[], bool], seconds: float) -> None:
        """Go on until ``until`` says so; it is asked in each turn.

        Raises:
            HangError: a callback did not come back within the limit. The loop ends
                when it does: see `join`.
            TimeoutError: that did not come within ``seconds``.
            Exception: what a callback raised.
        """
        limit = time.monotonic() + seconds
        self._thread = threading.Thread(
            target=self._run, args=(until, limit), name="main loop", daemon=True
        )
        self._thread.start()
        with self._changed:
            while not self._is_over:
                self._changed.wait(self._left())
                if not self._is_over and self._in_hand is not None and not self._left():
                    self._is_over = True
                    raise self._name_hang(self._in_hand)
        self._thread.join()
        if self._error is not None:
            raise self._error
        if not until():
            message = f"the loop did not come to its end within {seconds:g} s"
            raise TimeoutError(message)

    def join(self, seconds: float) -> bool:
        """Wait for the end of the loop; return whether it has come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _left(self) -> float:
        """Return how long the callback in hand may take, or the next one."""
        if self._in_hand is None:
            return self._limit
        return max(0.0, self._began + self._limit - time.monotonic())

    def _run(self, until: Callable[[], bool], limit: float) -> None:
        try:
            while not self._is_over and not until() and time.monotonic() < limit:
                for watch in self._poll(limit):
                    if not self._call(watch):
                        self._watches.remove(watch)
        except BaseException as error:  # it is raised by who runs the loop
            self._error = error
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _poll(self, limit: float) -> list[Watch]:
        """Wait for what is watched, until the limit; return whose turn it is."""
        poll = select.poll()
        wanted: dict[int, int] = {}
        for watch in self._watches:
            number = watch.descriptor()
            wanted[number] = wanted.get(number, 0) | flags_of(watch.event)
        for number, flags in wanted.items():
            poll.register(number, flags)
        ready = dict(poll.poll(max(0.0, limit - time.monotonic()) * 1000))
        return [
            watch
            for watch in self._watches
            if (revents := ready.get(watch.descriptor(), 0)) & ERRORS
            or events_of(revents) & watch.event
        ]

    def _call(self, watch: Watch) -> bool:
        with self._changed:
            if self._is_over:
                return True
            self._in_hand, self._began = watch, time.monotonic()
            self._changed.notify_all()
        keeps_on = watch.callback()
        with self._changed:
            self._in_hand = None
            self._changed.notify_all()
        return keeps_on

    def _name_hang(self, watch: Watch) -> HangError:
        frames = _frames_of(self._thread)
        calls = [frame for frame in frames if frame.f_code.co_name in _CALLS]
        name = (calls or frames[-1:])[0].f_code.co_name
        where = f"{PurePath(frames[-1].f_code.co_filename).name}:{frames[-1].f_lineno}"
        does = f"{name}() blocks" if calls else f"{name}() does not return ({where})"
        message = f"{watch} was ready, and {does}: {self._limit:.1f} s"
        if calls and (advice := watch.advice()):
            message = f"{message}; {advice}"
        return HangError(message, call=name, where=where)


def _frames_of(thread: threading.Thread) -> list[FrameType]:
    """Return where a thread is, outermost first."""
    frames = []
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]
