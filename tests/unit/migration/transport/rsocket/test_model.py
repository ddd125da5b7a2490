"""What the rsocket model does beyond the claims that it shares with librdmacm.

Copies, handshakes with old RDMA, threads, and what the library would not survive.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import select
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from vfiomig.migration.transport.rsocket.model import RsocketModel
from vfiomig.migration.transport.rsocket.model_end import Copies
from vfiomig.uapi.rsocket import (
    RDMA_CAPABILITY_PIN_ALL,
    RDMA_IOMAPSIZE,
    RDMA_RQSIZE,
    SOL_RDMA,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.rsocket.library import Address

ANYWHERE = ("127.0.0.1", 0)
LIMIT = 5.0  # seconds for what takes none
WINDOW = 128 << 10
IN, OUT = select.POLLIN, select.POLLOUT


def new(model: RsocketModel) -> int:
    return model.rsocket(socket.AF_INET, socket.SOCK_STREAM)


def listening(model: RsocketModel) -> tuple[int, Address]:
    number = new(model)
    model.rbind(number, ANYWHERE)
    model.rlisten(number, 1)
    return number, model.rgetsockname(number)


def do_not_block(model: RsocketModel, *numbers: int) -> None:
    for number in numbers:
        model.rfcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)


def connected(
    model: RsocketModel, *, mappings: int = 0, blocks: bool = False
) -> tuple[int, int]:
    listener, address = listening(model)
    near = new(model)
    for number in (listener, near):
        model.rsetsockopt(number, SOL_RDMA, RDMA_IOMAPSIZE, mappings)
    model.rconnect(near, address)
    far, _ = model.raccept(listener)
    if not blocks:
        do_not_block(model, near, far)
    return near, far


class Beside(threading.Thread):
    """A call in another thread; `answer` waits for it no longer than the limit."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.result: object = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.call()
        except OSError as error:
            self.result = error.errno

    def answer(self) -> object:
        self.join(LIMIT)
        assert not self.is_alive(), "the call is still blocked"
        return self.result

    def is_blocked(self) -> bool:
        self.join(0.02)
        return self.is_alive()


def send_all(model: RsocketModel, near: int, far: int, data: bytes) -> bytes:
    """Move bytes by alternating calls; return what arrived."""
    view, arrived = memoryview(data), bytearray()
    room = memoryview(bytearray(1 << 20))
    while len(arrived) < len(data):
        try:
            view = view[model.rsend(near, view) :]
        except BlockingIOError:
            assert not model.rpoll([(near, OUT)], 0) or not view
        try:
            arrived += room[: model.rrecv(far, room)]
        except BlockingIOError:
            assert not model.rpoll([(far, IN)], 0)
    return bytes(arrived)


def test_any_sizes_of_sends_and_receives_carry_the_same_bytes() -> None:
    model = RsocketModel()
    near, far = connected(model)
    rng = random.Random(7)
    payload = rng.randbytes(3_000_000)
    sent, arrived = 0, bytearray()
    while len(arrived) < len(payload):
        try:
            piece = payload[sent : sent + rng.choice((1, 63, 65, 5000, 200_000))]
            sent += model.rsend(near, memoryview(piece))
        except BlockingIOError:
            pass
        room = bytearray(rng.choice((1, 100, 4096, 70_000, 300_000)))
        try:
            count = model.rrecv(far, memoryview(room))
        except BlockingIOError:
            continue
        arrived += room[:count]
    assert arrived == payload


def test_rsocket_copies_once_on_each_side() -> None:
    model = RsocketModel()
    near, far = connected(model)
    assert send_all(model, near, far, bytes(1 << 20)) == bytes(1 << 20)
    sending, receiving = model.copies_of(near)[0], model.copies_of(far)[1]
    assert sending.copied_bytes == receiving.copied_bytes == 1 << 20
    assert model.copies_of(near)[1] == model.copies_of(far)[0] == Copies()
    # 2, 4, 8, 16, 32 KiB, and what is left of the first half.
    assert sending.copies >= 6
    for number in (near, far):
        model.rclose(number)
    assert model.copies() == (sending, receiving)


@pytest.mark.parametrize(("size", "sender_s"), [(64, 0), (65, 1)])
def test_what_goes_inline_is_not_copied_by_the_sender(size: int, sender_s: int) -> None:
    model = RsocketModel()
    near, far = connected(model)
    send_all(model, near, far, bytes(size))
    sending, receiving = model.copies()
    assert sending == Copies(sender_s, sender_s * size)
    assert receiving == Copies(1, size)


def test_native_rdma_copies_nothing() -> None:
    model = RsocketModel(native=True)
    near, far = connected(model)
    assert send_all(model, near, far, b"native" * 50_000) == b"native" * 50_000
    assert model.copies() == (Copies(), Copies())


def test_a_directed_write_is_copied_by_the_sender_alone() -> None:
    model = RsocketModel()
    near, far = connected(model, mappings=1)
    room = bytearray(100_000)
    model.riomap(far, memoryview(room), 0)
    model.rsend(far, memoryview(b""))
    assert model.riowrite(near, memoryview(b"w" * len(room)), 0) == len(room)
    assert room == b"w" * len(room)
    assert [each.copied_bytes for each in model.copies()] == [len(room), 0]


def test_messages_need_credits_even_if_there_is_room() -> None:
    model = RsocketModel()
    near, far = connected(model)
    model.rpoll([(far, IN)], 0)
    for _ in range(384 - 4):  # of the send queue, less what is kept for control
        assert model.rsend(near, memoryview(b"!")) == 1
    for _ in range(4):
        assert model.rsend(near, memoryview(b"!")) == 1  # completions were looked at
    with pytest.raises(BlockingIOError):
        model.rsend(near, memoryview(b"!"))
    assert model.rrecv(far, memoryview(bytearray(191))) == 191
    model.rpoll([(far, IN)], 0)
    with pytest.raises(BlockingIOError):
        model.rsend(near, memoryview(b"!"))
    assert model.rrecv(far, memoryview(bytearray(1))) == 1
    model.rpoll([(far, IN)], 0)
    assert model.rsend(near, memoryview(b"!")) == 1


def test_the_second_half_is_published_when_the_receiver_first_calls() -> None:
    model = RsocketModel()
    near, far = connected(model)
    piece = memoryview(bytes(1 << 20))
    assert model.rsend(near, piece) == WINDOW // 2
    model.rpoll([(far, IN)], 0)
    assert model.rsend(near, piece) == WINDOW // 2


def test_an_rsocket_that_connects_to_old_rdma_is_refused() -> None:
    model = RsocketModel()
    listener = model.listen_native(ANYWHERE)
    host, port = model.rgetsockname(listener)
    near = new(model)
    said = (
        "rsocket (version 1, flags 0x2, 384 credits) "
        "where old RDMA migration was expected"
    )
    with pytest.raises(ConnectionRefusedError) as refused:
        model.rconnect(near, (host, port))
    assert said in str(refused.value)
    assert model.refusals == [f"{host}:{port}: {said}"]
    assert model.rpoll([(near, IN | OUT)], 0) == [(near, IN | OUT | select.POLLERR)]
    do_not_block(model, listener)
    with pytest.raises(BlockingIOError):
        model.raccept(listener)


def test_old_rdma_that_connects_to_an_rsocket_is_refused() -> None:
    model = RsocketModel()
    listener, (host, port) = listening(model)
    said = "old RDMA migration (version 1, flags 0x1) where rsocket was expected"
    with pytest.raises(ConnectionRefusedError) as refused:
        model.connect_native((host, port), flags=RDMA_CAPABILITY_PIN_ALL)
    assert said in str(refused.value)
    assert model.refusals == [f"{host}:{port}: {said}"]
    do_not_block(model, listener)
    with pytest.raises(BlockingIOError):
        model.raccept(listener)
    near = new(model)  # the listener goes on
    model.rconnect(near, (host, port))
    assert model.raccept(listener)[1] == model.rgetsockname(near)


def test_who_need_not_wait_hears_of_the_refusal_later() -> None:
    model = RsocketModel()
    listener = model.listen_native(ANYWHERE)
    near = new(model)
    do_not_block(model, near)
    with pytest.raises(BlockingIOError) as connects:
        model.rconnect(near, model.rgetsockname(listener))
    assert connects.value.errno == errno.EINPROGRESS
    assert model.rpoll([(near, OUT)], 0) == [(near, OUT | select.POLLERR)]
    option = socket.SOL_SOCKET, socket.SO_ERROR
    assert model.rgetsockopt(near, *option) == errno.ECONNREFUSED
    assert model.rgetsockopt(near, *option) == 0
    with pytest.raises(ConnectionResetError):
        model.rsend(near, memoryview(b"!"))


def test_old_rdma_meets_old_rdma() -> None:
    model = RsocketModel()
    listener = model.listen_native(ANYWHERE)
    near = model.connect_native(model.rgetsockname(listener))
    far, peer = model.raccept(listener)
    assert peer == model.rgetsockname(near)
    model.rsend(near, memoryview(b"native"))
    room = bytearray(6)
    assert model.rrecv(far, memoryview(room)) == 6
    assert room == b"native"
    assert model.refusals == []


def test_two_models_are_two_networks() -> None:
    _, address = listening(RsocketModel())
    other = RsocketModel()
    with pytest.raises(ConnectionRefusedError, match="nobody listens at"):
        other.rconnect(new(other), address)


def test_an_address_is_bound_once() -> None:
    model = RsocketModel()
    number, address = listening(model)
    second = new(model)
    with pytest.raises(OSError, match="port") as in_use:
        model.rbind(second, address)
    assert in_use.value.errno == errno.EADDRINUSE
    model.rclose(number)
    model.rbind(second, address)
    with pytest.raises(OSError, match="it has an address") as bound:
        model.rbind(second, ANYWHERE)
    assert bound.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("domain", "kind", "protocol"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM, 0),
        (socket.AF_INET6, socket.SOCK_STREAM, 0),
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP),
    ],
)
def test_datagrams_and_other_families_are_not_modelled(
    domain: int, kind: int, protocol: int
) -> None:
    with pytest.raises(OSError, match="streams over IPv4 alone") as refused:
        RsocketModel().rsocket(domain, kind, protocol)
    assert refused.value.errno == errno.ENOTSUP


def test_a_socket_that_was_never_connected_carries_nothing() -> None:
    model = RsocketModel()
    number = new(model)
    for call in (model.rsend, model.rrecv):
        with pytest.raises(OSError, match="never connected") as refused:
            call(number, memoryview(bytearray(1)))
        assert refused.value.errno == errno.ENOTCONN
    assert model.rpoll([(number, IN | OUT)], 0) == []


def test_who_inherits_has_the_listener_s_flags() -> None:
    model = RsocketModel(inherits=True)
    listener, address = listening(model)
    do_not_block(model, listener)
    model.rconnect(new(model), address)
    far, _ = model.raccept(listener)
    assert model.rfcntl(far, fcntl.F_GETFL) == os.O_NONBLOCK


BLOCKING: dict[str, Callable[[RsocketModel, int], object]] = {
    "rrecv": lambda model, number: model.rrecv(number, memoryview(bytearray(1))),
    "rsend": lambda model, number: model.rsend(number, memoryview(bytes(1 << 20))),
    "rpoll": lambda model, number: model.rpoll([(number, IN)], -1),
}


@pytest.mark.parametrize("name", BLOCKING)
def test_closing_a_socket_wakes_who_is_blocked_on_it(name: str) -> None:
    model = RsocketModel()
    near, _ = connected(model, blocks=True)
    blocked = Beside(lambda: BLOCKING[name](model, near))
    assert blocked.is_blocked()
    model.rclose(near)
    bad = [(near, select.POLLNVAL)] if name == "rpoll" else errno.EBADF
    assert blocked.answer() == bad


def test_closing_a_listener_wakes_who_waits_for_a_connection() -> None:
    model = RsocketModel()
    listener, _ = listening(model)
    blocked = Beside(lambda: model.raccept(listener))
    assert blocked.is_blocked()
    model.rclose(listener)
    assert blocked.answer() == errno.EBADF


def test_who_waits_does_not_run() -> None:
    model = RsocketModel()
    near, far = connected(model)
    one, other = socket.socketpair()
    spent: list[float] = []

    def wait(watched: list[tuple[int, int]]) -> object:
        found = model.rpoll(watched, 100)
        spent.append(time.thread_time())
        return found

    with one, other:
        ordinary = [(far, IN), (one.fileno(), IN)]
        waiting = [Beside(lambda: wait([(far, IN)])), Beside(lambda: wait(ordinary))]
        for _ in range(10):
            send_all(model, near, far, b"")
        assert [each.answer() for each in waiting] == [[], []]
    assert max(spent) < 0.05


def test_a_thread_that_polls_sees_what_others_send() -> None:
    model = RsocketModel()
    near, far = connected(model)
    one, other = socket.socketpair()
    payload = random.Random(1).randbytes(1_000_000)
    arrived = bytearray()

    def receive() -> None:
        room = memoryview(bytearray(50_000))
        while len(arrived) < len(payload):
            ready = model.rpoll([(one.fileno(), IN), (far, IN)], 5000)
            assert ready == [(far, IN)]
            arrived.extend(room[: model.rrecv(far, room)])

    def send() -> None:
        view = memoryview(payload)
        while view:
            assert model.rpoll([(near, OUT)], 5000)
            view = view[model.rsend(near, view) :]

    with one, other:
        for thread in [Beside(receive), Beside(send)]:
            assert thread.answer() is None
    assert arrived == payload


def test_both_directions_block_and_wake_in_threads() -> None:
    model = RsocketModel()
    near, far = connected(model, blocks=True)
    payload = random.Random(2).randbytes(1_000_000)

    def receive(number: int) -> bytes:
        data = bytearray(len(payload))
        model.rrecv(number, memoryview(data), socket.MSG_WAITALL)
        return bytes(data)

    receivers = [Beside(partial(receive, end)) for end in (near, far)]
    senders = [
        Beside(partial(model.rsend, end, memoryview(payload))) for end in (near, far)
    ]
    assert [each.answer() for each in senders] == [len(payload)] * 2
    assert [each.answer() for each in receivers] == [payload] * 2


def filled(model: RsocketModel) -> tuple[int, int, int]:
    """Close the window; nobody has anything left to tell the other."""
    near, far = connected(model)
    for end in (near, far, near, far):
        model.rpoll([(end, IN)], 0)
    taken = model.rsend(near, memoryview(bytes(WINDOW)))
    model.rpoll([(far, IN)], 0)
    return near, far, taken


def test_who_sleeps_in_rpoll_does_not_see_what_another_thread_consumes() -> None:
    model = RsocketModel()
    near, far, taken = filled(model)
    asleep = Beside(lambda: model.rpoll([(far, select.POLLPRI)], -1))
    assert asleep.is_blocked()
    model.rrecv(far, memoryview(bytearray(taken)))
    assert model.rpoll([(near, OUT)], 20) == []
    model.rpoll([(far, IN)], 0)
    assert model.rpoll([(near, OUT)], 0) == [(near, OUT)]
    model.rclose(far)
    assert asleep.answer() == [(far, select.POLLNVAL)]


def test_who_sleeps_in_rpoll_looks_again_after_a_while() -> None:
    model = RsocketModel(wake_up_seconds=0.01)
    near, far, taken = filled(model)
    asleep = Beside(lambda: model.rpoll([(far, select.POLLPRI)], -1))
    assert asleep.is_blocked()
    model.rrecv(far, memoryview(bytearray(taken)))
    assert model.rpoll([(near, OUT)], 5000) == [(near, OUT)]
    model.rclose(far)
    assert asleep.answer() == [(far, select.POLLNVAL)]


def test_a_receive_in_vain_wakes_a_sender_that_waits() -> None:
    model = RsocketModel()
    near, far, taken = filled(model)
    model.rfcntl(near, fcntl.F_SETFL, 0)
    blocked = Beside(lambda: model.rsend(near, memoryview(b"!")))
    assert blocked.is_blocked()
    model.rrecv(far, memoryview(bytearray(taken)))
    assert blocked.is_blocked()
    with pytest.raises(BlockingIOError):
        model.rrecv(far, memoryview(bytearray(1)))
    assert blocked.answer() == 1


def test_one_send_is_several_messages() -> None:
    model = RsocketModel()
    listener, address = listening(model)
    model.rsetsockopt(listener, SOL_RDMA, RDMA_RQSIZE, 16)
    near = new(model)
    model.rconnect(near, address)
    far, _ = model.raccept(listener)
    do_not_block(model, near, far)
    model.rpoll([(far, IN)], 0)
    # 2, 4, 8, 16, 32 and 2 KiB: 6 of 16.
    assert model.rsend(near, memoryview(bytes(WINDOW // 2))) == WINDOW // 2
    for _ in range(10):
        assert model.rsend(near, memoryview(b"!")) == 1
    with pytest.raises(BlockingIOError):
        model.rsend(near, memoryview(b"!"))


def test_a_mapping_is_let_go_of() -> None:
    model = RsocketModel()
    near, far = connected(model, mappings=2)
    mapped = mmap.mmap(-1, 4096)
    other = mmap.mmap(-1, 4096)
    with memoryview(mapped) as buffer, memoryview(other) as second:
        where = model.riomap(far, buffer)
        assert model.riomap(far, second) != where
        with pytest.raises(OSError, match="no place") as full:
            model.riomap(far, buffer)
        assert full.value.errno == errno.ENOMEM
        model.riounmap(far, buffer)
        with pytest.raises(OSError, match="not mapped") as unmapped:
            model.riounmap(far, buffer)
        assert unmapped.value.errno == errno.EINVAL
    mapped.close()
    model.rclose(far)
    other.close()
    assert near


def test_a_write_to_what_was_unmapped_ends_the_connection() -> None:
    model = RsocketModel()
    near, far = connected(model, mappings=1)
    room = memoryview(bytearray(4096))
    model.riomap(far, room, 0)
    model.rsend(far, memoryview(b""))
    model.riounmap(far, room)
    model.riowrite(near, memoryview(b"too late"), 0)
    assert bytes(room) == bytes(4096)
    for end in (near, far):
        assert dict(model.rpoll([(end, 0)], 0))[end] == select.POLLERR
        option = socket.SOL_SOCKET, socket.SO_ERROR
        assert model.rgetsockopt(end, *option) == errno.EIO


def test_a_write_ends_where_the_mapping_does() -> None:
    model = RsocketModel()
    near, far = connected(model, mappings=1)
    room = bytearray(100)
    model.riomap(far, memoryview(room), 1000)
    model.rsend(far, memoryview(b""))
    assert model.riowrite(near, memoryview(b"a" * 200), 1050) == 50
    assert room == bytes(50) + b"a" * 50
    assert model.riowrite(near, memoryview(b"a"), 999) == 0


def test_what_a_closed_listener_did_not_hand_out_stays_open() -> None:
    model = RsocketModel()
    listener, address = listening(model)
    near = new(model)
    model.rconnect(near, address)
    model.rclose(listener)
    do_not_block(model, near)
    with pytest.raises(BlockingIOError):
        model.rrecv(near, memoryview(bytearray(1)))
    with pytest.raises(ConnectionRefusedError):
        model.rconnect(new(model), address)
