"""The sections of VFIO devices, from bytes made by hand."""

from __future__ import annotations

import struct

import pytest

from tests.unit.protocol.qemu_stream.streams import (
    END,
    HEADER,
    name,
    read,
    read_until_error,
    word,
    written,
)
from vfiomig.protocol.qemu_stream.records import (
    MsixState,
    Record,
    SectionFooter,
    VfioConfig,
    VfioData,
    VfioEndOfState,
    VfioInitDataSent,
    VfioSetup,
)

END_OF_STATE, CONFIG, SETUP, DATA, INIT_DATA_SENT = (
    word(0xFFFFFFFFEF100001 + number) for number in range(5)
)
HEAD = struct.pack(">I", 7) + name("0000:00:04.0/vfio") + struct.pack(">II", 0, 1)
FOOT = b"\x7e" + struct.pack(">I", 7)
START = b"\x01" + HEAD + SETUP + END_OF_STATE + FOOT


def stream_of(*sections: bytes) -> bytes:
    return HEADER + START + b"".join(each + FOOT for each in sections) + END


def part(payload: bytes) -> bytes:
    return b"\x02" + struct.pack(">I", 7) + payload


def full(payload: bytes) -> bytes:
    return b"\x04" + HEAD + payload


def payload_of(section: bytes) -> list[Record]:
    stream = stream_of(section)
    found = read(stream)
    assert written(found) == stream
    return found[6:-2]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (END_OF_STATE, [VfioEndOfState()]),
        (DATA + word(0) + END_OF_STATE, [VfioData(b""), VfioEndOfState()]),
        (
            DATA + word(3) + b"abc" + DATA + word(1) + b"d" + END_OF_STATE,
            [VfioData(b"abc"), VfioData(b"d"), VfioEndOfState()],
        ),
        (INIT_DATA_SENT, [VfioInitDataSent()]),
        (
            DATA + word(2) + b"xy" + INIT_DATA_SENT,
            [VfioData(b"xy"), VfioInitDataSent()],
        ),
    ],
)
def test_parts_are_read_by_their_tags(payload: bytes, expected: list[Record]) -> None:
    assert payload_of(part(payload)) == expected
    assert payload_of(full(payload)) == expected


def test_a_setup_that_failed_stands_alone() -> None:
    stream = HEADER + b"\x01" + HEAD + SETUP + FOOT + END
    found = read(stream)
    assert found[2:4] == [VfioSetup(), SectionFooter(7)]
    assert written(found) == stream


@pytest.mark.parametrize("space", [256, 4096])
@pytest.mark.parametrize("vectors", [0, 1, 8, 9, 238, 239, 2048])
@pytest.mark.parametrize("ramfb", [False, True])
def test_a_configuration_of_any_shape_is_read_without_a_description(
    space: int, vectors: int, ramfb: bool
) -> None:
    config = bytes(range(256)) * (space // 256)
    table, pending = b"T" * (16 * vectors), b"P" * ((vectors + 7) // 8)
    body = struct.pack(">I", 2) + config + struct.pack(">4I", 0, 1, 0, 0)
    body += table + pending
    if ramfb:
        body += b"\x05" + name("VFIOPCIDevice/VFIODisplay") + struct.pack(">I", 1)
        body += b"R" * 28
    found = payload_of(full(CONFIG + body + END_OF_STATE))
    assert found[1:] == [VfioEndOfState()]
    value = found[0]
    assert isinstance(value, VfioConfig)
    assert value.version == 2
    assert value.config == config
    assert value.irq == (0, 1, 0, 0)
    assert value.msix == (MsixState(table, pending) if vectors else None)
    assert (value.display is not None) == ramfb


def test_an_unknown_tag_is_an_error_at_its_place() -> None:
    stream = stream_of(part(word(0xFFFFFFFFEF100009)))
    _, error = read_until_error(stream)
    assert "tag 0xffffffffef100009" in str(error)
    assert error.position == stream.index(word(0xFFFFFFFFEF100009))


def test_data_that_is_not_all_there_is_an_error_and_the_rest_is_known() -> None:
    whole = stream_of(part(DATA + word(3) + b"abc" + DATA + word(1 << 60) + b"defg"))
    found, error = read_until_error(whole)
    assert [x.record for x in found if isinstance(x.record, VfioData)] == [
        VfioData(b"abc")
    ]
    assert "ends within a VFIO device's data" in str(error)
    assert error.position == len(whole)
