"""What no message can be is refused with a reason, and nothing else is raised."""

from __future__ import annotations

import contextlib
import errno
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.protocol.vfio_user.wire_examples import EXAMPLES, Example
from vfiomig.protocol.errors import MessageError
from vfiomig.protocol.vfio_user.dma import (
    Bitmap,
    DirtyPages,
    DmaAccess,
    DmaData,
    DmaMap,
    DmaUnmap,
)
from vfiomig.protocol.vfio_user.framing import FramingError, Header, read_header
from vfiomig.protocol.vfio_user.messages import (
    DeviceInfo,
    IrqInfo,
    RegionAccess,
    RegionData,
    RegionInfo,
    RegionIoFds,
    SetIrqs,
    require_nothing,
)
from vfiomig.protocol.vfio_user.negotiation import Version

KINDS: tuple[Any, ...] = (
    DeviceInfo,
    DirtyPages,
    DmaAccess,
    DmaData,
    DmaMap,
    DmaUnmap,
    IrqInfo,
    RegionAccess,
    RegionData,
    RegionInfo,
    RegionIoFds,
    SetIrqs,
    Version,
)

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
data = st.binary(max_size=40)


def packed(form: str, *values: int) -> bytes:
    return struct.pack(f"<{form}", *values)


# kind, payload, and the reason: what is wrong with it
MALFORMED: tuple[tuple[Any, bytes, str], ...] = (
    (DeviceInfo, bytes(15), "device info: 15 bytes, less than 16"),
    (DeviceInfo, packed("IIII", 15, 0, 0, 0), "device info: argsz 15, less than 16"),
    (RegionInfo, bytes(31), "region info: 31 bytes, less than 32"),
    (RegionInfo, packed("IIIIQQ", 31, *[0] * 5), "region info: argsz 31, less than 32"),
    (RegionIoFds, bytes(15), "region I/O fds: 15 bytes, less than 16"),
    (RegionIoFds, packed("IIII", 0, 0, 0, 0), "region I/O fds: argsz 0, less than 16"),
    (IrqInfo, bytes(15), "interrupt info: 15 bytes, less than 16"),
    (IrqInfo, packed("IIII", 8, 0, 0, 0), "interrupt info: argsz 8, less than 16"),
    (SetIrqs, bytes(19), "set of interrupts: 19 bytes, less than 20"),
    (SetIrqs, packed("IIIII", 19, 0, 0, 0, 0), "set of interrupts: argsz 19, less"),
    (RegionAccess, bytes(15), "region access: 15 bytes, not 16"),
    (RegionAccess, bytes(17), "region access: 17 bytes, not 16"),
    (RegionData, bytes(15), "region access: 15 bytes, less than 16"),
    (RegionData, packed("QII", 0, 0, 4) + bytes(3), "4 bytes: 19 bytes, not 20"),
    (RegionData, packed("QII", 0, 0, 4) + bytes(5), "4 bytes: 21 bytes, not 20"),
    (RegionData, packed("QII", 0, 0, 0xFFFF_FFFF), "16 bytes, not 4294967311"),
    (DmaMap, bytes(31), "DMA map: 31 bytes, not 32"),
    (DmaMap, bytes(33), "DMA map: 33 bytes, not 32"),
    (DmaMap, packed("IIQQQ", 31, 3, 0, 0, 0), "DMA map: argsz 31, less than 32"),
    (DmaUnmap, bytes(23), "DMA unmap: 23 bytes, less than 24"),
    (DmaUnmap, packed("IIQQ", 24, 0, 0, 0) + b"x", "DMA unmap: 25 bytes, not 24"),
    (DmaUnmap, packed("IIQQ", 23, 0, 0, 0), "DMA unmap: argsz 23, less than 24"),
    (DmaUnmap, packed("IIQQ", 40, 1, 0, 0), "gets a bitmap: 24 bytes, less than 40"),
    (DmaUnmap, packed("IIQQQQ", 48, 1, 0, 0, 4096, 8) + b"x", "bitmap: 1 bytes, not 8"),
    (DirtyPages, bytes(7), "dirty pages: 7 bytes, less than 8"),
    (DirtyPages, packed("II", 7, 1), "dirty pages: argsz 7, less than 8"),
    (DirtyPages, packed("II", 8, 1) + b"x", "dirty pages: 9 bytes, not 8"),
    (DirtyPages, packed("II", 8, 4), "get a bitmap: 8 bytes, less than 40"),
    (
        DirtyPages,
        packed("IIQQQQ", 48, 4, 0, 0, 4096, 8) + bytes(9),
        "bitmap: 9 bytes, not 8",
    ),
    (DmaAccess, bytes(15), "DMA access: 15 bytes, not 16"),
    (DmaAccess, bytes(20), "DMA access: 20 bytes, not 16"),
    (DmaData, bytes(15), "DMA access: 15 bytes, less than 16"),
    (DmaData, packed("QQ", 0, 1 << 63), "16 bytes, not 9223372036854775824"),
    (DmaData, packed("QQ", 0, 2) + b"x", "with 2 bytes: 17 bytes, not 18"),
)


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    MALFORMED,
    ids=[f"{kind.__name__}-{number}" for number, (kind, _, _) in enumerate(MALFORMED)],
)
def test_a_malformed_payload_is_refused_with_a_reason(
    kind: Any, payload: bytes, reason: str
) -> None:
    with pytest.raises(MessageError) as raised:
        kind.decode(payload)
    assert raised.value.code == errno.EINVAL
    assert reason in str(raised.value)


def test_a_payload_where_none_belongs_is_refused() -> None:
    with pytest.raises(MessageError, match="DEVICE_RESET: 1 bytes, not 0") as raised:
        require_nothing(b"x", "DEVICE_RESET")
    assert raised.value.code == errno.EINVAL


@pytest.mark.parametrize("example", EXAMPLES, ids=[each.name for each in EXAMPLES])
def test_a_payload_that_ends_early_is_refused_or_says_no_more(example: Example) -> None:
    if example.value is None:
        return
    payload = example.message[16:]
    for size in range(len(payload)):
        with contextlib.suppress(MessageError):
            shorter = type(example.value).decode(payload[:size])
            no_version_data = isinstance(shorter, Version) and size == 4
            assert shorter.encode() == payload[:size] or no_version_data


HEADERS = (
    ((1, 9, 15, 0, 0), "a message of 15 bytes: one has 16 to 64"),
    ((1, 9, 0, 0, 0), "a message of 0 bytes"),
    ((1, 9, 65, 0, 0), "a message of 65 bytes: one has 16 to 64"),
    ((1, 9, 0xFFFF_FFFF, 0, 0), "a message of 4294967295 bytes"),
    ((1, 9, 16, 2, 0), "a message of type 2: neither a command nor a reply"),
    ((1, 9, 16, 15, 0), "a message of type 15"),
)


@pytest.mark.parametrize(("fields", "reason"), HEADERS)
def test_a_header_that_cannot_be_believed_ends_the_connection(
    fields: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(FramingError) as raised:
        read_header(struct.pack("<HHIII", *fields), limit=64)
    assert reason in str(raised.value)


def test_a_header_may_be_as_long_as_the_limit() -> None:
    header = read_header(struct.pack("<HHIII", 1, 9, 64, 0, 0), limit=64)
    assert header == Header(1, 9, 64, 0)
    assert header.payload_size == 48


@given(st.sampled_from(KINDS), st.binary(max_size=120))
def test_arbitrary_bytes_are_a_message_or_refused(kind: Any, payload: bytes) -> None:
    refusal = None
    try:
        kind.decode(payload)
    except MessageError as error:
        refusal = error
    assert refusal is None or (refusal.code == errno.EINVAL and str(refusal))


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_changed_byte_is_another_message_or_refused(
    example: Example, drawn: st.DataObject
) -> None:
    if example.value is None:
        return
    payload = bytearray(example.message[16:])
    place = drawn.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= drawn.draw(st.integers(1, 255))
    with contextlib.suppress(MessageError):
        type(example.value).decode(bytes(payload))


@given(st.binary(min_size=16, max_size=16), st.integers(16, 1 << 21))
def test_an_arbitrary_header_is_a_header_or_refused(head: bytes, limit: int) -> None:
    with contextlib.suppress(FramingError):
        header = read_header(head, limit=limit)
        assert 0 <= header.payload_size <= limit - 16
        assert struct.pack("<HHIII", *header) == head


bitmaps = st.builds(Bitmap, u64, st.integers(0, 40))


def values() -> st.SearchStrategy[Any]:
    """Make any payload that a party may send."""
    return st.one_of(
        st.builds(DeviceInfo, st.integers(16, (1 << 32) - 1), u32, u32, u32),
        st.builds(
            RegionInfo, st.integers(32, (1 << 32) - 1), u32, u32, u32, u64, u64, data
        ),
        st.builds(RegionIoFds, st.integers(16, 99), u32, u32, u32, data),
        st.builds(IrqInfo, st.integers(16, 99), u32, u32, u32),
        st.builds(SetIrqs, st.integers(20, 99), u32, u32, u32, u32, data),
        st.builds(RegionAccess, u64, u32, u32),
        st.builds(RegionData, u64, u32, data),
        st.builds(DmaMap, u32, u64, u64, u64, st.integers(32, 99)),
        st.builds(DmaUnmap, u32.map(lambda flags: flags & ~1), u64, u64),
        bitmaps.flatmap(
            lambda bitmap: st.builds(
                DmaUnmap,
                u32.map(lambda flags: flags | 1),
                u64,
                u64,
                st.just(bitmap),
                st.sampled_from((b"", bytes(range(bitmap.size)))),
            )
        ),
        st.builds(DirtyPages, u32.map(lambda flags: flags & ~4)),
        bitmaps.flatmap(
            lambda bitmap: st.builds(
                DirtyPages,
                u32.map(lambda flags: flags | 4),
                u64,
                u64,
                st.just(bitmap),
                st.sampled_from((b"", bytes(range(bitmap.size)))),
            )
        ),
        st.builds(DmaAccess, u64, u64),
        st.builds(DmaData, u64, data),
    )


@given(values())
def test_what_is_encoded_is_decoded(value: Any) -> None:
    assert type(value).decode(value.encode()) == value
