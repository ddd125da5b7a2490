"""Links that misbehave once, at the byte they were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vfiomig.migration.transport import (
    ByteStream,
    CutLink,
    FlipBit,
    Pair,
    Tee,
    check_transport,
    make_memory_pair,
    make_tcp_pair,
    make_unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PAYLOAD = bytes(range(100, 120))
FAR = 1 << 40  # beyond anything that the suite sends


ROOM = memoryview(bytearray(7))


def transfer(
    source: ByteStream,
    sink: ByteStream,
    payload: bytes,
    arrived: list[bytes] | None = None,
) -> bytes:
    """Send all of ``payload``, and return what arrives before the stream ends."""
    pieces, sent = [] if arrived is None else arrived, 0
    while True:
        count = sink.receive_into(ROOM)
        if count == 0:
            return b"".join(pieces)
        pieces.append(bytes(ROOM[: count or 0]))
        if sent < len(payload):
            sent += source.send(memoryview(payload)[sent:])
        else:
            source.finish()


def wrapped(pair: Pair, wrap: Callable[[ByteStream], ByteStream]) -> Pair:
    return wrap(pair[0]), wrap(pair[1])


@pytest.mark.parametrize("make_pair", [make_memory_pair, make_unix_pair, make_tcp_pair])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda stream: CutLink(stream, FAR),
        lambda stream: FlipBit(stream, FAR, 0),
        lambda stream: Tee(stream, len),
    ],
    ids=["CutLink", "FlipBit", "Tee"],
)
def test_a_wrapped_link_without_its_fault_keeps_every_promise(
    make_pair: Callable[[], Pair], wrap: Callable[[ByteStream], ByteStream]
) -> None:
    check_transport(lambda: wrapped(make_pair(), wrap))


@pytest.mark.parametrize("position", [0, 1, 6, 7, 8, 19])
def test_bytes_before_the_cut_arrive_and_then_the_stream_ends(position: int) -> None:
    source, sink = make_memory_pair()
    cut = CutLink(source, position)
    arrived: list[bytes] = []
    with pytest.raises(ConnectionResetError, match=f"cut after {position} bytes"):
        transfer(cut, sink, PAYLOAD, arrived)
    assert cut.happened
    rest = transfer(cut, sink, b"")
    assert b"".join(arrived) + rest == PAYLOAD[:position]


def test_a_link_cut_after_the_last_byte_gives_the_sender_no_answer() -> None:
    source, sink = make_unix_pair()
    cut = CutLink(source, len(PAYLOAD))
    assert cut.send(memoryview(PAYLOAD)) == len(PAYLOAD)
    assert cut.happened
    with pytest.raises(ConnectionResetError):
        cut.receive_into(memoryview(bytearray(1)))
    with pytest.raises(BrokenPipeError):
        sink.send(memoryview(b"acknowledged"))
    sink.close()


def test_a_cut_that_was_not_reached_did_not_happen() -> None:
    source, sink = make_memory_pair()
    cut = CutLink(source, len(PAYLOAD) + 1)
    assert transfer(cut, sink, PAYLOAD) == PAYLOAD
    assert not cut.happened


def test_a_cut_link_can_be_finished_and_closed() -> None:
    source, _ = make_memory_pair()
    cut = CutLink(source, 0)
    assert cut.send(memoryview(b"")) == 0
    with pytest.raises(ConnectionResetError):
        cut.send(memoryview(b"x"))
    cut.finish()
    cut.close()


@pytest.mark.parametrize("position", range(len(PAYLOAD)))
def test_the_flipped_bit_is_the_only_difference(position: int) -> None:
    source, sink = make_memory_pair()
    flip = FlipBit(source, position, position % 8)
    expected = bytearray(PAYLOAD)
    expected[position] ^= 1 << position % 8
    assert transfer(flip, sink, PAYLOAD) == expected
    assert flip.happened


def test_a_bit_is_flipped_once() -> None:
    source, sink = make_unix_pair()
    flip = FlipBit(source, 1, 7)
    room = memoryview(bytearray(8))
    for sent, arrived in ((b"\0", b"\0"), (b"\0", b"\x80"), (b"\0\0", b"\0\0")):
        assert flip.send(memoryview(sent)) == len(sent)
        assert room[: sink.receive_into(room)] == arrived
    flip.close()
    sink.close()


def test_a_bit_of_a_byte_that_was_not_taken_is_flipped_later() -> None:
    source, sink = make_memory_pair()
    flip = FlipBit(source, 0, 0)
    assert flip.send(memoryview(b"\0")) == 0
    assert not flip.happened
    assert transfer(flip, sink, b"\0") == b"\1"


def test_an_empty_send_at_the_byte_to_flip_sends_nothing() -> None:
    flip = FlipBit(make_memory_pair()[0], 0, 0)
    assert flip.send(memoryview(b"")) == 0
    assert not flip.happened


def test_the_senders_buffer_stays_as_it_was() -> None:
    source, sink = make_memory_pair()
    flip = FlipBit(source, 3, 0)
    payload = bytearray(PAYLOAD)
    room = memoryview(bytearray(32))
    sent = 0
    while sent < len(payload):
        sink.receive_into(room)
        sent += flip.send(memoryview(payload)[sent:])
    assert payload == PAYLOAD


@pytest.mark.parametrize(
    "make", [lambda end: CutLink(end, -1), lambda end: FlipBit(end, -1, 0)]
)
def test_a_negative_position_is_refused(
    make: Callable[[ByteStream], ByteStream],
) -> None:
    with pytest.raises(ValueError, match="not -1"):
        make(make_memory_pair()[0])


@pytest.mark.parametrize("bit", [-1, 8])
def test_a_bit_that_no_byte_has_is_refused(bit: int) -> None:
    with pytest.raises(ValueError, match=f"bits 0 to 7, not {bit}"):
        FlipBit(make_memory_pair()[0], 0, bit)


def test_tee_shows_what_was_taken_and_no_more() -> None:
    source, sink = make_memory_pair()
    seen: list[bytes] = []
    tee = Tee(source, lambda view: seen.append(bytes(view)))
    assert tee.send(memoryview(b"early")) == 0
    sink.receive_into(memoryview(bytearray(3)))
    assert tee.send(memoryview(b"taken?")) == 3
    assert seen == [b"tak"]


def test_tee_shows_a_view_of_the_senders_own_buffer() -> None:
    source, sink = make_memory_pair()
    payload = bytearray(PAYLOAD)
    owners: list[object] = []
    tee = Tee(source, lambda view: owners.append(view.obj))
    sink.receive_into(memoryview(bytearray(32)))
    tee.send(memoryview(payload))
    assert owners == [payload]
    assert owners[0] is payload
    payload.append(0)  # resizing raises BufferError while a view is held


@pytest.mark.parametrize(("outside", "seen_bit"), [("tee", 0), ("flip", 1)])
def test_the_order_of_wrapping_decides_what_tee_sees(
    outside: str, seen_bit: int
) -> None:
    source, sink = make_memory_pair()
    seen = bytearray()
    stream: ByteStream
    if outside == "tee":
        stream = Tee(FlipBit(source, 0, 0), seen.extend)
    else:
        stream = FlipBit(Tee(source, seen.extend), 0, 0)
    assert transfer(stream, sink, b"\0") == b"\1"
    assert seen == bytes([seen_bit])
