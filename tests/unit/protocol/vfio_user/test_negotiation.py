"""VERSION: which version is agreed on, and what is no offer at all.

The cases are those seen of a server of the C library, protocol 0.2.
"""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.errors import MessageError
from vfiomig.protocol.vfio_user.negotiation import (
    Capabilities,
    Version,
    agreed,
    require_agreement,
)

OWN = Capabilities(max_msg_fds=8, pgsize=4096)


def offer(major: int, minor: int, json: bytes = b"") -> bytes:
    return struct.pack("<HH", major, minor) + json


@pytest.mark.parametrize(
    ("asked", "answered"), [(99, 2), (3, 2), (2, 2), (1, 1), (0, 0)]
)
def test_the_lower_minor_version_is_spoken(asked: int, answered: int) -> None:
    reply = agreed(Version.decode(offer(0, asked)), OWN)
    assert (reply.major, reply.minor) == (0, answered)


def test_a_server_says_what_it_takes() -> None:
    reply = agreed(Version(), OWN).encode()
    assert reply == offer(
        0,
        2,
        b'{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,'
        b'"migration":{"pgsize":4096}}}\0',
    )


@pytest.mark.parametrize("major", [1, 2, 0xFFFF])
def test_another_major_version_is_refused(major: int) -> None:
    refused(lambda: agreed(Version(major=major), OWN), f"major version {major}")


@pytest.mark.parametrize("pgsize", [1, 2048, 8192, 65536])
def test_pages_of_another_size_are_refused(pgsize: int) -> None:
    text = b'{"capabilities":{"migration":{"pgsize":%d}}}\0' % pgsize
    proposed = Version.decode(offer(0, 2, text))
    refused(lambda: agreed(proposed, OWN), f"dirty pages of {pgsize} bytes")


def test_pages_of_the_same_size_are_agreed_on() -> None:
    text = b'{"capabilities":{"migration":{"pgsize":4096}}}\0'
    assert agreed(Version.decode(offer(0, 2, text)), OWN).capabilities == OWN


def test_whoever_says_nothing_takes_the_defaults() -> None:
    for text in (b"", b"{}\0", b'{"capabilities":{}}\0', b'{"unknown":[1]}\0'):
        said = Version.decode(offer(0, 2, text)).capabilities
        assert (said.max_msg_fds, said.max_data_xfer_size) == (1, 1 << 20)
        assert (said.pgsize, said.has_twin_socket) == (None, False)


def test_everything_that_is_said_is_heard() -> None:
    text = (
        b'{"capabilities": {"max_msg_fds": 0, "max_data_xfer_size": 16,'
        b' "migration": {"pgsize": 65536, "new": 1},'
        b' "twin_socket": {"supported": true}}}\0'
    )
    assert Version.decode(offer(0, 1, text)) == Version(
        minor=1,
        capabilities=Capabilities(
            max_msg_fds=0, max_data_xfer_size=16, pgsize=65536, has_twin_socket=True
        ),
    )


# version data as they come, and the reason why not
MALFORMED = (
    (b"{}", "without a NUL at their end"),
    (b"\0", "no JSON"),
    (b"{\0", "no JSON"),
    (b"{}\0\0", "no JSON"),
    (b"\xff\xfe\0", "no JSON"),
    (b"[" * 100_000 + b"\0", "no JSON"),
    (b"[]\0", "the version data: not a JSON object"),
    (b"null\0", "the version data: not a JSON object"),
    (b'{"capabilities":7}\0', "capabilities: not a JSON object"),
    (b'{"capabilities":{"migration":4096}}\0', "migration: not a JSON object"),
    (b'{"capabilities":{"twin_socket":true}}\0', "twin_socket: not a JSON object"),
    (b'{"capabilities":{"max_msg_fds":1025}}\0', "max_msg_fds is 1025: it is 0 to"),
    (b'{"capabilities":{"max_msg_fds":-1}}\0', "max_msg_fds is -1"),
    (b'{"capabilities":{"max_msg_fds":"8"}}\0', "max_msg_fds is '8', not a number"),
    (b'{"capabilities":{"max_msg_fds":8.0}}\0', "max_msg_fds is 8.0, not a number"),
    (b'{"capabilities":{"max_msg_fds":true}}\0', "max_msg_fds is True, not a number"),
    (b'{"capabilities":{"max_msg_fds":null}}\0', "max_msg_fds is None, not a number"),
    (b'{"capabilities":{"max_data_xfer_size":0}}\0', "max_data_xfer_size is 0"),
    (b'{"capabilities":{"max_data_xfer_size":4294967296}}\0', "is 4294967296"),
    (b'{"capabilities":{"migration":{"pgsize":0}}}\0', "pgsize is 0"),
    (b'{"capabilities":{"migration":{"x":0}}}\0', "pgsize is None"),
    (b'{"capabilities":{"twin_socket":{"supported":1}}}\0', "neither true nor false"),
)


@pytest.mark.parametrize(
    ("text", "reason"), MALFORMED, ids=[reason for _, reason in MALFORMED]
)
def test_malformed_version_data_are_refused(text: bytes, reason: str) -> None:
    refused(lambda: Version.decode(offer(0, 2, text)), reason)


@pytest.mark.parametrize("size", range(4))
def test_a_version_that_is_too_short_is_refused(size: int) -> None:
    refused(lambda: Version.decode(bytes(size)), f"a version of {size} bytes")


@pytest.mark.parametrize(
    ("major", "minor", "reason"),
    [(1, 0, "version 1.0 in reply to 0.2"), (0, 3, "minor version 3 in reply to 2")],
)
def test_a_reply_that_nobody_proposed_is_refused(
    major: int, minor: int, reason: str
) -> None:
    reply = Version(major=major, minor=minor)
    refused(lambda: require_agreement(Version(), reply), reason)


@pytest.mark.parametrize("minor", [0, 1, 2])
def test_a_reply_of_the_same_or_a_lower_version_is_agreed_on(minor: int) -> None:
    require_agreement(Version(), Version(minor=minor))


@given(st.binary(max_size=60))
def test_arbitrary_version_data_are_read_or_refused(text: bytes) -> None:
    refusal = None
    try:
        Version.decode(offer(0, 2, text))
    except MessageError as error:
        refusal = error
    assert refusal is None or refusal.code == errno.EINVAL


@given(
    st.builds(
        Version,
        major=st.integers(0, 0xFFFF),
        minor=st.integers(0, 0xFFFF),
        capabilities=st.builds(
            Capabilities,
            max_msg_fds=st.integers(0, 1024),
            max_data_xfer_size=st.integers(1, (1 << 32) - 1),
            pgsize=st.none() | st.integers(1, (1 << 32) - 1),
            has_twin_socket=st.booleans(),
        ),
    )
)
def test_what_is_proposed_is_read(version: Version) -> None:
    assert Version.decode(version.encode()) == version


def refused(call: object, reason: str) -> None:
    assert callable(call)
    with pytest.raises(MessageError) as raised:
        call()
    assert raised.value.code == errno.EINVAL
    assert reason in str(raised.value)
