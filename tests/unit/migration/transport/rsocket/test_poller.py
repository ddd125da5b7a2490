"""The poll thread: what its descriptors say, how long it lives, what it lets alone."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import select
import selectors
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.open_descriptors import open_descriptors
from vfiomig.migration.transport import RsocketModel, Rsockets
from vfiomig.migration.transport.rsocket.poller import Poller, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
IN, OUT = select.POLLIN, select.POLLOUT
LONG = 5.0


def says(number: int | None, seconds: float = 0.0) -> int:
    """Return what poll(2) says of a descriptor."""
    assert number is not None
    poll = select.poll()
    poll.register(number, IN | OUT)
    return sum(revents for _, revents in poll.poll(seconds * 1000))


def wait_for(number: int | None, wanted: int) -> None:
    """Wait until a descriptor says that."""
    assert number is not None
    poll = select.poll()
    limit = time.monotonic() + LONG
    while (said := says(number)) != wanted:
        poll.register(number, wanted & ~said or IN | OUT)
        poll.poll(20)
        assert time.monotonic() < limit, f"it says {said}, not {wanted}"


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "rpoller"]


# -- a descriptor that is told what to say --------------------------------------------


def test_a_signal_says_readable_and_writable_in_all_combinations() -> None:
    every = (0, READ, WRITE, READ | WRITE)
    flags = {0: 0, READ: IN, WRITE: OUT, READ | WRITE: IN | OUT}
    signal = Signal()
    with contextlib.closing(signal):
        assert says(signal.fileno()) == 0
        now = 0
        for wanted in itertools.chain.from_iterable(itertools.permutations(every)):
            signal.set(wanted & ~now)
            signal.clear(now & ~wanted)
            now = wanted
            assert says(signal.fileno()) == flags[wanted]


def test_a_selector_that_waits_is_woken_by_a_signal() -> None:
    signal = Signal()
    with contextlib.closing(signal), select.epoll() as epoll:
        epoll.register(signal.fileno(), select.EPOLLOUT)
        waiter = threading.Thread(target=lambda: epoll.poll(LONG))
        waiter.start()
        signal.set(WRITE)
        waiter.join(LONG)
        assert not waiter.is_alive()


# -- what it says of an rsocket -------------------------------------------------------


@pytest.fixture
def sockets() -> Iterator[Rsockets]:
    yield Rsockets(RsocketModel(), "thread")
    assert threads() == []


def test_an_end_that_is_idle_is_writable_alone(sockets: Rsockets) -> None:
    near, far = sockets.pair()
    wait_for(near.fileno(), OUT)
    far.send(memoryview(b"!"))
    wait_for(near.fileno(), IN | OUT)
    near.close()
    far.close()


def test_ready_stays_ready_until_a_call_answers_eagain(sockets: Rsockets) -> None:
    near, far = sockets.pair()
    room = memoryview(bytearray(64))
    far.send(memoryview(b"hello"))
    wait_for(near.fileno(), IN | OUT)
    assert near.receive_into(room) == 5
    assert says(near.fileno()) == IN | OUT  # for a call that finds nothing
    assert near.receive_into(room) is None
    assert says(near.fileno()) == OUT
    far.send(memoryview(b"again"))
    wait_for(near.fileno(), IN | OUT)
    near.close()
    far.close()


def test_an_end_with_nothing_to_read_and_no_window_is_neither(
    sockets: Rsockets,
) -> None:
    near, far = sockets.pair()
    sent = 0
    while taken := near.send(memoryview(bytes(1 << 20))):
        sent += taken
    assert says(near.fileno()) == 0
    room = memoryview(bytearray(sent))
    limit = time.monotonic() + LONG
    while sent:
        sent -= far.receive_into(room) or 0
        assert time.monotonic() < limit
    wait_for(near.fileno(), OUT)
    near.close()
    far.close()


def test_the_end_of_the_peer_wakes_both_directions(sockets: Rsockets) -> None:
    near, far = sockets.pair()
    while near.send(memoryview(bytes(1 << 20))):
        pass
    assert says(near.fileno()) == 0
    far.close()
    wait_for(near.fileno(), IN | OUT)
    assert near.receive_into(memoryview(bytearray(1))) == 0
    with pytest.raises(ConnectionResetError):
        near.send(memoryview(b"x"))
    near.close()


def test_who_connects_is_not_writable_before_it_stands() -> None:
    library = RsocketModel()
    near, far = Rsockets(library).pair()
    held = Held(library)
    held.is_held = True
    poller = Poller(held)
    poller.add(near.number, connects=True)
    assert not poller.stands(near.number)
    assert says(poller.fileno(near.number)) == 0
    held.is_held = False
    assert poller.stands(near.number)
    assert says(poller.fileno(near.number)) == OUT
    poller.remove(near.number)
    near.close()
    far.close()


class Held(RsocketModel):
    """The calls of another, whose rpoll() finds no socket while it is held."""

    is_held = False

    def __init__(self, library: RsocketModel) -> None:
        super().__init__()
        self.library = library
        self.asked: list[tuple[tuple[int, int], ...]] = []
        self.failing: set[int] = set()

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        self.asked.append(tuple(watched))
        if any(number in self.failing for number, _ in watched):
            raise OSError(errno.EBADF, "Bad file descriptor")
        ours = watched[:1] if self.is_held and timeout else watched
        return [] if self.is_held and not timeout else self.library.rpoll(ours, timeout)


# -- the thread -----------------------------------------------------------------------


def test_one_thread_serves_all_sockets_and_ends_with_the_last(
    sockets: Rsockets,
) -> None:
    assert threads() == []
    pairs = [sockets.pair() for _ in range(3)]
    assert len(threads()) == 1
    for near, far in pairs:
        assert len(threads()) == 1
        near.close()
        far.close()
    assert threads() == []
    near, far = sockets.pair()  # and another for those that come later
    assert len(threads()) == 1
    near.close()
    far.close()


def test_what_was_removed_is_asked_for_no_more() -> None:
    library = RsocketModel()
    ends = Rsockets(library).pair()
    held = Held(library)
    poller = Poller(held)
    for end in ends:
        poller.add(end.number)
    poller.remove(ends[0].number)
    held.asked.clear()
    poller.ran_dry(ends[1].number, READ | WRITE)
    assert poller.stands(ends[1].number)
    poller.remove(ends[1].number)
    assert ends[0].number not in {number for each in held.asked for number, _ in each}
    for end in ends:
        end.close()


def test_removing_what_is_not_watched_does_nothing() -> None:
    Poller(RsocketModel()).remove(7)
    assert threads() == []


def test_a_number_that_is_no_socket_wakes_who_uses_it() -> None:
    library = RsocketModel()
    near, far = Rsockets(library).pair()
    held = Held(library)
    poller = Poller(held)
    poller.add(far.number)
    wait_for(poller.fileno(far.number), OUT)
    held.failing.add(near.number)
    poller.add(near.number)
    wait_for(poller.fileno(near.number), IN | OUT)
    assert says(poller.fileno(far.number)) == OUT
    far_says = poller.fileno(far.number)
    near.send(memoryview(b"others go on"))
    wait_for(far_says, IN | OUT)
    for end in (near, far):
        poller.remove(end.number)
        end.close()
    assert threads() == []


def test_an_errand_is_run_between_two_rounds_and_raises_where_it_was_asked() -> None:
    library = RsocketModel()
    near, far = Rsockets(library).pair()
    poller = Poller(library)
    ran_in: list[str] = []

    def fails() -> None:
        ran_in.append(threading.current_thread().name)
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file"):
        poller.undisturbed(fails)
    poller.add(near.number)
    with pytest.raises(OSError, match="Bad file"):
        poller.undisturbed(fails)
    poller.remove(near.number)
    assert ran_in == [threading.current_thread().name, "rpoller"]
    near.close()
    far.close()


def use_up() -> Callable[[], None]:
    """Leave no descriptor; return what gives them back."""
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))

    def give_back() -> None:
        for each in taken:
            os.close(each)

    return give_back


def test_without_descriptors_nothing_is_left_behind() -> None:
    sockets = Rsockets(RsocketModel(), "thread")
    before = len(open_descriptors())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 40, hard))
    try:
        give_back = use_up()
        with pytest.raises(OSError, match="Too many open files"):
            sockets.listen()
        give_back()
        with contextlib.closing(sockets.listen()):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(open_descriptors()) == before
    assert threads() == []
