"""What is claimed of rsocket's calls: sockets, connections, rpoll(), options."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.bench import (
    IN,
    OUT,
    RsocketBench,
    fail,
    kernel_sees,
)
from vfiomig.uapi.rsocket import RDMA_IOMAPSIZE, RDMA_SQSIZE, SOL_RDMA

if TYPE_CHECKING:
    from vfiomig.migration.transport.rsocket.bench import Claim


def _it_has_no_unix_sockets(bench: RsocketBench) -> None:
    bench.expect_errno(
        errno.ENOTSUP,
        lambda: bench.library.rsocket(socket.AF_UNIX, socket.SOCK_STREAM),
    )


def _a_type_has_no_flags(bench: RsocketBench) -> None:
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    bench.expect_errno(
        errno.ENOTSUP, lambda: bench.library.rsocket(socket.AF_INET, kind)
    )


def _a_number_of_the_kernel_is_no_socket(bench: RsocketBench) -> None:
    library = bench.library
    with select.epoll() as other:
        number = other.fileno()
        bench.expect_errno(errno.EBADF, lambda: library.raccept(number))
        bench.expect_errno(errno.EBADF, lambda: library.rfcntl(number, fcntl.F_GETFL))
        bench.expect_errno(errno.EBADF, lambda: library.rclose(number))


def _a_closed_socket_is_none(bench: RsocketBench) -> None:
    number = bench.socket()
    bench.close(number)
    bench.expect_errno(errno.EBADF, lambda: bench.library.rclose(number))


def _it_blocks_until_told_not_to(bench: RsocketBench) -> None:
    number = bench.socket()
    if flags := bench.library.rfcntl(number, fcntl.F_GETFL):
        fail(f"F_GETFL of a new socket is {flags:#o}")
    bench.do_not_block(number)
    if (flags := bench.library.rfcntl(number, fcntl.F_GETFL)) != os.O_NONBLOCK:
        fail(f"F_GETFL is {flags:#o} after F_SETFL of O_NONBLOCK")


def _it_knows_no_flags_of_descriptors(bench: RsocketBench) -> None:
    number = bench.socket()
    bench.expect_errno(
        errno.ENOTSUP, lambda: bench.library.rfcntl(number, fcntl.F_GETFD)
    )


def _who_does_not_listen_cannot_accept(bench: RsocketBench) -> None:
    number = bench.socket()
    bench.expect_errno(errno.EBADF, lambda: bench.library.raccept(number))


def _accepting_nobody_is_none_yet(bench: RsocketBench) -> None:
    listener, _ = bench.listener()
    bench.expect_errno(
        errno.EAGAIN,
        lambda: bench.within(lambda: bench.library.raccept(listener), "raccept()"),
    )


def _an_accepted_socket_does_not_inherit_o_nonblock(bench: RsocketBench) -> None:
    _, far = bench.connected(blocks=True)
    if flags := bench.library.rfcntl(far, fcntl.F_GETFL):
        fail(f"F_GETFL is {flags:#o}")


def _accept_waits_for_a_connection(bench: RsocketBench) -> None:
    listener, address = bench.listener(blocks=True)
    accepted = bench.waits(lambda: bench.library.raccept(listener), "raccept()")
    near = bench.socket()
    bench.within(lambda: bench.library.rconnect(near, address), "rconnect()")
    far, peer = accepted.answer()
    bench.adopt(far)
    if peer != bench.library.rgetsockname(near):
        fail(f"raccept() names {peer} as the peer")


def _both_ends_know_both_addresses(bench: RsocketBench) -> None:
    near, far = bench.connected()
    names = bench.library.rgetsockname, bench.library.rgetpeername
    of_near, of_far = [[name(end) for name in names] for end in (near, far)]
    if of_near != of_far[::-1]:
        fail(f"one end has {of_near}, the other {of_far}")


def _connecting_to_nobody_is_refused(bench: RsocketBench) -> None:
    number, address = bench.bound()
    bench.close(number)
    near = bench.socket()
    bench.expect_errno(
        errno.ECONNREFUSED,
        lambda: bench.within(
            lambda: bench.library.rconnect(near, address), "rconnect()"
        ),
    )


def _connecting_need_not_wait(bench: RsocketBench) -> None:
    listener, address = bench.listener()
    near = bench.socket(blocks=False)
    bench.expect_errno(errno.EINPROGRESS, lambda: bench.library.rconnect(near, address))
    bench.expect(near, OUT)
    bench.accept(listener)


def _receiving_nothing_is_none_yet(bench: RsocketBench) -> None:
    near, far = bench.connected()
    room = memoryview(bytearray(1))
    for end in (near, far):
        bench.expect_errno(errno.EAGAIN, partial(bench.library.rrecv, end, room))


def _one_call_need_not_wait_either(bench: RsocketBench) -> None:
    near, _ = bench.connected(blocks=True)
    room = memoryview(bytearray(1))
    bench.expect_errno(
        errno.EAGAIN,
        lambda: bench.within(
            lambda: bench.library.rrecv(near, room, socket.MSG_DONTWAIT), "rrecv()"
        ),
    )


def _the_kernel_never_sees_it_writable(bench: RsocketBench) -> None:
    near, far = bench.connected()
    for end in (near, far):
        if seen := kernel_sees(end):
            fail(f"poll(2) found {seen}")
        bench.expect(end, OUT)


def _the_kernel_never_sees_it_readable(bench: RsocketBench) -> None:
    near, far = bench.connected()
    bench.send_all(near, b"hello")
    bench.await_bytes(far, 5)
    if seen := kernel_sees(far):
        fail(f"poll(2) found {seen} after 5 bytes had come")


def _rpoll_waits_no_longer_than_asked(bench: RsocketBench) -> None:
    near, _ = bench.connected()
    for _ in range(3):  # the second does not return if the first left something behind
        ready = bench.within(lambda: bench.library.rpoll([(near, IN)], 10), "rpoll()")
        if ready:
            fail(f"it found {ready} where nothing was sent")


def _rpoll_wakes_for_what_comes(bench: RsocketBench) -> None:
    near, far = bench.connected()
    waited = bench.waits(lambda: bench.library.rpoll([(far, IN)], -1), "rpoll()")
    bench.send_all(near, b"!")
    if (ready := waited.answer()) != [(far, IN)]:
        fail(f"it found {ready}")


def _rpoll_takes_ordinary_descriptors_too(bench: RsocketBench) -> None:
    near, _ = bench.connected()
    one, other = socket.socketpair()
    with one, other:
        watched = [(near, IN), (one.fileno(), IN)]
        if ready := bench.library.rpoll(watched, 0):
            fail(f"it found {ready} before anything was sent")
        waited = bench.waits(lambda: bench.library.rpoll(watched, -1), "rpoll()")
        other.send(b"!")
        if (ready := waited.answer()) != [(one.fileno(), IN)]:
            fail(f"it found {ready}")


def _sizes_are_set_before_connecting(bench: RsocketBench) -> None:
    near, _ = bench.connected()
    bench.expect_errno(
        errno.EINVAL,
        lambda: bench.library.rsetsockopt(near, SOL_RDMA, RDMA_SQSIZE, 100),
    )


def _options_are_kept(bench: RsocketBench) -> None:
    number = bench.socket()
    bench.set_iomap_size(number, 8)
    if (size := bench.library.rgetsockopt(number, SOL_RDMA, RDMA_IOMAPSIZE)) != 8:
        fail(f"RDMA_IOMAPSIZE is {size}")


def _buffer_sizes_are_doubled(bench: RsocketBench) -> None:
    number = bench.socket()
    level, option = socket.SOL_SOCKET, socket.SO_SNDBUF
    # 2 GiB and more wrap in 32 bits, and end as the least.
    for asked, expected in ((1 << 16, 1 << 17), (1 << 31, 4096)):
        bench.library.rsetsockopt(number, level, option, asked)
        if (size := bench.library.rgetsockopt(number, level, option)) != expected:
            fail(f"SO_SNDBUF is {size} after {asked}")


CLAIMS_OF_CALLS: Final[tuple[Claim, ...]] = (
    _it_has_no_unix_sockets,
    _a_type_has_no_flags,
    _a_number_of_the_kernel_is_no_socket,
    _a_closed_socket_is_none,
    _it_blocks_until_told_not_to,
    _it_knows_no_flags_of_descriptors,
    _who_does_not_listen_cannot_accept,
    _accepting_nobody_is_none_yet,
    _an_accepted_socket_does_not_inherit_o_nonblock,
    _accept_waits_for_a_connection,
    _both_ends_know_both_addresses,
    _connecting_to_nobody_is_refused,
    _connecting_need_not_wait,
    _receiving_nothing_is_none_yet,
    _one_call_need_not_wait_either,
    _the_kernel_never_sees_it_writable,
    _the_kernel_never_sees_it_readable,
    _rpoll_waits_no_longer_than_asked,
    _rpoll_wakes_for_what_comes,
    _rpoll_takes_ordinary_descriptors_too,
    _sizes_are_set_before_connecting,
    _options_are_kept,
    _buffer_sizes_are_doubled,
)
