"""What a party of a migration asks of whoever moves its bytes, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias, TypeVar

from vfiomig.migration.transport.rows import Span

Result = TypeVar("Result")
Piece: TypeAlias = memoryview | bytes | Span


class Send(NamedTuple):
    """Send all of ``view``, and then all of ``more``.

    Answered with their size when the stream has taken them.  Rows are joined first
    where it takes none.
    """

    view: Piece
    more: tuple[Piece, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all of it."""
        return len(self.view) + sum(map(len, self.more))


class Receive(NamedTuple):
    """Fill ``view``; answered with the bytes in it, fewer at the stream's end."""

    view: memoryview


class ReceiveSome(NamedTuple):
    """Receive ``least`` bytes or more, as many as are there; answered as `Receive`.

    For who cannot tell how long the next thing is.  They are not dated before they
    are `Consumed`: what was read ahead must not move a clock.
    """

    view: memoryview
    least: int = 1


class OffersRows(NamedTuple):
    """Ask whether `ReceiveRows` is possible; answered with 1 if it is, else with 0."""

    view: bytes = b""


class ReceiveRows(NamedTuple):
    """Fill rows while ``agrees`` says of the bytes that came that they belong there.

    Answered with their number, fewer than all where they do not or the stream ends.
    They are dated as those of `ReceiveSome`.  The stream must offer rows.
    """

    view: Span
    agrees: Callable[[int], bool]


class Consumed(NamedTuple):
    """Date ``size`` bytes that `ReceiveSome` brought: the party gets to them now."""

    size: int
    view: bytes = b""


class Elsewhere(NamedTuple):
    """Date ``size`` bytes that go by another channel of the same link now.

    So the channels share the link, and who receives dates the same bytes as `Consumed`
    when all of them have come: no date depends on which channel was faster.
    """

    size: int
    view: bytes = b""


class Wait(NamedTuple):
    """Go on when ``until`` says so: it is asked whenever anything has moved."""

    until: Callable[[], bool]
    view: bytes = b""


class Finish(NamedTuple):
    """Send no more: after what was sent the peer reads the end of the stream."""

    view: bytes = b""


class Close(NamedTuple):
    """Neither send nor receive any more: the peer learns it at its next step."""

    view: bytes = b""


Step = (
    Send
    | Receive
    | ReceiveSome
    | OffersRows
    | ReceiveRows
    | Consumed
    | Elsewhere
    | Wait
    | Finish
    | Close
)
Steps = Generator[Step, int, Result]
