"""Source and destination take turns: two generators over one pair of streams.

A party is a generator that yields `Send` and `Receive` and does no I/O of its own.
This file moves the bytes.  Nobody has a thread: after each step of one party the
other goes as far as it can, so that a run with the same seed is the same run, byte
for byte and access for access.
"""

from __future__ import annotations

import selectors
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from vfiomig.migration.clock import Channel
    from vfiomig.migration.transport.base import ByteStream

# A kernel that moves nothing for so long over loopback will not do so later.
_PATIENCE: Final = 30.0  # seconds

_Result = TypeVar("_Result")


class Send(NamedTuple):
    """Send all of ``view``; answered with its size when the stream has taken it."""

    view: memoryview | bytes


class Receive(NamedTuple):
    """Fill ``view``; answered with the bytes in it, fewer at the stream's end."""

    view: memoryview


Step = Send | Receive
Steps = Generator[Step, int, _Result]


class StalledError(VfiomigError):
    """Both sides wait for the other, or the transport moves nothing."""


class Party(Generic[_Result]):
    """One side of the exchange: its steps, its end of the stream, its outcome.

    An ``OSError`` of the stream is raised inside the generator, where the step is.
    When the generator returns, the stream is finished; when it raises, it is closed.
    """

    def __init__(
        self,
        steps: Steps[_Result],
        stream: ByteStream,
        *,
        outgoing: Channel | None = None,
        incoming: Channel | None = None,
    ) -> None:
        self._steps = steps
        self._stream = stream
        self._outgoing = outgoing
        self._incoming = incoming
        self._rest: memoryview | None = None
        self._receives = False
        self._done = 0
        self._is_at_end = False
        self.is_over = False
        self.error: BaseException | None = None
        self._value: _Result | None = None
        self._resume(lambda: next(self._steps))

    def result(self) -> _Result:
        """Return what the generator returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # it is over and did not fail

    def step(self) -> bool:
        """Make one step of the generator, or a part of one; False if it must wait."""
        if self._rest is None:
            return False
        try:
            moved = self._move(self._rest)
        except OSError as failure:
            self._drop_rest()
            error = failure
            self._resume(lambda: self._steps.throw(error))
            return True
        if not moved and not self._is_at_end:
            return False
        self._advance(moved)
        return True

    def wait_on(self, selector: selectors.BaseSelector) -> bool:
        """Register for what the step in hand waits for; False if nothing can be."""
        number = self._stream.fileno()
        if self.is_over or number is None:
            return False
        event = selectors.EVENT_READ if self._receives else selectors.EVENT_WRITE
        selector.register(number, event)
        return True

    def _move(self, rest: memoryview) -> int:
        self._is_at_end = False
        if not self._receives:
            return self._stream.send(rest)
        got = self._stream.receive_into(rest)
        self._is_at_end = got == 0
        return got or 0

    def _advance(self, moved: int) -> None:
        assert self._rest is not None
        self._done += moved
        channel = self._incoming if self._receives else self._outgoing
        if channel is not None and moved:
            (channel.receive if self._receives else channel.send)(moved)
        if moved == len(self._rest) or self._is_at_end:
            done = self._done
            self._drop_rest()
            self._resume(lambda: self._steps.send(done))
        else:
            rest, self._rest = self._rest, self._rest[moved:]
            rest.release()

    def _resume(self, go_on: Any) -> None:
        """Let the generator run to its next step."""
        try:
            request = go_on()
            while not len(request.view):  # nothing to move is done at once
                request = self._steps.send(0)
        except StopIteration as end:
            self._value = end.value
            self._end()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it is this party's outcome
            self.error = error
            self._end()
        else:
            self._receives = isinstance(request, Receive)
            self._rest = memoryview(request.view)

    def _end(self) -> None:
        self.is_over = True
        if self.error is None:
            self._stream.finish()
        else:
            self._stream.close()

    def _drop_rest(self) -> None:
        if self._rest is not None:
            self._rest.release()
        self._rest, self._done = None, 0


def exchange(source: Party[Any], destination: Party[Any]) -> None:
    """Run two parties until both are over; their outcomes stay with them.

    Raises:
        StalledError: neither can go on, and no transport will change that.
    """
    was_idle = False
    while not (source.is_over and destination.is_over):
        moved = source.step()
        while destination.step():
            moved = True
        # Memory moves nothing before the other side has shown its buffer, so only a
        # second turn of both tells that neither can go on.
        if was_idle and not moved:
            _wait(source, destination)
        was_idle = not moved


def _wait(*parties: Party[Any]) -> None:
    with selectors.DefaultSelector() as selector:
        waiting = [party.wait_on(selector) for party in parties]
        if any(waiting) and selector.select(_PATIENCE):
            return
    message = "source and destination wait for one another"
    raise StalledError(message)
