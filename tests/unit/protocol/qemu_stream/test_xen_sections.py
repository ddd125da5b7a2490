"""The sections of a Xen guest: their bytes, their description, and streams that lie.

Fields, widths and order are those of hw/i386/kvm/xen_overlay.c, xen_evtchn.c,
xen_xenstore.c and target/i386/machine.c of QEMU 10.0.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import framing, vmdesc
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import SectionFull
from vfiomig.protocol.qemu_stream.xen_sections import (
    PARTS,
    describe,
    full_section,
    read_rest,
    vm_state,
)
from vfiomig.protocol.qemu_stream.xen_state import (
    EVENTS_MOST,
    IMPL_STATE_MOST,
    REMOTE_QEMU,
    UNMAPPED,
    XenEventChannels,
    XenOverlay,
    XenPort,
    XenStoreDevice,
    XenVcpu,
)

if TYPE_CHECKING:
    from vfiomig.protocol.qemu_stream.xen_state import XenPart

Part = TypeVar("Part", XenOverlay, XenEventChannels, XenVcpu, XenStoreDevice)

SECTION: Final = 0x2D
MIB: Final = 1 << 20
EMPTY_STORE: Final = bytes.fromhex("000000010000000100000000006e300000000000000000")
# READ, request 7, transaction 0: a path of 5 bytes, in the guest's order of bytes.
MESSAGE: Final = struct.pack("<4I", 2, 7, 0, 5) + b"attr\0"

OVERLAY: Final = XenOverlay(0xFEFF_0000, long_mode=True)
CHANNELS: Final = XenEventChannels(
    callback_param=2 << 56 | 0xF3,
    ports=(XenPort(0, 0, 0), XenPort(1, 4, 0), XenPort(0, 2, REMOTE_QEMU | 3)),
    gsi_pirq=(0, 5, *[0] * 22),
    pirq_inuse_bitmap=(1 << 5, 0, 0, 1 << 63),
    pirq_gsi_set=2,
)
VCPU: Final = XenVcpu(1, 2, 3, UNMAPPED, 0xF3, (1, *[0] * 22, 9), 4, 5)
STORE: Final = XenStoreDevice(
    request=b"half",
    response=MESSAGE,
    sent=6,
    guest_port=3,
    fatal_error=True,
    impl_state=EMPTY_STORE,
    events=b"attr\0token\0\0",
)
IDLE: Final = XenStoreDevice(guest_port=3, impl_state=EMPTY_STORE)
ALL: Final = (OVERLAY, CHANNELS, VCPU, STORE, IDLE)

# Where the fields of xen_xenstore stand in its section.
REQ_DATA: Final = 5 + 13 + 8
RSP_DATA: Final = REQ_DATA + 4112
REQ_OFFSET: Final = RSP_DATA + 4112
RSP_OFFSET: Final = REQ_OFFSET + 4
RSP_PENDING: Final = RSP_OFFSET + 4
GUEST_PORT: Final = RSP_PENDING + 1
FATAL_ERROR: Final = GUEST_PORT + 4
SIZE: Final = FATAL_ERROR + 1
IMPL_STATE: Final = SIZE + 4
SUBSECTION: Final = IMPL_STATE + len(EMPTY_STORE)
EVENTS_SIZE: Final = SUBSECTION + 2 + len("xen_xenstore/watch_events") + 4


def be32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def read(data: bytes, kind: type[Part], instance: int = 0) -> Part:
    """Read from behind the section's id; what is asked for behind the end is cut."""
    at = 5
    reading = read_rest(SECTION, instance, kind, position=at)
    wanted = next(reading)
    while True:
        assert 0 < wanted <= MIB
        piece, at = data[at : at + wanted], at + wanted
        try:
            wanted = reading.send(memoryview(piece))
        except StopIteration as end:
            assert at == len(data)
            part: Part = end.value
            return part


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


# --- written -----------------------------------------------------------------------


def test_an_overlay_is_an_address_and_a_byte() -> None:
    assert full_section(SECTION, 0, OVERLAY) == (
        b"\4\0\0\0\x2d\x0bxen_overlay\0\0\0\0\0\0\0\1"
        b"\0\0\0\0\xfe\xff\0\0\1"
        b"\x7e\0\0\0\x2d"
    )
    unmapped = full_section(SECTION, 0, XenOverlay())
    assert unmapped[-14:-5] == b"\xff" * 8 + b"\0"


def test_event_channels_are_a_table_between_numbers() -> None:
    assert full_section(SECTION, 0, CHANNELS) == (
        b"\4\0\0\0\x2d\x0axen_evtchn\0\0\0\0\0\0\0\1"
        b"\2\0\0\0\0\0\0\xf3"
        b"\0\0\0\3"
        b"\0\0\0\0\0\0\0\0"
        b"\0\0\0\1\0\4\0\0"
        b"\0\0\0\0\0\2\x80\3"
        + (b"\0\0\0\5" + bytes(44))
        + (b"\0\0\0\0\0\0\0\x20" + bytes(16) + b"\x80" + bytes(7))
        + b"\0\0\0\2"
        b"\x7e\0\0\0\x2d"
    )


def test_a_vcpu_is_its_addresses_its_vector_and_its_timers() -> None:
    assert full_section(SECTION, 5, VCPU) == (
        b"\4\0\0\0\x2d\x08xen_vcpu\0\0\0\5\0\0\0\1"
        b"\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\xff\xff\xff\xff\xff\xff\xff\xff"
        b"\xf3" + (b"\0\1" + bytes(44) + b"\0\x09") + b"\0\0\0\0\0\0\0\4"
        b"\0\0\0\0\0\0\0\5"
        b"\x7e\0\0\0\x2d"
    )


def test_a_store_is_what_is_on_its_way_and_its_own_bytes() -> None:
    frame = b"\4\0\0\0\x2d\x0cxen_xenstore\0\0\0\0\0\0\0\1"
    assert full_section(SECTION, 0, IDLE) == (
        frame
        + bytes(4112 * 2)
        + b"\0\0\0\0\0\0\0\0\0"
        + b"\0\0\0\3\0"
        + (b"\0\0\0\x17" + EMPTY_STORE)
        + b"\x7e\0\0\0\x2d"
    )
    assert full_section(SECTION, 0, STORE) == (
        frame
        + (b"half" + bytes(4108))
        + (MESSAGE + bytes(4112 - 21))
        + b"\0\0\0\4\0\0\0\6\1"
        + b"\0\0\0\3\1"
        + (b"\0\0\0\x17" + EMPTY_STORE)
        + b"\5\x19xen_xenstore/watch_events\0\0\0\1"
        + b"\0\0\0\x0cattr\0token\0\0"
        + b"\x7e\0\0\0\x2d"
    )


def test_sections_have_the_sizes_of_their_fields() -> None:
    assert len(full_section(SECTION, 0, OVERLAY)) == 9 + 30
    assert len(full_section(SECTION, 5, VCPU)) == 97 + 27
    for count in (0, 1, 4096):
        table = XenEventChannels(ports=(XenPort(0, 0, 0),) * count)
        size = 8 + 4 + 8 * count + 48 + 32 + 4
        assert len(full_section(SECTION, 0, table)) == size + 29
    # QEMU's default tree with its consoles' nodes: 730 bytes.
    store = XenStoreDevice(impl_state=bytes(730))
    assert 8242 + 730 == 8972
    assert len(full_section(SECTION, 0, store)) == 9003


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (XenOverlay(1 << 64), "shinfo_gpa"),
        (XenEventChannels(gsi_pirq=(0,) * 23), "gsi_pirq has 24"),
        (XenEventChannels(pirq_inuse_bitmap=(0,) * 5), "pirq_inuse_bitmap has 4"),
        (XenEventChannels(ports=(XenPort(0, 0, 0),) * 4097), "port_table: 4097"),
        (XenEventChannels(ports=(XenPort(0, 0, 1 << 16),)), "u.val"),
        (XenVcpu(virq=(0,) * 25), "virq has 24"),
        (XenVcpu(callback_vector=256), "xen_vcpu_callback_vector"),
        (XenStoreDevice(request=bytes(4113)), "request: 4113"),
        (XenStoreDevice(response=MESSAGE[:-1]), "no whole message"),
        (XenStoreDevice(response=MESSAGE, sent=22), "sent: 22"),
        (XenStoreDevice(sent=1), "sent: 1"),
        (XenStoreDevice(guest_port=-1), "guest_port"),
        (XenStoreDevice(impl_state=bytes(IMPL_STATE_MOST + 1)), "impl_state: "),
        (XenStoreDevice(events=bytes(EVENTS_MOST + 1)), "events: "),
    ],
)
def test_what_does_not_fit_is_not_written(part: XenPart, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        full_section(SECTION, 0, part)


def test_only_a_vcpu_has_an_instance() -> None:
    with pytest.raises(ValueError, match="there is one 'xen_overlay'"):
        full_section(SECTION, 1, OVERLAY)
    assert full_section(SECTION, 1, VCPU)[14:18] == be32(1)


# --- the description ---------------------------------------------------------------


def described(part: XenPart, instance: int = 0) -> list[dict[str, Any]]:
    told: Any = describe(instance, part)
    return list(told["fields"])


def test_the_description_of_a_store_is_as_qemu_writes_it() -> None:
    numbers = {"type": "uint8", "size": 1}
    assert described(STORE) == [
        {"name": "req_data", "array_len": 4112, **numbers},
        {"name": "rsp_data", "array_len": 4112, **numbers},
        {"name": "req_offset", "type": "uint32", "size": 4},
        {"name": "rsp_offset", "type": "uint32", "size": 4},
        {"name": "rsp_pending", "type": "bool", "size": 1},
        {"name": "guest_port", "type": "uint32", "size": 4},
        {"name": "fatal_error", "type": "bool", "size": 1},
        {"name": "impl_state_size", "type": "uint32", "size": 4},
        {"name": "impl_state", "array_len": 23, **numbers},
    ]
    told: Any = describe(0, STORE)
    assert (told["name"], told["instance_id"], told["version"]) == (
        "xen_xenstore",
        0,
        1,
    )
    assert told["subsections"] == [
        {
            "vmsd_name": "xen_xenstore/watch_events",
            "version": 1,
            "fields": [
                {"name": "events_size", "type": "uint32", "size": 4},
                {"name": "events", "array_len": 12, **numbers},
            ],
        }
    ]
    assert "subsections" not in describe(0, IDLE)


def test_the_description_of_event_channels_has_the_table_once() -> None:
    fields = described(CHANNELS)
    assert [(each["name"], each.get("array_len")) for each in fields] == [
        ("callback_param", None),
        ("nr_ports", None),
        ("port_table", 3),
        ("gsi_pirq", 24),
        ("pirq_inuse_bitmap", 4),
        ("pirq_gsi_set", None),
    ]
    assert fields[2]["type"] == "struct"
    assert fields[2]["size"] == 8
    assert fields[2]["struct"]["fields"] == [
        {"name": "vcpu", "type": "uint32", "size": 4},
        {"name": "type", "type": "uint16", "size": 2},
        {"name": "u.val", "type": "uint16", "size": 2},
    ]


def test_an_array_of_none_is_not_described_and_one_of_one_is_a_number() -> None:
    assert [each["name"] for each in described(XenStoreDevice())][-1] == (
        "impl_state_size"
    )
    assert described(XenStoreDevice(impl_state=b"x"))[-1] == {
        "name": "impl_state",
        "type": "uint8",
        "size": 1,
    }
    names = [each["name"] for each in described(XenEventChannels())]
    assert "port_table" not in names
    one = described(XenEventChannels(ports=CHANNELS.ports[:1]))[2]
    assert "array_len" not in one
    assert one["name"] == "port_table"


@pytest.mark.parametrize(
    "parts",
    [
        (OVERLAY, CHANNELS, VCPU, STORE),
        (XenOverlay(), XenEventChannels(), XenVcpu(), XenStoreDevice()),
        (
            XenEventChannels(ports=CHANNELS.ports[:1]),
            XenStoreDevice(impl_state=b"\x81", events=b"\0"),
        ),
    ],
)
def test_a_reader_with_the_description_reads_the_state(
    parts: tuple[XenPart, ...],
) -> None:
    document = vmdesc.vm_description(
        [describe(0, part) for part in parts], page_size=4096
    )
    stream = b"".join(
        (
            framing.STREAM_HEAD,
            *[full_section(number, 0, part) for number, part in enumerate(parts)],
            framing.STREAM_END,
            framing.vm_description(vmdesc.text_of(document)),
        )
    )
    records = [each.record for each in read_stream(memoryview(stream))]
    heads = [each for each in records if isinstance(each, SectionFull)]
    assert [(each.idstr, each.version_id) for each in heads] == [
        (PARTS[type(part)].idstr, 1) for part in parts
    ]
    states = [records[records.index(head) + 1] for head in heads]
    assert states == [vm_state(part) for part in parts]


# --- read --------------------------------------------------------------------------

U16: Final = st.integers(0, 2**16 - 1)
U32: Final = st.integers(0, 2**32 - 1)
U64: Final = st.integers(0, 2**64 - 1)
MESSAGES: Final = st.just(b"") | st.builds(
    lambda head, payload: struct.pack("<4I", *head, len(payload)) + payload,
    st.tuples(U32, U32, U32),
    st.binary(max_size=40) | st.just(b"x" * 4096),
)
STORES: Final = MESSAGES.flatmap(
    lambda response: st.builds(
        XenStoreDevice,
        request=st.binary(max_size=40) | st.just(b"x" * 4112),
        response=st.just(response),
        sent=st.integers(0, len(response)),
        guest_port=U32,
        fatal_error=st.booleans(),
        impl_state=st.binary(max_size=40),
        events=st.binary(max_size=40),
    )
)
CHANNEL_TABLES: Final = st.builds(
    XenEventChannels,
    callback_param=U64,
    ports=st.lists(st.builds(XenPort, U32, st.integers(0, 5), U16), max_size=5).map(
        tuple
    ),
    gsi_pirq=st.tuples(*[U16] * 24),
    pirq_inuse_bitmap=st.tuples(*[U64] * 4),
    pirq_gsi_set=U32,
)
VCPUS: Final = st.builds(
    XenVcpu,
    U64,
    U64,
    U64,
    U64,
    st.integers(0, 255),
    st.tuples(*[U16] * 24),
    U64,
    U64,
)


@given(st.builds(XenOverlay, U64, st.booleans()), CHANNEL_TABLES)
def test_what_was_written_is_read(overlay: XenOverlay, table: XenEventChannels) -> None:
    assert read(full_section(SECTION, 0, overlay), XenOverlay) == overlay
    assert read(full_section(SECTION, 0, table), XenEventChannels) == table


@given(VCPUS, U32)
def test_a_vcpu_is_read(vcpu: XenVcpu, instance: int) -> None:
    assert read(full_section(SECTION, instance, vcpu), XenVcpu, instance) == vcpu


@given(STORES)
def test_a_store_is_read(store: XenStoreDevice) -> None:
    assert read(full_section(SECTION, 0, store), XenStoreDevice) == store


def test_what_is_large_is_read_in_pieces() -> None:
    store = XenStoreDevice(impl_state=bytes(range(256)) * (12 << 10), events=b"e" * MIB)
    assert read(full_section(SECTION, 0, store), XenStoreDevice) == store


def test_what_qemu_leaves_behind_a_message_says_nothing() -> None:
    data = full_section(SECTION, 0, IDLE)
    data = changed(data, REQ_DATA, b"an old request")
    data = changed(data, RSP_DATA, b"\xff" * 4112)
    assert read(data, XenStoreDevice) == IDLE


# --- streams that lie --------------------------------------------------------------


@pytest.mark.parametrize("part", ALL)
def test_a_section_cut_anywhere_is_told_where(part: Any) -> None:
    data = full_section(SECTION, 0, part)
    name = PARTS[type(part)].idstr
    for size in range(5, len(data)):
        with pytest.raises(StreamError) as error:
            read(data[:size], type(part))
        assert error.value.position == size
        assert f"ends within section '{name}'" in str(error.value)


@pytest.mark.parametrize(
    ("part", "at", "new", "text"),
    [
        (OVERLAY, 5, b"\x0bxen_gnttabs", "'xen_gnttabs' is no section 'xen_overlay'"),
        (OVERLAY, 17, be32(1), "instance 1 of 'xen_overlay' comes before 0"),
        (OVERLAY, 21, be32(2), "version 2 cannot be loaded, only 1"),
        (OVERLAY, 33, b"\2", "long_mode is 0x2, neither 0 nor 1"),
        (OVERLAY, 34, b"\5", "'' is not known"),
        (OVERLAY, 34, b"\1", "0x01 begins no subsection or footer"),
        (OVERLAY, 35, be32(46), "the footer of section 46, not of 45"),
        (CHANNELS, 32, be32(4097), "nr_ports 4097: at most 4096"),
        (CHANNELS, 48, b"\0\6", "port 1 has the type 6"),
        (STORE, REQ_OFFSET, be32(4113), "req_offset 4113: at most 4112"),
        (STORE, RSP_OFFSET, be32(4113), "rsp_offset 4113: at most 21"),
        (STORE, RSP_OFFSET, be32(22), "rsp_offset 22: at most 21"),
        (IDLE, RSP_OFFSET, be32(1), "rsp_offset 1: at most 0"),
        (STORE, RSP_PENDING, b"\2", "rsp_pending is 0x2, neither 0 nor 1"),
        (STORE, FATAL_ERROR, b"\xff", "fatal_error is 0xff, neither 0 nor 1"),
        (STORE, SIZE, be32(IMPL_STATE_MOST + 1), "impl_state_size 67108865: at most"),
        (STORE, SIZE, be32(2**32 - 1), "impl_state_size 4294967295: at most"),
        (STORE, SUBSECTION + 2, b"Xen", "'Xen_xenstore/watch_events' is not known"),
        (STORE, EVENTS_SIZE - 4, be32(2), "watch_events: version 2 cannot be loaded"),
        (STORE, EVENTS_SIZE, be32(EVENTS_MOST + 1), "events_size 16777217: at most"),
    ],
)
def test_what_cannot_be_is_refused(part: Any, at: int, new: bytes, text: str) -> None:
    data = changed(full_section(SECTION, 0, part), at, new)
    with pytest.raises(StreamError, match=text) as error:
        read(data, type(part))
    # The name and a subsection are told by where they begin.
    assert error.value.position == (SUBSECTION if at == SUBSECTION + 2 else at)


def test_a_pending_response_is_a_whole_message() -> None:
    data = full_section(SECTION, 0, STORE)
    most = changed(data, RSP_DATA + 12, struct.pack("<I", 4096))
    assert len(read(most, XenStoreDevice).response) == 4112
    data = changed(data, RSP_DATA + 12, struct.pack("<I", 4097))
    with pytest.raises(StreamError, match="no whole message, but pending") as error:
        read(data, XenStoreDevice)
    assert error.value.position == RSP_DATA


def test_a_subsection_that_comes_twice_is_refused() -> None:
    data = full_section(SECTION, 0, STORE)
    end = len(data) - 5
    with pytest.raises(StreamError, match="watch_events' comes twice") as error:
        read(data[:end] + data[SUBSECTION:], XenStoreDevice)
    assert error.value.position == end


def test_another_vcpu_s_section_is_refused() -> None:
    with pytest.raises(StreamError, match="instance 3 of 'xen_vcpu' comes before 2"):
        read(full_section(SECTION, 3, VCPU), XenVcpu, 2)


@pytest.mark.parametrize(
    ("at", "most"), [(SIZE, IMPL_STATE_MOST), (EVENTS_SIZE, EVENTS_MOST)]
)
def test_a_size_that_lies_costs_one_piece(at: int, most: int) -> None:
    data = changed(full_section(SECTION, 0, STORE), at, be32(most))
    reading, place = read_rest(SECTION, 0, XenStoreDevice, position=5), 5
    wanted = next(reading)
    while place + wanted <= len(data):
        piece, place = data[place : place + wanted], place + wanted
        wanted = reading.send(piece)
    assert place == at + 4
    assert wanted == MIB


@given(st.sampled_from(ALL), st.data())
def test_damage_is_an_error_with_a_position_or_another_part(
    part: Any, data: st.DataObject
) -> None:
    whole = bytearray(full_section(SECTION, 0, part))
    at = data.draw(st.integers(5, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(whole), type(part))
    except StreamError as error:
        where = error.position
    else:
        where = 5 if type(found) is type(part) else 0
    assert 5 <= where <= len(whole)
