"""What a destination reads: the bytes of a stream in order, some of them read ahead.

Most of a stream says how long its parts are, and goes straight where it belongs.  The
pages of RAM do not: who reads them takes what is there, and what turns out to be no
page waits here for whoever reads next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.migration.exchange import (
    Consumed,
    OffersRows,
    Receive,
    ReceiveRows,
    ReceiveSome,
    Steps,
)
from vfiomig.protocol.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.rows import Span

# Room for the largest batch that a source of ours sends, and for what begins behind.
_ROOM: Final = (1 << 20) + (1 << 16)


class Incoming:
    """The stream as one destination reads it; ``position`` counts what was used."""

    def __init__(self) -> None:
        self.position = 0
        self._room: memoryview | None = None  # nobody reads ahead in many streams
        self._first = self._end = 0  # of what was read ahead, in the room
        self._offers_rows: bool | None = None

    # -- parts of a known length ------------------------------------------------------

    def fill(self, view: memoryview) -> Steps[None]:
        """Fill ``view``.

        Raises:
            StreamError: the stream ends before.
        """
        if self._first < self._end:
            view = yield from self._from_room(view)
        if wanted := len(view):
            got = yield Receive(view)
            self.position += got
            if got < wanted:
                self.fail(f"it ends, {wanted - got} bytes early")

    def take(self, size: int) -> Steps[bytearray]:
        """Return the next ``size`` bytes; raises as `fill`."""
        taken = bytearray(size)
        yield from self.fill(memoryview(taken))
        return taken

    def expect(self, wanted: bytes, what: str) -> Steps[None]:
        """Read what can only be ``wanted``.

        Raises:
            StreamError: it is something else, or the stream ends.
        """
        began = self.position
        got = yield from self.take(len(wanted))
        if got != wanted:
            shown = got.hex() if len(got) <= _SHOWN else f"{got[:_SHOWN].hex()}..."
            raise StreamError(f"{shown} is not {what}", position=began)

    def fail(self, why: str) -> NoReturn:
        """Refuse what stands here: raises StreamError."""
        raise StreamError(why, position=self.position)

    # -- parts that must be looked at -------------------------------------------------

    def window(self) -> memoryview:
        """Return what was read and not used; good until the next step."""
        if self._room is None:
            return memoryview(b"")
        return self._room[self._first : self._end]

    def more(self) -> Steps[None]:
        """Read more into the window, at least a byte.

        Raises:
            StreamError: the stream ends here.
        """
        room = self._made_room()
        if self._first:
            held = bytes(room[self._first : self._end])
            room[: len(held)] = held
            self._first, self._end = 0, len(held)
        if self._end == len(room):
            self.fail(f"nothing to make of the next {len(room)} bytes")
        got = yield ReceiveSome(room[self._end :])
        if not got:
            self.fail("it ends early")
        self._end += got

    def use(self, size: int) -> Steps[None]:
        """Take ``size`` bytes out of the window: their time has come."""
        self._first += size
        self.position += size
        yield Consumed(size)

    # -- parts that are likely to be rows ---------------------------------------------

    def offers_rows(self) -> Steps[bool]:
        """Tell whether the stream can be received into rows."""
        if self._offers_rows is None:
            self._offers_rows = bool((yield OffersRows()))
        return self._offers_rows

    def read_rows(self, span: Span, agrees: Callable[[int], bool]) -> Steps[int]:
        """Read into rows as long as they agree; return how much, 0 at the end.

        It stands behind what is in the window.  All of both is to be `used` or
        `put_back`.
        """
        return (yield ReceiveRows(span, agrees))

    def used(self, size: int) -> Steps[None]:
        """Count ``size`` bytes that were read into rows: their time has come."""
        self.position += size
        yield Consumed(size)

    def put_back(self, data: memoryview) -> None:
        """Let ``data`` be the window: it was read too early."""
        if len(data) > len(self._made_room()):
            self._room = memoryview(bytearray(len(data) + _ROOM))
        self._made_room()[: len(data)] = data
        self._first, self._end = 0, len(data)

    def _made_room(self) -> memoryview:
        if self._room is None:
            self._room = memoryview(bytearray(_ROOM))
        return self._room

    def _from_room(self, view: memoryview) -> Steps[memoryview]:
        """Fill the start of ``view`` from what was read ahead; return its rest."""
        held = self.window()[: len(view)]
        view[: len(held)] = held
        yield from self.use(len(held))
        return view[len(held) :]


_SHOWN: Final = 32  # bytes of what is not what was expected
