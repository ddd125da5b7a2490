"""Bytes that lie in two memories by turns, and streams that move them from there.

QEMU's stream has eight bytes in front of each page of RAM, which lie nowhere near it.
A stream that offers rows saves whoever sends or receives many pages the copy that
would bring the two together.

    the stream:   head 0  body 0  head 1  body 1  ...
    two memories: (head 0  head 1  ...)   (body 0  body 1  ...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Bytes: TypeAlias = NDArray[np.uint8]


class Rows:
    """A table: the head of each row from ``heads``, its body from ``bodies``.

    Both are uint8, (rows, bytes), without gaps. ``size`` is the bytes of one row.
    Raises ValueError for anything else, and for rows without a head or a body.
    """

    def __init__(self, heads: Bytes, bodies: Bytes) -> None:
        for part in (heads, bodies):
            if not (part.flags.c_contiguous and part.ndim == 2 and part.shape[1]):
                message = f"{part.shape} bytes in steps of {part.strides} are no rows"
                raise ValueError(message)
        if len(heads) != len(bodies):
            message = f"{len(heads)} heads of {len(bodies)} bodies"
            raise ValueError(message)
        self.heads, self.bodies = heads, bodies
        self.head = heads.shape[1]
        self.size = self.head + bodies.shape[1]
        self.readonly = not (heads.flags.writeable and bodies.flags.writeable)
        # Of the first byte of each, for who calls the kernel.
        self.heads_at: int = heads.__array_interface__["data"][0]
        self.bodies_at: int = bodies.__array_interface__["data"][0]

    def span(self, first: int, last: int) -> Span:
        """Return the bytes of rows ``first`` up to, not with, ``last``."""
        return Span(self, first * self.size, last * self.size)


class Span:
    """Bytes ``start`` to ``end`` of rows; a view, as a memoryview is of one memory."""

    __slots__ = ("end", "rows", "start")

    def __init__(self, rows: Rows, start: int, end: int) -> None:
        self.rows = rows
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return self.end - self.start

    def __getitem__(self, part: slice) -> Span:
        first, last, _ = part.indices(self.end - self.start)
        return Span(self.rows, self.start + first, self.start + max(first, last))

    def __bytes__(self) -> bytes:
        return bytes(self.joined())

    @property
    def readonly(self) -> bool:
        """Whether nothing may be received into it."""
        return self.rows.readonly

    def joined(self) -> memoryview:
        """Return a copy of the bytes, in the stream's order."""
        room = memoryview(bytearray(len(self)))
        self.copy_to(room)
        return room

    def copy_to(self, room: memoryview) -> None:
        """Copy all into ``room``, which has their size."""
        for ours, theirs in self._pairs(np.frombuffer(room, np.uint8)):
            theirs[...] = ours

    def copy_from(self, data: memoryview | bytes) -> None:
        """Copy ``data``, which has the size of this span, to where it belongs."""
        for ours, theirs in self._pairs(np.frombuffer(data, np.uint8)):
            ours[...] = theirs

    def release(self) -> None:
        """Do nothing: it holds no memory that a released view would let go of."""

    def _pairs(self, data: Bytes) -> Iterator[tuple[Bytes, Bytes]]:
        """Yield pieces of the rows, each with its place in ``data``."""
        rows, position = self.rows, 0
        while position < len(data):
            row, offset = divmod(self.start + position, rows.size)
            left = len(data) - position
            if not offset and left >= rows.size:
                whole = left // rows.size
                table = data[position : position + whole * rows.size]
                table = table.reshape(whole, rows.size)
                yield rows.heads[row : row + whole], table[:, : rows.head]
                yield rows.bodies[row : row + whole], table[:, rows.head :]
                position += whole * rows.size
                continue
            if offset < rows.head:
                piece = rows.heads[row, offset:][:left]
            else:
                piece = rows.bodies[row, offset - rows.head :][:left]
            yield piece, data[position : position + len(piece)]
            position += len(piece)


class RowStream(Protocol):
    """What a `ByteStream` may offer beside ``send`` and ``receive_into``."""

    def send_rows(self, span: Span) -> int:
        """Take bytes from the start of ``span``; else it is as ``send``."""

    def receive_rows(self, span: Span) -> int | None:
        """Return the number of bytes now at the start of ``span``.

        Else it is as ``receive_into``: the same memory is a span of the same rows.
        """


def rows_of(stream: object) -> RowStream | None:
    """Return the stream if it moves rows; who has one that does not joins them."""
    if hasattr(stream, "send_rows") and hasattr(stream, "receive_rows"):
        return cast("RowStream", stream)
    return None


def require_room(buffer: memoryview | Span) -> None:
    """Raise ValueError for a buffer to receive into that no byte fits into."""
    if not len(buffer):
        message = "a buffer to receive into must have room for a byte"
        raise ValueError(message)


def require_writable(buffer: memoryview | Span) -> None:
    """Raise TypeError for a buffer to receive into that is read-only."""
    if buffer.readonly:
        message = "a buffer to receive into must be writable"
        raise TypeError(message)


def copy(into: memoryview | Span, data: memoryview | Span) -> None:
    """Copy bytes from one to the other, which has the same size, each of them once.

    Rows into rows of another shape, or from the middle of one into the start of
    another, are joined on the way.
    """
    if not isinstance(into, Span):
        if isinstance(data, Span):
            data.copy_to(into)
        else:
            into[:] = data
    elif isinstance(data, Span):
        _copy_rows(into, data)
    else:
        into.copy_from(data)


def _copy_rows(into: Span, data: Span) -> None:
    ours, theirs = into.rows, data.rows
    shape, offset = (ours.head, ours.size), into.start % ours.size
    if shape != (theirs.head, theirs.size) or offset != data.start % theirs.size:
        into.copy_from(data.joined())
        return
    begun = min(-into.start % ours.size, len(into))
    whole = (len(into) - begun) // ours.size
    behind = begun + whole * ours.size
    first, other = ((s.start + begun) // ours.size for s in (into, data))
    ours.heads[first : first + whole] = theirs.heads[other : other + whole]
    ours.bodies[first : first + whole] = theirs.bodies[other : other + whole]
    for part in (slice(begun), slice(behind, None)):
        if len(rest := data[part]):
            into[part].copy_from(rest.joined())
