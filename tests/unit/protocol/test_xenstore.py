"""XenStore's messages and rings: bytes written down by hand from Xen's texts."""

from __future__ import annotations

import errno
import struct

import pytest

from vfiomig.protocol.errors import MessageError, ProtocolError
from vfiomig.protocol.xenstore import (
    Message,
    Ring,
    arguments,
    decode_texts,
    message_in,
    missing_in,
    request,
    watch_event,
)
from vfiomig.uapi.xen_xs_wire import (
    XS_DIRECTORY_PART,
    XS_READ,
    XS_SET_PERMS,
    XS_TRANSACTION_END,
    XS_WATCH,
    XS_WRITE,
)


@pytest.fixture
def page() -> memoryview:
    return memoryview(bytearray(4096))


def indices(page: memoryview) -> tuple[int, ...]:
    """Return req_cons, req_prod, rsp_cons, rsp_prod."""
    return struct.unpack_from("<4I", page, 2048)


def test_a_request_is_a_header_and_its_texts() -> None:
    read = request(XS_READ, "device/vbd", req_id=7, tx_id=3)
    assert read.encode() == bytes.fromhex(
        "02000000 07000000 03000000 0b000000"  # type, req_id, tx_id, len
    ) + (b"device/vbd\0")
    assert message_in(read.encode()) == read


def test_replies_repeat_the_ids_and_errors_are_names() -> None:
    write = request(XS_WRITE, "a", value=b"1\0002", req_id=7, tx_id=3)
    assert write.payload == b"a\0001\0002"
    assert write.reply(b"OK\0") == Message(11, b"OK\0", 7, 3)
    refused = write.error(errno.EAGAIN)
    assert refused == Message(16, b"EAGAIN\0", 7, 3)
    assert (refused.code, write.code) == (errno.EAGAIN, 0)
    assert write.error(errno.EFAULT).payload == b"EINVAL\0"  # the wire has it not
    with pytest.raises(ProtocolError, match="EFAULT"):
        _ = Message(16, b"EFAULT\0").code


def test_an_event_answers_nothing() -> None:
    assert watch_event("a/b", "t") == Message(15, b"a/b\0t\0", 0, 0)


@pytest.mark.parametrize(
    ("message", "texts", "rest"),
    [
        (Message(XS_READ, b"a\0"), ["a"], b""),
        (Message(XS_WRITE, b"a\0"), ["a"], b""),
        (Message(XS_WRITE, b"a\0x\0y"), ["a"], b"x\0y"),
        (Message(XS_DIRECTORY_PART, b"a\0000\0"), ["a", "0"], b""),
        (Message(XS_SET_PERMS, b"a\0n1\0r2\0zz"), ["a", "n1"], b"r2\0zz"),
        (Message(XS_WATCH, b"a\0\xff\0junk"), ["a", "\udcff"], b"junk"),
        (Message(XS_TRANSACTION_END, b"T\0"), ["T"], b""),
    ],
)
def test_a_request_is_taken_apart(
    message: Message, texts: list[str], rest: bytes
) -> None:
    assert arguments(message) == (texts, rest)


@pytest.mark.parametrize(
    "message",
    [
        Message(XS_READ, b""),
        Message(XS_READ, b"a"),
        Message(XS_READ, b"a\0b\0"),
        Message(XS_WATCH, b"a\0t"),
        Message(XS_SET_PERMS, b"a\0"),
        Message(XS_WRITE, b"value"),
    ],
)
def test_a_request_of_another_form_is_einval(message: Message) -> None:
    with pytest.raises(MessageError) as error:
        arguments(message)
    assert error.value.code == errno.EINVAL


def test_texts_without_an_end_are_ignored() -> None:
    assert decode_texts(b"n1\0r2\0zz") == ["n1", "r2"]


def test_a_message_is_not_there_before_its_last_byte() -> None:
    data = Message(XS_READ, bytes(4096)).encode()
    assert [missing_in(data[:n]) for n in (0, 15, 16, 17, 4112)] == [
        *(16, 1, 4096, 4095),
        0,
    ]
    assert message_in(data[:4111]) is None


def test_a_message_is_never_longer_than_a_page() -> None:
    header = struct.pack("<4I", XS_READ, 0, 0, 4097)
    for read in (message_in, missing_in):
        with pytest.raises(ProtocolError, match="4097 bytes"):
            read(header)
    with pytest.raises(ValueError, match="4097"):
        Message(XS_READ, bytes(4097)).encode()


def test_bytes_cross_a_ring_in_order_past_its_end(page: memoryview) -> None:
    out, back = Ring.of_requests(page), Ring.of_responses(page)
    struct.pack_into("<4I", page, 2048, 2**32 - 4, 2**32 - 4, 1000, 1000)
    assert out.put(b"abcdefgh") == 8
    assert (bytes(page[1020:1024]), bytes(page[:4])) == (b"abcd", b"efgh")
    assert indices(page)[:2] == (2**32 - 4, 4)
    assert (out.take(3), out.take(100), out.take(1)) == (b"abc", b"defgh", b"")
    assert back.put(bytes(range(100))) == 100
    assert bytes(page[1024 + 1000 : 2048]) == bytes(range(24))
    assert back.take(4096) == bytes(range(100))
    assert indices(page) == (4, 4, 1100, 1100)


def test_a_full_ring_takes_no_more(page: memoryview) -> None:
    ring = Ring.of_responses(page)
    assert [ring.put(bytes(1000)), ring.put(bytes(1000)), ring.put(b"x")] == [
        *(1000, 24),
        0,
    ]
    assert (ring.used(), len(ring.take(10)), ring.put(bytes(20))) == (1024, 10, 10)


def test_indices_that_cannot_be_are_refused(page: memoryview) -> None:
    struct.pack_into("<4I", page, 2048, 1, 1026, 5, 4)
    for ring in (Ring.of_requests(page), Ring.of_responses(page)):
        with pytest.raises(ProtocolError, match="bytes in a ring of 1024"):
            ring.take(1)
        with pytest.raises(ProtocolError, match="bytes in a ring of 1024"):
            ring.put(b"x")
    assert indices(page) == (1, 1026, 5, 4)
