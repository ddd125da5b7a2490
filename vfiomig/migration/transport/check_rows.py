"""What a stream that moves rows promises beside `check`'s claims; see `rows.RowStream`.

Each claim holds at once for a stream that offers none.
"""

from __future__ import annotations

import itertools
import mmap
import random
from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.migration.transport.flow import Link, fail, receive, send
from vfiomig.migration.transport.rows import Rows, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.migration.transport.base import Pair
    from vfiomig.migration.transport.rows import Span

_ODD: Final = (1, 2, 3, 7, 61, 251, 1021, 4093, 30_011)
_ODDER: Final = (5, 1, 13, 4096, 17, 509, 20_011)
_PAGES: Final = (8, 4096)
_LATE_SENDS: Final = 10_000
_ROWS: Final = 12  # mebibytes: more than a kernel keeps for a loopback connection


class RowFlow:
    """Bytes that go one way, as rows of a shape (head, body) or, without, as bytes.

    They are offered and asked for in portions of these sizes.
    """

    def __init__(
        self,
        ends: Pair,
        size: int,
        *,
        sent_as: tuple[int, int] | None = None,
        received_as: tuple[int, int] | None = None,
        portions: tuple[Sequence[int], Sequence[int]] = ((1 << 30,), (1 << 30,)),
    ) -> None:
        self.source, self.sink = ends
        self._payload = memoryview(random.Random(size).randbytes(size))
        self._out = _table(size, sent_as or (1, 1))
        self._out.copy_from(self._payload)
        self._room = _table(size, received_as or (1, 1))
        self._bytes = memoryview(bytearray(size))
        self._sends_rows = sent_as is not None
        self._receives_rows = received_as is not None
        self._offers, self._asks = map(itertools.cycle, portions)
        self._asked: Span | memoryview | None = None
        self._sent = self._received = 0

    @property
    def is_sent(self) -> bool:
        """Whether the source took everything."""
        return self._sent == len(self._payload)

    @property
    def has_arrived(self) -> bool:
        """Whether the sink got everything, and each byte where it belongs."""
        if self._received < len(self._payload):
            return False
        arrived = self._room.joined() if self._receives_rows else self._bytes
        if arrived != self._payload:
            fail("a byte differs, or is where it does not belong")
        return True

    def step(self) -> bool:
        """Offer a portion and ask for one; return whether any byte moved."""
        before = self._sent + self._received
        if not self.is_sent:
            part = slice(self._sent, self._sent + next(self._offers))
            if self._sends_rows:
                self._sent += _send_rows(self.source, self._out[part])
            else:
                self._sent += send(self.source, self._payload[part])
        if self._received < len(self._payload):
            self._take()
        return self._sent + self._received > before

    def _take(self) -> None:
        if self._asked is None:
            part = slice(self._received, self._received + next(self._asks))
            self._asked = self._room[part] if self._receives_rows else self._bytes[part]
        if self._receives_rows:
            count = _receive_rows(self.sink, self._asked)  # type: ignore[arg-type]
        else:
            count = receive(self.sink, self._asked)  # type: ignore[arg-type]
        if count == 0:
            fail(f"the stream ended after {self._received} bytes of {self._sent} sent")
        if count is not None:
            self._received += count
            self._asked = None


def _rows_arrive_complete_and_in_order(link: Link) -> None:
    for shape in (_PAGES, (3, 7), (1, 1)):
        size = sum(shape) * 40
        link.move(
            RowFlow(
                link.there,
                size,
                sent_as=shape,
                received_as=shape,
                portions=(_ODD, _ODDER),
            )
        )


def _rows_and_bytes_are_the_same_stream(link: Link) -> None:
    for sent_as, received_as in (
        (_PAGES, None),
        (None, _PAGES),
        ((5, 100), (8, 61)),
        (_PAGES, (4096, 8)),
    ):
        link.move(
            RowFlow(
                link.there,
                60_000,
                sent_as=sent_as,
                received_as=received_as,
                portions=(_ODD, _ODDER),
            )
        )


def _more_rows_than_any_buffer_holds_arrive(link: Link) -> None:
    size = 4104 * (_ROWS << 8)
    link.move(RowFlow(link.there, size, sent_as=_PAGES, received_as=_PAGES))


def _more_rows_than_one_call_takes_arrive(link: Link) -> None:
    link.move(RowFlow(link.there, 30_000, sent_as=(1, 2), received_as=(2, 1)))


def _no_rows_sent_is_none_yet_and_no_bytes_are_sent(link: Link) -> None:
    room = _table(30, (1, 2))
    if (count := _receive_rows(link.far, room)) is not None:
        fail(f"receive_rows() returned {count} before anything was sent")
    if taken := _send_rows(link.near, room[:0]):
        fail(f"it took {taken} bytes of none")


def _rows_without_room_are_refused(link: Link) -> None:
    _expect(ValueError, lambda: _receive_rows(link.near, _table(3, (1, 2))[:0]))


def _read_only_rows_are_not_received_into(link: Link) -> None:
    heads = np.frombuffer(bytes(4), np.uint8).reshape(2, 2)
    rows = Rows(heads, np.zeros((2, 3), np.uint8))
    _expect(TypeError, lambda: _receive_rows(link.near, rows.span(0, 2)))


def _rows_end_with_the_stream(link: Link) -> None:
    room = _table(30, (1, 2))
    _receive_rows(link.far, room)
    link.near.finish()
    _expect(BrokenPipeError, lambda: _send_rows(link.near, room))
    flow = RowFlow(link.back, 30, sent_as=(1, 2), received_as=(1, 2))
    link.move(flow)
    if count := _answer(link, room):
        fail(f"{count} bytes more where the stream should end")


def _rows_to_a_peer_that_closed_are_refused(link: Link) -> None:
    link.far.close()
    rows = _table(30, (1, 2))
    for _ in range(_LATE_SENDS):
        try:
            taken = _send_rows(link.near, rows)
        except (BrokenPipeError, ConnectionResetError):
            return
    fail(f"the last of {_LATE_SENDS} sends returned {taken}")


def _a_closed_end_moves_no_rows(link: Link) -> None:
    link.near.close()
    rows = _table(3, (1, 2))
    _expect(ValueError, lambda: _send_rows(link.near, rows))
    _expect(ValueError, lambda: _receive_rows(link.near, rows))


def _rows_are_let_go_of(link: Link) -> None:
    wanted = mmap.mmap(-1, 4096)
    bodies = np.frombuffer(wanted, np.uint8).reshape(-1, 8)
    rows = Rows(np.zeros((len(bodies), 1), np.uint8), bodies)
    span = rows.span(0, len(bodies))
    _receive_rows(link.far, span)
    send(link.near, memoryview(b"arrives"))
    _answer(link, span)
    _send_rows(link.near, span)
    del rows, span, bodies
    try:
        wanted.close()
    except BufferError:
        fail("the link still holds rows, so their mapping cannot be closed")


ROW_CLAIMS: Final = (
    _rows_arrive_complete_and_in_order,
    _rows_and_bytes_are_the_same_stream,
    _more_rows_than_any_buffer_holds_arrive,
    _more_rows_than_one_call_takes_arrive,
    _no_rows_sent_is_none_yet_and_no_bytes_are_sent,
    _rows_without_room_are_refused,
    _read_only_rows_are_not_received_into,
    _rows_end_with_the_stream,
    _rows_to_a_peer_that_closed_are_refused,
    _a_closed_end_moves_no_rows,
    _rows_are_let_go_of,
)


def _table(size: int, shape: tuple[int, int]) -> Span:
    """Return so many bytes of rows of a shape, the last of them maybe a part of one."""
    count = -(-size // sum(shape))
    head, body = shape
    rows = Rows(np.zeros((count, head), np.uint8), np.zeros((count, body), np.uint8))
    return rows.span(0, count)[:size]


def _send_rows(stream: object, span: Span) -> int:
    offered = rows_of(stream)
    assert offered is not None, "claims are for streams that move rows"
    taken = offered.send_rows(span)
    if not 0 <= taken <= len(span):
        fail(f"send_rows() took {taken} bytes of {len(span)}")
    return taken


def _receive_rows(stream: object, span: Span) -> int | None:
    offered = rows_of(stream)
    assert offered is not None, "claims are for streams that move rows"
    count = offered.receive_rows(span)
    if count is not None and not 0 <= count <= len(span):
        fail(f"receive_rows() returned {count} for a span of {len(span)} bytes")
    return count


def _answer(link: Link, span: Span) -> int:
    """Wait for bytes in rows at the far end, or for the end of the stream (0)."""
    for _ in range(_LATE_SENDS):
        if (count := _receive_rows(link.far, span)) is not None:
            break
        if (number := link.far.fileno()) is not None:
            link.is_readable(number, at_once=False)
    else:
        fail(f"{_LATE_SENDS} calls of receive_rows() said none yet")
    return count


def _expect(kind: type[Exception], call: Callable[[], object]) -> None:
    try:
        answer = call()
    except kind:
        return
    fail(f"it returned {answer!r} instead of raising {kind.__name__}")
