"""rsocket as a transport, on its model: every promise, in each of the ways to wait."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import selectors
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.open_descriptors import open_descriptors
from tests.unit.migration.guests import SmallGuest
from vfiomig.migration import companions
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.companions import (
    accept_all,
    connect_all,
    receiving_beside,
    sending_beside,
)
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import (
    Party,
    Receive,
    Send,
    StalledError,
    Steps,
    exchange,
)
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.ram_loading import PagePlaces
from vfiomig.migration.ram_pages import ChannelPages
from vfiomig.migration.source import Source
from vfiomig.migration.transport import (
    WAYS,
    IncomingChannels,
    RsocketModel,
    Rsockets,
    check_channels,
    check_transport,
    connect_rsocket,
    listen_rsocket,
    make_rsocket_pair,
)
from vfiomig.migration.transport.waiting import Waiting
from vfiomig.uapi.rsocket import RDMA_IOMAPSIZE, SOL_RDMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.transport import ByteStream, Listener
    from vfiomig.migration.transport.rsocket.library import Address

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
LONG = 5.0  # seconds that nothing takes
LINK = LinkModel(bandwidth=1 << 30, latency=1000)
NOBODY = ("127.0.0.1", 9)

EVERY_WAY = pytest.mark.parametrize("way", WAYS)


def go_on(stream: ByteStream | Listener, event: int) -> None:
    """Wait for a stream, as a loop does."""
    waiting = Waiting()
    waiting.add(stream, event)
    assert waiting.wait(LONG)


def receive(stream: ByteStream, size: int = 1 << 20) -> bytes:
    """Wait for bytes, or for the end of the stream."""
    room = bytearray(size)
    limit = time.monotonic() + LONG
    while (count := stream.receive_into(memoryview(room))) is None:
        assert time.monotonic() < limit, "nothing came"
        go_on(stream, READ)
    return bytes(room[:count])


def receive_all(stream: ByteStream, size: int) -> bytes:
    arrived = b""
    while len(arrived) < size:
        piece = receive(stream)
        assert piece, f"the stream ended after {len(arrived)} bytes"
        arrived += piece
    return arrived


def close(*streams: ByteStream | Listener) -> None:
    for each in streams:
        each.close()


def pollers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "rpoller"]


# -- the suites -----------------------------------------------------------------------


@EVERY_WAY
def test_every_way_to_wait_keeps_every_promise(way: str) -> None:
    before = open_descriptors()
    check_transport(lambda: make_rsocket_pair(RsocketModel(), way))
    assert open_descriptors() == before
    assert pollers() == []


@pytest.mark.parametrize(
    "way", ["yield", "poll", pytest.param("thread", marks=pytest.mark.slow)]
)
def test_every_way_to_wait_carries_several_channels(way: str) -> None:
    before = open_descriptors()
    check_channels(lambda: listen_rsocket(RsocketModel(), way))
    assert open_descriptors() == before
    assert pollers() == []


class Watchful(RsocketModel):
    """Knows which numbers rpoll() has in hand, in whatever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.in_hand: list[int] = []

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        numbers = [number for number, _ in watched]
        self.in_hand.extend(numbers)
        try:
            return super().rpoll(watched, timeout)
        finally:
            for number in numbers:
                self.in_hand.remove(number)

    def rclose(self, number: int) -> None:
        assert number not in self.in_hand, "it is closed, and rpoll() has it in hand"
        super().rclose(number)


@EVERY_WAY
def test_no_number_is_closed_that_rpoll_has_in_hand(way: str) -> None:
    check_transport(lambda: make_rsocket_pair(Watchful(), way))


# -- two parties ----------------------------------------------------------------------


def asks(payload: bytes) -> Steps[bytes]:
    room = memoryview(bytearray(len(payload)))
    for _ in range(3):
        yield Send(payload)
        yield Receive(room)
    return bytes(room)


def answers(size: int) -> Steps[None]:
    room = memoryview(bytearray(size))
    for _ in range(3):
        yield Receive(room)
        yield Send(bytes(room)[::-1])


@EVERY_WAY
def test_two_parties_exchange_more_than_a_window_and_back(way: str) -> None:
    payload = random.Random(1).randbytes(2_000_001)
    near, far = make_rsocket_pair(RsocketModel(), way)
    source = Party(asks(payload), near)
    destination = Party(answers(len(payload)), far)
    exchange(source, destination, patience=LONG)
    destination.result()
    assert source.result() == payload[::-1]
    close(near, far)


def reads() -> Steps[int]:
    return (yield Receive(memoryview(bytearray(1))))


@EVERY_WAY
def test_parties_that_wait_for_one_another_are_told_in_time(way: str) -> None:
    near, far = make_rsocket_pair(RsocketModel(), way)
    source, destination = Party(reads(), near), Party(reads(), far)
    began = time.monotonic()
    exchange(source, destination, patience=0.03)
    assert 0.03 <= time.monotonic() - began < LONG
    with pytest.raises(StalledError):
        source.result()
    close(near, far)


@EVERY_WAY
def test_a_machine_moves_by_channels(way: str) -> None:
    pages, count = 700, 3
    listener = listen_rsocket(RsocketModel(), way)
    with (
        SmallGuest(pages, *range(0, pages, 2)) as guest,
        SmallGuest(pages) as other,
        contextlib.closing(IncomingChannels(listener, wanted=count)) as incoming,
    ):
        there, here, metrics = VirtualClock(), VirtualClock(), Metrics()
        forth, back = Channel(LINK, there, here), Channel(LINK, here, there)
        out = connect_all(listener, count)
        known = {"multifd": True, "multifd_channels": count}
        leaving = guest.migrating(**known)._replace(
            sender=ChannelPages(out.channels, count)
        )
        source = Source(
            [],
            clock=there,
            estimate=DowntimeEstimate(link=LINK),
            limits=Limits(),
            metrics=metrics,
            machine=leaving,
        )
        first = Party(source.migrate(), out.main, outgoing=forth, incoming=back)
        sending = sending_beside(first, out.channels)
        accept_all(incoming, first, sending)
        arriving = other.migrating(**known)
        places = PagePlaces(arriving.machine.memory)
        received = companions.receive_all(incoming, places)
        destination = Destination(
            [],
            clock=here,
            metrics=metrics,
            machine=arriving._replace(channels=received, places=places),
        )
        assert incoming.main is not None
        second = Party(destination.load(), incoming.main, outgoing=back, incoming=forth)
        exchange(
            first, second, sending, receiving_beside(second, received), patience=LONG
        )
        ends = first.result().outcome, second.result().outcome
        assert ends == (Outcome.COMPLETED, Outcome.COMPLETED)
        assert guest.memory.digest() == other.memory.digest()
        close(out.main, *out.streams)
    assert pollers() == []


# -- the window -----------------------------------------------------------------------


def fill(stream: ByteStream) -> int:
    """Send until nothing is taken any more; return how much was."""
    sent, piece = 0, memoryview(bytes(1 << 20))
    while taken := stream.send(piece):
        sent += taken
    return sent


@EVERY_WAY
def test_the_window_opens_though_the_receiver_does_not_come_back(way: str) -> None:
    near, far = make_rsocket_pair(RsocketModel(), way)
    sent = fill(near)
    assert near.send(memoryview(b"x")) == 0
    assert len(receive_all(far, sent)) == sent  # and it is not called again
    go_on(near, WRITE)
    assert near.send(memoryview(b"x")) == 1
    close(near, far)


@EVERY_WAY
def test_small_messages_open_the_window_as_well(way: str) -> None:
    near, far = make_rsocket_pair(RsocketModel(), way)
    sent = 0
    while near.send(memoryview(b"m")):
        sent += 1
    assert sent < 1000  # it is out of credits, not of bytes
    assert receive_all(far, sent) == b"m" * sent
    go_on(near, WRITE)
    assert near.send(memoryview(b"m")) == 1
    close(near, far)


# -- connecting -----------------------------------------------------------------------


class SlowToConnect(RsocketModel):
    """Connects after a few looks of rpoll(), and nothing else may touch it before."""

    def __init__(self, looks: int = 3, *, is_held: bool = False) -> None:
        super().__init__()
        self.looks = looks
        self.is_held = is_held  # no look helps
        self.left: dict[int, int] = {}
        self._addresses: dict[int, Address] = {}

    def rconnect(self, number: int, address: Address) -> None:
        self.left[number] = self.looks
        self._addresses[number] = address
        raise BlockingIOError(errno.EINPROGRESS, "Operation now in progress")

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        late = [number for number, _ in watched if number in self.left]
        for number in late:
            self.left[number] -= not self.is_held
            if self.left[number] <= 0:
                del self.left[number]
                with contextlib.suppress(BlockingIOError):
                    super().rconnect(number, self._addresses[number])
        others = [each for each in watched if each[0] not in self.left]
        return super().rpoll(others, 0 if late else timeout)

    def rsend(self, number: int, data: memoryview, flags: int = 0) -> int:
        assert number not in self.left, "it connects"
        return super().rsend(number, data, flags)

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        assert number not in self.left, "it connects"
        return super().rrecv(number, buffer, flags)

    def rshutdown(self, number: int, how: int) -> None:
        assert number not in self.left, "it connects"
        super().rshutdown(number, how)


def accept(listener: Listener) -> ByteStream:
    limit = time.monotonic() + LONG
    while (far := listener.accept()) is None:
        assert time.monotonic() < limit, "nobody came"
        go_on(listener, READ)
    return far


@EVERY_WAY
def test_a_pair_stands_however_long_that_took(way: str) -> None:
    library = SlowToConnect(looks=9)
    near, far = make_rsocket_pair(library, way)
    assert not library.left
    assert near.send(memoryview(b"at once")) == 7
    assert receive(far) == b"at once"
    close(near, far)


@EVERY_WAY
def test_a_listener_makes_the_steps_of_those_that_connect_to_it(way: str) -> None:
    """Nobody calls the source's end before it is accepted."""
    with contextlib.closing(listen_rsocket(SlowToConnect(), way)) as listener:
        near = listener.connect()
        far = accept(listener)
        assert far.send(memoryview(b"hello")) == 5
        assert receive(near) == b"hello"
        close(near, far)


@EVERY_WAY
def test_a_stream_says_none_now_until_it_stands(way: str) -> None:
    library = SlowToConnect(is_held=True)
    with contextlib.closing(listen_rsocket(library, way)) as listener:
        near = listener.connect()
        assert near.send(memoryview(b"x")) == 0
        assert near.receive_into(memoryview(bytearray(1))) is None
        assert listener.accept() is None
        library.is_held = False
        far = accept(listener)
        close(near, far)


@EVERY_WAY
def test_one_that_finishes_while_it_connects_is_finished_later(way: str) -> None:
    with contextlib.closing(listen_rsocket(SlowToConnect(), way)) as listener:
        near = listener.connect()
        near.finish()
        with pytest.raises(BrokenPipeError):
            near.send(memoryview(b"more"))
        far = accept(listener)
        assert receive(far) == b""
        far.send(memoryview(b"an answer"))
        assert receive(near) == b"an answer"
        close(near, far)


@EVERY_WAY
def test_one_that_connects_may_be_closed(way: str) -> None:
    with contextlib.closing(
        listen_rsocket(SlowToConnect(is_held=True), way)
    ) as listener:
        near = listener.connect()
        near.finish()
        near.close()
        assert listener.accept() is None


@EVERY_WAY
def test_a_late_refusal_is_raised_by_the_stream(way: str) -> None:
    near = connect_rsocket(SlowToConnect(), way, NOBODY)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            receive(near)
        with pytest.raises(ConnectionRefusedError):
            near.send(memoryview(b"x"))
    close(near)


@EVERY_WAY
def test_where_someone_has_listened_a_refusal_is_a_loss(way: str) -> None:
    library = SlowToConnect(is_held=True)
    listener = listen_rsocket(library, way)
    near = listener.connect()
    listener.close()
    library.is_held = False
    with pytest.raises(ConnectionResetError, match="the link was lost"):
        receive(near)
    with pytest.raises(ConnectionResetError):
        near.send(memoryview(b"x"))
    close(near)


class ConnectsAtTheLast(SlowToConnect):
    """A connection that may stand as soon as the listener has found nobody."""

    def __init__(self) -> None:
        super().__init__(is_held=True)
        self.stood = threading.Event()

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        ready = super().rpoll(watched, timeout)
        if not self.left:
            self.stood.set()
        return ready

    def raccept(self, number: int) -> tuple[int, Address]:
        try:
            return super().raccept(number)
        except BlockingIOError:
            self.is_held = False
            self.stood.wait(0.05)  # in vain, if nobody makes a step meanwhile
            raise


@EVERY_WAY
def test_nobody_is_left_alone_with_a_connection_that_stands(way: str) -> None:
    before = open_descriptors()
    listener = listen_rsocket(ConnectsAtTheLast(), way)
    near = listener.connect()
    listener.close()
    with pytest.raises(ConnectionResetError, match="the link was lost"):
        receive(near)
    close(near)
    assert open_descriptors() == before  # nor does its other end stay open


@EVERY_WAY
def test_the_close_of_a_listener_leaves_alone_what_it_accepted(way: str) -> None:
    listener = listen_rsocket(RsocketModel(), way)
    pairs = [(listener.connect(), accept(listener)) for _ in range(3)]
    alone = listener.connect()
    listener.close()
    for near, far in pairs:
        assert near.send(memoryview(b"still here")) == 10
        assert receive(far) == b"still here"
        close(near, far)
    with pytest.raises(ConnectionResetError):
        receive(alone)
    close(alone)


# -- sockets --------------------------------------------------------------------------


@pytest.mark.parametrize("inherits", [False, True])
def test_no_socket_blocks_whether_accepted_ones_inherit_or_not(
    *, inherits: bool
) -> None:
    library = RsocketModel(inherits=inherits)
    sockets = Rsockets(library)
    listener = sockets.listen()
    near = listener.connect()
    far = accept(listener)
    for each in (near, far):
        assert isinstance(each, type(near))
        assert library.rfcntl(each.number, fcntl.F_GETFL) == os.O_NONBLOCK
    close(near, far, listener)


def test_a_way_to_wait_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="are yield, thread, poll: not epoll"):
        Rsockets(RsocketModel(), "epoll")


@EVERY_WAY
def test_what_could_not_be_opened_is_closed(way: str) -> None:
    sockets = Rsockets(RsocketModel(), way)
    before = open_descriptors()
    with contextlib.closing(sockets.listen()) as listener:
        with pytest.raises(OSError, match="in use") as refused:
            sockets.listen(listener.address)
        assert refused.value.errno == errno.EADDRINUSE
    assert open_descriptors() == before


class WithMappings(RsocketModel):
    """Its sockets have places for the peer's mappings."""

    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        number = super().rsocket(domain, kind, protocol)
        self.rsetsockopt(number, SOL_RDMA, RDMA_IOMAPSIZE, 8)
        return number


@EVERY_WAY
def test_a_link_that_was_lost_does_not_look_like_the_end(way: str) -> None:
    library = WithMappings()
    near, far = Rsockets(library, way).pair()
    room = memoryview(bytearray(16))
    offset = library.riomap(far.number, room)
    far.send(memoryview(b"mapped"))
    assert receive(near) == b"mapped"
    library.riounmap(far.number, room)
    library.riowrite(near.number, memoryview(b"!"), offset)  # a protection error
    for end in (near, far):
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                receive(end)
        with pytest.raises(ConnectionResetError):
            end.send(memoryview(b"x"))
    close(near, far)


# -- what is to be waited on ----------------------------------------------------------


@pytest.mark.parametrize("way", ["yield", "poll"])
def test_without_a_thread_there_is_no_descriptor_but_a_poll(way: str) -> None:
    near, far = Rsockets(RsocketModel(), way).pair()
    assert near.fileno() is None
    assert near.poll is not None
    near.close()
    assert near.poll is None
    far.close()


def test_who_yields_is_told_to_try_again_at_once() -> None:
    near, far = Rsockets(RsocketModel(), "yield").pair()
    assert near.poll is not None
    assert near.poll(READ, LONG)
    close(near, far)


def test_who_polls_waits_as_long_as_it_takes() -> None:
    near, far = Rsockets(RsocketModel(), "poll").pair()
    assert near.poll is not None
    began = time.monotonic()
    assert not near.poll(READ, 0.03)
    assert 0.03 <= time.monotonic() - began < LONG
    assert near.poll(WRITE, LONG)
    assert near.poll(READ | WRITE, LONG)
    far.send(memoryview(b"!"))
    assert near.poll(READ, LONG)
    close(near, far)


class InterruptedOnce(RsocketModel):
    """A signal comes within rpoll()."""

    interruptions = 0

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        self.interruptions += 1
        if self.interruptions == 1:
            raise InterruptedError(errno.EINTR, "Interrupted system call")
        return super().rpoll(watched, timeout)


@EVERY_WAY
def test_a_signal_does_no_harm(way: str) -> None:
    library = InterruptedOnce()
    near, far = make_rsocket_pair(library, way)
    near.send(memoryview(b"hello"))
    assert receive(far) == b"hello"
    assert library.interruptions > 1
    close(near, far)


def test_both_ends_in_threads_of_their_own_wake_one_another() -> None:
    """Each thread has its own way to wait, as two processes have."""
    library = RsocketModel()
    listener = listen_rsocket(library, "poll")
    payload = random.Random(2).randbytes(3_000_000)
    arrived = bytearray()

    def destination() -> None:
        far = accept(listener)
        while data := receive(far):
            arrived.extend(data)
        close(far)

    thread = threading.Thread(target=destination)
    thread.start()
    near = connect_rsocket(library, "thread", listener.address)
    rest = memoryview(payload)
    while rest:
        if not (taken := near.send(rest)):
            go_on(near, WRITE)
        rest = rest[taken:]
    near.finish()
    thread.join(LONG)
    assert not thread.is_alive()
    assert arrived == payload
    close(near, listener)
