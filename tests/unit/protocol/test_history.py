"""The lines of a history: what is written is what is read, and a bad line is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.protocol.history import (
    Access,
    BenchEvent,
    Header,
    HistoryError,
    Record,
    RegionShape,
    decode,
    encode,
    encode_all,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER = Header(
    recorded_by="a test",
    devices={"source/a": RegionShape(size=0x3000, areas=((0x1000, 0x2000),))},
)

u64 = st.integers(0, (1 << 64) - 1)
# JSON has no surrogates; the words of the format itself are the names to try.
names = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["bench", "access", '"bench":', '{"bench": "work"}', "device"]
)
errnos = st.integers(0, 4095)

accesses = st.builds(
    Access,
    device=names,
    access=st.sampled_from(["read", "write", "mmap", "reset", "close"]),
    offset=u64,
    size=u64,
    value=names,
    errno=errnos,
    unseen=st.booleans(),
    moved=st.none() | u64,
)
events = st.builds(
    BenchEvent,
    device=names,
    bench=st.sampled_from(["work", "snapshot", "fail"]),
    amount=u64,
    digest=names,
    on=names,
    errno=errnos,
)
headers = st.builds(
    Header,
    recorded_by=names,
    devices=st.dictionaries(
        names,
        st.builds(
            RegionShape,
            size=u64,
            areas=st.lists(st.tuples(u64, u64), max_size=3).map(tuple),
        ),
        max_size=3,
    ),
)


def read_back(lines: Iterable[bytes]) -> list[Header | Record]:
    return list(decode(iter(lines)))


@settings(max_examples=40)
@given(header=headers, records=st.lists(accesses | events, max_size=8))
def test_what_is_written_is_what_is_read(header: Header, records: list[Record]) -> None:
    text = encode(header) + encode_all(records)
    assert text.endswith(b"\n")
    lines = text.splitlines(keepends=True)
    assert len(lines) == 1 + len(records)
    assert read_back(lines) == [header, *records]


@given(record=accesses | events)
def test_one_record_is_written_as_many_are(record: Record) -> None:
    assert encode(record) == encode_all([record])


def test_a_line_says_only_what_is_not_the_default() -> None:
    line = encode(Access("d", "read", 0x8, 8, "0x40000"))
    assert json.loads(line) == {
        "device": "d",
        "access": "read",
        "offset": 8,
        "size": 8,
        "value": "0x40000",
    }
    assert json.loads(encode(Access("d", "reset"))) == {
        "device": "d",
        "access": "reset",
    }


def test_the_first_line_says_what_the_others_mean() -> None:
    assert json.loads(encode(HEADER)) == {
        "schema": 1,
        "protocol": "v1",
        "recorded_by": "a test",
        "devices": {"source/a": {"size": 0x3000, "areas": [[0x1000, 0x2000]]}},
    }


def test_the_lines_of_another_writer_are_read() -> None:
    lines = [
        b'{ "recorded_by" : "a hand", "devices" : { } }\n',
        b'{ "bench" : "work" , "device" : "d", "amount" : 3 }',
        b' {"size": 4, "access":"write","device":"bench","note":"unknown"}\r\n',
    ]
    assert read_back(lines) == [
        Header(recorded_by="a hand", devices={}),
        BenchEvent("d", "work", amount=3),
        Access("bench", "write", size=4),
    ]


BAD_LINES = {
    "nothing": b"\n",
    "no JSON": b"device_state <- 3\n",
    "half a line": b'{"device": "d", "acc',
    "another access": b'{"device": "d", "access": "poke"}\n',
    "another event": b'{"device": "d", "bench": "smash"}\n',
    "no access": b'{"device": "d"}\n',
    "no device": b'{"access": "reset"}\n',
    "a number as a value": b'{"device": "d", "access": "read", "value": 3}\n',
    "a list": b"[]\n",
    "no UTF-8": b'{"device": "\xff", "access": "reset"}\n',
    "too deep": b'{"device": "d", "access": "reset", "x": ' + b"[" * 100_000,
    "both": b'{"device": "d", "access": "reset", "bench": "smash"}\n',
    "negative": b'{"device": "d", "access": "read", "offset": -1}\n',
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named_by_its_number(bad: bytes) -> None:
    good = encode(Access("d", "reset"))
    reader = decode(iter([encode(HEADER), good, good, bad, good]))
    assert [next(reader) for _ in range(3)] == [HEADER, *[Access("d", "reset")] * 2]
    with pytest.raises(HistoryError, match=r"^line 4: "):
        next(reader)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]\n",
        encode(Access("d", "reset")),
        b'{"recorded_by": "x", "devices": {"d": {}}}\n',
        b'{"recorded_by": "x", "devices": {"d": {"size": -1}}}\n',
    ],
)
def test_a_bad_header_is_line_1(bad: bytes) -> None:
    with pytest.raises(HistoryError, match=r"^line 1: "):
        read_back([bad])


def test_a_file_without_a_line_is_no_history() -> None:
    with pytest.raises(HistoryError, match=r"^line 1: "):
        read_back([])


@pytest.mark.parametrize("schema", [0, 2, -1])
def test_another_schema_is_refused(schema: int) -> None:
    line = b'{"schema": %d, "recorded_by": "x", "devices": {}}' % schema
    with pytest.raises(HistoryError, match=f"^line 1: schema {schema}"):
        read_back([line])


# -- values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "data", "value"),
    [
        (0, b"\x03\0\0\0", "0x3"),
        (4, bytes(4), "0x0"),
        (8, (0x40000).to_bytes(8, "little"), "0x40000"),
        (16, b"\xff" * 8, "0xffffffffffffffff"),
        (24, (1 << 32).to_bytes(8, "little"), "0x100000000"),
    ],
)
def test_a_register_is_a_number(offset: int, data: bytes, value: str) -> None:
    assert shown(offset, data) == value
    assert shown(offset, memoryview(data)) == value


def test_data_is_hex_in_the_order_of_its_bytes() -> None:
    assert shown(0x20, b"\x01\x02") == "0102"
    assert shown(0x1000, memoryview(b"\x00\xff\x10")) == "00ff10"


def test_an_access_over_several_registers_is_no_number() -> None:
    assert shown(0, bytes(range(32))) == bytes(range(32)).hex()


@pytest.mark.parametrize("size", [1, 8, 63, 64])
def test_up_to_64_bytes_of_data_are_written_out(size: int) -> None:
    assert bytes.fromhex(shown(0x1000, bytes(range(size)))) == bytes(range(size))


@pytest.mark.parametrize("size", [65, 4096])
def test_more_than_64_bytes_are_a_digest(size: int) -> None:
    data = bytes(range(256)) * 16
    digest = xxhash.xxh3_128(data[:size]).hexdigest()
    assert shown(0x1000, data[:size]) == f"xxh3-128:{digest}"
    assert shown(0, memoryview(data)[:size]) == f"xxh3-128:{digest}"
