"""A place in the bytes of a stream, and reading on from it."""

from __future__ import annotations

import struct
from typing import Final

from vfiomig.protocol.errors import StreamError

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")


class Cursor:
    """Reads ``data`` from ``position`` on; what it takes are views of ``data``.

    ``what`` names what is read, for the line that says what the stream ends within.
    A read that fails leaves ``position`` where it was.
    """

    __slots__ = ("data", "position")

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position

    @property
    def remaining(self) -> int:
        """The bytes that are left."""
        return len(self.data) - self.position

    def take(self, size: int, what: str) -> memoryview:
        """Return the next ``size`` bytes."""
        if size > self.remaining:
            raise self.cut(what)
        view = self.data[self.position : self.position + size]
        self.position += size
        return view

    def u8(self, what: str) -> int:
        """Return the next byte."""
        return self.take(1, what)[0]

    def be16(self, what: str) -> int:
        """Return the next 16 bits."""
        return int(_U16.unpack(self.take(2, what))[0])

    def be32(self, what: str) -> int:
        """Return the next 32 bits."""
        return int(_U32.unpack(self.take(4, what))[0])

    def be64(self, what: str) -> int:
        """Return the next 64 bits."""
        return int(_U64.unpack(self.take(8, what))[0])

    def counted_string(self, what: str) -> str:
        """Return text with a byte of length before it."""
        began = self.position
        size = self.u8(what)
        if size > self.remaining:
            self.position = began
            raise self.cut(what)
        return decode_text(self.take(size, what))

    def peek(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end, and stay."""
        return bytes(self.data[self.position : self.position + size])

    def peek_be64(self) -> int | None:
        """Return the next 64 bits and stay; ``None`` where fewer are left."""
        if self.remaining < _U64.size:
            return None
        return int(_U64.unpack_from(self.data, self.position)[0])

    def error(self, reason: str, position: int | None = None) -> StreamError:
        """Make the error that says what is wrong here, or at ``position``."""
        where = self.position if position is None else position
        return StreamError(reason, position=where)

    def cut(self, what: str) -> StreamError:
        """Make the error that says that the stream ends too early."""
        return StreamError(f"the stream ends within {what}", position=len(self.data))


def decode_text(data: bytes | memoryview) -> str:
    """Return text of the stream; any bytes come back as they were."""
    return str(data, "utf-8", "surrogateescape")


def encode_text(text: str) -> bytes:
    """Return the bytes of a text of the stream."""
    return text.encode("utf-8", "surrogateescape")


def encode_counted(text: str) -> bytes:
    """Return a text with a byte of length before it.

    Raises:
        ValueError: it is longer than 255 bytes.
    """
    data = encode_text(text)
    if len(data) > 255:
        raise ValueError(f"a counted string has at most 255 bytes: {text!r}")
    return bytes([len(data)]) + data
