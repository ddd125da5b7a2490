"""The RAM section, from bytes made by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from tests.unit.protocol.qemu_stream.streams import (
    END,
    EOS,
    HEADER,
    RAM_FOOT,
    block_list,
    name,
    ram_stream,
    read,
    read_until_error,
    word,
    written,
)
from vfiomig.protocol.qemu_stream.records import (
    RamBlock,
    RamBlocks,
    RamEncodedPage,
    RamHook,
    RamMultifdFlush,
    RamPageKind,
    RamPages,
    Record,
)

ZERO, PAGE, CONTINUE, XBZRLE, COMPRESS = 0x02, 0x08, 0x20, 0x40, 0x100
FULL = [bytes([value]) * 4096 for value in range(16)]


def ram_records(payload: bytes) -> list[Record]:
    stream = ram_stream(payload)
    found = read(stream)
    assert written(found) == stream
    return found[6:-3]


def run(kind: RamPageKind, *addresses: int, named: bool, fill: int = 0) -> RamPages:
    contents = None
    if kind is RamPageKind.PAGE:
        contents = np.array([[each >> 12] * 4096 for each in addresses], np.uint8)
    return RamPages(
        kind=kind,
        block="pc.ram",
        addresses=np.array(addresses, np.uint64),
        contents=contents,
        named=named,
        fill=fill,
    )


def test_pages_written_alike_are_one_run() -> None:
    payload = word(0x1000 | PAGE) + name("pc.ram") + FULL[1]
    payload += word(0x3000 | PAGE | CONTINUE) + FULL[3]
    payload += word(0x2000 | PAGE | CONTINUE) + FULL[2]
    payload += word(0x4000 | ZERO | CONTINUE) + b"\0"
    payload += word(0x0000 | ZERO | CONTINUE) + b"\0"
    assert ram_records(payload) == [
        run(RamPageKind.PAGE, 0x1000, 0x3000, 0x2000, named=True),
        run(RamPageKind.ZERO, 0x4000, 0, named=False),
    ]


def test_a_page_that_names_its_block_begins_a_run() -> None:
    one = word(ZERO) + name("pc.ram") + b"\0"
    assert ram_records(one + one) == [run(RamPageKind.ZERO, 0, named=True)] * 2


def test_zero_pages_of_another_fill_are_another_run() -> None:
    payload = word(ZERO) + name("pc.ram") + b"\0"
    payload += word(0x1000 | ZERO | CONTINUE) + b"\x05"
    assert ram_records(payload) == [
        run(RamPageKind.ZERO, 0, named=True),
        run(RamPageKind.ZERO, 0x1000, named=False, fill=5),
    ]


def test_contents_are_a_view_of_the_stream() -> None:
    payload = word(PAGE) + name("pc.ram") + FULL[7]
    payload += word(0x1000 | PAGE | CONTINUE) + FULL[8]
    stream = bytearray(ram_stream(payload))
    found = [each for each in read(memoryview(stream)) if isinstance(each, RamPages)]
    assert found[0].contents is not None
    stream[stream.index(FULL[8]) + 10] = 0xEE
    assert found[0].contents[1, 10] == 0xEE


def test_a_run_goes_on_over_sections_without_a_name() -> None:
    section = word(PAGE | CONTINUE) + FULL[2] + EOS + RAM_FOOT
    payload = word(ZERO) + name("pc.ram") + b"\0" + EOS + RAM_FOOT
    stream = ram_stream(payload + b"\x02" + struct.pack(">I", 2) + section[:-13])
    runs = [each for each in read(stream) if isinstance(each, RamPages)]
    assert [each.block for each in runs] == ["pc.ram", "pc.ram"]
    assert [each.named for each in runs] == [True, False]


def test_encoded_pages_keep_what_they_say() -> None:
    packed = zlib.compress(FULL[3])
    payload = word(0x1000 | XBZRLE) + name("pc.ram") + struct.pack(">BH", 1, 3) + b"abc"
    payload += word(0x2000 | COMPRESS | CONTINUE)
    payload += struct.pack(">I", len(packed)) + packed
    assert ram_records(payload) == [
        RamEncodedPage(
            kind=RamPageKind.XBZRLE,
            block="pc.ram",
            address=0x1000,
            data=b"abc",
            named=True,
        ),
        RamEncodedPage(
            kind=RamPageKind.COMPRESS_PAGE,
            block="pc.ram",
            address=0x2000,
            data=packed,
        ),
    ]


def test_hook_and_flush_are_words_alone() -> None:
    assert ram_records(word(0x80) + word(0x200)) == [RamHook(), RamMultifdFlush()]


def test_a_page_size_in_the_list_is_told_by_what_postcopy_advised() -> None:
    huge = 0x200000
    advice = bytes.fromhex("08 0003 0010") + word(huge | 0x1000) + word(0x1000)
    entries = (
        name("huge") + word(huge) + word(huge),
        name("small") + word(0x1000),
        name("last") + word(huge) + word(huge),
    )
    stream = HEADER + advice + block_list(*entries, total=2 * huge + 0x1000) + END
    found = read(stream)
    assert written(found) == stream
    assert found[3] == RamBlocks(
        (
            RamBlock(idstr="huge", used_length=huge, page_size=huge),
            RamBlock(idstr="small", used_length=0x1000),
            RamBlock(idstr="last", used_length=huge, page_size=huge),
        )
    )


def test_a_target_may_have_larger_pages() -> None:
    configuration = b"\x07" + struct.pack(">I", 4) + b"virt" + b"\x05"
    configuration += name("configuration/target-page-bits")
    configuration += struct.pack(">II", 1, 14)
    start = block_list(name("ram0") + word(0x8000), total=0x8000)
    page = word(0x4000 | PAGE) + name("ram0") + b"\x09" * 0x4000
    part = b"\x02" + struct.pack(">I", 2) + page + EOS + RAM_FOOT
    stream = HEADER + configuration + start + part + END
    found = read(stream)
    (pages,) = (each for each in found if isinstance(each, RamPages))
    assert pages.contents is not None
    assert pages.contents.shape == (1, 0x4000)
    assert written(found) == stream


@pytest.mark.parametrize(
    ("payload", "reason", "place"),
    [
        (word(0x1000 | PAGE | CONTINUE) + FULL[1], "a block that none named", 0),
        (word(PAGE) + name("pc.rom") + FULL[1], "'pc.rom', which is no block", 0),
        (word(0x10000 | ZERO) + name("pc.ram") + b"\0", "has no page at 0x10000", 0),
        (
            word(ZERO) + name("pc.ram") + b"\0" + word(0x90000 | ZERO | CONTINUE),
            "has no page at 0x90000",
            16,
        ),
        (word(0x1001), "RAM has no word 0x1001", 0),
        (word(0x1010), "RAM has no word 0x1010", 0),
        (word(XBZRLE) + name("pc.ram") + b"\x02\0\0", "no encoding", 16),
    ],
)
def test_what_no_ram_says_is_an_error_at_its_place(
    payload: bytes, reason: str, place: int
) -> None:
    stream = ram_stream(payload)
    _, error = read_until_error(stream)
    assert reason in str(error)
    assert error.position == stream.index(payload) + place


def test_blocks_that_are_more_than_their_sum_are_an_error() -> None:
    stream = HEADER + block_list(name("pc.ram") + word(0x3000), total=0x2000)
    _, error = read_until_error(stream)
    assert "larger than their sum" in str(error)


def test_whole_pages_before_a_cut_are_known() -> None:
    payload = word(PAGE) + name("pc.ram") + FULL[0]
    payload += b"".join(word(n << 12 | PAGE | CONTINUE) + FULL[n] for n in range(1, 5))
    stream = ram_stream(payload)
    cut = stream[: stream.index(FULL[4]) + 4095]
    found, error = read_until_error(cut)
    last = found[-1].record
    assert isinstance(last, RamPages)
    assert last.addresses.tolist() == [0, 0x1000, 0x2000, 0x3000]
    assert error.position == len(cut)
    assert "ends within a RAM page" in str(error)
