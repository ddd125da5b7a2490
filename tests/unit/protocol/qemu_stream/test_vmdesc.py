"""The VM description: found, made, padded."""

from __future__ import annotations

import json
import struct

import pytest

from vfiomig.protocol.qemu_stream import vmdesc
from vfiomig.protocol.qemu_stream.records import (
    Configuration,
    SectionName,
    VmDescription,
    VmState,
)
from vfiomig.protocol.qemu_stream.vmstate import field

STATE = VmState(
    vmsd_name="d",
    version=2,
    fields=(field("x", "uint32", 1), field("y", "uint8", (1, 2))),
)
NAME = SectionName("0000:00:04.0/d", 3)


def test_it_is_in_the_order_and_words_of_qemu() -> None:
    made = vmdesc.vm_description([vmdesc.describe(NAME, STATE)], page_size=4096)
    assert vmdesc.text_of(made) == (
        b'{"page_size": 4096, "devices": [{"name": "0000:00:04.0/d", '
        b'"instance_id": 3, "vmsd_name": "d", "version": 2, "fields": ['
        b'{"name": "x", "type": "uint32", "size": 4}, '
        b'{"name": "y", "array_len": 2, "type": "uint8", "size": 1}]}]}'
    )


def test_since_10_0_it_begins_with_the_configuration() -> None:
    configuration = Configuration(
        machine="pc-i440fx-10.0", capabilities=("mapped-ram",), target_page_bits=12
    )
    made = vmdesc.vm_description([], page_size=4096, configuration=configuration)
    assert list(made.document) == ["configuration", "page_size", "devices"]
    described = json.dumps(made.document["configuration"])
    assert '{"name": "name", "type": "buffer", "size": 14}' in described
    assert '{"name": "capabilities", "type": "capability", "size": 11}' in described


def test_a_device_of_data_has_its_size_before_its_field() -> None:
    assert json.dumps(vmdesc.describe_data(NAME, 292)) == (
        '{"name": "0000:00:04.0/d", "instance_id": 3, "size": 292, '
        '"fields": [{"name": "data", "size": 292, "type": "buffer"}]}'
    )


@pytest.mark.parametrize(
    ("size", "padded"),
    [(0x7A, 0x7A), (0x7B, 0x7C), (0x17B, 0x17C), (0x7B00, 0x7B00), (0x7B01, 0x7C00)],
)
def test_no_brace_stands_behind_the_last_nul_of_its_length(
    size: int, padded: int
) -> None:
    frame = len(json.dumps({"page_size": 4096, "devices": [{"name": ""}]}))
    device: dict[str, object] = {"name": "n" * (size - frame)}
    made = vmdesc.vm_description([device], page_size=4096)
    assert len(vmdesc.text_of(made)) == padded
    assert json.loads(vmdesc.text_of(made)) == made.document
    assert (made.text is None) == (size == padded)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"{" * 0x7B, b"x" * 0x0101_0101], ids=range(4)
)
def test_it_is_found_whatever_its_length_looks_like(text: bytes) -> None:
    record = struct.pack(">BI", 6, len(text)) + text
    before = b"\1\2\3\0\6\0\0\0\0"
    assert vmdesc.find(memoryview(before + b"\0" + record)) == len(before) + 1
    assert vmdesc.find(memoryview(before + b"\0" + record + b"x")) is None
    assert vmdesc.find(memoryview(before + b"\1" + record)) is None


@pytest.mark.parametrize("data", [b"", b"\0", b"\6", b"abc", bytes(10)])
def test_nothing_is_found_where_nothing_is(data: bytes) -> None:
    assert vmdesc.find(memoryview(data)) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [(b'{"a": [1, 2]}', None), (b'{"a":1}', '{"a":1}'), (b"{} ", "{} ")],
)
def test_text_is_kept_where_json_would_write_it_otherwise(
    text: bytes, kept: str | None
) -> None:
    read = vmdesc.parse(text, 0)
    assert read == VmDescription(json.loads(text), kept)
    assert vmdesc.text_of(read) == text


@pytest.mark.parametrize(
    ("size", "used"),
    [(4096, 4096), (65536, 65536), (4097, None), (0, None), ("", None)],
)
def test_only_a_sane_page_size_is_used(size: object, used: int | None) -> None:
    assert vmdesc.page_size_of({"page_size": size}) == used
