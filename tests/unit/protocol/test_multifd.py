"""Packets of multifd channels, to the byte, and what of them is refused."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.multifd import (
    INITIAL_SIZE,
    LAYOUTS,
    PACKET_SIZE,
    PAGES,
    InitialPacket,
    Layout,
    Packet,
    decode_initial,
    decode_packet,
    encode_initial,
    encode_packet,
    is_main,
)
from vfiomig.uapi.multifd import MultiFDInit_t, MultiFDPacket_9_0_t, MultiFDPacket_t

UUID = bytes(range(0x10, 0x20))
HEAD = struct.Struct(">IIIIIIQ")
MAGIC = 0x11223344

# Two heads that QEMU 7.2.22 sent for `-M pc -m 16`: pages with a SYNC, and behind it a
# packet without either, in which size, block and offsets are the former's.
QEMUS_PAGES = (0x11223344, 1, 1, 128, 0x2E, 0x2E000, 7)
QEMUS_NOTHING = (0x11223344, 1, 0, 128, 0, 0x2E000, 7)


def raw(
    *head: int,
    reserved: bytes = bytes(32),
    block: bytes = b"pc.ram",
    offsets: tuple[int, ...] = (),
) -> bytearray:
    """Return a packet as multifd.h lays it out."""
    places = struct.pack(f">{len(offsets)}Q", *offsets)
    return bytearray(
        HEAD.pack(*head)
        + reserved
        + block.ljust(256, b"\0")
        + places.ljust(1024, b"\0")
    )


def offsets(*values: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(values, np.uint64)


# -- layouts --------------------------------------------------------------------------


def test_sizes_are_those_of_the_packed_structures() -> None:
    assert INITIAL_SIZE == 4 + 4 + 16 + 1 + 7 + 4 * 8
    assert PACKET_SIZE == 6 * 4 + 8 + 4 * 8 + 256 + 128 * 8
    assert PAGES == 512 // 4


# `__attribute__((packed))` of QEMU's multifd.c and multifd.h: one behind the other.
@pytest.mark.parametrize(
    "structure", [MultiFDInit_t, MultiFDPacket_t, MultiFDPacket_9_0_t]
)
def test_structures_have_no_holes(structure: type[ctypes.BigEndianStructure]) -> None:
    place = 0
    for name, *_ in structure._fields_:
        field = getattr(structure, name)
        assert field.offset == place, name
        place += field.size
    assert ctypes.sizeof(structure) == place


def test_zero_pages_stand_in_the_upper_half_of_what_was_reserved() -> None:
    assert MultiFDPacket_9_0_t.zero_pages.offset == MultiFDPacket_t.unused.offset
    assert MultiFDPacket_9_0_t.ramblock.offset == MultiFDPacket_t.ramblock.offset == 64


def test_layouts_by_version() -> None:
    zero = {version: layout.has_zero_pages for version, layout in LAYOUTS.items()}
    assert zero == {"7.2": False, "9.0": True, "9.1": True, "10.0": True}


# -- the initial packet ---------------------------------------------------------------


def test_the_initial_packet_to_the_byte() -> None:
    expected = struct.pack(">II16sB7x32x", MAGIC, 1, UUID, 3)
    assert encode_initial(InitialPacket(3, UUID)) == expected
    assert decode_initial(expected) == InitialPacket(3, UUID)


def test_a_vm_without_a_uuid_says_zeros() -> None:
    assert encode_initial(InitialPacket(0))[8:24] == bytes(16)


@pytest.mark.parametrize(
    ("initial", "reason"),
    [
        (InitialPacket(256), "0 to 255, not 256"),
        (InitialPacket(-1), "0 to 255, not -1"),
        (InitialPacket(0, b"short"), "16 bytes, not 5"),
    ],
)
def test_an_initial_packet_that_cannot_be_is_refused(
    initial: InitialPacket, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_initial(initial)


@pytest.mark.parametrize(
    ("at", "value", "position", "reason"),
    [
        (0, b"\x51", 0, "magic 0x51223344 of a packet, not 0x11223344"),
        (7, b"\2", 4, "version 2 of multifd, not 1"),
    ],
)
def test_another_initial_packet_is_refused_where_it_differs(
    at: int, value: bytes, position: int, reason: str
) -> None:
    data = bytearray(encode_initial(InitialPacket(0)))
    data[at : at + 1] = value
    with pytest.raises(StreamError, match=reason) as refused:
        decode_initial(data)
    assert refused.value.position == position


def test_a_cut_initial_packet_is_refused() -> None:
    with pytest.raises(StreamError, match="after 63 of 64 bytes") as refused:
        decode_initial(encode_initial(InitialPacket(0))[:63])
    assert refused.value.position == 63


def test_channels_are_told_by_their_magic() -> None:
    assert is_main(b"QEVM")
    assert not is_main(bytes.fromhex("11223344"))
    with pytest.raises(StreamError, match="magic 0x47455420: "):
        is_main(b"GET ")


# -- packets, to the byte -------------------------------------------------------------


def test_pages_to_the_byte() -> None:
    packet = Packet(number=9, block="pc.ram", offsets=offsets(0x3000, 0x1000))
    assert encode_packet(packet, Layout.QEMU_7_2) == raw(
        *(MAGIC, 1, 0, 128, 2, 0x2000, 9), offsets=(0x3000, 0x1000)
    )


def test_a_sync_to_the_byte() -> None:
    made = encode_packet(Packet(number=1 << 40, is_sync=True), Layout.QEMU_7_2)
    assert made == raw(MAGIC, 1, 1, 128, 0, 0, 1 << 40, block=b"")


def test_zero_pages_follow_the_others_to_the_byte() -> None:
    packet = Packet(
        number=0,
        block="0000:00:02.0/vga.vram",
        offsets=offsets(0x1000),
        zero_offsets=offsets(0x5000, 0x4000),
    )
    assert encode_packet(packet, Layout.QEMU_9_0) == raw(
        *(MAGIC, 1, 0, 128, 1, 0x1000, 0),
        reserved=struct.pack(">I28x", 2),
        block=b"0000:00:02.0/vga.vram",
        offsets=(0x1000, 0x5000, 0x4000),
    )


def test_what_qemu_sent_is_read() -> None:
    places = tuple(range(0x12000, 0x40000, 0x1000))
    data = raw(*QEMUS_PAGES, block=b"pc.bios", offsets=places)
    packet = decode_packet(data, Layout.QEMU_7_2)
    assert (packet.number, packet.block, packet.is_sync) == (7, "pc.bios", True)
    assert packet.offsets.tolist() == list(places)
    assert packet.size == 0x2E000


def test_what_a_packet_without_pages_has_left_over_is_not_read() -> None:
    left = raw(*QEMUS_NOTHING, block=b"pc.bios", offsets=(0x12000, 0x13000))
    packet = decode_packet(left, Layout.QEMU_7_2)
    assert (packet.block, packet.size, packet.is_sync) == ("", 0, False)
    assert packet.offsets.size == packet.zero_offsets.size == 0


def test_offsets_stay_when_the_buffer_is_filled_anew() -> None:
    data = raw(MAGIC, 1, 0, 128, 1, 0x1000, 0, offsets=(0x7000,))
    packet = decode_packet(data, Layout.QEMU_7_2)
    data[:] = bytes(len(data))
    assert packet.offsets.tolist() == [0x7000]


def test_a_full_packet_is_read() -> None:
    places = tuple(range(0, 128 * 4096, 4096))
    data = raw(MAGIC, 1, 0, 128, 128, 512 * 1024, 0, offsets=places)
    assert decode_packet(data, Layout.QEMU_9_0).offsets.tolist() == list(places)


_PLACES = st.lists(st.integers(0, (1 << 64) - 1), max_size=64)


@given(
    number=st.integers(0, (1 << 64) - 1),
    block=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=60),
    normal=_PLACES,
    zero=_PLACES,
    is_sync=st.booleans(),
    layout=st.sampled_from(Layout),
)
def test_reader_and_writer_are_inverse(
    number: int,
    block: str,
    normal: list[int],
    zero: list[int],
    is_sync: bool,
    layout: Layout,
) -> None:
    zero = zero if layout.has_zero_pages else []
    block = (block or "b") if normal or zero else ""
    packet = Packet(
        number=number,
        block=block,
        offsets=offsets(*normal),
        zero_offsets=offsets(*zero),
        is_sync=is_sync,
    )
    data = encode_packet(packet, layout)
    again = decode_packet(data, layout)
    assert len(data) == PACKET_SIZE
    assert (again.number, again.block, again.is_sync) == (number, block, is_sync)
    assert (again.offsets.tolist(), again.zero_offsets.tolist()) == (normal, zero)


# -- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "layout", "reason"),
    [
        (Packet(number=0, block="b", offsets=offsets(*range(129))), "7.2", "129 pages"),
        (Packet(number=0, block="b", zero_offsets=offsets(0)), "7.2", "no zero pages"),
        (Packet(number=0, offsets=offsets(0)), "9.0", "without a name"),
        (Packet(number=0, block="b" * 256, offsets=offsets(0)), "9.0", "up to 255"),
        (Packet(number=0, block="a\0b", offsets=offsets(0)), "9.0", "no NUL"),
    ],
)
def test_a_packet_that_cannot_be_is_not_made(
    packet: Packet, layout: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_packet(packet, LAYOUTS[layout])


# (flags, pages_alloc, normal_pages, next_packet_size), reserved, where, why.
HOSTILE = [
    ((0, 129, 0, 0), b"", 12, "room for 129 pages, more than 128"),
    ((0, 0xFFFFFFFF, 0xFFFFFFFF, 0), b"", 12, "room for 4294967295 pages"),
    ((0, 128, 129, 129 << 12), b"", 16, r"129 \+ 0 pages in room for 128"),
    ((0, 1, 2, 2 << 12), b"", 16, r"2 \+ 0 pages in room for 1"),
    ((0, 128, 0xFFFFFFFF, 0), b"", 16, r"4294967295 \+ 0 pages"),
    ((0, 128, 2, 1 << 12), b"", 20, "4096 bytes follow for 2 pages"),
    ((0, 128, 1, 0xFFFFFFFF), b"", 20, "4294967295 bytes follow for 1 page"),
    ((2, 128, 1, 100), b"", 8, "flags 0x2: compressed pages are not read"),
    ((0x20, 128, 1, 100), b"", 8, "flags 0x20: compressed"),
    ((0x40, 128, 0, 0), b"", 8, "flags 0x40: a device's state is not read"),
    ((0x80, 128, 0, 0), b"", 8, "flags 0x80: only 0x1, SYNC, is known"),
    ((0, 128, 0, 0), b"\0\0\0\1", 32, "reserved bytes that QEMU 7.2 leaves zero"),
]


@pytest.mark.parametrize(("head", "reserved", "position", "reason"), HOSTILE)
def test_a_hostile_packet_is_refused_where_it_lies(
    head: tuple[int, ...], reserved: bytes, position: int, reason: str
) -> None:
    data = raw(MAGIC, 1, *head, 0, reserved=reserved.ljust(32, b"\0"))
    with pytest.raises(StreamError, match=reason) as refused:
        decode_packet(data, Layout.QEMU_7_2, position=1000)
    assert refused.value.position == 1000 + position


@pytest.mark.parametrize(
    ("zero", "rest", "position", "reason"),
    [
        (127, b"", 16, r"2 \+ 127 pages in room for 128"),
        (0xFFFFFFFF, b"", 16, r"2 \+ 4294967295 pages"),
        (0, b"\0\0\0\1", 36, "reserved bytes that QEMU 9.0 leaves zero"),
        (0, bytes(27) + b"\1", 40, "reserved bytes that QEMU 9.0 leaves zero"),
    ],
)
def test_hostile_zero_pages_are_refused(
    zero: int, rest: bytes, position: int, reason: str
) -> None:
    reserved = (struct.pack(">I", zero) + rest).ljust(32, b"\0")
    data = raw(MAGIC, 1, 0, 128, 2, 2 << 12, 0, reserved=reserved)
    with pytest.raises(StreamError, match=reason) as refused:
        decode_packet(data, Layout.QEMU_9_0)
    assert refused.value.position == position


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"x" * 256, "name has no end"),
        (b"", "without a name"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_a_block_whose_name_cannot_be_is_refused(block: bytes, reason: str) -> None:
    data = raw(MAGIC, 1, 0, 128, 1, 4096, 0, block=block)
    with pytest.raises(StreamError, match=reason) as refused:
        decode_packet(data, Layout.QEMU_7_2)
    assert refused.value.position == 64


@pytest.mark.parametrize("size", [0, 1, 319, 1343])
def test_a_cut_packet_is_refused(size: int) -> None:
    data = raw(MAGIC, 1, 0, 128, 0, 0, 0)[:size]
    with pytest.raises(StreamError, match=f"after {size} of 1344 bytes"):
        decode_packet(data, Layout.QEMU_7_2)


_COUNT = st.integers(0, 200) | st.integers(0, 0xFFFFFFFF)


@given(
    head=st.tuples(st.integers(0, 1), _COUNT, _COUNT, _COUNT | st.just(4096), _COUNT),
    reserved=st.just(bytes(32)) | st.binary(min_size=32, max_size=32),
    block=st.binary(max_size=256),
    layout=st.sampled_from(Layout),
)
def test_whatever_comes_is_read_within_its_bounds_or_refused(
    head: tuple[int, ...], reserved: bytes, block: bytes, layout: Layout
) -> None:
    data = raw(MAGIC, 1, *head, reserved=reserved, block=block)
    with contextlib.suppress(StreamError):
        packet = decode_packet(data, layout)
        assert len(packet.offsets) + len(packet.zero_offsets) <= PAGES
