"""What a destination reads: order, positions, and the end that comes too early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.migration.feeding import feed
from vfiomig.migration.incoming import Incoming
from vfiomig.protocol.errors import StreamError

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps

STREAM = bytes(range(256)) * 20


def test_parts_of_a_known_length_come_in_order() -> None:
    incoming = Incoming()

    def steps() -> Steps[None]:
        assert (yield from incoming.take(3)) == STREAM[:3]
        room = bytearray(4)
        yield from incoming.fill(memoryview(room))
        assert room == STREAM[3:7]
        assert (yield from incoming.take(0)) == b""
        yield from incoming.expect(STREAM[7:9], "what comes")

    assert feed(steps(), STREAM) == (9, 9)
    assert incoming.position == 9


@pytest.mark.parametrize("piece", [1, 2, 7, 4096])
def test_what_was_read_ahead_is_for_whoever_reads_next(piece: int) -> None:
    incoming = Incoming()

    def steps() -> Steps[None]:
        while len(incoming.window()) < 10:
            yield from incoming.more()
        assert incoming.window()[:10] == STREAM[:10]
        yield from incoming.use(6)
        assert incoming.position == 6
        assert incoming.window()[:4] == STREAM[6:10]
        # Partly from the window, partly from the stream.
        assert (yield from incoming.take(1000)) == STREAM[6:1006]
        yield from incoming.more()
        assert (yield from incoming.take(1)) == STREAM[1006:1007]

    _, used = feed(steps(), STREAM, piece)
    assert used == incoming.position == 1007


def test_only_what_was_used_is_dated() -> None:
    incoming = Incoming()

    def steps() -> Steps[None]:
        yield from incoming.more()
        yield from incoming.use(5)

    assert feed(steps(), STREAM) == (len(STREAM), 5)


def test_an_unread_window_is_empty() -> None:
    assert len(Incoming().window()) == 0


def test_a_stream_that_ends_tells_where_and_how_much_is_missing() -> None:
    incoming = Incoming()
    with pytest.raises(
        StreamError, match=r"^byte 10 of the stream: it ends, 4 bytes early$"
    ) as end:
        feed(incoming.take(14), STREAM[:10])
    assert end.value.position == 10


def test_a_stream_that_ends_while_more_is_read() -> None:
    incoming = Incoming()

    def steps() -> Steps[None]:
        yield from incoming.more()
        yield from incoming.use(4)
        yield from incoming.more()

    with pytest.raises(StreamError, match="ends early") as end:
        feed(steps(), STREAM[:4])
    assert end.value.position == 4


def test_what_is_not_expected_is_shown_with_its_place() -> None:
    incoming = Incoming()

    def steps() -> Steps[None]:
        yield from incoming.take(2)
        yield from incoming.expect(b"\x02\x04", "a pair")

    with pytest.raises(StreamError, match="stream: 0203 is not a pair"):
        feed(steps(), STREAM)


def test_of_much_that_is_not_expected_only_the_start_is_shown() -> None:
    with pytest.raises(StreamError, match=r"1f\.\.\. is not zeros$"):
        feed(Incoming().expect(bytes(100), "zeros"), STREAM)


def test_who_makes_nothing_of_it_is_stopped() -> None:
    incoming = Incoming()

    def steps() -> Steps[None]:
        while True:
            yield from incoming.more()

    endless = bytes(3 << 20)
    with pytest.raises(StreamError, match="nothing to make of the next"):
        feed(steps(), endless)
