"""vmstate by its description: every type, arrays, structs, subsections."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.unit.protocol.qemu_stream.streams import name
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import vmdesc, vmstate
from vfiomig.protocol.qemu_stream.cursor import Cursor
from vfiomig.protocol.qemu_stream.records import Field, SectionName, VmState

DEVICE = SectionName("device", 0)


def described(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"vmsd_name": "device", "version": 3, "fields": list(fields), **more}


def one(type_: str, size: int, **more: Any) -> dict[str, Any]:
    return {"name": "it", **more, "type": type_, "size": size}


def read(description: dict[str, Any], data: bytes) -> VmState:
    source = Cursor(memoryview(data))
    state = vmstate.VmStateReader(source).read(description)
    assert source.position == len(data)
    assert b"".join(bytes(each) for each in vmstate.encode_state(state)) == data
    head = {"name": "device", "instance_id": 0}
    if "vmsd_name" in description:
        assert vmdesc.describe(DEVICE, state) == head | description
    return state


# Widths, signs and bytes as the table of types of vmstate-types.c has them.
@pytest.mark.parametrize(
    ("type_", "data", "value"),
    [
        ("bool", b"\0", False),
        ("bool", b"\1", True),
        ("bool", b"\2", 2),
        ("int8", b"\xff", -1),
        ("int16", b"\xff\xfe", -2),
        ("int32", b"\x7f\xff\xff\xff", 2**31 - 1),
        ("int32 equal", b"\0\0\0\5", 5),
        ("int32 le", b"\0\0\0\2", 2),
        ("int64", b"\xff" * 8, -1),
        ("uint8", b"\xff", 255),
        ("uint8 equal", b"\4", 4),
        ("uint16", b"\1\2", 0x102),
        ("uint32", b"\1\2\3\4", 0x1020304),
        ("uint64", b"\xff" * 8, 2**64 - 1),
        ("uint64", b"0", 0x30),  # a NULL pointer of 7.2
        ("timer", b"\xff" * 8, 2**64 - 1),
        ("float64", struct.pack(">d", 1.0), 0x3FF0000000000000),
        ("CPU_Double_U", struct.pack(">II", 1, 2), 0x1_0000_0002),
        ("buffer", b"abc", b"abc"),
        ("unused_buffer", bytes(5), bytes(5)),
        ("nullptr", b"0", None),
        ("nullptr", b"1", b"1"),
        ("bitmap", struct.pack(">QQ", 5, 1), 5 | 1 << 64),
        ("capability", name("mapped-ram"), "mapped-ram"),
        ("pci irq state", bytes(16), bytes(16)),
        ("qtailq", b"\1abc\0", b"\1abc\0"),
        ("of a release to come", b"xyz", b"xyz"),
    ],
)
def test_a_field_has_the_value_of_its_type(
    type_: str, data: bytes, value: object
) -> None:
    state = read(described(one(type_, len(data))), data)
    assert vmstate.find(state, ["it"]) == value
    assert type(vmstate.find(state, ["it"])) in (type(value), memoryview)


def test_an_array_is_one_field_or_many() -> None:
    whole = described(one("uint16", 2, array_len=3))
    assert vmstate.find(read(whole, b"\0\1\0\2\0\3"), ["it"]) == (1, 2, 3)
    each = described(one("uint16", 2, index=0), one("uint16", 2, index=1))
    state = read(each, b"\0\1\0\2")
    assert vmstate.find(state, ["it", 1]) == 2


def test_structs_and_subsections_nest() -> None:
    inner = {"vmsd_name": "point", "version": 1, "fields": [one("int8", 1)]}
    sub = {"vmsd_name": "device/more", "version": 2, "fields": [one("bool", 1)]}
    points: dict[str, Any] = {
        "name": "points",
        "array_len": 2,
        "type": "struct",
        "struct": inner,
        "size": 1,
    }
    data = b"\x01\x02" + b"\x05" + name("device/more") + struct.pack(">I", 2) + b"\1"
    state = read(described(points, subsections=[sub]), data)
    assert vmstate.find(state, ["points", 1, "it"]) == 2
    assert vmstate.find(state, ["device/more", "it"]) is True


def test_a_field_of_type_tmp_nests_among_its_own_keys() -> None:
    inner = {"vmsd_name": "t", "version": 1, "fields": [one("uint8", 1)]}
    description = described({"name": "x", "type": "tmp", **inner, "size": 1})
    assert vmstate.find(read(description, b"\x09"), ["x", "it"]) == 9


def test_an_old_device_is_one_buffer() -> None:
    description = {
        "name": "device",
        "instance_id": 0,
        "size": 3,
        "fields": [{"name": "data", "size": 3, "type": "buffer"}],
    }
    state = read(description, b"abc")
    assert state == VmState(
        vmsd_name=None,
        version=None,
        fields=(Field(name="data", type="buffer", value=b"abc", size=3),),
    )
    assert vmdesc.describe(DEVICE, state) == description


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"fields": {}},
        {"fields": [1]},
        described({"name": "x"}),
        described(one("uint8", -1)),
        described(one("uint8", True)),
        described(one("uint8", 10**30)),
        described(one("uint8", 1, array_len=10**30)),
        described(one("uint8", 0, array_len=10**9)),
        described(one("uint8", 1, index="x")),
        described({"name": "x", "type": "struct", "struct": described(), "size": 1}),
        described(subsections=[{"vmsd_name": "device/x", "version": 1, "fields": []}]),
        described(*[one("buffer", 0)] * 5_000),
    ],
    ids=range(13),
)
def test_a_description_that_does_not_fit_is_an_error(
    description: dict[str, Any],
) -> None:
    with pytest.raises(StreamError):
        vmstate.VmStateReader(Cursor(memoryview(bytes(64)))).read(description)


def test_a_description_that_nests_without_end_is_an_error() -> None:
    description = described()
    for _ in range(100):
        description = described(
            {"name": "x", "type": "struct", "struct": description, "size": 0}
        )
    with pytest.raises(StreamError, match="too deep"):
        vmstate.VmStateReader(Cursor(memoryview(bytes(64)))).read(description)


@pytest.mark.parametrize(
    ("type_", "value", "size"),
    [
        ("uint8", 256, 1),
        ("uint8", -1, 1),
        ("int8", 128, 1),
        ("buffer", b"abc", 2),
        ("bitmap", 1 << 64, 8),
        ("capability", "x" * 256, 257),
        ("uint8", (1, 256), 1),
        ("int8", (1, -129), 1),
    ],
)
def test_a_value_that_does_not_fit_is_not_written(
    type_: str, value: Any, size: int
) -> None:
    field = Field(name="it", type=type_, value=value, size=size)
    state = VmState(vmsd_name="device", version=1, fields=(field,))
    with pytest.raises(ValueError, match=r"."):
        list(vmstate.encode_state(state))


def test_fields_are_made_of_values() -> None:
    inner = VmState(vmsd_name="s", version=1, fields=(vmstate.field("a", "uint8", 1),))
    made = {
        "uint16": vmstate.field("x", "uint16", 1),
        "timer": vmstate.field("x", "timer", 1),
        "array": vmstate.field("x", "uint32", (1, 2)),
        "struct": vmstate.field("x", "struct", inner),
        "buffer": vmstate.field("x", "buffer", b"abc"),
        "text": vmstate.field("x", "capability", "abc"),
    }
    assert [each.size for each in made.values()] == [2, 8, 4, 1, 3, 4]
    with pytest.raises(ValueError, match="size"):
        vmstate.field("x", "bitmap", 5)


def test_replacing_goes_down_a_path_and_leaves_the_rest() -> None:
    point = VmState(vmsd_name="p", version=1, fields=(vmstate.field("x", "uint8", 1),))
    more = VmState(
        vmsd_name="d/more", version=1, fields=(vmstate.field("y", "bool", False),)
    )
    state = VmState(
        vmsd_name="d",
        version=1,
        fields=(
            vmstate.field("points", "struct", (point, point)),
            vmstate.field("n", "uint8", 1, index=0),
            vmstate.field("n", "uint8", 2, index=1),
        ),
        subsections=(more,),
    )
    changed = vmstate.replace(state, ["points", 1, "x"], 9)
    changed = vmstate.replace(changed, ["n", 1], 8)
    changed = vmstate.replace(changed, ["d/more", "y"], True)
    data = b"".join(bytes(each) for each in vmstate.encode_state(changed))
    assert data == b"\1\x09\1\x08\x05\x06d/more\0\0\0\1\1"
    paths: list[list[str | int]] = [
        ["no"],
        ["points", "x"],
        ["n", 7],
        ["points", 0, "no"],
        ["n", 0, 3],
    ]
    for path in paths:
        with pytest.raises(KeyError):
            vmstate.replace(state, path, 0)
        with pytest.raises(KeyError):
            vmstate.find(state, path)
