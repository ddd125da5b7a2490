"""The hang of a blocking rsocket that a main loop watches: shown, found and named.

A claim is a function named for what it claims; each gets a fresh connection.  They run
on the model and on librdmacm alike.
"""

from __future__ import annotations

import contextlib
import selectors
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.migration.transport.rsocket.poller import Poller
from vfiomig.migration.transport.rsocket.stream import ANYWHERE, Rsockets
from vfiomig.migration.transport.rsocket.watch import (
    HangError,
    MainLoop,
    Watch,
    WatchedRsocket,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.rsocket.library import Address, RsocketLibrary
    from vfiomig.migration.transport.rsocket.stream import RsocketStream

_MORE_THAN_A_WINDOW: Final = 1 << 20


class Desk:
    """Two ends: one that a main loop watches, and its peer."""

    def __init__(
        self,
        watched: WatchedRsocket,
        peer: RsocketStream,
        limit: float,
        wait_seconds: float,
    ) -> None:
        self.watched = watched
        self.peer = peer
        self.limit = limit
        self.wait_seconds = wait_seconds
        self.counts: list[int | None] = []  # what the callback's calls answered

    def reading(self) -> MainLoop:
        """Return a loop that reads whenever there is something to read."""

        def read() -> bool:
            self.counts.append(self.watched.read(memoryview(bytearray(64))))
            return self.counts[-1] != 0

        watch = self.watched.create_watch(selectors.EVENT_READ, read)
        return MainLoop(watch, limit=self.limit)

    def writing(self, *others: Watch) -> MainLoop:
        """Return a loop that writes whenever there is room, with others beside."""
        data = memoryview(bytes(_MORE_THAN_A_WINDOW))

        def write() -> bool:
            self.counts.append(self.watched.write(data))
            return True

        watch = self.watched.create_watch(selectors.EVENT_WRITE, write)
        return MainLoop(watch, *others, limit=self.limit)

    def say(self, words: bytes) -> None:
        """Let the peer send."""
        if self.peer.send(memoryview(words)) != len(words):
            fail(f"the window is open, and {words!r} was not taken")

    def expect_hang(self, loop: MainLoop, call: str) -> None:
        """Run the loop, and see it hang in a call, and that named."""
        try:
            loop.run(lambda: False, self.wait_seconds)
        except HangError as error:
            said = str(error)
        else:
            fail("it did not hang")
        expected = (
            f"the watch on rsocket {self.watched.number} was ready, and {call}() "
            f"blocks: {self.limit:.1f} s; a blocking rsocket is never cleared (no "
            "EAGAIN); set O_NONBLOCK"
        )
        if said != expected:
            fail(f"it says {said!r}, not {expected!r}")
        if loop.join(0):
            fail("it was said to hang, and it has ended")

    def expect_end(self, loop: MainLoop) -> None:
        """See that the loop comes to its end."""
        if not loop.join(self.wait_seconds):
            fail("it still hangs")


def check_rsocket_watch(
    make_library: Callable[[], RsocketLibrary],
    address: Address = ANYWHERE,
    *,
    limit: float = 1.0,
    wait_seconds: float = 10.0,
) -> None:
    """Show that a blocking rsocket hangs the loop that watches it, and no other does.

    ``limit`` is how long a callback may take, and ``wait_seconds`` how long anything
    else. Raises AssertionError that names the broken claim.
    """
    for claim in _CLAIMS:
        library = make_library()
        with contextlib.ExitStack() as opened:
            peer, end = Rsockets(library, "thread").pair(address)
            opened.callback(peer.close)
            opened.callback(end.close)
            watched = WatchedRsocket(library, Poller(library), end.number)
            opened.callback(watched.close)
            try:
                claim(Desk(watched, peer, limit, wait_seconds))
            except Exception as error:
                saw = error if isinstance(error, AssertionError) else repr(error)
                message = f"{claim.__name__.strip('_').replace('_', ' ')}: {saw}"
                raise AssertionError(message) from error


def _a_blocking_one_hangs_in_rrecv_until_the_peer_sends(desk: Desk) -> None:
    desk.watched.set_blocking(blocking=True)
    desk.say(b"hello")
    loop = desk.reading()
    desk.expect_hang(loop, "rrecv")
    if desk.counts != [5]:
        fail(f"it answered {desk.counts}, where one call should find 5 bytes")
    desk.say(b"!")
    desk.expect_end(loop)
    if desk.counts != [5, 1]:
        fail(f"it answered {desk.counts}, where 5 bytes and then 1 were sent")


def _a_blocking_one_hangs_in_rrecv_until_the_peer_closes(desk: Desk) -> None:
    desk.watched.set_blocking(blocking=True)
    desk.say(b"hello")
    loop = desk.reading()
    desk.expect_hang(loop, "rrecv")
    desk.peer.close()
    desk.expect_end(loop)
    if desk.counts != [5, 0]:
        fail(f"it answered {desk.counts}, where the end comes behind 5 bytes")


def _a_blocking_one_hangs_in_rsend_until_the_peer_closes(desk: Desk) -> None:
    desk.watched.set_blocking(blocking=True)
    loop = desk.writing()
    desk.expect_hang(loop, "rsend")
    desk.peer.close()
    desk.expect_end(loop)


def _one_with_o_nonblock_is_called_when_there_is_something(desk: Desk) -> None:
    desk.say(b"hello")
    loop, words = desk.reading(), [b"!"]

    def until() -> bool:
        sleeps = desk.counts[-1:] == [None]  # there is nothing more to read
        if sleeps and words:
            desk.say(words.pop())
            return False
        return sleeps and [count for count in desk.counts if count] == [5, 1]

    loop.run(until, desk.wait_seconds)


def _one_with_o_nonblock_is_called_when_the_window_opens(desk: Desk) -> None:
    room, arrived = memoryview(bytearray(1 << 20)), 0

    def drain() -> bool:
        nonlocal arrived
        arrived += desk.peer.receive_into(room) or 0
        return True

    loop = desk.writing(Watch(desk.peer, selectors.EVENT_READ, drain))
    loop.run(lambda: arrived > _MORE_THAN_A_WINDOW, desk.wait_seconds)
    if None not in desk.counts:
        fail("more than a window was taken, and none was full")


_CLAIMS: Final = (
    _a_blocking_one_hangs_in_rrecv_until_the_peer_sends,
    _a_blocking_one_hangs_in_rrecv_until_the_peer_closes,
    _a_blocking_one_hangs_in_rsend_until_the_peer_closes,
    _one_with_o_nonblock_is_called_when_there_is_something,
    _one_with_o_nonblock_is_called_when_the_window_opens,
)


def fail(saw: str) -> NoReturn:
    """Raise AssertionError with what was seen."""
    raise AssertionError(saw)
