"""Source and destination take turns: two generators over one pair of streams.

A party is a generator that yields `Send` and `Receive` and does no I/O of its own.
This file moves the bytes.  Nobody has a thread: after each step of one party the
other goes as far as it can, so that a run with the same seed is the same run, byte
for byte and access for access.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator
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
        self._date_sent = outgoing.send if outgoing is not None else _undated
        self._date_received = incoming.receive if incoming is not None else _undated
        self._rest: memoryview | None = None  # of the step in hand
        self._receives = False
        self._done = 0
        self.is_over = False
        self.error: BaseException | None = None
        self._value: _Result | None = None
        self._resume(lambda _: next(steps), 0)

    def result(self) -> _Result:
        """Return what the generator returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # it is over and did not fail

    def step(self) -> bool:
        """Make one step of the generator, or a part of one; False if it must wait.

        It runs a dozen times a buffer, so it is one function.
        """
        rest = self._rest
        if rest is None:
            return False
        try:
            if self._receives:
                moved = self._stream.receive_into(rest)
                if moved is None:
                    return False
            else:
                moved = self._stream.send(rest)
                if not moved:
                    return False
        except OSError as failure:
            rest.release()
            self._resume(self._steps.throw, failure)
            return True
        if moved:
            (self._date_received if self._receives else self._date_sent)(moved)
            self._done += moved
        if moved and moved < len(rest):
            self._rest = rest[moved:]
            rest.release()
        else:
            rest.release()
            self._resume(self._steps.send, self._done)
        return True

    def wait_on(self, selector: selectors.BaseSelector) -> bool:
        """Register for what the step in hand waits for; False if nothing can be."""
        number = self._stream.fileno()
        if self.is_over or number is None:
            return False
        event = selectors.EVENT_READ if self._receives else selectors.EVENT_WRITE
        selector.register(number, event)
        return True

    def _resume(self, go_on: Callable[[Any], Step], answer: int | OSError) -> None:
        """Let the generator run to its next step."""
        self._rest, self._done = None, 0
        try:
            request = go_on(answer)
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
            self._receives = request.__class__ is Receive
            self._rest = memoryview(request.view)

    def _end(self) -> None:
        self.is_over = True
        if self.error is None:
            self._stream.finish()
        else:
            self._stream.close()


def _undated(size: int) -> None:
    """Let no time pass."""


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
