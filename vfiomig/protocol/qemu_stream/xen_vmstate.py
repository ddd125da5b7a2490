"""What the Xen sections of QEMU's stream hold, field by field, in QEMU's words.

Rule 1: an array of no elements is no field, and one of one element is a number: so QEMU
describes them.

Rule 2: the store, and the events that wait, are bytes here and a tuple of numbers in
`vm_state` alone: a tuple takes eight times their size.

Sources: QEMU 10.0.13, hw/i386/kvm/xen_overlay.c, xen_evtchn.c, xen_xenstore.c and
target/i386/machine.c (``vmstate_xen_vcpu``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from vfiomig.protocol.qemu_stream.records import VmState
from vfiomig.protocol.qemu_stream.vmstate import field
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
    XenStoreDevice,
    XenVcpu,
)
from vfiomig.uapi.xen_xs_wire import xsd_sockmsg

if TYPE_CHECKING:
    from vfiomig.protocol.qemu_stream.records import Field, Value
    from vfiomig.protocol.qemu_stream.xen_state import XenPart, XenPort

    _Element = TypeVar("_Element", int, VmState)

WATCH_EVENTS: Final = "xen_xenstore/watch_events"
WATCH_EVENTS_VERSION: Final = 1


class PartKind(NamedTuple):
    """The section of a type of part; without instances there is one, instance 0."""

    idstr: str
    version: int
    has_instances: bool = False


PARTS: Final[dict[type, PartKind]] = {
    XenOverlay: PartKind("xen_overlay", 1),
    XenEventChannels: PartKind("xen_evtchn", 1),
    XenVcpu: PartKind("xen_vcpu", 1, has_instances=True),
    XenStoreDevice: PartKind("xen_xenstore", 1),
}


def vm_state(part: XenPart) -> VmState:
    """Return the record of a part in its FULL section.

    Raises:
        ValueError: an array has not the length of its field, or is longer than any.
    """
    state = state_without_bytes(part)
    if not isinstance(part, XenStoreDevice):
        return state
    return VmState(
        vmsd_name=state.vmsd_name,
        version=state.version,
        fields=(*state.fields, *_array("impl_state", "uint8", (*part.impl_state,))),
        subsections=tuple(
            VmState(
                vmsd_name=each.vmsd_name,
                version=each.version,
                fields=(*each.fields, *_array("events", "uint8", (*part.events,))),
            )
            for each in state.subsections
        ),
    )


def state_without_bytes(part: XenPart) -> VmState:
    """Return the record of a part without the bytes that may be many.

    They are the last field: ``impl_state``, and ``events`` of the subsection.

    Raises:
        ValueError: an array has not the length of its field, or is longer than any.
    """
    subsections: tuple[VmState, ...] = ()
    match part:
        case XenOverlay():
            fields = _overlay(part)
        case XenEventChannels():
            fields = _event_channels(part)
        case XenVcpu():
            fields = _vcpu(part)
        case XenStoreDevice():
            fields = _store(part)
            if part.events:
                subsections = (_watch_events(part.events),)
    kind = PARTS[type(part)]
    return VmState(
        vmsd_name=kind.idstr,
        version=kind.version,
        fields=fields,
        subsections=subsections,
    )


def _overlay(part: XenOverlay) -> tuple[Field, ...]:
    return (
        field("shinfo_gpa", "uint64", part.shinfo_gpa),
        field("long_mode", "bool", part.long_mode),
    )


def _event_channels(part: XenEventChannels) -> tuple[Field, ...]:
    _check_length("gsi_pirq", part.gsi_pirq, GSIS)
    _check_length("pirq_inuse_bitmap", part.pirq_inuse_bitmap, PIRQ_WORDS)
    _check_most("port_table", len(part.ports), MOST_PORTS)
    return (
        field("callback_param", "uint64", part.callback_param),
        field("nr_ports", "uint32", len(part.ports)),
        *_array("port_table", "struct", tuple(map(_port, part.ports))),
        field("gsi_pirq", "uint16", part.gsi_pirq),
        field("pirq_inuse_bitmap", "uint64", part.pirq_inuse_bitmap),
        field("pirq_gsi_set", "uint32", part.pirq_gsi_set),
    )


def _port(port: XenPort) -> VmState:
    return VmState(
        vmsd_name="xen_evtchn_port",
        version=1,
        fields=(
            field("vcpu", "uint32", port.vcpu),
            field("type", "uint16", port.type),
            field("u.val", "uint16", port.val),
        ),
    )


def _vcpu(part: XenVcpu) -> tuple[Field, ...]:
    _check_length("virq", part.virq, VIRQS)
    return (
        field("env.xen_vcpu_info_gpa", "uint64", part.vcpu_info_gpa),
        field("env.xen_vcpu_info_default_gpa", "uint64", part.vcpu_info_default_gpa),
        field("env.xen_vcpu_time_info_gpa", "uint64", part.vcpu_time_info_gpa),
        field("env.xen_vcpu_runstate_gpa", "uint64", part.runstate_gpa),
        field("env.xen_vcpu_callback_vector", "uint8", part.callback_vector),
        field("env.xen_virq", "uint16", part.virq),
        field("env.xen_singleshot_timer_ns", "uint64", part.singleshot_timer_ns),
        field("env.xen_periodic_timer_period", "uint64", part.periodic_timer_period),
    )


def _store(part: XenStoreDevice) -> tuple[Field, ...]:
    _check_most("request", len(part.request), DATA_SIZE)
    _check_most("impl_state", len(part.impl_state), IMPL_STATE_MOST)
    _check_most("sent", part.sent, len(part.response))
    if part.response and size_of_message(part.response) != len(part.response):
        raise ValueError(f"response: {len(part.response)} bytes are no whole message")
    return (
        field("req_data", "uint8", (*part.request.ljust(DATA_SIZE, b"\0"),)),
        field("rsp_data", "uint8", (*part.response.ljust(DATA_SIZE, b"\0"),)),
        field("req_offset", "uint32", len(part.request)),
        field("rsp_offset", "uint32", part.sent),
        field("rsp_pending", "bool", bool(part.response)),
        field("guest_port", "uint32", part.guest_port),
        field("fatal_error", "bool", part.fatal_error),
        field("impl_state_size", "uint32", len(part.impl_state)),
    )


def _watch_events(events: bytes) -> VmState:
    _check_most("events", len(events), EVENTS_MOST)
    return VmState(
        vmsd_name=WATCH_EVENTS,
        version=WATCH_EVENTS_VERSION,
        fields=(field("events_size", "uint32", len(events)),),
    )


def _array(name: str, type_: str, values: tuple[_Element, ...]) -> tuple[Field, ...]:
    value: Value | tuple[Value, ...] = values[0] if len(values) == 1 else values
    return (field(name, type_, value),) if values else ()


def size_of_message(data: bytes) -> int | None:
    """Return the size of the message that ``data`` begins with, header included.

    ``None``: it cannot be, for there is no header, or more than any payload.
    """
    header = int(xsd_sockmsg.len.offset)
    if len(data) < header + xsd_sockmsg.len.size:
        return None
    message = xsd_sockmsg.from_buffer_copy(data)
    size = header + xsd_sockmsg.len.size + int(message.len)
    return size if size <= DATA_SIZE else None


def _check_length(name: str, values: tuple[int, ...], wanted: int) -> None:
    if len(values) != wanted:
        raise ValueError(f"{name} has {wanted} elements, not {len(values)}")


def _check_most(name: str, number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise ValueError(f"{name}: {number}, where at most {most} can be")
