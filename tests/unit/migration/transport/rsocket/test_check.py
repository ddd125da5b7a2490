"""The model keeps every claim, and each claim finds a model that breaks it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
from typing import TYPE_CHECKING, TypeAlias

import pytest

from vfiomig.migration.transport.rsocket.check import CLAIMS, check_rsocket, name_of
from vfiomig.migration.transport.rsocket.model import RsocketModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vfiomig.migration.transport.rsocket.check import Claim
    from vfiomig.migration.transport.rsocket.library import Address

    Watched: TypeAlias = Sequence[tuple[int, int]]
    Ready: TypeAlias = list[tuple[int, int]]


def where() -> Address:
    return "127.0.0.1", 0


@contextlib.contextmanager
def swallowed(code: int) -> Iterator[None]:
    """Have an errno never been."""
    try:
        yield
    except OSError as error:
        if error.errno != code:
            raise


class HasUnixSockets(RsocketModel):
    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        return super().rsocket(socket.AF_INET, kind, protocol)


class IgnoresFlagsOfTheType(RsocketModel):
    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        return super().rsocket(domain, kind & ~socket.SOCK_CLOEXEC, protocol)


class ClosesAnything(RsocketModel):
    def rclose(self, number: int) -> None:
        with swallowed(errno.EBADF):
            super().rclose(number)


class NeverBlocks(RsocketModel):
    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        number = super().rsocket(domain, kind, protocol)
        super().rfcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)
        return number


class KnowsDescriptorFlags(RsocketModel):
    def rfcntl(self, number: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_GETFD:
            return 0
        return super().rfcntl(number, command, argument)


class AcceptSaysInvalid(RsocketModel):
    def raccept(self, number: int) -> tuple[int, Address]:
        try:
            return super().raccept(number)
        except OSError as error:
            code = errno.EINVAL if error.errno == errno.EBADF else error.errno
            raise OSError(code, "") from error


class AcceptAlwaysBlocks(RsocketModel):
    def raccept(self, number: int) -> tuple[int, Address]:
        super().rfcntl(number, fcntl.F_SETFL, 0)
        return super().raccept(number)


class AcceptNeverBlocks(RsocketModel):
    def raccept(self, number: int) -> tuple[int, Address]:
        super().rfcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)
        return super().raccept(number)


class Inherits(RsocketModel):
    def __init__(self) -> None:
        super().__init__(inherits=True)


class NamesItselfAsThePeer(RsocketModel):
    def rgetpeername(self, number: int) -> Address:
        return self.rgetsockname(number)


class HasNoRouteToNobody(RsocketModel):
    def rconnect(self, number: int, address: Address) -> None:
        try:
            super().rconnect(number, address)
        except ConnectionRefusedError as error:
            raise OSError(errno.EHOSTUNREACH, "") from error


class ConnectAlwaysWaits(RsocketModel):
    def rconnect(self, number: int, address: Address) -> None:
        with swallowed(errno.EINPROGRESS):
            super().rconnect(number, address)


class SaysEndForNoneYet(RsocketModel):
    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        with swallowed(errno.EAGAIN):
            return super().rrecv(number, buffer, flags)
        return 0


class ForgetsFlagsOfACall(RsocketModel):
    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        return super().rrecv(number, buffer)


class PeekTakes(RsocketModel):
    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        return super().rrecv(number, buffer, flags & ~socket.MSG_PEEK)


class AnswersTheKernelAtOnce(RsocketModel):
    """Its numbers are those of descriptors that are always ready."""

    def rfcntl(self, number: int, command: int, argument: int = 0) -> int:
        ready = os.eventfd(1)
        os.dup2(ready, number)
        os.close(ready)
        return super().rfcntl(number, command, argument)


class AnswersTheKernelForBytes(RsocketModel):
    """Its numbers are those of descriptors that are readable once bytes are there."""

    def rpoll(self, watched: Watched, timeout: int) -> Ready:
        found = super().rpoll(watched, timeout)
        for number, events in found:
            if events & select.POLLIN:
                readable = os.eventfd(1)
                os.dup2(readable, number)
                os.close(readable)
        return found


class PollWaitsForTheFirst(RsocketModel):
    """It comes back from the library's poll only with something."""

    def rpoll(self, watched: Watched, timeout: int) -> Ready:
        return super().rpoll(watched, -1 if timeout == 10 else timeout)


class PollNeverWaits(RsocketModel):
    def rpoll(self, watched: Watched, timeout: int) -> Ready:
        return super().rpoll(watched, 0)


class PollKnowsItsOwnOnly(RsocketModel):
    def rpoll(self, watched: Watched, timeout: int) -> Ready:
        limited = timeout if timeout >= 0 else 20
        return super().rpoll(watched[:1], limited)


class SwapsTwoBytes(RsocketModel):
    def rsend(self, number: int, data: memoryview, flags: int = 0) -> int:
        swapped = bytes(data[1:2]) + bytes(data[:1]) + bytes(data[2:])
        return super().rsend(number, memoryview(swapped), flags)


class HasALargerWindow(RsocketModel):
    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        number = super().rsocket(domain, kind, protocol)
        super().rsetsockopt(number, socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        return number


class OpensTheWindowByItself(RsocketModel):
    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        count = super().rrecv(number, buffer, flags)
        super().rpoll([(number, 0)], 0)
        return count


class OpensNoWindowInVain(RsocketModel):
    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        with self._lock:
            _, end = self._connection(number)
            if not end.messages:
                raise BlockingIOError(errno.EAGAIN, "")
        return super().rrecv(number, buffer, flags)


class OpensTheWholeWindow(RsocketModel):
    """It hands back both halves when one was consumed."""

    def rpoll(self, watched: Watched, timeout: int) -> Ready:
        with self._lock:
            for number, _ in watched:
                _, end = self._connection(number)
                if end._unpublished == end._half:
                    end._unpublished *= 2
        return super().rpoll(watched, timeout)


class NoCallWaits(RsocketModel):
    def rsend(self, number: int, data: memoryview, flags: int = 0) -> int:
        return super().rsend(number, data, flags | socket.MSG_DONTWAIT)

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        return super().rrecv(number, buffer, flags | socket.MSG_DONTWAIT)


class MapsWithoutAPlace(RsocketModel):
    def riomap(self, number: int, buffer: memoryview, offset: int = -1) -> int:
        with swallowed(errno.ENOMEM):
            return super().riomap(number, buffer, offset)
        return 0


class PublishesAtOnce(RsocketModel):
    def riomap(self, number: int, buffer: memoryview, offset: int = -1) -> int:
        offset = super().riomap(number, buffer, offset)
        self.rsend(number, memoryview(b""))
        return offset


class WritesWhenReceiving(RsocketModel):
    """A directed write waits for the peer's rrecv(), as if it were a message."""

    waiting: tuple[int, bytes, int] | None = None

    def riowrite(
        self, number: int, data: memoryview, offset: int, flags: int = 0
    ) -> int:
        self.waiting = number, bytes(data), offset
        return len(data)

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        if self.waiting is not None:
            writer, data, offset = self.waiting
            super().riowrite(writer, memoryview(data), offset)
        return super().rrecv(number, buffer, flags)


class HidesThatThePeerIsGone(RsocketModel):
    def rpoll(self, watched: Watched, timeout: int) -> Ready:
        ready = super().rpoll(watched, timeout)
        return [(number, events & ~select.POLLHUP) for number, events in ready]


class LosesWhatIsUnreadOnClose(RsocketModel):
    def rclose(self, number: int) -> None:
        with self._lock:
            each = self._sockets.get(number)
            if each is not None and each.end is not None:
                each.end.peer._completions.clear()
        super().rclose(number)


class ShutsBothDirections(RsocketModel):
    def rshutdown(self, number: int, how: int) -> None:
        super().rshutdown(number, socket.SHUT_RDWR)


class TakesBytesForNobody(RsocketModel):
    def rsend(self, number: int, data: memoryview, flags: int = 0) -> int:
        with swallowed(errno.ECONNRESET):
            return super().rsend(number, data, flags)
        return len(data)


class TakesOptionsAtAnyTime(RsocketModel):
    def rsetsockopt(self, number: int, level: int, option: int, value: int) -> None:
        with swallowed(errno.EINVAL):
            super().rsetsockopt(number, level, option, value)


class ForgetsOptions(RsocketModel):
    def rsetsockopt(self, number: int, level: int, option: int, value: int) -> None:
        pass


class DoublesNothing(RsocketModel):
    def rgetsockopt(self, number: int, level: int, option: int) -> int:
        return super().rgetsockopt(number, level, option) // 2


FAULTS: list[tuple[Callable[[], RsocketModel], str]] = [
    (HasUnixSockets, "it has no unix sockets"),
    (IgnoresFlagsOfTheType, "a type has no flags"),
    (ClosesAnything, "a number of the kernel is no socket"),
    (ClosesAnything, "a closed socket is none"),
    (NeverBlocks, "it blocks until told not to"),
    (KnowsDescriptorFlags, "it knows no flags of descriptors"),
    (AcceptSaysInvalid, "who does not listen cannot accept"),
    (AcceptAlwaysBlocks, "accepting nobody is none yet"),
    (Inherits, "an accepted socket does not inherit o nonblock"),
    (AcceptNeverBlocks, "accept waits for a connection"),
    (NamesItselfAsThePeer, "both ends know both addresses"),
    (HasNoRouteToNobody, "connecting to nobody is refused"),
    (ConnectAlwaysWaits, "connecting need not wait"),
    (SaysEndForNoneYet, "receiving nothing is none yet"),
    (ForgetsFlagsOfACall, "one call need not wait either"),
    (AnswersTheKernelAtOnce, "the kernel never sees it writable"),
    (AnswersTheKernelForBytes, "the kernel never sees it readable"),
    (PollWaitsForTheFirst, "rpoll waits no longer than asked"),
    (PollNeverWaits, "rpoll wakes for what comes"),
    (PollKnowsItsOwnOnly, "rpoll takes ordinary descriptors too"),
    (SwapsTwoBytes, "bytes arrive complete and in order"),
    (PeekTakes, "peeking leaves the bytes"),
    (ForgetsFlagsOfACall, "a receive can wait for all"),
    (HasALargerWindow, "the window holds 128 kib"),
    (OpensTheWindowByItself, "the window stays closed until the receiver calls"),
    (OpensNoWindowInVain, "a receive in vain opens the window"),
    (OpensTheWholeWindow, "the window opens by halves"),
    (NoCallWaits, "a send waits for the window"),
    (NoCallWaits, "a receive waits for bytes"),
    (MapsWithoutAPlace, "no place for a mapping by default"),
    (PublishesAtOnce, "a mapping is unheard of until something is sent"),
    (WritesWhenReceiving, "a directed write lands before any receive"),
    (HidesThatThePeerIsGone, "a peer that shuts down is seen"),
    (LosesWhatIsUnreadOnClose, "what was sent before is read after a close"),
    (ShutsBothDirections, "one direction ends alone"),
    (TakesBytesForNobody, "sending to a peer that closed is refused"),
    (TakesOptionsAtAnyTime, "sizes are set before connecting"),
    (ForgetsOptions, "options are kept"),
    (DoublesNothing, "buffer sizes are doubled"),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=name_of)
def test_the_model_keeps_every_claim(claim: Claim) -> None:
    check_rsocket(RsocketModel(), where, claims=[claim], quiet_seconds=0.01)


def test_one_model_keeps_all_of_them_one_after_another() -> None:
    check_rsocket(RsocketModel(), where, quiet_seconds=0.01)


@pytest.mark.parametrize(("fault", "claim"), FAULTS)
def test_a_faulty_model_is_found_by_the_claim_it_breaks(
    fault: Callable[[], RsocketModel], claim: str
) -> None:
    claims = [each for each in CLAIMS if name_of(each) == claim]
    with pytest.raises(AssertionError, match=f"^{claim}: "):
        check_rsocket(
            fault(), where, claims=claims, wait_seconds=0.1, quiet_seconds=0.01
        )


def test_every_claim_can_fail() -> None:
    assert {claim for _, claim in FAULTS} == {name_of(claim) for claim in CLAIMS}
