"""Messages of vfio-user: a header, and a payload of as many bytes as it says.

::

    msg_id  cmd   msg_size      flags         error_no
    le16    le16  le32          le32          le32       then msg_size - 16 bytes

Rule: whatever can be told to the peer is a `MessageError` with the errno to answer.
Where a header cannot be believed, nobody knows where the next one begins: that is a
`FramingError`, and the connection is to be closed.
"""

from __future__ import annotations

import struct
from ctypes import sizeof
from typing import Final, NamedTuple

from vfiomig.protocol.errors import ProtocolError
from vfiomig.uapi.vfio_user import (
    VFIO_USER_F_ERROR,
    VFIO_USER_F_NO_REPLY,
    VFIO_USER_F_TYPE_COMMAND,
    VFIO_USER_F_TYPE_MASK,
    VFIO_USER_F_TYPE_REPLY,
    vfio_user_header,
)

_HEADER: Final = struct.Struct("<HHIII")
HEADER_SIZE: Final = sizeof(vfio_user_header)

# Of a message without its data: no structure, capability chain or JSON is longer.
ROOM_FOR_ALL_BUT_DATA: Final = 64 << 10


class FramingError(ProtocolError):
    """A header that cannot be believed: no other message can be found behind it."""


class Header(NamedTuple):
    """``struct vfio_user_header``."""

    msg_id: int
    command: int
    msg_size: int
    flags: int
    error_no: int = 0

    @property
    def payload_size(self) -> int:
        """The bytes that follow."""
        return self.msg_size - HEADER_SIZE

    @property
    def is_reply(self) -> bool:
        """Whether it answers a command."""
        return self.flags & VFIO_USER_F_TYPE_MASK == VFIO_USER_F_TYPE_REPLY

    @property
    def is_error(self) -> bool:
        """Whether it answers that the command failed, with ``error_no``."""
        return bool(self.flags & VFIO_USER_F_ERROR)

    @property
    def wants_no_reply(self) -> bool:
        """Whether nobody waits for an answer."""
        return bool(self.flags & VFIO_USER_F_NO_REPLY)


def read_header(data: bytes | bytearray | memoryview, *, limit: int) -> Header:
    """Return the header that 16 bytes are; no message is longer than ``limit`` bytes.

    Raises:
        FramingError: its size or its type cannot be.
    """
    header = Header._make(_HEADER.unpack_from(data))
    if not HEADER_SIZE <= header.msg_size <= limit:
        message = (
            f"a message of {header.msg_size} bytes: "
            f"one has {HEADER_SIZE} to {limit}, its header included"
        )
        raise FramingError(message)
    kind = header.flags & VFIO_USER_F_TYPE_MASK
    if kind not in (VFIO_USER_F_TYPE_COMMAND, VFIO_USER_F_TYPE_REPLY):
        raise FramingError(f"a message of type {kind}: neither a command nor a reply")
    return header


def command_message(
    msg_id: int, command: int, payload: bytes = b"", *, wants_reply: bool = True
) -> bytes:
    """Return a command as it is sent."""
    flags = VFIO_USER_F_TYPE_COMMAND | (0 if wants_reply else VFIO_USER_F_NO_REPLY)
    return _HEADER.pack(msg_id, command, HEADER_SIZE + len(payload), flags, 0) + payload


def reply_message(msg_id: int, command: int, payload: bytes = b"") -> bytes:
    """Return the reply to a command that was performed."""
    size = HEADER_SIZE + len(payload)
    return _HEADER.pack(msg_id, command, size, VFIO_USER_F_TYPE_REPLY, 0) + payload


def error_message(msg_id: int, command: int, code: int) -> bytes:
    """Return the reply to a command that failed: ``code`` is a positive errno."""
    flags = VFIO_USER_F_TYPE_REPLY | VFIO_USER_F_ERROR
    return _HEADER.pack(msg_id, command, HEADER_SIZE, flags, code)
