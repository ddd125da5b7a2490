"""Streams that are cut, damaged, or made to hurt."""

from __future__ import annotations

import json
import random
import re
import struct
import time
from itertools import pairwise

import pytest

from tests.unit.protocol.qemu_stream.streams import (
    COMPRESS,
    END,
    HEADER,
    OLD,
    POSTCOPY,
    RAM_FOOT,
    RAM_PART,
    V1,
    V2,
    XBZRLE,
    block_list,
    located,
    name,
    ram_stream,
    read,
    read_until_error,
    real,
    word,
    written,
)
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import (
    Command,
    EndOfFile,
    Located,
    Opaque,
    RamPages,
    SectionFull,
    VfioConfig,
    VfioData,
    VmDescription,
    VmState,
)

SLOWEST = 2.0  # seconds of the processor for one read of 1 MiB; it takes some 0.03


def survives(data: bytes | memoryview) -> list[Located]:
    """Read as far as it goes: records without a gap, then a StreamError at most."""
    began = time.process_time()
    found, position = [], 0
    error: StreamError | None = None
    try:
        for each in read_stream(memoryview(data)):
            assert each.offset == position
            position += each.size
            found.append(each)
    except StreamError as raised:
        error = raised
    if error is not None:
        assert 0 <= error.position <= len(data)
        assert re.match(r"byte \d+ of the stream: [^\n]+\Z", str(error))
    else:
        assert written(each.record for each in found) == data
    assert time.process_time() - began < SLOWEST
    return found


def with_flipped(data: memoryview, place: int, value: int) -> bytes:
    flipped = bytearray(data)
    flipped[place] ^= value
    return bytes(flipped)


@pytest.mark.parametrize("name", [V1, V2, POSTCOPY, COMPRESS, OLD, XBZRLE])
def test_any_flipped_byte_gives_records_or_a_stream_error(name: str) -> None:
    chance = random.Random(name)
    data = real(name)
    edges = [each.offset for each in located(name)]
    for _ in range(8):
        near = chance.choice(edges) + chance.randrange(12)
        anywhere = chance.randrange(len(data))
        for place in (min(near, len(data) - 1), anywhere):
            survives(with_flipped(data, place, chance.randrange(1, 256)))


@pytest.mark.parametrize("name", [V1, V2, POSTCOPY, COMPRESS, OLD, XBZRLE])
def test_any_cut_gives_what_stands_before_it(name: str) -> None:
    chance = random.Random(name)
    whole = [each for each in located(name) if each.section is None]
    exact = [x for x in located(name) if isinstance(x.record, RamPages | VfioData)]
    edges = [each.offset for each in located(name)]
    for _ in range(16):
        end = chance.choice(edges) + chance.choice((-1, 0, 1, 5, 8))
        end = min(max(end, 0), len(real(name)) - 1)
        found = survives(real(name)[:end])
        if name == OLD:
            continue  # no footers: behind RAM nothing tells where a section ends
        known = [x for x in exact if x.offset + x.size <= end]
        assert [x for x in found if isinstance(x.record, RamPages | VfioData)][
            : len(known)
        ] == known
        assert [x for x in whole if x.offset + x.size <= end] == [
            x for x in found if x.section is None
        ]


@pytest.mark.parametrize("name", [V1, V2])
def test_without_its_description_all_but_vmstate_is_the_same(name: str) -> None:
    (end,) = (x for x in located(name) if isinstance(x.record, EndOfFile))
    found = list(read_stream(real(name)[: end.offset + 1]))
    assert len(found) == len(located(name)) - 1
    for ours, before in zip(found, located(name), strict=False):
        assert ours[1:] == before[1:]
        if isinstance(before.record, VmState):
            assert isinstance(ours.record, Opaque)
        else:
            assert ours.record == before.record
    assert any(isinstance(each.record, VfioConfig) for each in found)


def test_a_cut_says_where_and_within_what() -> None:
    (data,) = (x for x in located(V2) if isinstance(x.record, VfioData))
    cut = data.offset + data.size - 1
    found, error = read_until_error(real(V2)[:cut])
    assert found[-1].offset + found[-1].size == data.offset
    assert str(error) == (
        f"byte {cut} of the stream: the stream ends within a VFIO device's data"
    )


def test_one_wrong_size_costs_one_section() -> None:
    old = b'"name": "interrupt_request", "type": "uint32", "size": 4'
    assert bytes(real(V1)).count(old) == 1
    damaged = bytes(real(V1)).replace(old, old[:-1] + b"2")
    found, error = read_until_error(damaged)
    assert isinstance(found[-1].record, VmDescription)
    opaque = [each for each in found if isinstance(each.record, Opaque)]
    assert [each.section for each in opaque] == [("cpu_common", 0)]
    assert opaque[0].size == 8
    assert "section 'cpu_common' is not as it is described" in str(error)
    assert error.position == opaque[0].offset + 6


def test_a_described_section_that_is_cut_off_says_so() -> None:
    state = next(x for x in located(OLD) if isinstance(x.record, VmState))
    _, error = read_until_error(real(OLD)[: state.offset])
    assert "nothing tells where section" in str(error)
    assert error.position == state.offset


# --- made by hand ------------------------------------------------------------------

START = block_list(name("pc.ram") + word(0x1000), total=0x1000)
CONFIGURATION = HEADER + b"\x07" + struct.pack(">I", 2) + b"pc"
PAGE_BITS = b"\5" + name("configuration/target-page-bits") + struct.pack(">I", 1)


@pytest.mark.parametrize(
    ("data", "reason", "position"),
    [
        (b"", "ends within its header", 0),
        (b"QEV", "ends within its header", 3),
        (b"\x7fELF" + bytes(60), "no migration stream of QEMU", 0),
        (b"QEVM" + struct.pack(">I", 2), "version 2 of the format", 4),
        (HEADER, "ends before its end of file", 8),
        (HEADER + b"\x09", "no record has type 0x9", 8),
        (HEADER + START + b"\x07", "no record has type 0x7", 61),
        (HEADER + START[:-5] + b"\x09", "no record follows section 'ram'", 56),
        (HEADER + START[:-2], "ends within the footer of section 'ram'", 59),
        (HEADER + START + RAM_PART + word(0x10) + END, "'ram' has no footer here", 74),
        (HEADER + START + RAM_FOOT, "no record has type 0x7e", 61),
        (HEADER + b"\x02\0\0\0\5", "section 5 goes on but never began", 8),
        (HEADER + START + END + b"x", "there is more behind the end", 62),
        (HEADER + START + END + b"\6\0\0\0\2x", "ends within the VM description", 68),
        (HEADER + START + END + b"\6\0\0\0\2{x", "is no JSON", 62),
        (HEADER + START + END + b"\6\0\0\0\2[]", "is no object", 62),
        (HEADER + b"\x07\xff\xff\xff\xff", "ends within the configuration", 13),
        (HEADER + b"\x08\0\2\xff\xff", "ends within a command", 13),
        (CONFIGURATION + PAGE_BITS + b"\0\0\0\x63", "pages of 1 << 99 bytes", 51),
        (CONFIGURATION + b"\5" + name("configuration/x"), "no configuration has", 15),
        (CONFIGURATION + (PAGE_BITS + b"\0\0\0\x0c") * 2, "no configuration has", 55),
    ],
)
def test_what_is_wrong_and_where(data: bytes, reason: str, position: int) -> None:
    _, error = read_until_error(data)
    assert reason in str(error)
    assert error.position == position


def test_a_false_footer_within_a_section_does_not_end_it() -> None:
    foot = b"\x7e" + struct.pack(">I", 9)
    head = b"\x04" + struct.pack(">I", 9) + name("odd") + struct.pack(">II", 0, 1)
    body = b"ab" + foot + b"\x77" + foot + b"\x02\0\0\0\x55cd" + foot + b"\0zz"
    stream = HEADER + START + head + body + foot + END
    found = read(stream)
    assert [each for each in found if isinstance(each, Opaque)] == [Opaque(body)]


def test_unknown_commands_and_odd_arguments_are_kept_as_they_are() -> None:
    odd = [
        (2, b"abc"),
        (3, b"12345678"),
        (6, b"\1\1a\0"),
        (6, b"\0\1a\0xyz"),
        (10, b"\5a"),
        (77, b"what"),
    ]
    commands = b"".join(struct.pack(">BHH", 8, n, len(x)) + x for n, x in odd)
    stream = HEADER + commands + END
    found = read(stream)
    assert found[1:-1] == [Command(number, data) for number, data in odd]
    assert written(found) == stream


def test_a_description_made_to_hurt_is_given_up_in_time() -> None:
    """Each section would be read by a description that goes on to the end."""
    count = 3_000
    field = {"name": "x", "type": "uint8", "array_len": 100_000, "size": 1}
    devices = [
        {"name": "d", "instance_id": number, "vmsd_name": "d", "fields": [field]}
        for number in range(count)
    ]
    text = json.dumps({"page_size": 4096, "devices": devices}).encode()
    sections = b"".join(
        b"\x04" + struct.pack(">I", number) + name("d") + struct.pack(">II", number, 1)
        + b"payload\x7e" + struct.pack(">I", number)
        for number in range(3, count)
    )  # fmt: skip
    tail = END + struct.pack(">BI", 6, len(text)) + text
    found = survives(HEADER + START + sections + tail)
    assert sum(isinstance(each.record, Opaque) for each in found) == count - 3


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"page_size": ' + b"9" * 100_000 + b"}",
        b'{"devices": [1, {"name": 3}, {"name": "ram"}], "page_size": 1.5}',
        b'{"devices": {}, "page_size": 4097}',
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": "\xff"}',
    ],
    ids=range(7),
)
def test_any_text_for_a_description_is_survived(text: bytes) -> None:
    stream = ram_stream(word(2) + name("pc.ram") + b"\0")
    found = survives(stream + struct.pack(">BI", 6, len(text)) + text)
    assert any(isinstance(each.record, RamPages) for each in found)


def test_mapped_ram_that_claims_more_than_there_is_is_an_error() -> None:
    configuration = b"\x07" + struct.pack(">I", 2) + b"pc\x05"
    configuration += name("configuration/capabilities") + struct.pack(">II", 1, 1)
    configuration += name("mapped-ram")
    size = 1 << 40
    entry = name("pc.ram") + word(size)
    place = len(HEADER + configuration) + 17 + 8 + len(entry) + 28
    header = struct.pack(">IQQQ", 1, 4096, place, 1 << 45)
    stream = HEADER + configuration + block_list(entry + header, total=size)
    _, error = read_until_error(stream)
    assert "ends within a bitmap of mapped-ram" in str(error)


def test_full_sections_keep_their_order() -> None:
    heads = [x.record for x in located(V1) if isinstance(x.record, SectionFull)]
    assert all(one.section_id < other.section_id for one, other in pairwise(heads[1:]))


def test_a_part_may_be_nothing_but_its_end() -> None:
    stream = HEADER + START + RAM_PART + word(0x10) + RAM_FOOT + END
    assert written(read(stream)) == stream
