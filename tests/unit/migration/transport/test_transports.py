"""Every transport passes the suite, and the suite finds those that should not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from vfiomig.migration.transport import (
    ByteStream,
    Pair,
    check_transport,
    make_memory_pair,
    make_tcp_pair,
    make_unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAKERS = [make_memory_pair, make_unix_pair, make_tcp_pair]


class Inside:
    """A sound stream; each class below misbehaves in one way."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream

    def send(self, data: memoryview) -> int:
        return self.stream.send(data)

    def receive_into(self, buffer: memoryview) -> int | None:
        return self.stream.receive_into(buffer)

    def finish(self) -> None:
        self.stream.finish()

    def close(self) -> None:
        self.stream.close()

    def fileno(self) -> int | None:
        return self.stream.fileno()


class DropsAByte(Inside):
    def send(self, data: memoryview) -> int:
        if len(data) < 2:
            return self.stream.send(data)
        taken = self.stream.send(data[:-1])
        return taken + 1 if taken == len(data) - 1 else taken


class SwapsTwoBytes(Inside):
    def send(self, data: memoryview) -> int:
        swapped = bytes(data[1:2]) + bytes(data[:1]) + bytes(data[2:])
        return self.stream.send(memoryview(swapped))


class RepeatsWhatWasTaken(Inside):
    def send(self, data: memoryview) -> int:
        return self.stream.send(data) // 2


class TakesMoreThanOffered(Inside):
    def send(self, data: memoryview) -> int:
        taken = self.stream.send(data)
        return taken + 1 if taken else 0


class NeverTakesAByte(Inside):
    def send(self, data: memoryview) -> int:
        return 0


class KeepsAllButTheFirst(Inside):
    sent = 0

    def send(self, data: memoryview) -> int:
        taken = len(data) if self.sent else self.stream.send(data)
        self.sent += taken
        return taken


class SaysEndForNoneYet(Inside):
    def receive_into(self, buffer: memoryview) -> int | None:
        return self.stream.receive_into(buffer) or 0


class SaysNoneYetForEnd(Inside):
    def receive_into(self, buffer: memoryview) -> int | None:
        return self.stream.receive_into(buffer) or None


class FillsOnlyTheLatestBuffer(Inside):
    """Takes a second buffer, and loses what came into the first."""

    posted: tuple[memoryview, memoryview] | None = None

    def receive_into(self, buffer: memoryview) -> int | None:
        if self.posted is None:
            self.posted = buffer, memoryview(bytearray(len(buffer)))
        seen, own = self.posted
        if seen.obj is not buffer.obj:
            self.stream.receive_into(own)
            self.posted = None
            return self.receive_into(buffer)
        count = self.stream.receive_into(own)
        if count is not None:
            buffer[:count] = own[:count]
            self.posted = None
        return count


class WantsTheSameView(Inside):
    asked: memoryview | None = None

    def receive_into(self, buffer: memoryview) -> int | None:
        if self.asked is not None and self.asked is not buffer:
            message = "not the view that was posted"
            raise ValueError(message)
        count = self.stream.receive_into(buffer)
        self.asked = buffer if count is None else None
        return count


class ReadsIntoNothing(Inside):
    def receive_into(self, buffer: memoryview) -> int | None:
        return self.stream.receive_into(buffer) if buffer else 0


class SwallowsFinish(Inside):
    def finish(self) -> None:
        pass


class FinishCloses(Inside):
    def finish(self) -> None:
        self.stream.close()


class SwallowsClose(Inside):
    def close(self) -> None:
        pass


class CloseOnlyFinishes(Inside):
    def close(self) -> None:
        self.stream.finish()


class HidesThatThePeerIsGone(Inside):
    def send(self, data: memoryview) -> int:
        try:
            return self.stream.send(data)
        except BrokenPipeError:
            return len(data)


class WorksAfterClose(Inside):
    closed = False

    def close(self) -> None:
        self.stream.close()
        self.closed = True

    def receive_into(self, buffer: memoryview) -> int | None:
        return 0 if self.closed else self.stream.receive_into(buffer)


class ClosesOnlyOnce(Inside):
    closed = False

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.stream.close()
        self.closed = True


class HoldsWhatWasSent(Inside):
    held: memoryview | None = None

    def send(self, data: memoryview) -> int:
        taken = self.stream.send(data)
        self.held = memoryview(data)
        return taken


class HoldsTheBuffer(Inside):
    held: memoryview | None = None

    def receive_into(self, buffer: memoryview) -> int | None:
        self.held = memoryview(buffer)
        return self.stream.receive_into(buffer)


class HoldsTheBufferUntilItHasBytes(Inside):
    held: memoryview | None = None

    def receive_into(self, buffer: memoryview) -> int | None:
        self.held = memoryview(buffer)
        count = self.stream.receive_into(buffer)
        if count:
            self.held = None
        return count


class HoldsTheBufferAfterClose(Inside):
    held: memoryview | None = None

    def receive_into(self, buffer: memoryview) -> int | None:
        count = self.stream.receive_into(buffer)
        self.held = memoryview(buffer) if count is None else None
        return count


class NamesThePeersDescriptor(Inside):
    def __init__(self, stream: ByteStream, peer: ByteStream) -> None:
        super().__init__(stream)
        self.peer = peer

    def fileno(self) -> int | None:
        return self.peer.fileno()


class Faulty(Protocol):
    """What the classes above are made by."""

    __name__: str

    def __call__(self, stream: ByteStream, /) -> ByteStream: ...


FAULTS: list[tuple[Faulty, str]] = [
    (DropsAByte, "bytes arrive complete and in order"),
    (SwapsTwoBytes, "bytes arrive complete and in order"),
    (RepeatsWhatWasTaken, "bytes arrive complete and in order"),
    (TakesMoreThanOffered, "bytes arrive complete and in order"),
    (NeverTakesAByte, "bytes arrive complete and in order"),
    (KeepsAllButTheFirst, "bytes arrive complete and in order"),
    (SaysEndForNoneYet, "nothing sent is none yet"),
    (SaysNoneYetForEnd, "finish ends one direction only"),
    (FillsOnlyTheLatestBuffer, "bytes that wait are not lost to another buffer"),
    (WantsTheSameView, "a new view of the same buffer is the same buffer"),
    (ReadsIntoNothing, "a buffer without room is refused"),
    (SwallowsFinish, "finish ends one direction only"),
    (FinishCloses, "finish ends one direction only"),
    (SwallowsClose, "bytes sent before close are read after it"),
    (CloseOnlyFinishes, "send to a peer that closed is refused"),
    (HidesThatThePeerIsGone, "send after finish is a broken pipe"),
    (WorksAfterClose, "a closed end cannot receive"),
    (ClosesOnlyOnce, "a closed end may be closed and finished again"),
    (HoldsWhatWasSent, "what was sent is let go of"),
    (HoldsTheBuffer, "a buffer is let go of with its bytes"),
    (
        HoldsTheBufferUntilItHasBytes,
        "a buffer is let go of at the end of the stream",
    ),
    (HoldsTheBufferAfterClose, "a buffer is let go of on close"),
]


def faulty_pair(fault: Faulty, make_pair: Callable[[], Pair]) -> Pair:
    one, other = make_pair()
    return fault(one), fault(other)


@pytest.mark.parametrize("make_pair", MAKERS)
def test_every_transport_keeps_every_promise(make_pair: Callable[[], Pair]) -> None:
    check_transport(make_pair)


@pytest.mark.parametrize(("fault", "claim"), FAULTS)
def test_a_faulty_transport_is_found_by_the_claim_it_breaks(
    fault: Faulty, claim: str
) -> None:
    with pytest.raises(AssertionError, match=f"^{claim}: "):
        check_transport(lambda: faulty_pair(fault, make_memory_pair))


def test_a_descriptor_of_another_stream_is_found() -> None:
    def make_pair() -> Pair:
        one, other = make_unix_pair()
        return one, NamesThePeersDescriptor(other, one)

    with pytest.raises(AssertionError, match=r"^a selector sees what fileno names: "):
        check_transport(make_pair, wait_seconds=0.02)


@pytest.mark.parametrize("make_pair", [make_unix_pair, make_tcp_pair])
def test_a_byte_that_never_comes_is_waited_for_with_a_limit(
    make_pair: Callable[[], Pair],
) -> None:
    with pytest.raises(AssertionError, match=r"nothing moved within 0\.02 s"):
        check_transport(
            lambda: faulty_pair(KeepsAllButTheFirst, make_pair), wait_seconds=0.02
        )


def test_the_suite_closes_both_ends_of_a_faulty_transport() -> None:
    ends: list[ByteStream] = []

    def make_pair() -> Pair:
        pair = faulty_pair(SaysEndForNoneYet, make_unix_pair)
        ends.extend(pair)
        return pair

    with pytest.raises(AssertionError):
        check_transport(make_pair)
    assert [end.fileno() for end in ends] == [None, None]


def test_memory_has_nothing_to_wait_for() -> None:
    assert [end.fileno() for end in make_memory_pair()] == [None, None]
