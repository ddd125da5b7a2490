"""The frame of a chunk: what is damaged in any bit, or cut, is no chunk."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.vendor.chunk import AGAIN, HEADER_SIZE, LAST, Chunk, link_to, seal, unseal

KIND, SHAPE = 0x01020304, 0x1112131415161718

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
flags = st.sampled_from([0, LAST, AGAIN, LAST | AGAIN])
payloads = st.binary(max_size=200)


def sealed(payload: bytes, *, sequence: int = 0, flags: int = 0) -> bytearray:
    buffer = bytearray(HEADER_SIZE) + payload
    head = Chunk(KIND, SHAPE, sequence, flags, len(payload))
    assert seal(memoryview(buffer), head) == HEADER_SIZE + len(payload)
    return buffer


def errno_of(buffer: bytes | bytearray) -> int | None:
    try:
        unseal(memoryview(buffer))
    except OSError as refusal:
        return refusal.errno
    message = f"taken for a chunk: {bytes(buffer).hex()}"
    raise AssertionError(message)


def flipped(buffer: bytes | bytearray, bit: int) -> bytearray:
    copy = bytearray(buffer)
    copy[bit // 8] ^= 1 << bit % 8
    return copy


@given(u32, u64, u32, flags, u32, payloads)
def test_what_was_sealed_is_unsealed(
    kind: int, shape: int, sequence: int, flags: int, link: int, payload: bytes
) -> None:
    buffer = bytearray(HEADER_SIZE) + payload
    head = Chunk(kind, shape, sequence, flags, len(payload), link)
    size = seal(memoryview(buffer), head)
    assert size == HEADER_SIZE + len(payload)
    assert unseal(memoryview(buffer)) == head
    assert buffer[HEADER_SIZE:] == payload


def test_the_header_is_little_endian_and_begins_with_the_magic() -> None:
    buffer = sealed(b"payload", sequence=5, flags=LAST)
    fields = struct.unpack_from("<4sHHIIQII", buffer)
    assert fields == (b"VFM1", 1, LAST, KIND, 5, SHAPE, 7, 0)
    assert struct.calcsize("<4sHHIIQII") + 8 == HEADER_SIZE  # the rest is the checksum


@given(payloads, payloads)
def test_the_link_tells_one_chunk_from_another(one: bytes, other: bytes) -> None:
    links = [link_to(memoryview(sealed(payload))) for payload in (one, other)]
    assert (links[0] == links[1]) == (one == other)
    assert all(0 <= link < 1 << 32 for link in links)


def test_sealing_touches_the_header_alone() -> None:
    buffer = bytearray(b"\xa5" * (HEADER_SIZE + 100))
    assert seal(memoryview(buffer), Chunk(KIND, SHAPE, 0, 0, 60)) == HEADER_SIZE + 60
    assert buffer[HEADER_SIZE:] == b"\xa5" * 100


@given(payloads, u32, flags)
@settings(max_examples=10)
def test_a_chunk_with_any_one_bit_flipped_is_refused(
    payload: bytes, sequence: int, flags: int
) -> None:
    buffer = sealed(payload, sequence=sequence, flags=flags)
    refusals = [errno_of(flipped(buffer, bit)) for bit in range(8 * len(buffer))]
    assert set(refusals) <= {errno.EINVAL, errno.EOPNOTSUPP, errno.EBADMSG}
    assert set(refusals[8 * HEADER_SIZE :]) <= {errno.EBADMSG}


@given(st.integers(1, 1 << 16), st.data())
def test_a_large_chunk_with_one_bit_flipped_is_refused(
    size: int, data: st.DataObject
) -> None:
    buffer = sealed(bytes(size))
    bit = data.draw(st.integers(0, 8 * len(buffer) - 1))
    errno_of(flipped(buffer, bit))


@given(payloads)
@settings(max_examples=20)
def test_a_chunk_that_was_cut_anywhere_is_refused(payload: bytes) -> None:
    buffer = sealed(payload)
    assert {errno_of(buffer[:end]) for end in range(len(buffer))} == {errno.EINVAL}


@given(payloads, st.binary(min_size=1, max_size=50))
def test_a_chunk_with_something_behind_it_is_refused(
    payload: bytes, rest: bytes
) -> None:
    assert errno_of(sealed(payload) + rest) == errno.EINVAL


@pytest.mark.parametrize(
    "size", [0, 6, 8, (1 << 31) - 1, (1 << 32) - 1, (1 << 32) - 33]
)
def test_a_size_that_the_bytes_do_not_have_is_refused(size: int) -> None:
    buffer = sealed(b"payload")
    struct.pack_into("<I", buffer, 24, size)
    assert errno_of(buffer) == errno.EINVAL


def test_a_flag_of_a_later_day_is_not_supported() -> None:
    assert errno_of(sealed(b"payload", flags=1 << 2)) == errno.EOPNOTSUPP
    assert errno_of(sealed(b"payload", flags=1 << 15 | LAST)) == errno.EOPNOTSUPP


@pytest.mark.parametrize("version", [0, 2, 0xFFFF])
def test_another_version_is_not_supported(version: int) -> None:
    buffer = sealed(b"payload")
    struct.pack_into("<H", buffer, 4, version)
    assert errno_of(buffer) == errno.EOPNOTSUPP


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_chunk(garbage: bytes) -> None:
    errno_of(garbage)
    errno_of(b"VFM1\x01\x00" + garbage)
