"""What source and destination need of a link: one duplex, ordered stream of bytes.

Rule 1: nothing here blocks.  A call does what it can now and says how much that was;
who has nothing else to do waits on ``fileno()``.

Rule 2: a buffer belongs to its caller.  A stream keeps no reference to what it was
given to send, and lets go of a buffer to receive into when that is answered with a
count, with the end of the stream, or when the stream is closed: a view that stays
alive would pin the mapping behind it.

Rule 3: one thread at a time holds a pair of ends.

Rule 4: what no selector can wait on has a wait of its own, ``poll`` (see `Poll`), and
no ``fileno()``.

Rule 5: a stream may move rows too, bytes that lie in two memories by turns (see
`rows.RowStream`).  For one that does not, or that wraps another, they are joined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias


class ByteStream(Protocol):
    """One end of a duplex, ordered stream of bytes. Nothing here ever blocks.

    Views are contiguous and of single bytes (format ``B``). Every count is in bytes.
    """

    def send(self, data: memoryview) -> int:
        """Take bytes from the start of ``data``: return how many, 0 = none now.

        An empty view is nothing to send: 0. What was not taken is offered again by
        the caller. The caller may reuse ``data`` as soon as this returns.

        Raises BrokenPipeError or ConnectionResetError when the peer is gone, and
        BrokenPipeError after this end's ``finish()``. A network may notice late: bytes
        can be taken that a peer, already gone, never reads. ValueError after this
        end's ``close()``.
        """

    def receive_into(self, buffer: memoryview) -> int | None:
        """Return the number of bytes now at the start of ``buffer``.

        0 is the end of the stream, and stays so. None is none yet: call again with the
        SAME buffer (the same memory; a new view of it will do), which may be filled in
        the meantime. That is how memory moves bytes with one copy.

        Raises ConnectionResetError when the peer's end was lost rather than closed, and
        ValueError for a buffer without room, for another buffer while the one from
        before already holds bytes, and after this end's ``close()``.
        """

    def finish(self) -> None:
        """Send no more: the peer reads what was sent, then the end of the stream.

        This end goes on receiving. Doing it again, or after ``close()``, does nothing.
        """

    def close(self) -> None:
        """End both directions: the peer reads the end of the stream and cannot send.

        What this end did not read is lost, and a network may answer that by resetting
        the peer's end; who wants an orderly end calls ``finish()`` and reads to the end
        first. Closing again does nothing.
        """

    def fileno(self) -> int | None:
        """Return what a selector can wait on, None where there is nothing to wait for.

        None is for memory, where only the peer's own calls can change anything, and
        for an end that was closed.
        """


Poll: TypeAlias = Callable[[int, float], bool]
"""``stream.poll(event, seconds)``: wait until it is worth calling again.

``event`` is of ``selectors``: EVENT_READ, EVENT_WRITE or both.  False if nothing
changed in so many seconds.  Streams and listeners may have it, instead of a
``fileno()``.
"""


def poll_of(stream: object) -> Poll | None:
    """Return the wait that a stream or a listener has of its own, if it has one."""
    poll: Poll | None = getattr(stream, "poll", None)
    return poll


Pair: TypeAlias = tuple[ByteStream, ByteStream]
"""The two ends of one link; which is the source's is up to the caller."""


class Listener(Protocol):
    """Where the destination waits for the channels of a migration. It never blocks.

    All channels come to the one address that it listens at, in any order, and
    `IncomingChannels` tells them apart. Who closes a connection is who has it: the
    listener lets go of those that it has handed out.
    """

    def connect(self) -> ByteStream:
        """Return the source's end of a new connection, before anyone has accepted it.

        What is sent through it may wait until it is accepted. A transport whose
        connections take time answers "none now" until this one stands.

        Raises ConnectionRefusedError when nobody listens any more, BlockingIOError when
        so many connections wait to be accepted that there is no place, and another
        OSError when the process has no descriptors left.
        """

    def accept(self) -> ByteStream | None:
        """Return the destination's end of a connection, None while none waits.

        Raises OSError when the process has no descriptors left, and ValueError after
        ``close()``.
        """

    def fileno(self) -> int | None:
        """Return what is readable when a connection waits; None as for a stream."""

    def close(self) -> None:
        """Listen no more. Connections that were not accepted are lost to their source.

        Closing again does nothing.
        """
