"""Reading ahead, other channels of the same link, and who moves beside two parties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vfiomig.migration.clock import SECOND, Channel, LinkModel, VirtualClock
from vfiomig.migration.exchange import (
    Consumed,
    Elsewhere,
    Party,
    Receive,
    ReceiveSome,
    Send,
    StalledError,
    Steps,
    Wait,
    exchange,
)
from vfiomig.migration.transport import PAIRS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.migration.transport import Pair
    from vfiomig.migration.transport.waiting import Waiting

PATIENCE = 0.03
LINK = LinkModel(bandwidth=1000, latency=0)  # a byte takes a millisecond
BYTE = SECOND // 1000


@pytest.fixture(params=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    ends = PAIRS[request.param]()
    yield ends
    for end in ends:
        end.close()


def send(*messages: bytes) -> Steps[None]:
    for message in messages:
        yield Send(message)


def test_who_reads_ahead_gets_what_is_there(pair: Pair) -> None:
    def reads() -> Steps[bytes]:
        room, came = memoryview(bytearray(100)), b""
        while got := (yield ReceiveSome(room)):
            assert 1 <= got <= 100
            came += room[:got]
        return came

    source, destination = Party(send(b"abc", b"defg"), pair[0]), Party(reads(), pair[1])
    exchange(source, destination, patience=PATIENCE)
    assert destination.result() == b"abcdefg"


def test_who_reads_ahead_is_answered_with_the_least_at_least(pair: Pair) -> None:
    def reads() -> Steps[tuple[int, int]]:
        room = memoryview(bytearray(100))
        first = yield ReceiveSome(room, least=5)
        return first, (yield ReceiveSome(room, least=50))

    source = Party(send(b"ab", b"cd", b"ef", b"gh"), pair[0])
    destination = Party(reads(), pair[1])
    exchange(source, destination, patience=PATIENCE)
    first, last = destination.result()
    assert first >= 5
    assert first + last == 8  # the end comes before the least


@pytest.mark.parametrize("used", [1, 4, 10])
def test_what_is_read_ahead_is_dated_when_it_is_used(pair: Pair, used: int) -> None:
    here, there = VirtualClock(), VirtualClock()
    moments = []

    def reads() -> Steps[None]:
        room = memoryview(bytearray(100))
        yield ReceiveSome(room, least=10)
        moments.append(there.now)
        yield Consumed(used)
        moments.append(there.now)

    forth = Channel(LINK, here, there)
    source = Party(send(b"0123456789"), pair[0], outgoing=forth)
    exchange(source, Party(reads(), pair[1], incoming=forth), patience=PATIENCE)
    assert moments == [0, used * BYTE]


def test_channels_share_the_link_with_the_stream(pair: Pair) -> None:
    here, there = VirtualClock(), VirtualClock()

    def sends() -> Steps[int]:
        yield Send(b"12345")
        yield Elsewhere(20)
        yield Send(b"6")
        return here.now

    def receives() -> Steps[list[int]]:
        moments = []
        yield Receive(memoryview(bytearray(6)))
        moments.append(there.now)
        yield Consumed(20)
        moments.append(there.now)
        return moments

    forth = Channel(LINK, here, there)
    source = Party(sends(), pair[0], outgoing=forth)
    destination = Party(receives(), pair[1], incoming=forth)
    exchange(source, destination, patience=PATIENCE)
    assert source.result() == 26 * BYTE
    # Six bytes first, then those of the channels: all of it, and no more, in the end.
    assert destination.result() == [6 * BYTE, 26 * BYTE]


class Ticking:
    """Something beside two parties that moves a few times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def step(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        return True

    def wait_on(self, waiting: Waiting) -> None:
        """It moves by itself."""


def test_a_party_waits_for_what_moves_beside_it(pair: Pair) -> None:
    ticking = Ticking(7)

    def waits() -> Steps[int]:
        yield Wait(lambda: ticking.left <= 3)
        seen = ticking.left
        yield Send(b"!")
        return seen

    def reads() -> Steps[int]:
        return (yield Receive(memoryview(bytearray(1))))

    source, destination = Party(waits(), pair[0]), Party(reads(), pair[1])
    exchange(source, destination, ticking, patience=PATIENCE)
    assert source.result() <= 3
    assert destination.result() == 1


def test_what_holds_already_is_not_waited_for(pair: Pair) -> None:
    def waits() -> Steps[str]:
        yield Wait(lambda: True)
        return "at once"

    def nothing() -> Steps[None]:
        yield from ()

    source = Party(waits(), pair[0])
    assert source.is_over
    exchange(source, Party(nothing(), pair[1]), patience=PATIENCE)
    assert source.result() == "at once"


def test_who_waits_for_what_never_comes_is_told(pair: Pair) -> None:
    def waits() -> Steps[None]:
        yield Wait(lambda: False)

    def reads() -> Steps[int]:
        return (yield Receive(memoryview(bytearray(1))))

    source, destination = Party(waits(), pair[0]), Party(reads(), pair[1])
    exchange(source, destination, Ticking(3), patience=PATIENCE)
    with pytest.raises(StalledError):
        source.result()


@pytest.mark.parametrize("is_waiting", [True, False])
def test_what_fails_beside_a_party_is_raised_where_it_stands(
    pair: Pair, *, is_waiting: bool
) -> None:
    room = bytearray(4)

    def stands() -> Steps[str]:
        try:
            if is_waiting:
                yield Wait(lambda: False)
            else:
                yield Receive(memoryview(room))
        except ConnectionResetError as error:
            return f"told: {error}"
        return "never told"

    party: Party[Any] = Party(stands(), pair[1])
    party.fail(ConnectionResetError("channel 1"))
    assert party.result() == "told: channel 1"
    room.clear()  # nobody holds it any more
    party.fail(ConnectionResetError("again"))  # one that is over is left alone
    assert party.result() == "told: channel 1"
