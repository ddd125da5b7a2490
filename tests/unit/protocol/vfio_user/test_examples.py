"""The codec against bytes that were written by hand: every message, both ways."""

from __future__ import annotations

import pytest

from tests.unit.protocol.vfio_user.wire_examples import EXAMPLES, Example
from vfiomig.protocol.vfio_user.framing import (
    Header,
    command_message,
    error_message,
    read_header,
    reply_message,
)
from vfiomig.protocol.vfio_user.messages import region_read_message, require_nothing

every_message = pytest.mark.parametrize(
    "example", EXAMPLES, ids=[example.name for example in EXAMPLES]
)

COMMAND, REPLY = 0, 1


def test_there_is_one_of_every_command_in_both_directions() -> None:
    shown = {(example.command, example.is_reply) for example in EXAMPLES}
    assert shown == {(n, reply) for n in range(1, 15) for reply in (False, True)}


@every_message
def test_a_message_is_written_byte_by_byte(example: Example) -> None:
    write = reply_message if example.is_reply else command_message
    payload = example.value.encode() if example.value is not None else b""
    assert write(example.msg_id, example.command, payload) == example.message


@every_message
def test_a_message_is_read(example: Example) -> None:
    message = example.message
    header = read_header(message, limit=len(message))
    kind = REPLY if example.is_reply else COMMAND
    assert header == Header(example.msg_id, example.command, len(message), kind, 0)
    assert header.is_reply == example.is_reply
    assert not header.is_error
    assert not header.wants_no_reply
    payload = message[16:]
    assert header.payload_size == len(payload)
    if example.value is None:
        require_nothing(payload, example.name)
    else:
        assert type(example.value).decode(payload) == example.value


def test_the_whole_register_read_is_the_same_message() -> None:
    (read,) = (each for each in EXAMPLES if each.name == "REGION_READ, command")
    assert region_read_message(11, 8, 9, 8) == read.message


def test_an_error_is_a_header_alone() -> None:
    message = bytes.fromhex("3412 0900 10000000 21000000 16000000")
    assert error_message(0x1234, 9, 22) == message
    header = read_header(message, limit=16)
    assert (header.is_reply, header.is_error, header.error_no) == (True, True, 22)


def test_a_command_may_want_no_reply() -> None:
    message = bytes.fromhex("0f00 0d00 10000000 10000000 00000000")
    assert command_message(15, 13, wants_reply=False) == message
    header = read_header(message, limit=16)
    assert (header.is_reply, header.wants_no_reply) == (False, True)
