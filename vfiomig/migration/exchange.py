"""Source and destination take turns: two generators over one pair of streams.

A party is a generator that yields `Step`s and does no I/O of its own.
This file moves the bytes.  Nobody has a thread: after each step of one party the
other goes as far as it can, so that a run with the same seed is the same run, byte
for byte and access for access.
"""

from __future__ import annotations

import math
import selectors
import time
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from vfiomig.migration.steps import (
    Close,
    Consumed,
    Elsewhere,
    Finish,
    OffersRows,
    Piece,
    Receive,
    ReceiveRows,
    ReceiveSome,
    Send,
    Step,
    Steps,
    Wait,
)
from vfiomig.migration.transport.rows import Span, rows_of
from vfiomig.migration.transport.waiting import Waiting
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.clock import Channel
    from vfiomig.migration.transport.base import ByteStream

__all__ = [
    "PATIENCE",
    "Beside",
    "Close",
    "Consumed",
    "Elsewhere",
    "Finish",
    "OffersRows",
    "Party",
    "Receive",
    "ReceiveRows",
    "ReceiveSome",
    "Send",
    "StalledError",
    "Step",
    "Steps",
    "Wait",
    "exchange",
]

# A kernel that moves nothing for so long over loopback will not do so later.
PATIENCE: Final = 30.0  # seconds

_ALL: Final = 1 << 62  # bytes: a step is over when all of it is done
_JOINED: Final = 1 << 20  # bytes of rows that are joined at once

_Result = TypeVar("_Result")


class Beside(Protocol):
    """What moves beside the two parties: other channels of the same migration."""

    def step(self) -> bool:
        """Do what can be done now; tell whether that was anything."""

    def wait_on(self, waiting: Waiting) -> None:
        """Add what it waits for."""


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
        self._rows = rows_of(stream)
        self._move: Callable[[Any], int | None] = stream.send  # rows
        self._rest: memoryview | None = None  # of the step in hand
        self._span: Span | None = None  # or rows
        self._more: list[Piece] = []  # what it sends behind that
        self._until: Callable[[], bool] | None = None
        self._receives = False
        self._least = _ALL
        self._agrees: Callable[[int], bool] = _any
        self._date = self._date_sent
        self._done = 0
        self._has_stalled = False
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
            span = self._span
            return self._goes_on() if span is None else self._step_rows(span)
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
            self._date(moved)
            self._done += moved
        if moved and moved < len(rest) and self._done < self._least:
            self._rest = rest[moved:]
            rest.release()
            return True
        rest.release()
        self._end_piece()
        return True

    def _step_rows(self, span: Span) -> bool:
        """Do as `step` with rows."""
        try:
            moved = self._move(span)
        except OSError as failure:
            self._resume(self._steps.throw, failure)
            return True
        if moved:
            self._date(moved)
            self._done += moved
            span.start += moved
            if span.start < span.end and self._agrees(self._done):
                return True
        elif moved is None or not self._receives:
            return False
        self._end_piece()
        return True

    def _end_piece(self) -> None:
        """Take up what is to be sent next, or let the generator go on."""
        self._span = None
        while self._more:
            self._send(self._more.pop(0))
            if self._rest or self._span:
                return
        self._resume(self._steps.send, self._done)

    def wait_on(self, waiting: Waiting) -> None:
        """Add what the step in hand waits for, if it does."""
        if self.is_over or (self._rest is None and self._span is None):
            return
        event = selectors.EVENT_READ if self._receives else selectors.EVENT_WRITE
        waiting.add(self._stream, event)

    def give_up(self, why: StalledError) -> bool:
        """Raise ``why`` where the step in hand is; False if that can change nothing."""
        if self.is_over or self._has_stalled:
            return False
        self._has_stalled = True
        self.fail(why)
        return True

    def fail(self, error: OSError | VfiomigError) -> None:
        """Raise ``error`` where the step in hand is: something beside it failed."""
        if self.is_over:
            return
        if self._rest is not None:
            self._rest.release()
        self._resume(self._steps.throw, error)

    def _goes_on(self) -> bool:
        """Tell whether what the generator waits for has come; then let it go on."""
        if self._until is None or not self._until():
            return False
        self._resume(self._steps.send, 0)
        return True

    def _send(self, piece: Piece) -> None:
        """Let ``piece`` be what is sent next."""
        self._rest = None
        if not isinstance(piece, Span):
            self._rest = memoryview(piece)
        elif self._rows is not None:
            self._span, self._move = piece[:], self._rows.send_rows
        else:
            self._rest = piece[:_JOINED].joined()
            if len(piece) > _JOINED:
                self._more.insert(0, piece[_JOINED:])

    def _resume(self, go_on: Callable[[Any], Step], answer: int | Exception) -> None:
        """Let the generator run to its next step."""
        self._rest, self._span, self._done = None, None, 0
        self._until = None
        self._more = []
        try:
            request = go_on(answer)
            while not len(request.view):  # nothing to move is done at once
                moved = 0
                if request.__class__ is Finish:
                    self._stream.finish()
                elif request.__class__ is Close:
                    self._stream.close()
                elif isinstance(request, Consumed):
                    self._date_received(request.size)
                elif isinstance(request, Elsewhere):
                    self._date_sent(request.size)
                elif isinstance(request, Wait) and not request.until():
                    self._until = request.until
                    return
                elif request.__class__ is OffersRows:
                    moved = int(self._rows is not None)
                request = self._steps.send(moved)
        except StopIteration as end:
            self._value = end.value
            self._end()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it is this party's outcome
            self.error = error
            self._end()
        else:
            self._begin(request)

    def _begin(self, request: Step) -> None:
        """Take up a step that moves bytes."""
        self._least, self._agrees = _ALL, _any
        self._receives = request.__class__ is not Send
        if isinstance(request, Send):
            self._date = self._date_sent
            self._more = list(request.more)
            self._send(request.view)
            return
        self._date = _undated
        if isinstance(request, ReceiveRows):
            assert self._rows is not None, "who receives rows has asked for them"
            self._span, self._move = request.view[:], self._rows.receive_rows
            self._agrees = request.agrees
            return
        self._rest = memoryview(request.view)
        if isinstance(request, ReceiveSome):
            self._least = request.least
        else:
            self._date = self._date_received

    def _end(self) -> None:
        self.is_over = True
        if self.error is None:
            self._stream.finish()
        else:
            self._stream.close()


def _undated(size: int) -> None:
    """Let no time pass."""


def _any(size: int) -> bool:
    """Agree with any bytes."""
    return True


def exchange(
    source: Party[Any],
    destination: Party[Any],
    *beside: Beside,
    patience: float = PATIENCE,
) -> None:
    """Run two parties until both are over; their outcomes stay with them.

    What is ``beside`` them has a turn after each of theirs.

    When neither can go on, and no transport changes that within ``patience`` seconds,
    a `StalledError` is raised inside the source and, if that does not help, inside
    the destination.

    Raises:
        StalledError: neither can go on although both were told.
    """
    was_idle = False
    limit = math.inf
    while not (source.is_over and destination.is_over):
        moved = source.step()
        while destination.step():
            moved = True
        for other in beside:
            moved |= other.step()
        # Memory moves nothing before the other side has shown its buffer, so only a
        # second turn of both tells that neither can go on.
        if moved:
            limit = math.inf
        elif not was_idle:
            limit = time.monotonic() + patience
        elif not _wait(limit - time.monotonic(), source, destination, *beside):
            why = StalledError("source and destination wait for one another")
            if not (source.give_up(why) or destination.give_up(why)):
                raise why
        was_idle = not moved


def _wait(seconds: float, *waiting_ones: Beside) -> bool:
    """Wait until a transport can move something; False if none will."""
    waiting = Waiting()
    for each in waiting_ones:
        each.wait_on(waiting)
    return seconds > 0 and waiting.wait(seconds)
