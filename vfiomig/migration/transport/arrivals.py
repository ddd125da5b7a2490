"""Source and destination of several channels, for the suite in check_channels.py.

Neither waits without a limit, and the clock is moved by hand: whoever is late is so
without a second passing.
"""

from __future__ import annotations

import contextlib
import selectors
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.channels import IncomingChannels
from vfiomig.migration.transport.flow import Link, Patience, fail, receive, send
from vfiomig.migration.transport.waiting import Waiting
from vfiomig.protocol.multifd import InitialPacket, encode_initial

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.base import ByteStream, Listener, Pair

# What stands at the head of a migration stream, with more than was peeked at behind.
MAIN: Final = b"QEVM\0\0\0\3 and what follows"
UUID: Final = bytes(range(16))
PATIENCE: Final = 30  # seconds of a clock that nobody waits for

Who = int | None  # a channel's number, None for the main one


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


class Bench:
    """A listener, the source's ends of what connects to it, and the destination."""

    def __init__(
        self,
        make: Callable[[], Listener],
        wait_seconds: float,
        opened: contextlib.ExitStack,
        most: int,
    ) -> None:
        self._make = make
        self._opened = opened
        self.most = most
        self.wait_seconds = wait_seconds
        self.clock = Clock()
        self.listener = self.listen()

    def listen(self) -> Listener:
        """Return another listener, closed at the end of the claim."""
        listener = self._make()
        self._opened.callback(close, listener)
        return listener

    def connect(self, listener: Listener | None = None) -> ByteStream:
        """Return the source's end of a new connection, closed with the claim."""
        stream = (listener or self.listener).connect()
        self._opened.callback(close, stream)
        return stream

    def accept(self, listener: Listener | None = None) -> ByteStream:
        """Wait for a connection, and accept it."""
        listener = listener or self.listener
        patience = self.patience()
        while (stream := listener.accept()) is None:
            if not patience.wait(_readable(listener)):
                fail(f"no connection waits to be accepted: {patience.end()}")
        self._opened.callback(close, stream)
        return stream

    def await_connection(self) -> None:
        """Wait until one waits to be accepted, where that can be waited for.

        Raises AssertionError if none does in time.
        """
        waiting = _readable(self.listener)
        if not (waiting.is_empty or waiting.wait(self.wait_seconds)):
            fail(f"no connection waits to be accepted within {self.wait_seconds:g} s")

    def pair(self) -> Pair:
        """Return both ends of one connection to a listener of its own."""
        listener = self.listen()
        near = self.connect(listener)
        far = self.accept(listener)
        listener.close()
        return near, far

    def incoming(self, wanted: int, listener: Listener | None = None) -> Arrivals:
        """Return the destination of a migration with that many channels."""
        channels = IncomingChannels(
            listener or self.listener,
            wanted=wanted,
            uuid=UUID,
            patience=PATIENCE,
            clock=self.clock,
        )
        self._opened.callback(close, channels)
        return Arrivals(channels, self)

    def link(self, near: ByteStream, far: ByteStream) -> Link:
        """Return what moves bytes between two ends."""
        return Link(near, far, self.wait_seconds)

    def patience(self) -> Patience:
        """Return how long one wait may take."""
        return Patience(self.wait_seconds)


class Arrivals:
    """The destination, and how far the source's channels have said who they are."""

    def __init__(self, channels: IncomingChannels, bench: Bench) -> None:
        self.channels = channels
        self._bench = bench
        self._unsaid: dict[int, tuple[ByteStream, memoryview]] = {}

    def say(self, stream: ByteStream, words: bytes) -> None:
        """Let a channel's source say that, as soon as it is taken."""
        self._unsaid[id(stream)] = (stream, memoryview(words))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Step until something holds, with a limit on every wait."""
        patience = self._bench.patience()
        while not condition():
            moved = self.talk()
            if self.channels.step() or moved:
                patience = self._bench.patience()
                continue
            waiting = Waiting()
            self.channels.wait_on(waiting)
            if not patience.wait(waiting):
                fail(f"{what}: nothing more comes: {patience.end()}")

    def has(self, who: Who) -> bool:
        """Tell whether a channel has come."""
        channels = self.channels
        return channels.main is not None if who is None else who in channels.channels

    def end_of(self, who: Who) -> ByteStream:
        """Return the destination's end of a channel that has come."""
        stream = self.channels.main if who is None else self.channels.channels[who]
        assert stream is not None
        return stream

    def has_heard(self, stream: ByteStream) -> bool:
        """Tell whether all that a channel's source had to say was taken."""
        return id(stream) not in self._unsaid

    def speak(self, near: ByteStream, who: Who) -> None:
        """Let a channel say which it is, and wait until it has come."""
        self.say(near, MAIN if who is None else words_of(who))
        self.until(lambda: self.has(who), name_of(who))

    def hear(self, who: Who) -> bytes:
        """Return what a channel that has come said behind its number."""
        far, arrived = self.end_of(who), b""
        expected = len(MAIN) if who is None else 0
        while len(arrived) < expected:
            room = bytearray(expected - len(arrived))
            if not (count := self._receive(far, room)):
                break
            arrived += room[:count]
        return arrived

    def _receive(self, far: ByteStream, room: bytearray) -> int | None:
        patience = self._bench.patience()
        while (count := receive(far, memoryview(room))) is None:
            if not self.talk() and not patience.wait(_readable(far)):
                return None
        return count

    def talk(self) -> bool:
        """Let everyone say what is taken now; return whether anything was."""
        moved = False
        for name, (stream, words) in list(self._unsaid.items()):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if taken := send(stream, words):
                    moved = True
                    self._unsaid[name] = (stream, words[taken:])
            if not self._unsaid[name][1]:
                del self._unsaid[name]
        return moved


def words_of(channel: int) -> bytes:
    """Return what a multifd channel of this migration says first."""
    return encode_initial(InitialPacket(channel, UUID))


def name_of(who: Who) -> str:
    """Return what to call a channel."""
    return "the main channel" if who is None else f"channel {who}"


def _readable(stream: ByteStream | Listener) -> Waiting:
    waiting = Waiting()
    waiting.add(stream, selectors.EVENT_READ)
    return waiting


def close(opened: ByteStream | Listener | IncomingChannels) -> None:
    """Close something, whatever it says to that."""
    # The claims judge close(); here it only has to be tried.
    with contextlib.suppress(Exception):
        opened.close()
