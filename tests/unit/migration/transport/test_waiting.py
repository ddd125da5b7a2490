"""Waiting for descriptors and for streams that have a wait of their own, at once."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import TYPE_CHECKING

import pytest

from vfiomig.migration.transport import make_memory_pair, make_unix_pair
from vfiomig.migration.transport.base import poll_of
from vfiomig.migration.transport.channels import PutBack
from vfiomig.migration.transport.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.migration.transport import ByteStream, Pair

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
LONG = 30.0  # seconds that nobody waits for


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = make_unix_pair()
    yield ends
    for end in ends:
        end.close()


class Polled:
    """A stream with a wait of its own, which really waits."""

    def __init__(self, stream: ByteStream, *, ready_after: int | None = None) -> None:
        self.stream = stream
        self.asked: list[tuple[int, float]] = []
        self._ready_after = ready_after

    def send(self, data: memoryview) -> int:
        return self.stream.send(data)

    def receive_into(self, buffer: memoryview) -> int | None:
        return self.stream.receive_into(buffer)

    def finish(self) -> None:
        self.stream.finish()

    def close(self) -> None:
        self.stream.close()

    def fileno(self) -> None:
        """It has none."""

    def poll(self, event: int, seconds: float) -> bool:
        self.asked.append((event, seconds))
        if self._ready_after is not None:
            return len(self.asked) > self._ready_after
        with selectors.DefaultSelector() as selector:
            selector.register(self.stream.fileno() or -1, event)
            return bool(selector.select(seconds))


def waiting_for(*streams: tuple[ByteStream, int]) -> Waiting:
    waiting = Waiting()
    for stream, event in streams:
        waiting.add(stream, event)
    return waiting


# -- descriptors ----------------------------------------------------------------------


def test_where_there_is_nothing_to_wait_for_nobody_waits() -> None:
    waiting = waiting_for(*((end, READ) for end in make_memory_pair()))
    assert waiting.is_empty
    assert not waiting.wait(LONG)


def test_a_closed_stream_is_not_waited_for(pair: Pair) -> None:
    pair[0].close()
    assert waiting_for((pair[0], READ)).is_empty


def test_any_of_several_descriptors_ends_the_wait(pair: Pair) -> None:
    assert not waiting_for((pair[0], READ), (pair[1], READ)).wait(0.01)
    pair[0].send(memoryview(b"!"))
    assert waiting_for((pair[0], READ), (pair[1], READ)).wait(LONG)


def test_both_events_of_one_descriptor_are_waited_for(pair: Pair) -> None:
    for events in ((READ, WRITE), (WRITE, READ)):
        assert waiting_for(*((pair[0], event) for event in events)).wait(LONG)


def test_a_descriptor_without_a_stream_is_waited_for() -> None:
    one, other = socket.socketpair()
    with one, other:
        waiting = Waiting()
        waiting.add_descriptor(other.fileno(), READ)
        assert not waiting.wait(0)
        one.send(b"!")
        assert waiting.wait(LONG)


# -- waits of their own ---------------------------------------------------------------


def test_a_stream_without_a_descriptor_is_asked_by_its_poll(pair: Pair) -> None:
    stream = Polled(pair[1])
    waiting = waiting_for((stream, READ))
    assert not waiting.is_empty
    pair[0].send(memoryview(b"!"))
    assert waiting.wait(LONG)
    assert stream.asked == [(READ, 0)]


def test_a_limit_of_nothing_still_asks_everyone_once(pair: Pair) -> None:
    streams = [Polled(end) for end in pair]
    assert not waiting_for(*((each, READ) for each in streams)).wait(0)
    assert [each.asked for each in streams] == [[(READ, 0)]] * 2


def test_one_that_waits_alone_is_given_all_the_time(pair: Pair) -> None:
    stream = Polled(pair[1])
    assert not waiting_for((stream, READ)).wait(0.02)
    (_, first), (_, second), *others = stream.asked
    assert first == 0
    assert second == pytest.approx(0.02, abs=0.01)
    assert len(others) <= 1  # a last one, if it came back too early


def test_those_that_wait_together_take_short_turns(pair: Pair) -> None:
    streams = [Polled(end) for end in pair]
    assert not waiting_for(*((each, READ) for each in streams)).wait(0.1)
    for each in streams:
        assert len(each.asked) > 2
        assert max(seconds for _, seconds in each.asked) <= 0.001


def test_nobody_waits_before_all_were_asked(pair: Pair) -> None:
    idle, ready = Polled(pair[0]), Polled(pair[1], ready_after=0)
    assert waiting_for((idle, READ), (ready, WRITE)).wait(LONG)
    assert idle.asked == [(READ, 0)]
    assert ready.asked == [(WRITE, 0)]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_descriptor_ends_the_wait_beside_a_poll(
    pair: Pair, *, is_first: bool
) -> None:
    idle = Polled(pair[0])
    both: list[tuple[ByteStream, int]] = [(pair[1], READ), (idle, READ)]
    assert not waiting_for(*(both if is_first else both[::-1])).wait(0.01)
    assert max(seconds for _, seconds in idle.asked) <= 0.001
    pair[0].send(memoryview(b"!"))
    assert waiting_for(*(both if is_first else both[::-1])).wait(LONG)


def test_a_wait_in_vain_ends_at_its_limit(pair: Pair) -> None:
    began = time.monotonic()
    assert not waiting_for((Polled(pair[0]), READ), (pair[1], READ)).wait(0.03)
    assert 0.03 <= time.monotonic() - began < 5


def test_what_was_put_back_waits_as_the_stream_inside(pair: Pair) -> None:
    stream = Polled(pair[1], ready_after=0)
    back = PutBack(stream, b"QEVM")
    assert waiting_for((back, READ)).wait(LONG)
    assert stream.asked == [(READ, 0)]
    assert poll_of(PutBack(pair[0], b"QEVM")) is None
    with contextlib.closing(back):
        assert not waiting_for((PutBack(pair[0], b""), READ)).is_empty
