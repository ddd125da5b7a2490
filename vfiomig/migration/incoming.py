"""What a destination reads: the bytes of a stream in order, some of them read ahead.

Most of a stream says how long its parts are, and goes straight where it belongs.  The
pages of RAM do not: who reads them takes what is there, and what turns out to be no
page waits here for whoever reads next.
"""

from __future__ import annotations

from typing import Final, NoReturn

from vfiomig.migration.exchange import Consumed, Receive, ReceiveSome, Steps
from vfiomig.protocol.errors import StreamError

# Room for the largest batch that a source of ours sends, and for what begins behind.
_ROOM: Final = (1 << 20) + (1 << 16)


class Incoming:
    """The stream as one destination reads it; ``position`` counts what was used."""

    def __init__(self) -> None:
        self.position = 0
        self._room: memoryview | None = None  # nobody reads ahead in many streams
        self._first = self._end = 0  # of what was read ahead, in the room

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
        room = self._room
        if room is None:
            room = self._room = memoryview(bytearray(_ROOM))
        if self._first:
            held = bytes(room[self._first : self._end])
            room[: len(held)] = held
            self._first, self._end = 0, len(held)
        if self._end == _ROOM:
            self.fail(f"nothing to make of the next {_ROOM} bytes")
        got = yield ReceiveSome(room[self._end :])
        if not got:
            self.fail("it ends early")
        self._end += got

    def use(self, size: int) -> Steps[None]:
        """Take ``size`` bytes out of the window: their time has come."""
        self._first += size
        self.position += size
        yield Consumed(size)

    def _from_room(self, view: memoryview) -> Steps[memoryview]:
        """Fill the start of ``view`` from what was read ahead; return its rest."""
        held = self.window()[: len(view)]
        view[: len(held)] = held
        yield from self.use(len(held))
        return view[len(held) :]


_SHOWN: Final = 32  # bytes of what is not what was expected
