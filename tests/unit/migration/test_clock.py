"""Virtual time: what moves it, and what does not."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.migration.clock import SECOND, Channel, LinkModel, VirtualClock

bandwidths = st.integers(1, 1 << 34) | st.sampled_from([3, 7, 1000, 1 << 30])
latencies = st.integers(0, 10**9)

# What a sender does: it waits for some nanoseconds, then sends some bytes.
histories = st.lists(
    st.tuples(st.integers(0, 10**6) | st.just(0), st.integers(1, 50)),
    min_size=1,
    max_size=5,
)


def make(bandwidth: int, latency: int) -> tuple[VirtualClock, VirtualClock, Channel]:
    sender, receiver = VirtualClock(), VirtualClock()
    return sender, receiver, Channel(LinkModel(bandwidth, latency), sender, receiver)


def test_a_clock_begins_at_0() -> None:
    clock = VirtualClock()
    assert clock.now == 0
    clock.advance(5)
    assert clock.now == 5


def test_bytes_occupy_the_link_and_then_travel() -> None:
    # 1000 bytes at 1 MB/s are a millisecond, and 50 us of way.
    sender, receiver, channel = make(10**6, 50_000)
    channel.send(1000)
    assert (sender.now, receiver.now) == (1_000_000, 0)
    channel.receive(1000)
    assert (sender.now, receiver.now) == (1_000_000, 1_050_000)
    assert LinkModel(10**6, 50_000).duration(1000) == 1_000_000


def test_a_byte_is_there_when_it_has_arrived_not_when_all_have() -> None:
    _, receiver, channel = make(10**9, 0)  # a byte a nanosecond
    channel.send(1000)
    channel.receive(1)
    assert receiver.now == 1
    channel.receive(499)
    assert receiver.now == 500


def test_a_receiver_that_comes_late_does_not_wait() -> None:
    _, receiver, channel = make(10**9, 10)
    channel.send(100)
    receiver.advance(5000)
    channel.receive(100)
    assert receiver.now == 5000


def test_a_pause_of_the_sender_is_a_pause_of_the_stream() -> None:
    sender, receiver, channel = make(10**9, 0)
    channel.send(100)
    sender.advance(1000)
    channel.send(100)
    assert sender.now == 1200
    channel.receive(100)
    assert receiver.now == 100
    channel.receive(1)
    assert receiver.now == 1101


def test_a_sender_whose_clock_moved_by_other_means_sends_from_then_on() -> None:
    # The source reads the answer: its clock is moved by the other direction.
    source, destination, forth = make(10**9, 7)
    back = Channel(LinkModel(10**9, 7), destination, source)
    forth.send(100)
    forth.receive(100)
    assert destination.now == 107
    back.send(10)
    back.receive(10)
    assert source.now == 107 + 10 + 7
    forth.send(1)
    forth.receive(1)
    assert destination.now == 124 + 1 + 7


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_fractions_of_a_nanosecond_are_not_lost(size: int) -> None:
    # At 3 GB/s a byte takes a third of a nanosecond.
    sender, receiver, channel = make(3 * 10**9, 0)
    for _ in range(3000 // size):
        channel.send(size)
        channel.receive(size)
    assert sender.now == receiver.now == 1000


def sent_in_one(history: list[tuple[int, int]], bandwidth: int) -> list[Fraction]:
    """When each byte has left, by hand and in fractions: one send at a time."""
    now, left, dates = 0, Fraction(-1), []
    for pause, size in history:
        now += pause
        begins = left if floor(left) == now else Fraction(now)
        dates += [
            begins + Fraction(SECOND * count, bandwidth) for count in range(1, size + 1)
        ]
        left = dates[-1]
        now = max(now, floor(left))
    return dates


@settings(max_examples=30)
@given(bandwidth=bandwidths, latency=latencies, history=histories, data=st.data())
def test_a_date_does_not_depend_on_how_the_stream_was_cut(
    bandwidth: int, latency: int, history: list[tuple[int, int]], data: st.DataObject
) -> None:
    dates = sent_in_one(history, bandwidth)
    sender, receiver, channel = make(bandwidth, latency)
    received = 0

    def receive_some() -> None:
        nonlocal received
        size = data.draw(st.integers(0, channel.sent - received))
        if size:
            channel.receive(size)
            received += size
            assert receiver.now == floor(dates[received - 1]) + latency

    for pause, size in history:
        sender.advance(pause)
        left = size
        while left:
            piece = data.draw(st.integers(1, left))
            channel.send(piece)
            left -= piece
            receive_some()
    assert channel.sent == len(dates)
    assert sender.now == floor(dates[-1])
    if received < channel.sent:
        channel.receive(channel.sent - received)
    assert receiver.now == floor(dates[-1]) + latency


@given(bandwidth=bandwidths, size=st.integers(0, 1 << 40))
def test_a_duration_is_rounded_down_once(bandwidth: int, size: int) -> None:
    exact = Fraction(size * SECOND, bandwidth)
    assert LinkModel(bandwidth, 0).duration(size) == floor(exact)
