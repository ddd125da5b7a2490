"""One suite for every transport, run on each of ours and on anyone's.

A claim is a function named for what it claims.  Each gets a fresh link, moves bytes by
alternating calls that do not block (flow.py), and fails with what it saw instead.
"""

from __future__ import annotations

import contextlib
import mmap
import random
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.check_rows import ROW_CLAIMS
from vfiomig.migration.transport.flow import Flow, Link, fail, receive, send
from vfiomig.migration.transport.rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vfiomig.migration.transport.base import ByteStream, Pair

# More than the kernel keeps for a loopback connection (tcp_wmem and tcp_rmem, 4 and
# 6 MiB by default): the sender has to be told "none now" and to come back.
_LARGE: Final = 12 << 20
_ODD: Final = (1, 2, 3, 7, 61, 251, 1021, 4093)
_ODDER: Final = (5, 1, 13, 4096, 17, 509)
# A network takes some bytes for a peer that is gone, until it hears of it.
_LATE_SENDS: Final = 10_000
_PAGE: Final = 4096


def check_transport(
    make_pair: Callable[[], Pair], *, wait_seconds: float = 5.0
) -> None:
    """Hold a transport to everything that ByteStream promises, and RowStream, if it is.

    ``make_pair`` returns two fresh, connected ends; it is called once for each claim.
    ``wait_seconds`` is how long one wait for a descriptor may take. Needs no test
    runner and prints nothing. Raises AssertionError that names the broken claim. A
    transport whose calls block is the one fault that hangs it.
    """
    moves_rows = False
    for claim in (*_CLAIMS, *ROW_CLAIMS):
        if claim in ROW_CLAIMS and not moves_rows:
            break
        near, far = make_pair()
        moves_rows = rows_of(near) is not None and rows_of(far) is not None
        try:
            claim(Link(near, far, wait_seconds))
        except Exception as error:
            saw = error if isinstance(error, AssertionError) else repr(error)
            message = f"{claim.__name__.strip('_').replace('_', ' ')}: {saw}"
            raise AssertionError(message) from error
        finally:
            for end in (near, far):
                # The claims judge close(); here it only has to be tried.
                with contextlib.suppress(Exception):
                    end.close()


def _nothing_sent_is_none_yet(link: Link) -> None:
    _expect_none(link.near, bytearray(16))
    _expect_none(link.far, bytearray(16))


def _a_selector_sees_what_fileno_names(link: Link) -> None:
    descriptor = link.far.fileno()
    if descriptor is None:
        return
    if link.is_readable(descriptor, at_once=True):
        fail("there is something to read before anything was sent")
    send(link.near, memoryview(b"!"))
    if not link.is_readable(descriptor, at_once=False):
        fail("a byte was sent, and there is nothing to read")


def _bytes_arrive_complete_and_in_order(link: Link) -> None:
    rooms = _rooms(_ODDER)
    link.move(Flow(link.there, _noise(40_000), sends=_ODD, rooms=rooms))


def _both_directions_carry_bytes_at_once(link: Link) -> None:
    link.move(
        Flow(link.there, _noise(30_000), sends=_ODD, rooms=_rooms(_ODDER)),
        Flow(link.back, _noise(31_000), sends=_ODDER, rooms=_rooms(_ODD)),
    )


def _more_than_any_buffer_holds_arrives(link: Link) -> None:
    link.move(Flow(link.there, _noise(_LARGE)))


def _an_empty_send_sends_nothing(link: Link) -> None:
    if taken := send(link.near, memoryview(b"")):
        fail(f"it took {taken} bytes")
    link.move(Flow(link.there, b"after nothing"))


def _a_buffer_without_room_is_refused(link: Link) -> None:
    try:
        count = link.near.receive_into(memoryview(bytearray()))
    except ValueError:
        return
    fail(f"receive_into() returned {count!r}, which could mean the end")


def _a_new_view_of_the_same_buffer_is_the_same_buffer(link: Link) -> None:
    room = bytearray(32)
    _expect_none(link.far, room)
    link.move(Flow(link.there, b"into the posted buffer", rooms=[room]))


def _bytes_that_wait_are_not_lost_to_another_buffer(link: Link) -> None:
    posted, other = bytearray(8), bytearray(8)
    _expect_none(link.far, posted)
    _send_all(link.near, b"wait")
    try:
        count, room = link.receive(link.far, memoryview(other)), other
    except ValueError:
        count, room = link.receive(link.far, memoryview(posted)), posted
    if not count or room[:count] != b"wait"[:count]:
        fail(f"{count} bytes arrived, {bytes(room[:count])!r} of b'wait'")


def _finish_ends_one_direction_only(link: Link) -> None:
    link.move(Flow(link.there, b"last words"))
    link.near.finish()
    link.near.finish()
    _expect_end(link, link.far)
    link.move(Flow(link.back, b"an answer"))


def _bytes_sent_before_finish_are_read_after_it(link: Link) -> None:
    room = bytearray(8)
    _expect_none(link.far, room)
    _send_all(link.near, b"unread")
    link.near.finish()
    _expect_bytes(link, b"unread", room)
    _expect_end(link, link.far)


def _send_after_finish_is_a_broken_pipe(link: Link) -> None:
    link.near.finish()
    try:
        taken = send(link.near, memoryview(b"more"))
    except BrokenPipeError:
        return
    fail(f"send() returned {taken}")


def _bytes_sent_before_close_are_read_after_it(link: Link) -> None:
    room = bytearray(8)
    _expect_none(link.far, room)
    _send_all(link.near, b"unread")
    link.near.close()
    _expect_bytes(link, b"unread", room)
    _expect_end(link, link.far)


def _close_is_the_end_for_a_peer_that_waits(link: Link) -> None:
    room = bytearray(8)
    _expect_none(link.far, room)
    link.near.close()
    _expect_end(link, link.far, room)


def _send_to_a_peer_that_closed_is_refused(link: Link) -> None:
    link.far.close()
    _expect_refusal(link.near)


def _the_end_stays_the_end_after_a_refused_send(link: Link) -> None:
    link.far.close()
    _expect_end(link, link.near)
    _expect_refusal(link.near)
    _expect_end(link, link.near)


def _a_closed_end_cannot_send(link: Link) -> None:
    link.near.close()
    try:
        taken = link.near.send(memoryview(b"x"))
    except ValueError:
        return
    fail(f"send() returned {taken}")


def _a_closed_end_cannot_receive(link: Link) -> None:
    link.near.close()
    try:
        count = link.near.receive_into(memoryview(bytearray(1)))
    except ValueError:
        return
    fail(f"receive_into() returned {count}")


def _a_closed_end_may_be_closed_and_finished_again(link: Link) -> None:
    link.near.close()
    link.near.close()
    link.near.finish()
    if (descriptor := link.near.fileno()) is not None:
        fail(f"fileno() still returns {descriptor}")


def _what_was_sent_is_let_go_of(link: Link) -> None:
    _expect_none(link.far, bytearray(_PAGE))
    given = mmap.mmap(-1, _PAGE)
    with memoryview(given) as data:
        if not send(link.near, data):
            fail("a reader waits, and no byte was taken")
    _expect_free(given)


def _a_buffer_is_let_go_of_with_its_bytes(link: Link) -> None:
    wanted = mmap.mmap(-1, _PAGE)
    with memoryview(wanted) as buffer:
        _expect_none(link.far, buffer)
        _send_all(link.near, b"arrives")
        link.receive(link.far, buffer)
    _expect_free(wanted)


def _a_buffer_is_let_go_of_at_the_end_of_the_stream(link: Link) -> None:
    wanted = mmap.mmap(-1, _PAGE)
    with memoryview(wanted) as buffer:
        _expect_none(link.far, buffer)
        link.near.finish()
        link.receive(link.far, buffer)
    _expect_free(wanted)


def _a_buffer_is_let_go_of_on_close(link: Link) -> None:
    wanted = mmap.mmap(-1, _PAGE)
    with memoryview(wanted) as buffer:
        _expect_none(link.far, buffer)
        _send_all(link.near, b"unread")
    link.far.close()
    _expect_free(wanted)


_CLAIMS: Final = (
    _nothing_sent_is_none_yet,
    _a_selector_sees_what_fileno_names,
    _bytes_arrive_complete_and_in_order,
    _both_directions_carry_bytes_at_once,
    _more_than_any_buffer_holds_arrives,
    _an_empty_send_sends_nothing,
    _a_buffer_without_room_is_refused,
    _a_new_view_of_the_same_buffer_is_the_same_buffer,
    _bytes_that_wait_are_not_lost_to_another_buffer,
    _finish_ends_one_direction_only,
    _bytes_sent_before_finish_are_read_after_it,
    _send_after_finish_is_a_broken_pipe,
    _bytes_sent_before_close_are_read_after_it,
    _close_is_the_end_for_a_peer_that_waits,
    _send_to_a_peer_that_closed_is_refused,
    _the_end_stays_the_end_after_a_refused_send,
    _a_closed_end_cannot_send,
    _a_closed_end_cannot_receive,
    _a_closed_end_may_be_closed_and_finished_again,
    _what_was_sent_is_let_go_of,
    _a_buffer_is_let_go_of_with_its_bytes,
    _a_buffer_is_let_go_of_at_the_end_of_the_stream,
    _a_buffer_is_let_go_of_on_close,
)


def _send_all(stream: ByteStream, data: bytes) -> None:
    """Send a few bytes that any link takes at once, if not in one piece."""
    sent = 0
    while sent < len(data):
        taken = send(stream, memoryview(data)[sent:])
        if not taken:
            fail(f"a reader waits, and {sent} bytes of {len(data)} were taken")
        sent += taken


def _expect_none(stream: ByteStream, room: bytearray | memoryview) -> None:
    count = receive(stream, memoryview(room))
    if count is not None:
        fail(f"receive_into() returned {count} before anything was sent")


def _expect_bytes(link: Link, expected: bytes, room: bytearray) -> None:
    """Read ``expected`` at the far end, in as many pieces as it comes in."""
    arrived = b""
    while len(arrived) < len(expected):
        count = link.receive(link.far, memoryview(room))
        if not count:
            fail(f"the stream ended after {arrived!r} of {expected!r}")
        arrived += room[:count]
    if arrived != expected:
        fail(f"{arrived!r} arrived instead of {expected!r}")


def _expect_end(link: Link, stream: ByteStream, room: bytearray | None = None) -> None:
    """Wait for the end of the stream, and see that it stays."""
    buffer = memoryview(bytearray(16) if room is None else room)
    for _ in range(3):
        if count := link.receive(stream, buffer):
            fail(f"{count} bytes more where the stream should end")


def _expect_refusal(stream: ByteStream) -> None:
    for _ in range(_LATE_SENDS):
        try:
            taken = send(stream, memoryview(b"to nobody"))
        except (BrokenPipeError, ConnectionResetError):
            return
    fail(f"the last of {_LATE_SENDS} sends returned {taken}")


def _expect_free(mapping: mmap.mmap) -> None:
    try:
        mapping.close()
    except BufferError:
        fail("the link still holds a view, so the mapping behind it cannot be closed")


def _noise(size: int) -> bytes:
    """Return bytes of which no piece can stand in for another; always the same ones."""
    return random.Random(size).randbytes(size)


def _rooms(sizes: Iterable[int]) -> list[bytearray]:
    return [bytearray(size) for size in sizes]
