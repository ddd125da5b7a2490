"""Links that misbehave on purpose, once, at a byte that the caller names.

Each wraps the sending side of any ByteStream and leaves receiving alone; they nest.
Positions are 0-based and count every byte that the wrapped stream took.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vfiomig.migration.transport.base import poll_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.base import ByteStream, Poll


class _Wrapped:
    """Passes everything but ``send`` to the stream inside."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._sent = 0

    def receive_into(self, buffer: memoryview) -> int | None:
        """Receive from the stream inside."""
        return self._stream.receive_into(buffer)

    def finish(self) -> None:
        """Finish the stream inside."""
        self._stream.finish()

    def close(self) -> None:
        """Close the stream inside."""
        self._stream.close()

    def fileno(self) -> int | None:
        """Return what the stream inside can be waited on with."""
        return self._stream.fileno()

    @property
    def poll(self) -> Poll | None:
        """The wait that the stream inside has of its own, if it has one."""
        return poll_of(self._stream)

    def _pass_on(self, data: memoryview) -> int:
        taken = self._stream.send(data)
        self._sent += taken
        return taken


class CutLink(_Wrapped):
    """Loses the link once ``position`` bytes were taken: the next one never goes.

    The stream inside is closed with the last byte before the cut, so that a sender who
    only waits for an answer notices too; with position 0 that is at the first send.
    Raises ValueError for a negative position.
    """

    def __init__(self, stream: ByteStream, position: int) -> None:
        super().__init__(stream)
        self._position = _checked(position)
        self.happened = False

    def send(self, data: memoryview) -> int:
        """Take bytes up to the cut; from then on raise ConnectionResetError."""
        self._require_link()
        if not data:
            return 0
        room = self._position - self._sent
        taken = self._pass_on(data[:room]) if room else 0
        if self._sent == self._position:
            self.happened = True
            self._stream.close()
        if not room:
            self._require_link()
        return taken

    def receive_into(self, buffer: memoryview) -> int | None:
        """Receive; raise ConnectionResetError once the link is cut."""
        self._require_link()
        return super().receive_into(buffer)

    def _require_link(self) -> None:
        if self.happened:
            reason = f"the link was cut after {self._position} bytes"
            raise ConnectionResetError(errno.ECONNRESET, reason)


class FlipBit(_Wrapped):
    """Turns one bit over in byte number ``position`` on its way.

    ``bit`` is 0 (the lowest) to 7. The caller's buffer stays as it is: what lies before
    that byte is sent as a view of it, then a copy of the one byte, then the rest, each
    by a send of its own. Raises ValueError for a negative position or another bit.
    """

    def __init__(self, stream: ByteStream, position: int, bit: int) -> None:
        if not 0 <= bit <= 7:
            message = f"a byte has bits 0 to 7, not {bit}"
            raise ValueError(message)
        super().__init__(stream)
        self._position = _checked(position)
        self._mask = 1 << bit
        self.happened = False

    def send(self, data: memoryview) -> int:
        """Take bytes, at most to the flipped one or that one alone."""
        before = self._position - self._sent
        if before < 0 or before >= len(data):
            return self._pass_on(data)
        if before:
            return self._pass_on(data[:before])
        taken = self._pass_on(memoryview(bytes([data[0] ^ self._mask])))
        self.happened = taken == 1
        return taken


class Tee(_Wrapped):
    """Shows every byte that was taken to ``write``, as a view and without a copy.

    Whether ``write`` sees bytes before or after a fault is decided by which wraps
    which. The view is valid during the call only, and ``write`` has to take all of it;
    what it raises passes through.
    """

    def __init__(
        self, stream: ByteStream, write: Callable[[memoryview], object]
    ) -> None:
        super().__init__(stream)
        self._write = write

    def send(self, data: memoryview) -> int:
        """Send, then show what was taken."""
        taken = self._pass_on(data)
        if taken:
            with data[:taken] as seen:
                self._write(seen)
        return taken


def _checked(position: int) -> int:
    if position < 0:
        message = f"a byte's position is 0 or more, not {position}"
        raise ValueError(message)
    return position
