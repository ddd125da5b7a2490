"""The FULL section of a RISC-V CPU: written whole, and read piece by piece.

Rule 1: a version loads itself alone (version_id and minimum_version_id are equal).

Rule 2: what `section_reader` refuses is refused.

Source: QEMU 11.0.0, target/riscv/machine.c, migration/vmstate.c.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import vmdesc
from vfiomig.protocol.qemu_stream.records import (
    SectionFooter,
    SectionFull,
    SectionName,
)
from vfiomig.protocol.qemu_stream.riscv_cpu_state import (
    ENVCFG,
    IDSTR,
    MP_STATE,
    OUR_FIELDS,
    TIMER,
    VECTOR,
    CpuLayout,
    KvmTimer,
    MpStatePlace,
    RiscvCpu,
    Vectors,
    subsections_of,
    vectors_of,
    vm_state,
)
from vfiomig.protocol.qemu_stream.section_reader import SectionReader
from vfiomig.protocol.qemu_stream.vmstate import size_of
from vfiomig.protocol.qemu_stream.writer import encode

if TYPE_CHECKING:
    from typing import TypeAlias

    from vfiomig.protocol.qemu_stream.records import Field, VmState
    from vfiomig.protocol.qemu_stream.section_reader import Reading

    _Values: TypeAlias = dict[str, int | tuple[int, ...]]

__all__ = [
    "CpuLayout",
    "KvmTimer",
    "MpStatePlace",
    "RiscvCpu",
    "Vectors",
    "describe",
    "full_section",
    "read_rest",
    "vm_state",
]


def full_section(
    section_id: int, instance: int, cpu: RiscvCpu, layout: CpuLayout
) -> bytes:
    """Return the whole FULL section of the CPU of an index, ``instance``.

    Raises:
        ValueError: a value does not fit its field.
    """
    head = SectionFull(
        section_id=section_id,
        idstr=IDSTR,
        instance_id=instance,
        version_id=layout.version,
    )
    records = (head, vm_state(cpu, layout), SectionFooter(section_id))
    return b"".join(piece for record in records for piece in encode(record))


def describe(instance: int, cpu: RiscvCpu, layout: CpuLayout) -> dict[str, object]:
    """Return what the VM description says of that section."""
    return vmdesc.describe(SectionName(IDSTR, instance), vm_state(cpu, layout))


def read_rest(
    section_id: int,
    instance: int,
    layout: CpuLayout,
    *,
    takes_mp_state: bool,
    position: int,
) -> Reading[RiscvCpu]:
    """Read a FULL section from behind its id to the end of its footer.

    Yields how many bytes it wants, the next ones of the stream, and is to be sent just
    so many.  ``position`` is where they begin in the stream.  ``takes_mp_state``: KVM
    has KVM_CAP_MP_STATE here.

    Raises:
        StreamError: it is not the section of that CPU in that layout, or it brings an
            mp_state (subsection) to where none can be taken.
    """
    reader = SectionReader(IDSTR, instance, position)
    yield from reader.head(layout.version)
    places, size = _base(layout)
    data = yield from reader.take(size)
    values = {name: place.value(data) for name, place in places.items()}
    subsections = yield from _read_subsections(reader, layout)
    yield from reader.footer(section_id)
    if MP_STATE in subsections and not takes_mp_state:
        raise StreamError(
            f"{reader.name}: {MP_STATE} cannot be loaded (ENOTSUP): "
            "KVM has no KVM_CAP_MP_STATE here",
            position=subsections[MP_STATE].position,
        )
    return _cpu(values, {name: sub.values for name, sub in subsections.items()})


class _Subsection(NamedTuple):
    position: int  # of its first byte
    values: _Values


def _read_subsections(
    reader: SectionReader, layout: CpuLayout
) -> Reading[dict[str, _Subsection]]:
    """Read all subsections, and the byte that begins the footer."""
    found: dict[str, _Subsection] = {}
    states, versions = _known(layout)
    while head := (yield from reader.subsection(versions, found)):
        state = states[head.name]
        data = yield from reader.take(size_of(state))
        found[head.name] = _Subsection(head.position, _numbers(state, data))
    return found


class _Place(NamedTuple):
    """Where a field is in the base state: its numbers, and the offset of the first."""

    format: struct.Struct
    offset: int
    is_array: bool

    def value(self, data: bytes | bytearray | memoryview) -> int | tuple[int, ...]:
        found = self.format.unpack_from(data, self.offset)
        return found if self.is_array else found[0]


_CODES: Final = {"bool": "B", "uint8": "B", "uint32": "I", "uint64": "Q"}


@functools.cache
def _base(layout: CpuLayout) -> tuple[dict[str, _Place], int]:
    """Return the places of the fields that are ours, and the size of all."""
    ours = {f"env.{name}" for name in (*OUR_FIELDS, "mp_state")}
    places, offset = {}, 0
    for each in vm_state(RiscvCpu(), layout).fields:
        if each.name in ours:
            places[each.name.removeprefix("env.")] = _place(each, offset)
        offset += _count(each) * each.size
    return places, offset


def _place(of: Field, offset: int) -> _Place:
    numbers = struct.Struct(f">{_count(of)}{_CODES[of.type]}")
    return _Place(numbers, offset, isinstance(of.value, tuple))


def _count(of: Field) -> int:
    return len(of.value) if isinstance(of.value, tuple) else 1


@functools.cache
def _known(layout: CpuLayout) -> tuple[dict[str, VmState], dict[str, int]]:
    """Return a state of each subsection that a layout has, and the versions."""
    full = RiscvCpu(timer=KvmTimer(0, 0, 0), mp_state=0, vector=Vectors())
    found = {state.vmsd_name or "": state for state in subsections_of(full, layout)}
    return found, {name: state.version or 0 for name, state in found.items()}


def _numbers(state: VmState, data: bytes | bytearray | memoryview) -> _Values:
    """Return the fields of a subsection, by their names."""
    found, offset = {}, 0
    for each in state.fields:
        found[each.name.removeprefix("env.")] = _place(each, offset).value(data)
        offset += _count(each) * each.size
    return found


def _cpu(values: _Values, subsections: dict[str, _Values]) -> RiscvCpu:
    timer, vector = subsections.get(TIMER), subsections.get(VECTOR)
    told: dict[str, object] = {
        "senvcfg": subsections.get(ENVCFG, {}).get("senvcfg", 0),
        "mp_state": subsections.get(MP_STATE, {}).get("kvm_mp_state"),
        "timer": KvmTimer(*timer.values()) if timer else None,  # type: ignore[arg-type]
        "vector": _vectors(vector) if vector else None,
    }
    return RiscvCpu(**(told | values))  # type: ignore[arg-type]


def _vectors(values: _Values) -> Vectors:
    vtype, vl, vstart = values["vtype"], values["vl"], values["vstart"]
    return vectors_of(values["vreg"], vtype, vl, vstart)  # type: ignore[arg-type]
