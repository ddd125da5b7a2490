"""Steps that move rows, over streams that offer them and over ones that do not."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vfiomig.migration.clock import SECOND, Channel, LinkModel, VirtualClock
from vfiomig.migration.exchange import (
    Consumed,
    OffersRows,
    Party,
    Receive,
    ReceiveRows,
    Send,
    Steps,
    exchange,
)
from vfiomig.migration.transport import PAIRS, CutLink, Tee, make_memory_pair
from vfiomig.migration.transport.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.migration.transport import Pair
    from vfiomig.migration.transport.rows import Span

PATIENCE = 0.5
COUNT, HEAD, BODY = 700, 8, 4096
SIZE = COUNT * (HEAD + BODY)


@pytest.fixture(params=["memory", "unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A link of each kind that moves rows, closed at the end."""
    ends = PAIRS[request.param]()
    yield ends
    for end in ends:
        end.close()


def table(seed: int | None = None) -> Span:
    """Return rows by chance, or empty ones."""
    shapes = (COUNT, HEAD), (COUNT, BODY)
    if seed is None:
        return Rows(*(np.zeros(shape, np.uint8) for shape in shapes)).span(0, COUNT)
    luck = np.random.default_rng(seed)
    tables = [luck.integers(0, 256, shape, np.uint8) for shape in shapes]
    return Rows(*tables).span(0, COUNT)


def sends(*pieces: Span | bytes) -> Steps[int]:
    return (yield Send(pieces[0], pieces[1:]))


def receives(span: Span, least: int = 1 << 62) -> Steps[int]:
    """Receive rows while they are fewer than ``least`` bytes."""
    assert (yield OffersRows()) == 1
    return (yield ReceiveRows(span, lambda size: size < least))


def receives_bytes(size: int) -> Steps[bytes]:
    room = bytearray(size)
    got = yield Receive(memoryview(room))
    return bytes(room[:got])


def test_rows_arrive_as_rows(pair: Pair) -> None:
    source, room = table(1), table()
    near = Party(sends(source[:99], source[99:]), pair[0])
    far = Party(receives(room), pair[1])
    exchange(near, far, patience=PATIENCE)
    assert near.result() == far.result() == SIZE
    assert bytes(room) == bytes(source)
    assert len(source) == SIZE  # the caller's span is as it was


def test_rows_among_bytes_arrive_in_order(pair: Pair) -> None:
    source = table(2)
    near = Party(sends(b"before", source, b"", b"behind"), pair[0])
    far = Party(receives_bytes(SIZE + 20), pair[1])
    exchange(near, far, patience=PATIENCE)
    assert near.result() == SIZE + 12
    assert far.result() == b"before" + bytes(source) + b"behind"


def test_a_stream_without_rows_is_sent_them_joined() -> None:
    source, seen = table(3), bytearray()
    pair = make_memory_pair()
    near = Party(sends(b"<", source, b">"), Tee(pair[0], seen.extend))
    far = Party(receives_bytes(SIZE + 2), pair[1])
    exchange(near, far, patience=PATIENCE)
    assert near.result() == SIZE + 2
    assert far.result() == seen == b"<" + bytes(source) + b">"


def test_a_stream_without_rows_says_so() -> None:
    def asks() -> Steps[int]:
        return (yield OffersRows())

    near, far = make_memory_pair()
    assert Party(asks(), near).result() == 1
    assert Party(asks(), CutLink(far, 10)).result() == 0


def test_rows_are_received_as_long_as_they_agree(pair: Pair) -> None:
    source, room = table(4), table()
    near = Party(sends(source[:5000], source[5000:]), pair[0])
    far = Party(receives(room, least=5000), pair[1])
    while not far.is_over:
        near.step()
        far.step()
    got = far.result()
    assert 5000 <= got < SIZE
    assert bytes(room[:got]) == bytes(source[:got])
    assert not any(bytes(room[got:]))


def test_rows_end_with_the_stream(pair: Pair) -> None:
    source, room = table(5), table()
    near, far = Party(sends(source[:4999]), pair[0]), Party(receives(room), pair[1])
    exchange(near, far, patience=PATIENCE)
    assert far.result() == 4999
    assert bytes(room[:4999]) == bytes(source[:4999])


def test_a_peer_that_is_gone_is_told_where_rows_are_sent(pair: Pair) -> None:
    pair[1].close()
    near = Party(sends(table(6)), pair[0])
    for _ in range(10_000):
        if near.is_over:
            break
        near.step()
    with pytest.raises(OSError, match=r".") as error:
        near.result()
    assert error.value.errno in (errno.EPIPE, errno.ECONNRESET)


def test_rows_are_dated_when_they_are_consumed(pair: Pair) -> None:
    here, there = VirtualClock(), VirtualClock()
    forth = Channel(LinkModel(SIZE, 0), here, there)
    room = table()

    def reads() -> Steps[list[int]]:
        yield ReceiveRows(room, lambda _: True)
        moments = [there.now]
        yield Consumed(SIZE // 2)
        return [*moments, there.now]

    near = Party(sends(table(7)), pair[0], outgoing=forth)
    far = Party(reads(), pair[1], incoming=forth)
    exchange(near, far, patience=PATIENCE)
    assert far.result() == [0, SECOND // 2]
    assert here.now == SECOND
