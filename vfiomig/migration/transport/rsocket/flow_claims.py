"""What is claimed of an rsocket's bytes: windows, mappings, and ends of streams."""

from __future__ import annotations

import errno
import fcntl
import random
import socket
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.bench import HUP, IN, OUT, RsocketBench, fail

if TYPE_CHECKING:
    from vfiomig.migration.transport.rsocket.bench import Claim

_WINDOW: Final = 128 << 10  # bytes of the receive buffer
_HALF: Final = _WINDOW // 2  # it is published in two
_MANY: Final = 300_000  # bytes: more than the window
_MIB: Final = 1 << 20
# A peer that is gone is sent a message at a time until its credits are used up.
_LATE_SENDS: Final = 1000


def _bytes_arrive_complete_and_in_order(bench: RsocketBench) -> None:
    near, far = bench.connected()
    payload = random.Random(_MANY).randbytes(_MANY)
    sent = bench.start(lambda: bench.send_all(near, payload), "sending")
    arrived = bench.receive_all(far, _MANY)
    sent.answer()
    if arrived != payload:
        at = next(i for i in range(_MANY) if arrived[i] != payload[i])
        fail(f"byte {at} of {_MANY} differs")


def _peeking_leaves_the_bytes(bench: RsocketBench) -> None:
    near, far = bench.connected()
    bench.send_all(near, b"hello")
    bench.await_bytes(far, 5)
    if (data := bench.receive_all(far, 5)) != b"hello":
        fail(f"{data!r} came after it was looked at")


def _a_receive_can_wait_for_all(bench: RsocketBench) -> None:
    near, far = bench.connected(blocks=True)
    room = bytearray(6)
    bench.send_all(near, b"one")
    received = bench.waits(
        lambda: bench.library.rrecv(far, memoryview(room), socket.MSG_WAITALL),
        "rrecv()",
    )
    bench.send_all(near, b"two")
    if (count := received.answer()) != 6 or room != b"onetwo":
        fail(f"{count} bytes came: {bytes(room)!r}")


def _the_window_holds_128_kib(bench: RsocketBench) -> None:
    near, far = bench.connected()
    _exchange(bench, near, far)
    if (taken := bench.fill(near)) != _WINDOW - 5:
        fail(f"{taken} bytes were taken after 5, where {_WINDOW - 5} had room")


def _the_window_stays_closed_until_the_receiver_calls(bench: RsocketBench) -> None:
    near, far = bench.connected()
    taken = _fill(bench, near, far)
    bench.drain(far, taken)
    _expect_closed(bench, near)
    bench.library.rpoll([(far, IN)], 0)
    bench.expect(near, OUT)
    if bench.library.rsend(near, memoryview(b"!")) != 1:
        fail("rpoll() found it writable, and rsend() took nothing")


def _a_receive_in_vain_opens_the_window(bench: RsocketBench) -> None:
    near, far = bench.connected()
    bench.drain(far, _fill(bench, near, far))
    room = memoryview(bytearray(1))
    bench.expect_errno(errno.EAGAIN, lambda: bench.library.rrecv(far, room))
    bench.expect(near, OUT)


def _the_window_opens_by_halves(bench: RsocketBench) -> None:
    near, far = bench.connected()
    taken = _fill(bench, near, far)
    bench.await_bytes(far, taken)
    bench.library.rrecv(far, memoryview(bytearray(_HALF - 6)))
    bench.library.rpoll([(far, IN)], 0)
    _expect_closed(bench, near)
    bench.library.rrecv(far, memoryview(bytearray(1)))
    bench.library.rpoll([(far, IN)], 0)
    if (more := bench.fill(near)) != _HALF:
        fail(f"{more} bytes were taken when half of the buffer was free")


def _a_send_waits_for_the_window(bench: RsocketBench) -> None:
    near, far = bench.connected()
    taken = _fill(bench, near, far)
    bench.library.rfcntl(near, fcntl.F_SETFL, 0)
    sent = bench.waits(lambda: bench.library.rsend(near, memoryview(b"!")), "rsend()")
    bench.drain(far, taken)
    bench.library.rpoll([(far, IN)], 0)
    if (count := sent.answer()) != 1:
        fail(f"rsend() returned {count}")


def _a_receive_waits_for_bytes(bench: RsocketBench) -> None:
    near, far = bench.connected(blocks=True)
    room = bytearray(8)
    received = bench.waits(
        lambda: bench.library.rrecv(far, memoryview(room)), "rrecv()"
    )
    bench.send_all(near, b"!")
    if (count := received.answer()) != 1 or room[:1] != b"!":
        fail(f"rrecv() returned {count}, and {bytes(room)!r} came")


def _no_place_for_a_mapping_by_default(bench: RsocketBench) -> None:
    near, _ = bench.connected()
    buffer = memoryview(bytearray(4096))
    bench.expect_errno(errno.ENOMEM, lambda: bench.library.riomap(near, buffer, 0))


def _a_mapping_is_unheard_of_until_something_is_sent(bench: RsocketBench) -> None:
    near, far = bench.connected(iomap_size=8)
    room = memoryview(bytearray(_MIB))
    if offset := bench.library.riomap(far, room, 0):
        fail(f"riomap() of offset 0 returned {offset}")
    if count := bench.library.riowrite(near, memoryview(b"early"), 0):
        fail(f"riowrite() took {count} bytes before the mapping was published")
    bench.library.riounmap(far, room)


def _a_directed_write_lands_before_any_receive(bench: RsocketBench) -> None:
    near, far = bench.connected(iomap_size=8)
    room = bytearray(_MIB)
    payload = random.Random(_MIB).randbytes(_MIB)
    with memoryview(room) as mapped:
        bench.library.riomap(far, mapped, 0)
        bench.send_all(far, b"!")
        bench.receive_all(near, 1)
        bench.write_all(near, payload)
        bench.await_equal(near, room, payload)
        bench.library.riounmap(far, mapped)


def _a_peer_that_shuts_down_is_seen(bench: RsocketBench) -> None:
    near, far = bench.connected()
    _exchange(bench, near, far)
    bench.within(lambda: bench.library.rshutdown(near, socket.SHUT_RDWR), "rshutdown()")
    bench.expect(far, HUP)
    if (seen := bench.revents(far, IN | OUT)) != IN | OUT | HUP:
        fail(f"rpoll() found {seen:#x}")
    if count := bench.library.rrecv(far, memoryview(bytearray(1))):
        fail(f"rrecv() returned {count}")


def _what_was_sent_before_is_read_after_a_close(bench: RsocketBench) -> None:
    near, far = bench.connected()
    bench.send_all(near, b"unread")
    bench.close(near)
    if (data := bench.receive_all(far, 6)) != b"unread":
        fail(f"{data!r} came")
    _expect_end(bench, far)


def _one_direction_ends_alone(bench: RsocketBench) -> None:
    near, far = bench.connected()
    bench.within(lambda: bench.library.rshutdown(near, socket.SHUT_WR), "rshutdown()")
    _expect_end(bench, far)
    if (seen := bench.revents(far, IN | OUT)) != IN | OUT:
        fail(f"rpoll() found {seen:#x}")
    bench.send_all(far, b"an answer")
    if (data := bench.receive_all(near, 9)) != b"an answer":
        fail(f"{data!r} came")


def _sending_to_a_peer_that_closed_is_refused(bench: RsocketBench) -> None:
    near, far = bench.connected()
    bench.close(far)
    _expect_end(bench, near)
    for _ in range(_LATE_SENDS):
        try:
            bench.library.rsend(near, memoryview(b"to nobody"))
        except ConnectionResetError:
            return
    fail(f"the last of {_LATE_SENDS} sends was taken")


CLAIMS_OF_FLOW: Final[tuple[Claim, ...]] = (
    _bytes_arrive_complete_and_in_order,
    _peeking_leaves_the_bytes,
    _a_receive_can_wait_for_all,
    _the_window_holds_128_kib,
    _the_window_stays_closed_until_the_receiver_calls,
    _a_receive_in_vain_opens_the_window,
    _the_window_opens_by_halves,
    _a_send_waits_for_the_window,
    _a_receive_waits_for_bytes,
    _no_place_for_a_mapping_by_default,
    _a_mapping_is_unheard_of_until_something_is_sent,
    _a_directed_write_lands_before_any_receive,
    _a_peer_that_shuts_down_is_seen,
    _what_was_sent_before_is_read_after_a_close,
    _one_direction_ends_alone,
    _sending_to_a_peer_that_closed_is_refused,
)


def _exchange(bench: RsocketBench, near: int, far: int) -> None:
    """Move 5 bytes, so that both halves of the receiver's buffer are published."""
    bench.send_all(near, b"hello")
    bench.receive_all(far, 5)


def _fill(bench: RsocketBench, near: int, far: int) -> int:
    """Move 5 bytes, then close the window; return how many bytes are in it."""
    _exchange(bench, near, far)
    return bench.fill(near)


def _expect_closed(bench: RsocketBench, near: int) -> None:
    bench.expect_errno(
        errno.EAGAIN, lambda: bench.library.rsend(near, memoryview(b"!"))
    )
    if not bench.is_quiet(near, OUT):
        fail("rpoll() found it writable")


def _expect_end(bench: RsocketBench, number: int) -> None:
    bench.expect(number, IN)
    if count := bench.library.rrecv(number, memoryview(bytearray(16))):
        fail(f"{count} bytes came where the stream should end")
