"""Two generators over one link: turns, ends, errors, and what never ends."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from vfiomig.migration.clock import SECOND, Channel, LinkModel, VirtualClock
from vfiomig.migration.exchange import (
    Close,
    Finish,
    Party,
    Receive,
    Send,
    StalledError,
    Steps,
    exchange,
)
from vfiomig.migration.transport import PAIRS, CutLink, make_memory_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.migration.transport import Pair


# A kernel under load may need a moment for a loopback; a stall costs it once or twice.
PATIENCE = 0.03


@pytest.fixture(params=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A link of each kind, closed at the end."""
    ends = PAIRS[request.param]()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def memory() -> Iterator[Pair]:
    ends = make_memory_pair()
    yield ends
    for end in ends:
        end.close()


def run(source: Steps[Any], destination: Steps[Any], pair: Pair) -> tuple[Any, Any]:
    """Exchange, and return what both returned."""
    near, far = Party(source, pair[0]), Party(destination, pair[1])
    exchange(near, far, patience=PATIENCE)
    return near.result(), far.result()


def receive(size: int) -> Steps[bytes]:
    """Receive up to ``size`` bytes; return what came."""
    buffer = bytearray(size)
    got = yield Receive(memoryview(buffer))
    return bytes(buffer[:got])


def receive_all(piece: int) -> Steps[bytes]:
    pieces = []
    while got := (yield from receive(piece)):
        pieces.append(got)
    return b"".join(pieces)


def send(*messages: bytes) -> Steps[list[int]]:
    answers = []
    for message in messages:
        answers.append((yield Send(message)))
    return answers


DATA = bytes(range(256)) * 40


# -- bytes ----------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [7, 1000, len(DATA), len(DATA) + 1])
def test_what_is_sent_arrives_whatever_the_pieces(pair: Pair, piece: int) -> None:
    answers, arrived = run(send(DATA[:5], DATA[5:]), receive_all(piece), pair)
    assert arrived == DATA
    assert answers == [5, len(DATA) - 5]


def test_more_than_a_kernel_holds_arrives(pair: Pair) -> None:
    huge = bytes(12 << 20)
    _, arrived = run(send(huge), receive_all(1 << 20), pair)
    assert len(arrived) == len(huge)


def test_both_sides_send(pair: Pair) -> None:
    def ask() -> Steps[bytes]:
        yield Send(b"who?")
        return (yield from receive(3))

    def answer() -> Steps[bytes]:
        question = yield from receive(4)
        yield Send(b"you")
        return question

    assert run(ask(), answer(), pair) == (b"you", b"who?")


def test_a_receive_is_answered_with_fewer_bytes_at_the_end(pair: Pair) -> None:
    def reader() -> Steps[list[int]]:
        buffer = memoryview(bytearray(10))
        answers = []
        for _ in range(3):
            answers.append((yield Receive(buffer)))
        return answers

    assert run(send(bytes(14)), reader(), pair)[1] == [10, 4, 0]


def test_nothing_to_move_is_done_at_once(memory: Pair) -> None:
    def nothing() -> Steps[list[int]]:
        return [
            (yield Send(b"")),
            (yield Receive(memoryview(bytearray()))),
            (yield Send(memoryview(b""))),
        ]

    party = Party(nothing(), memory[0])
    assert party.is_over
    assert party.result() == [0, 0, 0]


# -- turns ----------------------------------------------------------------------------


def test_after_each_step_of_the_source_the_destination_goes_as_far_as_it_can() -> None:
    order: list[str] = []

    def sender() -> Steps[None]:
        for number in range(3):
            yield Send(bytes(3))
            order.append(f"sent {number}")

    def reader() -> Steps[None]:
        for number in range(9):
            yield from receive(1)
            order.append(f"got {number}")

    pair = PAIRS["unix"]()
    run(sender(), reader(), pair)
    for end in pair:
        end.close()
    assert order == [
        *["sent 0", "got 0", "got 1", "got 2"],
        *["sent 1", "got 3", "got 4", "got 5"],
        *["sent 2", "got 6", "got 7", "got 8"],
    ]


def test_the_same_run_is_the_same_run() -> None:
    def record() -> list[str]:
        order: list[str] = []

        def talk(name: str) -> Steps[None]:
            for number in range(4):
                order.append(f"{name} sends {number}")
                yield Send(bytes(number + 1))
                yield from receive(number + 1)
                order.append(f"{name} got {number}")

        def listen(name: str) -> Steps[None]:
            for number in range(4):
                yield from receive(number + 1)
                order.append(f"{name} got {number}")
                yield Send(bytes(number + 1))

        run(talk("a"), listen("b"), make_memory_pair())
        return order

    assert record() == record()


# -- ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_who_returns_finishes_its_half_and_no_more(kind: str) -> None:
    # The source is over, and still the destination's words are taken.
    def talk_behind() -> Steps[int]:
        assert (yield from receive_all(4)) == b"bye"
        return (yield Send(b"too late"))

    pair = PAIRS[kind]()
    assert run(send(b"bye"), talk_behind(), pair)[1] == 8
    for end in pair:
        end.close()


def test_memory_takes_no_word_that_nobody_asks_for(memory: Pair) -> None:
    with pytest.raises(StalledError):
        run(send(), send(b"too late"), memory)


def test_who_raises_closes_and_its_peer_learns_it(pair: Pair) -> None:
    def fails() -> Steps[None]:
        yield from receive(1)
        message = "enough"
        raise ZeroDivisionError(message)

    def sender() -> Steps[str]:
        try:
            while True:
                yield Send(bytes(1 << 16))
        except ConnectionError as gone:
            return type(gone).__name__

    near, far = Party(sender(), pair[0]), Party(fails(), pair[1])
    exchange(near, far, patience=PATIENCE)
    assert near.result() in ("BrokenPipeError", "ConnectionResetError")
    with pytest.raises(ZeroDivisionError, match="enough"):
        far.result()
    assert isinstance(far.error, ZeroDivisionError)


def test_who_finishes_can_still_receive(pair: Pair) -> None:
    def last_words() -> Steps[bytes]:
        yield Send(b"the end")
        yield Finish()
        return (yield from receive(2))

    def reads_to_the_end() -> Steps[bytes]:
        got = yield from receive_all(100)
        yield Send(b"ok")
        return got

    assert run(last_words(), reads_to_the_end(), pair) == (b"ok", b"the end")


def test_who_closes_is_heard_of_at_the_next_step(pair: Pair) -> None:
    def hangs_up() -> Steps[str]:
        yield from receive(1)
        yield Close()
        return "gone"

    def sender() -> Steps[str]:
        try:
            while True:
                yield Send(bytes(1 << 16))
        except ConnectionError:
            return "alone"

    assert run(sender(), hangs_up(), pair) == ("alone", "gone")


def test_who_waits_for_a_peer_that_closed_reads_the_end(memory: Pair) -> None:
    def hangs_up() -> Steps[None]:
        yield from receive(1)
        yield Close()

    def waits() -> Steps[bytes]:
        yield Send(b"x")
        return (yield from receive(8))

    assert run(waits(), hangs_up(), memory)[0] == b""


# -- errors ---------------------------------------------------------------------------


class Broken:
    """A stream that fails as it was told, and says whether it was let go."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        self.ends: list[str] = []

    def send(self, data: memoryview) -> int:
        raise self.error

    def receive_into(self, buffer: memoryview) -> int | None:
        raise self.error

    def finish(self) -> None:
        self.ends.append("finish")

    def close(self) -> None:
        self.ends.append("close")

    def fileno(self) -> int | None:
        return None


@pytest.mark.parametrize("step", [Send(b"x"), Receive(memoryview(bytearray(1)))])
def test_an_error_of_the_stream_is_raised_where_the_step_is(
    step: Send | Receive,
) -> None:
    stream = Broken(OSError(errno.ENETDOWN, "the net is down"))

    def careful() -> Steps[str]:
        try:
            yield step
        except OSError as error:
            return f"noticed that {error.strerror}"
        return "noticed nothing"

    party = Party(careful(), stream)
    assert party.step()
    assert party.result() == "noticed that the net is down"
    assert stream.ends == ["finish"]


def test_an_error_that_nobody_catches_is_the_outcome() -> None:
    stream = Broken(OSError(errno.ENETDOWN, "the net is down"))
    party = Party(send(b"x"), stream)
    assert party.step()
    assert party.is_over
    with pytest.raises(OSError, match="the net is down"):
        party.result()
    assert stream.ends == ["close"]


def test_a_generator_may_go_on_after_an_error(memory: Pair) -> None:
    def stubborn() -> Steps[bytes]:
        try:
            yield Send(b"lost")
        except ConnectionResetError:
            return b"went on"
        return b""

    cut = CutLink(memory[0], 0)
    assert run(stubborn(), receive_all(4), (cut, memory[1])) == (b"went on", b"")


def test_views_are_let_go_before_an_error_is_raised() -> None:
    released = []

    def careful() -> Steps[None]:
        view = memoryview(bytearray(4))
        try:
            yield Send(view)
        except OSError:
            view.release()
            released.append(True)

    Party(careful(), Broken(OSError(errno.EIO, "no"))).step()
    assert released == [True]


def test_a_party_that_fails_before_its_first_step_is_over(memory: Pair) -> None:
    def fails() -> Steps[None]:
        if True:
            raise OSError(errno.ENODEV, "no device")
        yield Send(b"")

    party = Party(fails(), memory[0])
    assert party.is_over
    assert not party.step()
    with pytest.raises(OSError, match="no device"):
        party.result()


def test_a_person_who_interrupts_is_not_an_outcome(memory: Pair) -> None:
    def interrupted() -> Steps[None]:
        yield from receive(1)
        raise KeyboardInterrupt

    near, far = Party(send(b"x"), memory[0]), Party(interrupted(), memory[1])
    with pytest.raises(KeyboardInterrupt):
        exchange(near, far, patience=PATIENCE)


# -- stalls ---------------------------------------------------------------------------


def waits(told: list[str], name: str, *, stubborn: bool = False) -> Steps[str]:
    """Wait for what never comes, and tell when that is noticed."""
    while True:
        try:
            yield from receive(1)
        except StalledError:
            told.append(name)
            if not stubborn:
                return f"{name} gave up"


def test_who_wait_for_one_another_are_told_source_first(pair: Pair) -> None:
    told: list[str] = []

    def source() -> Steps[str]:
        return (yield from waits(told, "source"))

    def destination() -> Steps[bytes]:
        return (yield from receive(1))

    # The source gives up and is over, so the destination reads the end of the stream.
    assert run(source(), destination(), pair) == ("source gave up", b"")
    assert told == ["source"]


def test_a_source_that_is_over_leaves_the_destination_to_be_told(memory: Pair) -> None:
    told: list[str] = []

    def source() -> Steps[None]:
        return
        yield Send(b"")

    def destination() -> Steps[str]:
        try:
            yield Send(b"nobody reads this")
        except StalledError:
            told.append("destination")
        return "gave up"

    assert run(source(), destination(), memory) == (None, "gave up")
    assert told == ["destination"]


def test_who_goes_on_all_the_same_does_not_go_on_for_ever(pair: Pair) -> None:
    told: list[str] = []
    near = Party(waits(told, "source", stubborn=True), pair[0])
    far = Party(waits(told, "destination", stubborn=True), pair[1])
    with pytest.raises(StalledError, match="wait for one another"):
        exchange(near, far, patience=PATIENCE)
    assert told == ["source", "destination"]


def test_two_senders_of_nothing_that_is_read_stall(memory: Pair) -> None:
    with pytest.raises(StalledError):
        run(send(b"x"), send(b"y"), memory)


# -- time -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PAIRS)
def test_bytes_are_dated_alike_on_every_transport(kind: str) -> None:
    model = LinkModel(bandwidth=SECOND, latency=50)  # a byte a nanosecond
    there, here = VirtualClock(), VirtualClock()
    forth, back = Channel(model, there, here), Channel(model, here, there)

    def source() -> Steps[int]:
        yield Send(bytes(1000))
        there.advance(500)
        yield Send(bytes(10))
        yield from receive(4)
        return there.now

    def destination() -> Steps[tuple[int, int]]:
        yield from receive(1000)
        first = here.now
        yield from receive(10)
        second = here.now
        yield Send(bytes(4))
        return first, second

    pair = PAIRS[kind]()
    near = Party(source(), pair[0], outgoing=forth, incoming=back)
    far = Party(destination(), pair[1], outgoing=back, incoming=forth)
    exchange(near, far, patience=PATIENCE)
    for end in pair:
        end.close()
    assert far.result() == (1000 + 50, 1000 + 500 + 10 + 50)
    assert near.result() == 1560 + 4 + 50
