"""Rows: bytes in two memories as one stream, and streams that move them badly."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vfiomig.migration.transport import (
    CutLink,
    check_transport,
    make_memory_pair,
    make_unix_pair,
)
from vfiomig.migration.transport.rows import Rows, Span, copy, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport import Pair
    from vfiomig.migration.transport.stream_socket import SocketStream

HEADS = b"abcdef"
BODIES = bytes(range(15))
JOINED = b"ab" + BODIES[:5] + b"cd" + BODIES[5:10] + b"ef" + BODIES[10:]


def rows(heads: bytes, bodies: bytes, count: int) -> Rows:
    tables = [
        np.frombuffer(bytearray(part), np.uint8).reshape(count, -1)
        for part in (heads, bodies)
    ]
    return Rows(*tables)


def blank(count: int, head: int, body: int) -> Rows:
    return rows(bytes(count * head), bytes(count * body), count)


SPANS = [(0, 21), (0, 0), (1, 2), (1, 7), (2, 20), (7, 14), (3, 9), (8, 21), (13, 15)]


@pytest.mark.parametrize(("start", "end"), SPANS)
def test_a_span_is_head_and_body_by_turns(start: int, end: int) -> None:
    span = rows(HEADS, BODIES, 3).span(0, 3)[start:end]
    assert bytes(span) == JOINED[start:end]
    assert len(span) == end - start


def test_a_span_of_a_span_is_counted_from_its_start() -> None:
    span = rows(HEADS, BODIES, 3).span(1, 3)
    assert bytes(span) == JOINED[7:]
    assert bytes(span[2:][1:4]) == JOINED[10:13]
    assert bytes(span[:100]) == JOINED[7:]
    assert bytes(span[100:]) == b""


@pytest.mark.parametrize(("start", "end"), SPANS)
def test_bytes_are_put_where_they_belong_and_nowhere_else(start: int, end: int) -> None:
    table = blank(3, 2, 5)
    table.span(0, 3)[start:end].copy_from(memoryview(JOINED)[start:end])
    wanted = bytes(start) + JOINED[start:end] + bytes(21 - end)
    assert bytes(table.span(0, 3)) == wanted


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (1, 1), (7, 14)])
@pytest.mark.parametrize("shift", [0, 3, 7])
@pytest.mark.parametrize("size", [1, 7, 11, 14])
def test_rows_are_copied_into_rows_of_any_shape(
    shape: tuple[int, int], shift: int, size: int
) -> None:
    source = rows(HEADS, BODIES, 3).span(0, 3)
    table = blank(21 // sum(shape) + 1, *shape)
    into = table.span(0, len(table.heads))[shift : shift + size]
    copy(into, source[:size])
    assert bytes(into) == JOINED[:size]
    everything = bytes(table.span(0, len(table.heads)))
    assert everything.replace(b"\0", b"") == JOINED[:size].replace(b"\0", b"")


def test_what_is_no_table_is_refused() -> None:
    pages = np.zeros((4, 6), np.uint8)
    for heads, bodies in (
        (pages[:, :2], pages),
        (pages[::2], pages[:2]),
        (pages.reshape(-1), pages),
        (pages[:3], pages),
        (pages[:, :0], pages),
    ):
        with pytest.raises(ValueError, match=r"rows|heads of"):
            Rows(heads, bodies)


@pytest.mark.parametrize("first", range(21))
def test_a_socket_takes_any_part_of_rows(first: int) -> None:
    source = rows(HEADS, BODIES, 3).span(0, 3)
    for end in range(first + 1, 22):
        near, far = make_unix_pair()
        assert near.send_rows(source[first:end]) == end - first  # type: ignore[attr-defined]
        room = bytearray(30)
        assert far.receive_into(memoryview(room)) == end - first
        assert room[: end - first] == JOINED[first:end]
        assert far.send(memoryview(room)[: end - first]) == end - first
        table = blank(3, 2, 5)
        back = table.span(0, 3)[first:end]
        assert near.receive_rows(back) == end - first  # type: ignore[attr-defined]
        wanted = bytes(first) + JOINED[first:end] + bytes(21 - end)
        assert bytes(table.span(0, 3)) == wanted
        near.close()
        far.close()


def test_a_wrapped_link_moves_no_rows() -> None:
    near, far = make_memory_pair()
    assert rows_of(near) is not None
    assert rows_of(CutLink(far, 10)) is None


class Inside:
    """A sound stream that moves rows; each class below misbehaves in one way."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def send_rows(self, span: Span) -> int:
        return self.stream.send_rows(span)

    def receive_rows(self, span: Span) -> int | None:
        return self.stream.receive_rows(span)


class SendsTheHeadsOnly(Inside):
    def send_rows(self, span: Span) -> int:
        heads = bytes(span.rows.heads)[: len(span)]
        return self.stream.send(memoryview(heads))


class ForgetsWhereItWas(Inside):
    def send_rows(self, span: Span) -> int:
        return self.stream.send_rows(Span(span.rows, 0, len(span)))


class ReceivesIntoTheBodiesOnly(Inside):
    def receive_rows(self, span: Span) -> int | None:
        if span.start == span.end or span.rows.readonly:
            return self.stream.receive_rows(span)
        room = span.rows.bodies.reshape(-1)[: len(span)]
        return self.stream.receive_into(room.data)


class SaysItTookAll(Inside):
    def send_rows(self, span: Span) -> int:
        self.stream.send_rows(span)
        return len(span)


class TakesRowsWhenFinished(Inside):
    is_finished = False

    def finish(self) -> None:
        self.is_finished = True
        self.stream.finish()

    def send_rows(self, span: Span) -> int:
        return 0 if self.is_finished else self.stream.send_rows(span)


class KeepsRows(Inside):
    def receive_rows(self, span: Span) -> int | None:
        self.kept = span
        return self.stream.receive_rows(span)


class BlocksNoRoom(Inside):
    def receive_rows(self, span: Span) -> int | None:
        return self.stream.receive_rows(span) if len(span) else 0


FAULTS = {
    SendsTheHeadsOnly: "rows arrive complete and in order",
    ForgetsWhereItWas: "rows arrive complete and in order",
    ReceivesIntoTheBodiesOnly: "rows arrive complete and in order",
    SaysItTookAll: "more rows than any buffer holds arrive",
    TakesRowsWhenFinished: "rows end with the stream",
    KeepsRows: "rows are let go of",
    BlocksNoRoom: "rows without room are refused",
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_suite_finds_streams_that_move_rows_badly(fault: type[Inside]) -> None:
    def make() -> Pair:
        near, far = make_unix_pair()
        return fault(near), fault(far)  # type: ignore[arg-type,return-value]

    with pytest.raises(AssertionError, match=f"^{FAULTS[fault]}"):
        check_transport(make, wait_seconds=0.05)


@pytest.mark.parametrize("make_pair", [make_memory_pair, make_unix_pair])
def test_rows_that_are_sent_and_received_at_different_places_of_a_row(
    make_pair: Callable[[], Pair],
) -> None:
    near, far = make_pair()
    source, table = rows(HEADS, BODIES, 3).span(0, 3), blank(4, 2, 5)
    room = table.span(0, 4)[3:24]
    got, sent = 0, 0
    for most in itertools.cycle([1, 4, 2]):
        if not (count := far.receive_rows(room[got : got + 6])):  # type: ignore[attr-defined]
            sent += near.send_rows(source[sent : sent + most])  # type: ignore[attr-defined]
            count = far.receive_rows(room[got : got + 6])  # type: ignore[attr-defined]
        got += count or 0
        if got == 21:
            break
    assert bytes(table.span(0, 4)) == bytes(3) + JOINED + bytes(4)
    near.close()
    far.close()
