"""The frame around each chunk of a device's stream, and what makes it trusted.

A destination sees chunks and nothing else, so each carries all that tells whether it
belongs here: what it is (magic, version), whose it is (kind, shape), where it stands
(sequence, flags), what stands before it there (link: a part of the checksum of the
chunk before), and that it is whole (size, checksum over both header and payload).
Without the link, a user application that mixes up two devices of a kind would make a
third one of their chunks.

The flags: ``LAST`` ends a stream, so that a truncated one is known; ``AGAIN`` marks a
chunk that takes the place of the one before it, which may or may not have been read
when stop-and-copy began (V1-SAVE-07).
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

import xxhash

MAGIC: Final = 0x314D4656  # "VFM1"
VERSION: Final = 1

LAST: Final = 1 << 0
AGAIN: Final = 1 << 1
_KNOWN_FLAGS: Final = LAST | AGAIN

# magic, version, flags, kind, sequence, shape, size of the payload, link; the checksum.
_FIELDS: Final = struct.Struct("<IHHIIQII")
_CHECKSUM: Final = struct.Struct("<Q")
HEADER_SIZE: Final = _FIELDS.size + _CHECKSUM.size
MAX_PAYLOAD: Final = (1 << 32) - 1

_LINK_MASK: Final = (1 << 32) - 1


class Chunk(NamedTuple):
    """What a chunk's header says."""

    kind: int
    shape: int
    sequence: int
    flags: int
    size: int
    link: int = 0  # what `link_to` said of the chunk before; the first has none


def seal(buffer: memoryview, chunk: Chunk) -> int:
    """Write the header of a chunk whose payload is in place; return its whole size."""
    fields = (MAGIC, VERSION, chunk.flags, chunk.kind, chunk.sequence)
    _FIELDS.pack_into(buffer, 0, *fields, chunk.shape, chunk.size, chunk.link)
    _CHECKSUM.pack_into(buffer, _FIELDS.size, _checksum(buffer, chunk.size))
    return HEADER_SIZE + chunk.size


def unseal(buffer: memoryview) -> Chunk:
    """Return the header of the chunk that fills ``buffer``, checked for itself.

    Raises:
        OSError: EINVAL for what is not a chunk of this format, EOPNOTSUPP for one of
            another version, EBADMSG for one that was damaged.
    """
    if len(buffer) < HEADER_SIZE:
        _refuse(errno.EINVAL, f"{len(buffer)} bytes are less than a chunk's header")
    fields = _FIELDS.unpack_from(buffer)
    magic, version, flags, kind, sequence, shape, size, link = fields
    if magic != MAGIC:
        _refuse(errno.EINVAL, f"magic {magic:#x} is not {MAGIC:#x}")
    if version != VERSION:
        _refuse(errno.EOPNOTSUPP, f"version {version} is not {VERSION}")
    if HEADER_SIZE + size != len(buffer):
        _refuse(errno.EINVAL, f"a payload of {size} bytes in {len(buffer)}")
    (checksum,) = _CHECKSUM.unpack_from(buffer, _FIELDS.size)
    if checksum != _checksum(buffer, size):
        _refuse(errno.EBADMSG, "the checksum is wrong")
    if flags & ~_KNOWN_FLAGS:
        _refuse(errno.EOPNOTSUPP, f"unknown flags {flags:#x}")
    return Chunk(kind, shape, sequence, flags, size, link)


def link_to(buffer: memoryview) -> int:
    """Return how the chunk that follows on the sealed one in ``buffer`` names it."""
    (checksum,) = _CHECKSUM.unpack_from(buffer, _FIELDS.size)
    return int(checksum) & _LINK_MASK


def _checksum(buffer: memoryview, size: int) -> int:
    digest = xxhash.xxh3_64(buffer[: _FIELDS.size])
    digest.update(buffer[HEADER_SIZE : HEADER_SIZE + size])
    return digest.intdigest()


def _refuse(code: int, why: str) -> None:
    raise OSError(code, why)
