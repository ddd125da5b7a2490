"""XenStore's wire: messages of a guest and its store, and the two rings they cross.

::

    type   req_id  tx_id  len
    le32   le32    le32   le32     then len bytes, 4,096 at most

Rule 1: a request is texts, each with a NUL behind it, and for WRITE a value behind
those; `FORMS` says how many.  A reply repeats the request's type and ids, or has the
type ERROR and names an errno.

Rule 2: who writes into a ring moves its ``prod``, who reads moves its ``cons``; both
count bytes for ever, modulo 2**32.  Indices that cannot be are a ``ProtocolError``, and
so is a length: nobody knows where the next message begins.

From Xen's xs_wire.h and docs/misc/xenstore-ring.txt, 4.17; what QEMU's
hw/i386/kvm/xen_xenstore.c (10.0) ignores is ignored here.
"""

from __future__ import annotations

import errno
import struct
from ctypes import sizeof
from typing import Final, NamedTuple

from vfiomig.protocol.errors import MessageError, ProtocolError
from vfiomig.protocol.qemu_stream.cursor import decode_text, encode_text
from vfiomig.uapi.xen_xs_wire import (
    XENSTORE_PAYLOAD_MAX,
    XENSTORE_RING_SIZE,
    XS_DIRECTORY,
    XS_DIRECTORY_PART,
    XS_ERROR,
    XS_GET_PERMS,
    XS_MKDIR,
    XS_READ,
    XS_RESET_WATCHES,
    XS_RM,
    XS_SET_PERMS,
    XS_TRANSACTION_END,
    XS_TRANSACTION_START,
    XS_UNWATCH,
    XS_WATCH,
    XS_WATCH_EVENT,
    XS_WRITE,
    xenstore_domain_interface,
    xsd_sockmsg,
)

_HEADER: Final = struct.Struct("<IIII")
HEADER_SIZE: Final = sizeof(xsd_sockmsg)
MESSAGE_MAX: Final = HEADER_SIZE + XENSTORE_PAYLOAD_MAX
OK: Final = b"OK\0"

_NAMES: Final = (
    *("EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO"),
    *("ENOTEMPTY", "ENOSYS", "EROFS", "EBUSY", "EAGAIN", "EISCONN", "E2BIG", "EPERM"),
)
# The errors that the wire knows, by errno; any other is told as EINVAL.
ERRORS: Final = {int(getattr(errno, name)): name for name in _NAMES}


class Form(NamedTuple):
    """What a request holds: so many texts, and whether anything may follow them."""

    texts: int
    more: bool = False


FORMS: Final = {
    XS_READ: Form(1),
    XS_WRITE: Form(1, more=True),  # the value
    XS_MKDIR: Form(1),
    XS_RM: Form(1),
    XS_DIRECTORY: Form(1),
    XS_DIRECTORY_PART: Form(2),
    XS_GET_PERMS: Form(1),
    XS_SET_PERMS: Form(2, more=True),  # more permissions, and what is ignored
    XS_WATCH: Form(2, more=True),  # ignored
    XS_UNWATCH: Form(2, more=True),  # ignored
    XS_RESET_WATCHES: Form(1),
    XS_TRANSACTION_START: Form(1),
    XS_TRANSACTION_END: Form(1),
}


class Message(NamedTuple):
    """A message, of either direction; ``type`` is one of XS_*."""

    type: int
    payload: bytes
    req_id: int = 0
    tx_id: int = 0

    def encode(self) -> bytes:
        """Return it as it is sent.

        Raises:
            ValueError: its payload is longer than 4,096 bytes.
        """
        size = len(self.payload)
        if size > XENSTORE_PAYLOAD_MAX:
            raise ValueError(f"a payload has at most 4096 bytes: {size}")
        return _HEADER.pack(self.type, self.req_id, self.tx_id, size) + self.payload

    def reply(self, payload: bytes) -> Message:
        """Return what answers this request."""
        return self._replace(payload=payload)

    def error(self, code: int) -> Message:
        """Return what answers that this request failed; ``code`` is an errno."""
        name = ERRORS.get(code, "EINVAL")
        return self._replace(type=XS_ERROR, payload=f"{name}\0".encode())

    @property
    def code(self) -> int:
        """The errno that an error names, 0 for what is none.

        Raises:
            ProtocolError: the wire has no error of that name.
        """
        if self.type != XS_ERROR:
            return 0
        name = decode_text(self.payload).removesuffix("\0")
        if name not in _NAMES:
            raise ProtocolError(f"an error of the name {name[:20]!r}")
        return int(getattr(errno, name))


def request(
    kind: int, *texts: str, value: bytes = b"", req_id: int = 0, tx_id: int = 0
) -> Message:
    """Return a request of type ``kind``."""
    return Message(kind, encode_texts(texts) + value, req_id, tx_id)


def watch_event(path: str, token: str) -> Message:
    """Return what tells a guest that a watch fired."""
    return Message(XS_WATCH_EVENT, encode_texts((path, token)))


class Arguments(NamedTuple):
    """What a request holds: its texts, and the bytes behind them."""

    texts: list[str]
    rest: bytes


def arguments(message: Message) -> Arguments:
    """Take a request apart as `FORMS` has it.

    Raises:
        MessageError: it does not have that form; EINVAL answers it.
    """
    form = FORMS[message.type]
    *texts, rest = message.payload.split(b"\0", form.texts)
    if len(texts) < form.texts or (rest and not form.more):
        text = f"a request of type {message.type} that has not {form.texts} texts"
        raise MessageError(text, code=errno.EINVAL)
    return Arguments([decode_text(each) for each in texts], rest)


def encode_texts(texts: list[str] | tuple[str, ...]) -> bytes:
    """Return texts with a NUL behind each."""
    return encode_text("".join([f"{each}\0" for each in texts]))


def decode_texts(payload: bytes) -> list[str]:
    """Return the texts that have a NUL behind them; what follows is ignored."""
    return [decode_text(each) for each in payload.split(b"\0")[:-1]]


def message_in(data: bytes | bytearray) -> Message | None:
    """Return the message that ``data`` begins with; None while it is not whole.

    Raises:
        ProtocolError: its length cannot be.
    """
    if len(data) < HEADER_SIZE:
        return None
    kind, req_id, tx_id, size = _HEADER.unpack_from(data)
    if size > XENSTORE_PAYLOAD_MAX:
        raise ProtocolError(f"a message of {size} bytes: at most 4096")
    if len(data) < HEADER_SIZE + size:
        return None
    payload = bytes(data[HEADER_SIZE : HEADER_SIZE + size])
    return Message(kind, payload, req_id, tx_id)


def missing_in(data: bytes | bytearray) -> int:
    """Return the bytes to read next for a message: first its header, then the rest.

    Raises:
        ProtocolError: its length cannot be.
    """
    if len(data) < HEADER_SIZE:
        return HEADER_SIZE - len(data)
    if message_in(data) is not None:
        return 0
    size = _HEADER.unpack_from(data)[3]
    return int(HEADER_SIZE + size - len(data))


class Ring:
    """One of the two rings of a page that a guest shares with its store.

    ``page`` is the page as writable bytes.  The index that is moved is one aligned
    store of 32 bits in the machine's order, which has to be little-endian, as Xen's is.
    """

    def __init__(self, page: memoryview, *, field: str) -> None:
        layout = xenstore_domain_interface
        began = int(getattr(layout, field).offset)
        self._bytes = page[began : began + XENSTORE_RING_SIZE]
        self._words = page[: sizeof(layout)].cast("B").cast("I")
        self._cons = int(getattr(layout, f"{field}_cons").offset) // 4
        self._prod = int(getattr(layout, f"{field}_prod").offset) // 4

    @classmethod
    def of_requests(cls, page: memoryview) -> Ring:
        """Return the ring that the guest writes."""
        return cls(page, field="req")

    @classmethod
    def of_responses(cls, page: memoryview) -> Ring:
        """Return the ring that the store writes."""
        return cls(page, field="rsp")

    def used(self) -> int:
        """Return the bytes that wait to be read.

        Raises:
            ProtocolError: the indices are further apart than the ring is long.
        """
        used = (self._words[self._prod] - self._words[self._cons]) % 2**32
        if used > XENSTORE_RING_SIZE:
            raise ProtocolError(f"{used} bytes in a ring of {XENSTORE_RING_SIZE}")
        return used

    def put(self, data: bytes | memoryview) -> int:
        """Write as much as there is room for, and return how much that was.

        Raises ``ProtocolError`` as `used` does.
        """
        size = min(len(data), XENSTORE_RING_SIZE - self.used())
        begin = self._words[self._prod]
        at = begin % XENSTORE_RING_SIZE
        first = min(size, XENSTORE_RING_SIZE - at)
        self._bytes[at : at + first] = data[:first]
        self._bytes[: size - first] = data[first:size]
        self._words[self._prod] = (begin + size) % 2**32
        return size

    def take(self, limit: int) -> bytes:
        """Read what waits, ``limit`` bytes at most.

        Raises ``ProtocolError`` as `used` does.
        """
        size = min(limit, self.used())
        begin = self._words[self._cons]
        at = begin % XENSTORE_RING_SIZE
        first = min(size, XENSTORE_RING_SIZE - at)
        data = bytes(self._bytes[at : at + first]) + bytes(self._bytes[: size - first])
        self._words[self._cons] = (begin + size) % 2**32
        return data
