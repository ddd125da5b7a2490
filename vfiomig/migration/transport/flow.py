"""Moving bytes between two ends by calls that do not block, for the suite in check.py.

Nothing waits without a limit.  Where no byte moves, the ends are waited for, so many
seconds at most, however often they are ready in vain; where there is nothing to wait
for, a link that stands still for a few rounds does so for ever.
Whatever an end answers is judged here: AssertionError says what was seen.
"""

from __future__ import annotations

import itertools
import selectors
import time
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from vfiomig.migration.transport.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from vfiomig.migration.transport.base import ByteStream, Pair

# Rounds in which nothing moves: one to post a buffer and one to fill it are honest.
_IDLE_ROUNDS: Final = 4


class Patience:
    """How long nothing may move: seconds, or rounds without anything to wait for.

    A stream may say "ready" for a call that then moves nothing, and one that is to be
    called again to see always does.  So it is the time that counts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit: float | None = None
        self._rounds = 0

    def wait(self, waiting: Waiting) -> bool:
        """Wait after a round in which nothing moved; False when it was the last."""
        if waiting.is_empty:
            self._rounds += 1
            return self._rounds < _IDLE_ROUNDS
        now = time.monotonic()
        if self._limit is None:
            self._limit = now + self._seconds
        return now < self._limit and waiting.wait(self._limit - now)

    def end(self) -> str:
        """Say how long it was."""
        if self._rounds:
            return f"nothing moved in {self._rounds} rounds of calls"
        return f"nothing moved within {self._seconds} s"


class Moving(Protocol):
    """Bytes that go one way."""

    source: ByteStream
    sink: ByteStream

    @property
    def is_sent(self) -> bool:
        """Whether the source took everything."""

    @property
    def has_arrived(self) -> bool:
        """Whether the sink got everything."""

    def step(self) -> bool:
        """Offer a piece and ask for one; return whether any byte moved."""


class Flow:
    """Bytes that go one way, in sends of given sizes and into given buffers.

    Without sizes every send offers all that is left; without buffers there is one of
    a mebibyte.
    """

    def __init__(
        self,
        ends: Pair,
        payload: bytes,
        *,
        sends: Sequence[int] = (),
        rooms: Sequence[bytearray] = (),
    ) -> None:
        self.source, self.sink = ends
        self._payload = memoryview(payload)
        self._sends = itertools.cycle(sends or [len(payload)])
        self._rooms = itertools.cycle(rooms or [bytearray(1 << 20)])
        self._buffer: memoryview | None = None
        self._sent = self._received = 0

    @property
    def is_sent(self) -> bool:
        """Whether the source took everything."""
        return self._sent == len(self._payload)

    @property
    def has_arrived(self) -> bool:
        """Whether the sink got everything."""
        return self._received == len(self._payload)

    def step(self) -> bool:
        """Offer a piece and ask for one; return whether any byte moved."""
        before = self._sent + self._received
        if not self.is_sent:
            piece = self._payload[self._sent :][: next(self._sends)]
            self._sent += send(self.source, piece)
        if not self.has_arrived:
            self._take()
        return self._sent + self._received > before

    def _take(self) -> None:
        if self._buffer is None:
            self._buffer = memoryview(next(self._rooms))
        count = receive(self.sink, self._buffer)
        if count is None:
            return
        if count == 0:
            fail(f"the stream ended after {self._received} bytes of {self._sent} sent")
        if self._buffer[:count] != self._payload[self._received :][:count]:
            fail(f"a byte differs among the {count} from byte {self._received} on")
        self._received += count
        self._buffer = None


class Link:
    """The two ends of one link, and what the claims do with them."""

    def __init__(self, near: ByteStream, far: ByteStream, wait_seconds: float) -> None:
        self.near, self.far = near, far
        self.there: Pair = near, far
        self.back: Pair = far, near
        self._wait_seconds = wait_seconds

    def move(self, *flows: Moving) -> None:
        """Alternate the flows until all bytes of all of them have arrived."""
        while not all(flow.has_arrived for flow in flows):
            self._go_on(
                lambda: sum(flow.step() for flow in flows) > 0,
                readers=[flow.sink for flow in flows if not flow.has_arrived],
                writers=[flow.source for flow in flows if not flow.is_sent],
            )

    def receive(self, stream: ByteStream, buffer: memoryview) -> int:
        """Wait for bytes in ``buffer``, or for the end of the stream (0)."""
        counts: list[int] = []

        def has_answer() -> bool:
            count = receive(stream, buffer)
            counts.extend([] if count is None else [count])
            return bool(counts)

        self._go_on(has_answer, readers=[stream])
        return counts[0]

    def is_readable(self, descriptor: int, *, at_once: bool) -> bool:
        """Ask a selector whether there is something to read, now or in a while."""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(0 if at_once else self._wait_seconds))

    def _go_on(
        self,
        step: Callable[[], bool],
        *,
        readers: Sequence[ByteStream],
        writers: Sequence[ByteStream] = (),
    ) -> None:
        """Call ``step`` until it returns True, and wait where it returns False."""
        patience = Patience(self._wait_seconds)
        while not step():
            if not patience.wait(_all_of(readers, writers)):
                fail(patience.end())


def send(stream: ByteStream, data: memoryview) -> int:
    """Send, and hold the count to the range that it can have."""
    taken = stream.send(data)
    if not 0 <= taken <= len(data):
        fail(f"send() took {taken} bytes of {len(data)}")
    return taken


def receive(stream: ByteStream, buffer: memoryview) -> int | None:
    """Receive, and hold the count to the range that it can have."""
    count = stream.receive_into(buffer)
    if count is not None and not 0 <= count <= len(buffer):
        fail(f"receive_into() returned {count} for a buffer of {len(buffer)} bytes")
    return count


def fail(saw: str) -> NoReturn:
    """Raise AssertionError with what was seen."""
    raise AssertionError(saw)


def _all_of(readers: Iterable[ByteStream], writers: Iterable[ByteStream]) -> Waiting:
    """Return what is to be waited for."""
    waiting = Waiting()
    for stream in readers:
        waiting.add(stream, selectors.EVENT_READ)
    for stream in writers:
        waiting.add(stream, selectors.EVENT_WRITE)
    return waiting
