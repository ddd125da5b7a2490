"""What the claims of check.py do with a library: open, connect, wait, close.

Nothing waits without a limit: a call that may block is made in a thread, and whatever
takes time on a network is waited for with rpoll.  rpoll is asked for short times again
and again: in 44.0 a thread that waits in it may sleep for 5 s (`wake_up_interval`)
after the helper thread has dealt with what it waits for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import threading
import time
from typing import (
    TYPE_CHECKING,
    Final,
    Generic,
    NamedTuple,
    NoReturn,
    TypeAlias,
    TypeVar,
)

from vfiomig.uapi.rsocket import RDMA_IOMAPSIZE, SOL_RDMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.rsocket.library import Address, RsocketLibrary

IN: Final = select.POLLIN
OUT: Final = select.POLLOUT
HUP: Final = select.POLLHUP
_Answer = TypeVar("_Answer")
_SLICE_MS: Final = 20


Claim: TypeAlias = "Callable[[RsocketBench], None]"
"""It raises AssertionError with what it saw instead."""


class Patience(NamedTuple):
    """How long a claim waits for what must happen, and to see that nothing does."""

    wait_seconds: float
    quiet_seconds: float


class RsocketBench:
    """Sockets of one claim; all of them are closed at its end."""

    def __init__(
        self,
        library: RsocketLibrary,
        make_address: Callable[[], Address],
        patience: Patience,
    ) -> None:
        self.library = library
        self._make_address = make_address
        self._patience = patience
        self._open: set[int] = set()

    def socket(self, *, blocks: bool = True) -> int:
        """Return a new socket."""
        number = self.library.rsocket(socket.AF_INET, socket.SOCK_STREAM)
        self._open.add(number)
        if not blocks:
            self.do_not_block(number)
        return number

    def do_not_block(self, number: int) -> None:
        """Set O_NONBLOCK."""
        self.library.rfcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)

    def bound(self) -> tuple[int, Address]:
        """Return a socket and the address that it is bound to."""
        number = self.socket()
        self.library.rbind(number, self._make_address())
        return number, self.library.rgetsockname(number)

    def listener(self, *, blocks: bool = False) -> tuple[int, Address]:
        """Return a socket that listens, and where."""
        number, address = self.bound()
        if not blocks:
            self.do_not_block(number)
        self.library.rlisten(number, 8)
        return number, address

    def connected(
        self, *, blocks: bool = False, iomap_size: int = 0
    ) -> tuple[int, int]:
        """Return two ends of a connection: who connected, and who was connected to."""
        near = self.socket()
        listener, address = self.bound()
        if iomap_size:
            for number in (near, listener):
                self.set_iomap_size(number, iomap_size)
        self.do_not_block(listener)
        self.library.rlisten(listener, 8)
        self.within(lambda: self.library.rconnect(near, address), "rconnect()")
        far = self.accept(listener)
        if not blocks:
            self.do_not_block(near)
            self.do_not_block(far)
        return near, far

    def set_iomap_size(self, number: int, size: int) -> None:
        """Ask for places for the peer's mappings."""
        self.library.rsetsockopt(number, SOL_RDMA, RDMA_IOMAPSIZE, size)

    def accept(self, listener: int) -> int:
        """Wait for a connection."""
        self.expect(listener, IN)
        number, _ = self.library.raccept(listener)
        return self.adopt(number)

    def adopt(self, number: int) -> int:
        """Close it in the end, whoever opened it."""
        self._open.add(number)
        return number

    def expect(self, number: int, event: int) -> None:
        """Wait until rpoll finds ``event``."""
        if not self._comes(number, event, self._patience.wait_seconds):
            fail(f"rpoll() found no {event:#x} in {self._patience.wait_seconds} s")

    def is_quiet(self, number: int, event: int) -> bool:
        """Tell whether rpoll does not find ``event`` for a while."""
        return not self._comes(number, event, self._patience.quiet_seconds)

    def _comes(self, number: int, event: int, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        while True:
            left = limit - time.monotonic()
            timeout = max(0, min(_SLICE_MS, round(left * 1000)))
            ready = dict(self.library.rpoll([(number, event)], timeout))
            if ready.get(number, 0) & event:
                return True
            if left <= 0:
                return False

    def revents(self, number: int, events: int) -> int:
        """Return what rpoll says of ``number`` now."""
        return dict(self.library.rpoll([(number, events)], 0)).get(number, 0)

    def send_all(self, number: int, data: bytes) -> None:
        """Send all of it to a peer that has room for it."""
        view = memoryview(data)
        while view:
            self.expect(number, OUT)
            with contextlib.suppress(BlockingIOError):
                view = view[self.library.rsend(number, view) :]

    def fill(self, number: int) -> int:
        """Send until the window stays closed; return how many bytes that took."""
        piece = memoryview(bytes(1 << 20))
        sent = 0
        while not self.is_quiet(number, OUT):
            with contextlib.suppress(BlockingIOError):
                sent += self.library.rsend(number, piece)
        return sent

    def receive_all(self, number: int, size: int) -> bytes:
        """Receive ``size`` bytes, waiting for them."""
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self.expect(number, IN)
            with contextlib.suppress(BlockingIOError):
                count = self.library.rrecv(number, view)
                if not count:
                    fail(f"the stream ended {len(view)} bytes before {size}")
                view = view[count:]
        return bytes(data)

    def await_bytes(self, number: int, size: int) -> None:
        """Wait until ``size`` bytes have come, and leave them there."""
        room = memoryview(bytearray(size))
        limit = time.monotonic() + self._patience.wait_seconds
        while True:
            self.expect(number, IN)
            came = self.library.rrecv(number, room, socket.MSG_PEEK)
            if came == size:
                return
            if time.monotonic() > limit:
                fail(f"{came} bytes of {size} came")

    def drain(self, number: int, size: int) -> None:
        """Receive all of ``size`` bytes in one call, which finds them all there."""
        self.await_bytes(number, size)
        count = self.library.rrecv(number, memoryview(bytearray(size)))
        if count != size:
            fail(f"rrecv() returned {count} where {size} bytes had come")

    def write_all(self, number: int, data: bytes) -> None:
        """Write all of it to offset 0 of the peer's mapping, once it is heard of."""
        view = memoryview(data)
        limit = time.monotonic() + self._patience.wait_seconds
        while view:
            self.expect(number, OUT)
            with contextlib.suppress(BlockingIOError):
                offset = len(data) - len(view)
                view = view[self.library.riowrite(number, view, offset) :]
            if time.monotonic() > limit:
                fail(f"riowrite() took {len(data) - len(view)} bytes of {len(data)}")

    def await_equal(self, number: int, room: bytearray, expected: bytes) -> None:
        """Wait until ``room`` holds what was written, calling for its sender only."""
        limit = time.monotonic() + self._patience.wait_seconds
        while room != expected:
            self.library.rpoll([(number, IN)], _SLICE_MS)
            if time.monotonic() > limit:
                fail("the bytes did not land where the peer mapped them")

    def expect_errno(self, code: int, call: Callable[[], object]) -> None:
        """See a call fail with this errno."""
        try:
            answer = call()
        except OSError as error:
            if error.errno == code:
                return
            fail(f"{_name(error.errno)} instead of {_name(code)}")
        fail(f"it returned {answer!r} instead of {_name(code)}")

    def within(self, call: Callable[[], _Answer], what: str) -> _Answer:
        """Make a call that may block; fail if it does not return in time."""
        return self.start(call, what).answer()

    def start(self, call: Callable[[], _Answer], what: str) -> Call[_Answer]:
        """Make a call that goes on beside others."""
        return Call(call, what, self._patience)

    def waits(self, call: Callable[[], _Answer], what: str) -> Call[_Answer]:
        """Make a call that is to block; fail if it returns at once."""
        made = self.start(call, what)
        if not made.is_quiet():
            fail(f"{what} returned {made.answer()!r} at once")
        return made

    def close(self, number: int) -> None:
        """Close one."""
        self._open.discard(number)
        self.within(lambda: self.library.rclose(number), "rclose()")

    def close_all(self) -> None:
        """Close what is open, whatever comes of it: the claims judge rclose()."""
        for number in sorted(self._open):
            with contextlib.suppress(OSError, AssertionError):
                self.close(number)


class Call(Generic[_Answer]):
    """A call in a thread of its own, which no limit of ours can end."""

    def __init__(
        self, call: Callable[[], _Answer], what: str, patience: Patience
    ) -> None:
        self._call, self._what, self._patience = call, what, patience
        self._answers: list[_Answer] = []
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self) -> _Answer:
        """Return what it returned, or raise what it raised; fail if it blocks."""
        self._thread.join(self._patience.wait_seconds)
        if self._thread.is_alive():
            fail(f"{self._what} did not return in {self._patience.wait_seconds} s")
        if self._errors:
            raise self._errors[0]
        return self._answers[0]

    def is_quiet(self) -> bool:
        """Tell whether it does not return for a while."""
        self._thread.join(self._patience.quiet_seconds)
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._answers.append(self._call())
        except BaseException as error:
            self._errors.append(error)


def kernel_sees(number: int) -> list[tuple[int, int]]:
    """Return what poll(2) finds ready at once."""
    kernel = select.poll()
    kernel.register(number, IN | OUT)
    return kernel.poll(0)


def fail(saw: str) -> NoReturn:
    """Raise AssertionError with what was seen."""
    raise AssertionError(saw)


def _name(code: int | None) -> str:
    return errno.errorcode.get(code or 0, str(code))
