"""A main loop that watches an rsocket: the hang of a blocking one, found and named."""

from __future__ import annotations

import select
import selectors
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.open_descriptors import open_descriptors
from vfiomig.migration.transport import RsocketModel, Rsockets, make_unix_pair
from vfiomig.migration.transport.rsocket.check_watch import check_rsocket_watch
from vfiomig.migration.transport.rsocket.poller import Poller
from vfiomig.migration.transport.rsocket.watch import (
    HangError,
    MainLoop,
    Watch,
    WatchedRsocket,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
LIMIT = 0.05  # seconds that a callback may take
LONG = 5.0


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    descriptors = open_descriptors()
    yield
    assert set(threading.enumerate()) == threads
    assert open_descriptors() == descriptors


# -- the claims -----------------------------------------------------------------------


def test_a_watched_blocking_rsocket_hangs_its_loop_and_is_named() -> None:
    check_rsocket_watch(RsocketModel, limit=LIMIT, wait_seconds=LONG)


class NeverBlocks(RsocketModel):
    """Answers EAGAIN whatever O_NONBLOCK is: nothing hangs."""

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        return super().rrecv(number, buffer, flags | socket.MSG_DONTWAIT)


def test_the_claims_find_one_that_does_not_hang() -> None:
    with pytest.raises(AssertionError, match=r"hangs in rrecv .*: TimeoutError"):
        check_rsocket_watch(NeverBlocks, limit=LIMIT, wait_seconds=0.1)


class BlocksAfterAll(RsocketModel):
    """Answers EAGAIN to nobody that reads: it waits."""

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        while not dict(self.rpoll([(number, select.POLLIN)], 20)).get(number):
            pass
        return super().rrecv(number, buffer, flags)


def test_the_claims_find_a_hang_where_none_should_be() -> None:
    library = BlocksAfterAll()
    near, far = Rsockets(library).pair()
    watched = WatchedRsocket(library, Poller(library), far.number)
    near.send(memoryview(b"hello"))

    def read() -> bool:
        return watched.read(memoryview(bytearray(64))) != 0

    loop = MainLoop(watched.create_watch(READ, read), limit=LIMIT)
    with pytest.raises(HangError) as hang:
        loop.run(lambda: False, LONG)
    # O_NONBLOCK is set, so that nobody is told to set it.
    assert str(hang.value) == (
        f"the watch on rsocket {far.number} was ready, and rrecv() blocks: 0.1 s"
    )
    near.close()
    assert loop.join(LONG)
    watched.close()
    far.close()


# -- the loop -------------------------------------------------------------------------


def test_any_descriptor_is_watched_for_reading_and_for_writing() -> None:
    one, other = socket.socketpair()
    seen: list[str] = []

    def wrote() -> bool:
        seen.append("wrote")
        one.send(b"!")
        return False  # once

    def read() -> bool:
        seen.append("read")
        return not other.recv(1)

    with one, other:
        loop = MainLoop(
            Watch(other.fileno(), READ, read), Watch(one.fileno(), WRITE, wrote)
        )
        loop.run(lambda: len(seen) == 2, LONG)
    assert seen == ["wrote", "read"]


def test_one_watch_is_called_for_either_event() -> None:
    near, far = make_unix_pair()
    calls: list[int] = []

    def called() -> bool:
        calls.append(1)
        return len(calls) < 3

    MainLoop(Watch(near, READ | WRITE, called)).run(lambda: len(calls) == 3, LONG)
    near.close()
    far.close()


def test_a_stream_of_the_poll_thread_is_watched_like_any_other() -> None:
    near, far = Rsockets(RsocketModel(), "thread").pair()
    room, arrived = memoryview(bytearray(64)), bytearray()

    def read() -> bool:
        if count := far.receive_into(room):
            arrived.extend(room[:count])
        return True

    near.send(memoryview(b"hello"))
    MainLoop(Watch(far, READ, read)).run(lambda: arrived == b"hello", LONG)
    near.close()
    far.close()


def test_a_closed_stream_cannot_be_watched() -> None:
    near, far = make_unix_pair()
    far.close()
    with pytest.raises(ValueError, match="no descriptor to watch"):
        MainLoop(Watch(far, READ, bool)).run(lambda: False, LONG)
    near.close()


def test_a_loop_that_has_nothing_to_do_ends_at_its_limit() -> None:
    near, far = make_unix_pair()
    with pytest.raises(TimeoutError, match=r"within 0\.02 s"):
        MainLoop(Watch(far, READ, bool)).run(lambda: False, 0.02)
    near.close()
    far.close()


def test_what_a_callback_raises_is_raised_by_who_runs_the_loop() -> None:
    near, far = make_unix_pair()

    def fails() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        MainLoop(Watch(near, WRITE, fails)).run(lambda: False, LONG)
    near.close()
    far.close()


def test_any_callback_that_does_not_come_back_is_named() -> None:
    near, far = make_unix_pair()
    released = threading.Event()

    def sleeps_on() -> bool:
        return not released.wait(LONG)

    loop = MainLoop(Watch(near, WRITE, sleeps_on, name="the monitor"), limit=LIMIT)
    with pytest.raises(HangError) as hang:
        loop.run(lambda: False, LONG)
    said = str(hang.value)
    assert said.startswith("the watch on the monitor was ready, and wait() does not")
    assert hang.value.where.startswith("threading.py:")
    assert said.endswith(f"({hang.value.where}): 0.1 s")
    assert not loop.join(0)
    released.set()
    assert loop.join(LONG)
    near.close()
    far.close()


def test_many_short_callbacks_are_no_hang() -> None:
    near, far = make_unix_pair()
    calls: list[int] = []

    def called() -> bool:
        calls.append(1)
        return True

    watch = Watch(near, WRITE, called)
    began = threading.Event()
    timer = threading.Timer(3 * LIMIT, began.set)
    timer.start()
    MainLoop(watch, limit=LIMIT).run(began.is_set, LONG)
    timer.join()
    assert len(calls) > 3
    near.close()
    far.close()
