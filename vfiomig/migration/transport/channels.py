"""The channels of one migration come in, in any order, and are told apart.

Rule 1: nothing here waits.  `step` accepts and reads what is there; a channel that is
late keeps nobody from another that is ready.

Rule 2: a channel is told by its first bytes, which are read and not peeked at: not
every transport can peek.  The main channel gets its four back.

Rule 3: what should not have come ends it all, as in QEMU: every connection is closed,
and one line says why.
"""

from __future__ import annotations

import select
import selectors
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.migration.transport.base import poll_of
from vfiomig.protocol.errors import ProtocolError, StreamError
from vfiomig.protocol.multifd import (
    INITIAL_SIZE,
    MAGIC_SIZE,
    NO_UUID,
    decode_initial,
    is_main,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.migration.transport.base import ByteStream, Listener, Poll
    from vfiomig.migration.transport.waiting import Waiting

# As long as `exchange` waits for a transport.
_PATIENCE: Final = 30.0
_MOST: Final = 256  # numbers that 8 bits tell apart


class ChannelsError(ProtocolError):
    """The channels of a migration did not come as they should have."""


class IncomingChannels:
    """Accepts the main channel and ``wanted`` others, which may be used as they come.

    It owns the listener and every stream that it accepted: the listener is closed when
    all have come, the streams by `close`. A channel that says nothing for ``patience``
    seconds after it was accepted, and one that does not come within as many after the
    last that was, end the migration. ``clock`` tells seconds.

    Who has the loop calls `step` whenever `fileno` is readable, and at least every
    `remaining` seconds; where `fileno` is None, in each round.

    Raises ValueError for more than 256 channels wanted, or fewer than none.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        wanted: int,
        uuid: bytes = NO_UUID,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= wanted <= _MOST:
            message = f"0 to {_MOST} channels can be told apart, not {wanted}"
            raise ValueError(message)
        self._listener = listener
        self._wanted = wanted
        self._uuid = uuid
        self._patience = patience
        self._clock = clock
        self._limit = clock() + patience
        self._unknown: list[_Arrival] = []
        self._accepted: list[ByteStream] = []
        self._channels: dict[int, ByteStream] = {}
        self._poll = _poll(listener)
        self.main: ByteStream | None = None

    @property
    def channels(self) -> Mapping[int, ByteStream]:
        """Those that came by now, without the main one, by the number they gave."""
        return MappingProxyType(self._channels)

    @property
    def is_complete(self) -> bool:
        """Whether the main channel and all others have come."""
        return self.main is not None and len(self._channels) == self._wanted

    def remaining(self) -> float:
        """Return the seconds until something will have taken too long; 0 if it has.

        Infinite when all have come.
        """
        limits = [each.limit for each in self._unknown] or [self._limit]
        return (
            float("inf") if self.is_complete else max(0.0, min(limits) - self._clock())
        )

    def fileno(self) -> int | None:
        """Return what is readable when `step` can do something.

        None where there is nothing to wait for: with memory, and when all have come.
        """
        return None if self._poll is None else self._poll.fileno()

    def wait_on(self, waiting: Waiting) -> None:
        """Add what `step` waits for."""
        if self.is_complete:
            return
        if self._poll is not None:
            waiting.add_descriptor(self._poll.fileno(), selectors.EVENT_READ)
            return
        waiting.add(self._listener, selectors.EVENT_READ)
        for arrival in self._unknown:
            waiting.add(arrival.stream, selectors.EVENT_READ)

    def step(self) -> bool:
        """Accept and read what is there; return whether that was anything.

        Raises:
            ChannelsError: a channel is not one of those, came twice, ended, or did not
                come in time; everything is closed.
            OSError: the process has no descriptors left; everything is closed.
        """
        if self.is_complete:
            return False
        try:
            moved = self._accept()
            for arrival in list(self._unknown):
                moved = self._tell(arrival) or moved
            if self.is_complete:
                self._end_polling()
                self._listener.close()
            else:
                self._check_limits()
        except BaseException:
            self.close()
            raise
        return moved

    def close(self) -> None:
        """Close the listener and every channel, those in use as well."""
        self._end_polling()
        self._listener.close()
        for stream in self._accepted:
            stream.close()

    def _accept(self) -> bool:
        moved = False
        while (stream := self._listener.accept()) is not None:
            self._accepted.append(stream)
            if len(self._accepted) > self._wanted + 1:
                message = (
                    f"connection {len(self._accepted)} came, and {_all(self._wanted)}"
                )
                raise ChannelsError(message)
            self._limit = self._clock() + self._patience
            self._unknown.append(_Arrival(stream, len(self._accepted), self._limit))
            self._watch(stream)
            moved = True
        return moved

    def _tell(self, arrival: _Arrival) -> bool:
        """Read what tells a channel; return whether any byte came."""
        moved = arrival.read()
        if arrival.kind is not None:
            self._unknown.remove(arrival)
            self._unwatch(arrival.stream)
            self._admit(arrival)
        return moved

    def _admit(self, arrival: _Arrival) -> None:
        if arrival.kind == "main":
            if self.main is not None:
                arrival.refuse("the main channel came twice")
            self.main = PutBack(arrival.stream, arrival.said)
            return
        channel, uuid = decode_initial(arrival.said)
        if uuid != self._uuid:
            saw, ours = uuid.hex(), self._uuid.hex()
            arrival.refuse(f"channel {channel} is of VM {saw}, and this is {ours}")
        if channel >= self._wanted:
            arrival.refuse(f"it is channel {channel}, and {_all(self._wanted)}")
        if channel in self._channels:
            arrival.refuse(f"channel {channel} came twice")
        self._channels[channel] = arrival.stream

    def _check_limits(self) -> None:
        now = self._clock()
        for arrival in self._unknown:
            if now >= arrival.limit:
                arrival.refuse(f"it did not say in {self._patience:g} s which it is")
        if now >= self._limit:
            missing = ["the main channel"] if self.main is None else []
            numbers = set(range(self._wanted)) - set(self._channels)
            missing += [f"channel {number}" for number in sorted(numbers)]
            has = "have" if len(missing) > 1 else "has"
            message = f"{_joined(missing)} {has} not come within {self._patience:g} s"
            raise ChannelsError(message)

    def _watch(self, stream: ByteStream) -> None:
        if self._poll is not None and (number := stream.fileno()) is not None:
            self._poll.register(number, select.EPOLLIN)

    def _unwatch(self, stream: ByteStream) -> None:
        if self._poll is not None and (number := stream.fileno()) is not None:
            self._poll.unregister(number)

    def _end_polling(self) -> None:
        if self._poll is not None:
            self._poll.close()
            self._poll = None


class PutBack:
    """A stream of which a few bytes were read already: they are received first.

    A selector does not know of them: who waits receives first.
    """

    def __init__(self, stream: ByteStream, data: bytes) -> None:
        self._stream = stream
        self._data = data

    def send(self, data: memoryview) -> int:
        """Send through the stream inside."""
        return self._stream.send(data)

    def receive_into(self, buffer: memoryview) -> int | None:
        """Receive what was put back, and then from the stream inside."""
        if not self._data or not buffer:
            return self._stream.receive_into(buffer)
        count = min(len(buffer), len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def finish(self) -> None:
        """Finish the stream inside."""
        self._stream.finish()

    def close(self) -> None:
        """Close the stream inside; what was put back is lost."""
        self._data = b""
        self._stream.close()

    def fileno(self) -> int | None:
        """Return what the stream inside can be waited on with."""
        return self._stream.fileno()

    @property
    def poll(self) -> Poll | None:
        """The wait that the stream inside has of its own, if it has one."""
        return poll_of(self._stream)


@dataclass(slots=True)
class _Arrival:
    """A connection that has not said yet which channel it is."""

    stream: ByteStream
    number: int  # in the order of their coming, from 1
    limit: float
    said: bytes = b""
    kind: str | None = None  # "main", "other"
    _room: bytearray | None = None

    def read(self) -> bool:
        """Read up to what tells which it is; return whether any byte came."""
        moved = False
        while self.kind is None:
            count = self._receive()
            if count is None:
                break
            moved = True
            if not count:
                self.refuse(f"it ended after {len(self.said)} bytes")
            self._look()
        return moved

    def _receive(self) -> int | None:
        if self._room is None:
            wanted = MAGIC_SIZE if len(self.said) < MAGIC_SIZE else INITIAL_SIZE
            self._room = bytearray(wanted - len(self.said))
        try:
            count = self.stream.receive_into(memoryview(self._room))
        except OSError as error:
            self.refuse(f"it was lost: {error.strerror or error}")
        if count is not None:
            self.said += self._room[:count]
            self._room = None
        return count

    def _look(self) -> None:
        try:
            if len(self.said) == MAGIC_SIZE and is_main(self.said):
                self.kind = "main"
            elif len(self.said) == INITIAL_SIZE:
                decode_initial(self.said)
                self.kind = "other"
        except StreamError as error:
            self.refuse(str(error))

    def refuse(self, why: str) -> NoReturn:
        """Raise ChannelsError that names this connection."""
        message = f"connection {self.number}: {why}"
        raise ChannelsError(message)


def _poll(listener: Listener) -> select.epoll | None:
    number = listener.fileno()
    if number is None:
        return None
    poll = select.epoll()
    poll.register(number, select.EPOLLIN)
    return poll


def _all(wanted: int) -> str:
    """Say which channels there are."""
    if not wanted:
        return "there is the main channel only"
    others = f"channel{'s' if wanted > 1 else ''} {_joined([*map(str, range(wanted))])}"
    return f"there are the main channel and {others}"


def _joined(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
