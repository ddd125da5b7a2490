"""What sockets add to the contract of every transport."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from vfiomig.migration.transport import SocketStream, make_tcp_pair, make_unix_pair
from vfiomig.migration.transport.tcp import _accept_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.migration.transport import Pair

MAKERS = [make_unix_pair, make_tcp_pair]


@contextlib.contextmanager
def opened(make_pair: Callable[[], Pair]) -> Iterator[Pair]:
    near, far = make_pair()
    with contextlib.closing(near), contextlib.closing(far):
        yield near, far


@pytest.mark.parametrize("make_pair", MAKERS)
def test_a_full_kernel_buffer_takes_none_now(make_pair: Callable[[], Pair]) -> None:
    with opened(make_pair) as (near, _):
        data = memoryview(bytes(4 << 20))
        counts = [near.send(data) for _ in range(16)]
    assert counts[0] > 0
    assert counts[-1] == 0


@pytest.mark.parametrize("make_pair", MAKERS)
def test_a_peer_that_closes_with_bytes_unread_resets_the_link(
    make_pair: Callable[[], Pair],
) -> None:
    with opened(make_pair) as (near, far):
        near.send(memoryview(b"never read"))
        far.close()
        buffer = memoryview(bytearray(8))
        with pytest.raises(ConnectionResetError):
            near.receive_into(buffer)
        assert near.receive_into(buffer) == 0
        near.finish()


@pytest.mark.parametrize("make_pair", MAKERS)
def test_a_send_to_nobody_raises_no_signal(make_pair: Callable[[], Pair]) -> None:
    signals: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda number, _: signals.append(number))
    try:
        with opened(make_pair) as (near, _):
            near.finish()
            with pytest.raises(BrokenPipeError):
                near.send(memoryview(b"x"))
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert signals == []


@pytest.mark.parametrize("make_pair", MAKERS)
def test_no_call_can_block(make_pair: Callable[[], Pair]) -> None:
    with opened(make_pair) as ends:
        descriptors = [end.fileno() for end in ends]
        assert all(fd is not None and not os.get_blocking(fd) for fd in descriptors)


def test_tcp_sends_small_messages_at_once() -> None:
    with opened(make_tcp_pair) as ends:
        for end in ends:
            fd = end.fileno()
            assert fd is not None
            with socket.socket(fileno=os.dup(fd)) as same:
                assert same.family == socket.AF_INET
                assert same.getsockname()[0] == "127.0.0.1"
                assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_strangers_connection_is_not_taken_for_ours() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = listener.getsockname()
        stranger = stack.enter_context(socket.create_connection(address))
        ours = stack.enter_context(socket.create_connection(address))
        accepted = stack.enter_context(_accept_from(listener, ours.getsockname()))
        assert accepted.getpeername() == ours.getsockname()
        assert stranger.recv(1) == b""


def test_a_socket_handed_over_no_longer_blocks() -> None:
    one, other = socket.socketpair()
    with other, contextlib.closing(SocketStream(one)) as stream:
        assert stream.receive_into(memoryview(bytearray(1))) is None
