"""Every transport carries several channels, and the suite finds those that do not."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import selectors
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.migration.transport import (
    LISTENERS,
    ByteStream,
    ChannelsError,
    IncomingChannels,
    Listener,
    check_channels,
    check_transport,
    connect_tcp,
    connect_unix,
    listen_memory,
    listen_tcp,
    listen_unix,
    make_memory_pair,
    make_unix_pair,
)
from vfiomig.migration.transport.channels import PutBack
from vfiomig.protocol.multifd import InitialPacket, encode_initial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.mark.parametrize("make", LISTENERS.values(), ids=LISTENERS)
def test_every_transport_carries_several_channels(make: Callable[[], Listener]) -> None:
    check_channels(make)


def test_a_path_carries_several_channels(tmp_path: Path) -> None:
    numbers = iter(range(1000))
    with contextlib.chdir(tmp_path):
        check_channels(lambda: listen_unix(f"{next(numbers)}"))
        assert not list(tmp_path.iterdir())


# -- the suite finds faults -----------------------------------------------------------


class Inside:
    """A sound listener; each class below misbehaves in one way."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def connect(self) -> ByteStream:
        return self.listener.connect()

    def accept(self) -> ByteStream | None:
        return self.listener.accept()

    def fileno(self) -> int | None:
        return self.listener.fileno()

    def close(self) -> None:
        self.listener.close()


class AcceptsNobody(Inside):
    def accept(self) -> ByteStream | None:
        self.listener.accept()
        return None


class AcceptsWhoDidNotCome(Inside):
    def accept(self) -> ByteStream | None:
        return self.listener.accept() or make_memory_pair()[0]


class AcceptsTheSameTwice(Inside):
    accepted: ByteStream | None = None

    def accept(self) -> ByteStream | None:
        self.accepted = self.listener.accept() or self.accepted
        return self.accepted


class LosesTheSecond(Inside):
    accepted = 0

    def accept(self) -> ByteStream | None:
        self.accepted += 1
        accepted = self.listener.accept()
        return None if self.accepted == 2 else accepted


class GivesTheWrongEnd(Inside):
    def connect(self) -> ByteStream:
        self.listener.connect()
        return self.listener.accept() or self.listener.connect()


class ConnectsAfterClose(Inside):
    def connect(self) -> ByteStream:
        try:
            return self.listener.connect()
        except ConnectionRefusedError:
            return make_memory_pair()[0]


class SwallowsClose(Inside):
    def close(self) -> None:
        pass


class ClosesOnlyItself(Inside):
    """Leaves those that wait to be accepted waiting."""

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self.kept = self.listener.accept()
        self.listener.close()


class AcceptsAfterClose(Inside):
    closed = False

    def close(self) -> None:
        self.closed = True
        self.listener.close()

    def accept(self) -> ByteStream | None:
        return None if self.closed else self.listener.accept()


class HidesWhatWaits(Inside):
    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self.other = socket.socketpair()

    def fileno(self) -> int | None:
        return self.other[0].fileno()

    def close(self) -> None:
        for each in self.other:
            each.close()
        self.listener.close()


FAULTS: list[tuple[Callable[[Listener], Listener], str]] = [
    (AcceptsNobody, "a connection is accepted once"),
    (AcceptsWhoDidNotCome, "nobody is accepted before anyone connects"),
    (AcceptsTheSameTwice, "a connection is accepted once"),
    (LosesTheSecond, "each connection carries its own bytes"),
    (GivesTheWrongEnd, "a connection is accepted once"),
    (ConnectsAfterClose, "nobody connects after close"),
    (SwallowsClose, "nobody connects after close"),
    (ClosesOnlyItself, "who was not accepted learns of the close"),
    (AcceptsAfterClose, "a closed listener cannot accept"),
]


@pytest.mark.parametrize(("fault", "claim"), FAULTS)
def test_a_faulty_listener_is_found_by_the_claim_it_breaks(
    fault: Callable[[Listener], Listener], claim: str
) -> None:
    with pytest.raises(AssertionError, match=f"^{claim}: "):
        check_channels(lambda: fault(listen_memory()))


def test_a_descriptor_that_says_nothing_is_found() -> None:
    with pytest.raises(AssertionError, match=r"^a selector sees a connection that wai"):
        check_channels(lambda: HidesWhatWaits(listen_unix()), wait_seconds=0.02)


# -- listeners ------------------------------------------------------------------------


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Path]:
    """The current folder is a fresh one: a socket's path has few bytes."""
    with contextlib.chdir(tmp_path):
        yield Path("socket")


def test_a_path_is_removed_on_close_and_no_sooner(short: Path) -> None:
    listener = listen_unix(str(short))
    assert listener.address == "socket"
    assert short.is_socket()
    listener.close()
    assert not short.exists()
    short.touch()
    listener.close()
    assert short.exists()


def test_a_path_that_exists_is_not_taken(short: Path) -> None:
    short.write_text("mine")
    with pytest.raises(OSError, match="in use") as refused:
        listen_unix(str(short))
    assert refused.value.errno == errno.EADDRINUSE
    assert short.read_text() == "mine"


@pytest.mark.parametrize("call", [listen_unix, connect_unix])
def test_a_path_that_is_too_long_is_refused(call: Callable[[str], object]) -> None:
    with pytest.raises(OSError, match="too long") as refused:
        call("x" * 108)
    assert refused.value.errno == errno.ENAMETOOLONG


def test_a_listener_without_a_path_leaves_none() -> None:
    with contextlib.closing(listen_unix()) as listener:
        assert listener.address[0] == 0  # abstract (unix(7))
        with contextlib.closing(connect_unix(listener.address)):
            accepted = listener.accept()
            assert accepted is not None
            accepted.close()


def test_where_nobody_listens_nobody_connects(short: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_unix(str(short))
    listener = listen_tcp()
    listener.close()
    with contextlib.closing(connect_tcp(listener.address)) as stream:
        selector = selectors.DefaultSelector()
        selector.register(stream.fileno() or -1, selectors.EVENT_WRITE)
        assert selector.select(5)
        with pytest.raises(ConnectionRefusedError):
            stream.receive_into(memoryview(bytearray(1)))
        selector.close()


def fill(listener: Listener, opened: contextlib.ExitStack) -> None:
    for _ in range(10_000):
        opened.callback(listener.connect().close)


def test_a_full_queue_of_a_unix_socket_does_not_block() -> None:
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(contextlib.closing(listen_unix()))
        with pytest.raises(BlockingIOError):
            fill(listener, opened)


def test_tcp_sends_small_messages_at_once_at_both_ends() -> None:
    with contextlib.closing(listen_tcp()) as listener:
        near = listener.connect()
        selector = selectors.DefaultSelector()
        selector.register(listener.fileno() or -1, selectors.EVENT_READ)
        assert selector.select(5)
        selector.close()
        far = listener.accept()
        assert far is not None
        for end in (near, far):
            number = end.fileno()
            assert number is not None
            with socket.socket(fileno=os.dup(number)) as same:
                assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not os.get_blocking(number)
            end.close()


# -- incoming channels ----------------------------------------------------------------


def test_only_as_many_as_eight_bits_number_are_wanted() -> None:
    for wanted in (-1, 257):
        with pytest.raises(ValueError, match=f"0 to 256 channels.*, not {wanted}"):
            IncomingChannels(listen_memory(), wanted=wanted)


def test_256_channels_come() -> None:
    listener = listen_memory()
    incoming = IncomingChannels(listener, wanted=256)
    words = [b"QEVM", *(encode_initial(InitialPacket(n)) for n in range(256))]
    ends = [(listener.connect(), memoryview(each)) for each in words]
    while not incoming.is_complete:
        assert incoming.step()
        ends = [(end, rest[end.send(rest) :]) for end, rest in ends]
    assert sorted(incoming.channels) == list(range(256))


def test_a_selector_that_waits_for_all_wakes_for_each() -> None:
    listener = listen_unix()
    incoming = IncomingChannels(listener, wanted=1)
    number = incoming.fileno()
    assert number is not None
    with selectors.DefaultSelector() as selector, contextlib.closing(incoming):
        selector.register(number, selectors.EVENT_READ)
        near = [listener.connect(), listener.connect()]
        assert selector.select(5)
        assert incoming.step()
        assert not selector.select(0)
        near[1].send(memoryview(b"QEVM"))
        assert selector.select(5)
        assert incoming.step()
        # What the main channel carries from now on is its reader's to wait for.
        near[1].send(memoryview(b"more"))
        assert not selector.select(0)
        assert not incoming.step()
        for each in near:
            each.close()


def test_the_first_limit_is_what_remains() -> None:
    now = 100.0
    listener = listen_memory()
    incoming = IncomingChannels(listener, wanted=1, patience=30, clock=lambda: now)
    assert incoming.remaining() == 30
    now = 120.0
    assert incoming.remaining() == 10
    main = listener.connect()
    incoming.step()
    assert incoming.remaining() == 30
    now = 140.0
    assert incoming.remaining() == 10
    main.send(memoryview(b"QEVM"))
    incoming.step()
    assert incoming.remaining() == 10
    other = listener.connect()
    incoming.step()
    assert incoming.remaining() == 30
    words = memoryview(encode_initial(InitialPacket(0)))
    for _ in range(3):
        words = words[other.send(words) :]
        incoming.step()
    assert incoming.remaining() == float("inf")


def step_until_refused(incoming: IncomingChannels) -> None:
    for _ in range(100):
        incoming.step()


def refusal(said: list[bytes], *, wanted: int, passed: float = 0) -> str:
    """Return the line with which those that speak so are refused."""
    seconds = itertools.count(0, passed) if passed else itertools.repeat(0)
    listener = listen_unix()
    incoming = IncomingChannels(listener, wanted=wanted, clock=lambda: next(seconds))
    with contextlib.closing(incoming), contextlib.ExitStack() as opened:
        for words in said:
            end = listener.connect()
            opened.callback(end.close)
            end.send(memoryview(words))
        with pytest.raises(ChannelsError) as refused:
            step_until_refused(incoming)
        with pytest.raises(ValueError, match="closed"):
            incoming.step()
    return str(refused.value)


def test_a_refusal_says_who_why_and_what_there_is() -> None:
    zero = encode_initial(InitialPacket(0))
    assert refusal([b"QEVM", b"SSH-2.0"], wanted=1) == (
        "connection 2: byte 0 of the stream: magic 0x5353482d: the main channel has "
        "0x5145564d, and the others 0x11223344"
    )
    assert refusal([encode_initial(InitialPacket(7))], wanted=1) == (
        "connection 1: it is channel 7, and there are the main channel and channel 0"
    )
    assert refusal([zero], wanted=0) == (
        "connection 1: it is channel 0, and there is the main channel only"
    )
    assert refusal([b"", b"", b"", b""], wanted=2) == (
        "connection 4 came, and there are the main channel and channels 0 and 1"
    )
    assert refusal([encode_initial(InitialPacket(0, b"U" * 16))], wanted=1) == (
        f"connection 1: channel 0 is of VM {'55' * 16}, and this is {'00' * 16}"
    )
    assert refusal([b"QEVM"], wanted=1, passed=6) == (
        "channel 0 has not come within 30 s"
    )
    assert refusal([b"QEVM", zero[:63]], wanted=1, passed=6) == (
        "connection 2: it did not say in 30 s which it is"
    )


def test_one_that_is_lost_is_refused() -> None:
    listener = listen_unix()
    with contextlib.closing(IncomingChannels(listener, wanted=1)) as incoming:
        near = listener.connect()
        incoming.step()
        far = incoming._accepted[0]
        far.send(memoryview(b"never read"))
        near.close()
        with pytest.raises(
            ChannelsError, match="connection 1: it was lost: Connection"
        ):
            incoming.step()
        assert far.fileno() is None


class HasNoDescriptorsLeft(Inside):
    left = 1

    def accept(self) -> ByteStream | None:
        if not self.left:
            raise OSError(errno.EMFILE, "Too many open files")
        self.left -= 1
        return self.listener.accept()


def test_without_descriptors_all_is_closed() -> None:
    listener = listen_memory()
    near = listener.connect()
    incoming = IncomingChannels(HasNoDescriptorsLeft(listener), wanted=1)
    with pytest.raises(OSError, match="Too many open files"):
        incoming.step()
    assert near.receive_into(memoryview(bytearray(1))) == 0
    with pytest.raises(ConnectionRefusedError):
        listener.connect()


# -- bytes put back -------------------------------------------------------------------


def test_a_stream_with_nothing_put_back_keeps_every_promise() -> None:
    def make() -> tuple[ByteStream, ByteStream]:
        one, other = make_unix_pair()
        return PutBack(one, b""), PutBack(other, b"")

    check_transport(make)


def test_what_was_put_back_comes_first_in_whatever_pieces() -> None:
    near, far = make_unix_pair()
    back = PutBack(far, b"QEVM")
    near.send(memoryview(b"rest"))
    near.finish()
    room, arrived = memoryview(bytearray(3)), []
    while count := back.receive_into(room):
        arrived.append(bytes(room[:count]))
    assert arrived == [b"QEV", b"M", b"res", b"t"]
    near.close()
    back.close()


def test_what_was_put_back_is_lost_on_close() -> None:
    back = PutBack(make_memory_pair()[0], b"QEVM")
    with pytest.raises(ValueError, match="room for a byte"):
        back.receive_into(memoryview(b""))
    back.close()
    with pytest.raises(ValueError, match="closed"):
        back.receive_into(memoryview(bytearray(8)))
