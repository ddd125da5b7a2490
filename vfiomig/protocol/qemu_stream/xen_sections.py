"""The FULL sections of a Xen guest's state: written whole, and read piece by piece.

============ ======== ======================================================
section      bytes    of
============ ======== ======================================================
xen_overlay  9        an address, and a layout
xen_evtchn   96 + 8 n the callback, n ports, and what there is of PIRQs
xen_vcpu     97       four addresses, a vector, 24 VIRQs, two timers
xen_xenstore 8242 + n a request and a response on their way, n bytes of store
============ ======== ======================================================

Rule 1: `section_reader` says what is refused of a frame.  Of the fields: a bool that is
neither 0 nor 1, a type of port that there is not, an offset behind what it counts, and
every length that is above its limit, before a byte of what it counts is asked for.

Rule 2: what stands in ``req_data`` behind the request, and in ``rsp_data`` behind the
response or without one, says nothing: QEMU leaves there what was before.

Sources: as of `xen_vmstate`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeVar, cast

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import vmdesc
from vfiomig.protocol.qemu_stream.cursor import encode_counted
from vfiomig.protocol.qemu_stream.records import (
    SectionFooter,
    SectionFull,
    SectionName,
    VmState,
)
from vfiomig.protocol.qemu_stream.section_reader import SectionReader
from vfiomig.protocol.qemu_stream.vmstate import encode_state
from vfiomig.protocol.qemu_stream.writer import encode
from vfiomig.protocol.qemu_stream.xen_state import (
    DATA_SIZE,
    EVENTS_MOST,
    GSIS,
    IMPL_STATE_MOST,
    MOST_PORTS,
    PIRQ_WORDS,
    VIRQS,
    XenEventChannels,
    XenOverlay,
    XenPort,
    XenStoreDevice,
    XenVcpu,
)
from vfiomig.protocol.qemu_stream.xen_vmstate import (
    PARTS,
    WATCH_EVENTS,
    WATCH_EVENTS_VERSION,
    PartKind,
    size_of_message,
    state_without_bytes,
    vm_state,
)
from vfiomig.uapi.qemu_stream import QEMU_VM_SUBSECTION
from vfiomig.uapi.xen_event_channel import EVTCHNSTAT_ipi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.protocol.qemu_stream.records import View
    from vfiomig.protocol.qemu_stream.section_reader import Reading
    from vfiomig.protocol.qemu_stream.xen_state import XenPart

    _Part = TypeVar("_Part", bound=XenPart)

__all__ = [
    "PARTS",
    "WATCH_EVENTS",
    "PartKind",
    "describe",
    "full_section",
    "read_rest",
    "vm_state",
]

_U32: Final = struct.Struct(">I")
_OVERLAY: Final = struct.Struct(">QB")
_PORT: Final = struct.Struct(">IHH")
_PIRQS: Final = struct.Struct(f">{GSIS}H{PIRQ_WORDS}QI")
_VCPU: Final = struct.Struct(f">4QB{VIRQS}H2Q")
_OFFSETS: Final = struct.Struct(">II")
_STATES: Final = struct.Struct(">BIB")


# --- written -----------------------------------------------------------------------


def full_section(section_id: int, instance: int, part: XenPart) -> bytes:
    """Return the whole FULL section of a part, its head and its footer.

    ``instance`` is 0 for a part that has none.

    Raises:
        ValueError: a value does not fit its field.
    """
    kind = PARTS[type(part)]
    head = SectionFull(
        section_id=section_id,
        idstr=kind.idstr,
        instance_id=_checked(kind, instance),
        version_id=kind.version,
    )
    return b"".join(
        (*encode(head), *_payload(part), *encode(SectionFooter(section_id)))
    )


def _payload(part: XenPart) -> Iterator[View]:
    state = state_without_bytes(part)
    yield from encode_state(VmState(vmsd_name=None, version=None, fields=state.fields))
    if isinstance(part, XenStoreDevice):
        yield part.impl_state
        if part.events:
            yield bytes([QEMU_VM_SUBSECTION]) + encode_counted(WATCH_EVENTS)
            yield _U32.pack(WATCH_EVENTS_VERSION) + _U32.pack(len(part.events))
            yield part.events


def describe(instance: int, part: XenPart) -> dict[str, object]:
    """Return what the VM description says of that section.

    Raises:
        ValueError: a value does not fit its field.
    """
    kind = PARTS[type(part)]
    name = SectionName(kind.idstr, _checked(kind, instance))
    told = vmdesc.describe(name, state_without_bytes(part))
    if isinstance(part, XenStoreDevice):
        _tell_bytes(told, "impl_state", part.impl_state)
        for each in cast("list[dict[str, object]]", told.get("subsections", [])):
            _tell_bytes(each, "events", part.events)
    return told


def _tell_bytes(told: dict[str, object], name: str, data: bytes) -> None:
    """Add the field of `vm_state` that holds ``data``, without a number for each."""
    length = {"array_len": len(data)} if len(data) > 1 else {}
    if data:
        fields = cast("list[dict[str, object]]", told["fields"])
        fields.append({"name": name, **length, "type": "uint8", "size": 1})


def _checked(kind: PartKind, instance: int) -> int:
    if instance and not kind.has_instances:
        raise ValueError(f"there is one {kind.idstr!r}, instance 0, and no {instance}")
    return instance


# --- read --------------------------------------------------------------------------


def read_rest(
    section_id: int, instance: int, kind: type[_Part], *, position: int
) -> Reading[_Part]:
    """Read a FULL section from behind its id to the end of its footer.

    Yields how many bytes it wants, the next ones of the stream, and is to be sent just
    so many.  ``position`` is where they begin in the stream.

    Raises:
        StreamError: it is not the section of that part, or says what cannot be.
    """
    what = PARTS[kind]
    reader = SectionReader(what.idstr, instance, position)
    yield from reader.head(what.version)
    part = yield from _READ[kind](reader)
    found: dict[str, bytes] = {}
    versions = _SUBSECTIONS.get(kind, {})
    while head := (yield from reader.subsection(versions, found)):
        size = yield from reader.bounded("events_size", EVENTS_MOST)
        found[head.name] = yield from reader.large(size)
    yield from reader.footer(section_id)
    if found and isinstance(part, XenStoreDevice):
        part = part._replace(events=found[WATCH_EVENTS])
    return cast("_Part", part)


_SUBSECTIONS: Final[dict[type, dict[str, int]]] = {
    XenStoreDevice: {WATCH_EVENTS: WATCH_EVENTS_VERSION}
}


def _read_overlay(reader: SectionReader) -> Reading[XenOverlay]:
    began = reader.position
    gpa, mode = _OVERLAY.unpack((yield from reader.take(_OVERLAY.size)))
    return XenOverlay(gpa, _flag(reader, "long_mode", mode, began + 8))


def _read_event_channels(reader: SectionReader) -> Reading[XenEventChannels]:
    callback = yield from reader.number(8)
    count = yield from reader.bounded("nr_ports", MOST_PORTS)
    began = reader.position
    table = yield from reader.take(count * _PORT.size)
    ports = tuple(map(XenPort._make, _PORT.iter_unpack(table)))
    for number, port in enumerate(ports):
        if port.type > EVTCHNSTAT_ipi:
            message = f"{reader.name}: port {number} has the type {port.type}"
            raise StreamError(message, position=began + number * _PORT.size + 4)
    numbers = _PIRQS.unpack((yield from reader.take(_PIRQS.size)))
    gsis, words, is_set = numbers[:GSIS], numbers[GSIS:-1], numbers[-1]
    return XenEventChannels(callback, ports, gsis, words, is_set)


def _read_vcpu(reader: SectionReader) -> Reading[XenVcpu]:
    numbers = _VCPU.unpack((yield from reader.take(_VCPU.size)))
    info, default, time, runstate, vector, *virqs, singleshot, periodic = numbers
    return XenVcpu(
        vcpu_info_gpa=info,
        vcpu_info_default_gpa=default,
        vcpu_time_info_gpa=time,
        runstate_gpa=runstate,
        callback_vector=vector,
        virq=tuple(virqs),
        singleshot_timer_ns=singleshot,
        periodic_timer_period=periodic,
    )


def _read_store(reader: SectionReader) -> Reading[XenStoreDevice]:
    request = bytes((yield from reader.take(DATA_SIZE)))
    response_at = reader.position
    response = bytes((yield from reader.take(DATA_SIZE)))
    offsets_at = reader.position
    got, sent = _OFFSETS.unpack((yield from reader.take(_OFFSETS.size)))
    states_at = reader.position
    states = _STATES.unpack((yield from reader.take(_STATES.size)))
    is_pending = _flag(reader, "rsp_pending", states[0], states_at)
    is_fatal = _flag(reader, "fatal_error", states[2], states_at + 5)
    size = size_of_message(response) if is_pending else 0
    if size is None:
        message = f"{reader.name}: rsp_data is no whole message, but pending"
        raise StreamError(message, position=response_at)
    _check_offset(reader, "req_offset", got, DATA_SIZE, offsets_at)
    _check_offset(reader, "rsp_offset", sent, size, offsets_at + 4)
    length = yield from reader.bounded("impl_state_size", IMPL_STATE_MOST)
    store = yield from reader.large(length)
    return XenStoreDevice(
        request=request[:got],
        response=response[:size],
        sent=sent,
        guest_port=states[1],
        fatal_error=is_fatal,
        impl_state=store,
    )


_READ: Final[dict[type, Callable[[SectionReader], Reading[XenPart]]]] = {
    XenOverlay: _read_overlay,
    XenEventChannels: _read_event_channels,
    XenVcpu: _read_vcpu,
    XenStoreDevice: _read_store,
}


def _flag(reader: SectionReader, name: str, value: int, position: int) -> bool:
    if value > 1:
        message = f"{reader.name}: {name} is {value:#x}, neither 0 nor 1"
        raise StreamError(message, position=position)
    return bool(value)


def _check_offset(
    reader: SectionReader, name: str, value: int, most: int, position: int
) -> None:
    if value > most:
        message = f"{reader.name}: {name} {value}: at most {most} here"
        raise StreamError(message, position=position)
