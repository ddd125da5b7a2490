"""Streams to read: real ones of tests/data, and small ones made by hand."""

from __future__ import annotations

import functools
import lzma
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.writer import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.protocol.qemu_stream.records import Located, Record

DATA = Path(__file__).parents[3] / "data"

V1 = "qemu-7.2-vfio-v1"
V2 = "qemu-10.0-vfio-v2"
MAPPED = "qemu-10.0-mapped-ram"
POSTCOPY = "qemu-7.2-postcopy"
COMPRESS = "qemu-7.2-compress"
OLD = "qemu-7.2-pc-2.3"
SHARED = "qemu-10.0-x-ignore-shared"
MULTIFD = "qemu-10.0-multifd"
XBZRLE = "qemu-7.2-xbzrle"
ALL = (V1, V2, MAPPED, POSTCOPY, COMPRESS, OLD, SHARED, MULTIFD, XBZRLE)

# By hand, from the layout of a stream.
HEADER = bytes.fromhex("5145564d 00000003")
END = b"\0"
EOS = struct.pack(">Q", 0x10)
RAM_START = b"\x01" + struct.pack(">I", 2) + b"\x03ram" + struct.pack(">II", 0, 4)
RAM_PART = b"\x02" + struct.pack(">I", 2)
RAM_FOOT = b"\x7e" + struct.pack(">I", 2)


@functools.cache
def real(name: str) -> memoryview:
    return memoryview(lzma.decompress((DATA / f"{name}.mig.xz").read_bytes()))


@functools.cache
def located(name: str) -> tuple[Located, ...]:
    return tuple(read_stream(real(name)))


def read(data: bytes | memoryview) -> list[Record]:
    return [located.record for located in read_stream(memoryview(data))]


def read_until_error(data: bytes | memoryview) -> tuple[list[Located], StreamError]:
    found = []
    try:
        for each in read_stream(memoryview(data)):
            found.append(each)
    except StreamError as error:
        return found, error
    raise AssertionError("the stream was read to its end")


def written(records: Iterable[Record]) -> bytes:
    return b"".join(bytes(piece) for record in records for piece in encode(record))


def word(value: int) -> bytes:
    return struct.pack(">Q", value)


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def block_list(*blocks: bytes, total: int) -> bytes:
    """Return a START section of RAM with these entries."""
    return RAM_START + word(total | 0x04) + b"".join(blocks) + EOS + RAM_FOOT


def ram_stream(payload: bytes, *, pages: int = 16) -> bytes:
    """Return a stream of one block of so many pages and one PART, of ``payload``."""
    size = pages * 4096
    start = block_list(name("pc.ram") + word(size), total=size)
    return HEADER + start + RAM_PART + payload + EOS + RAM_FOOT + END
