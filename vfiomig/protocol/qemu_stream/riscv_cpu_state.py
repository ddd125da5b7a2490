"""What a RISC-V CPU has in QEMU's stream under KVM: vmstate_riscv_cpu, field by field.

Rule 1: every field of the base state is there, in QEMU's order and width.  What we do
not model has the value that it has after a reset; on loading it is skipped.

Rule 2: the CPU is ``host`` without PMP and triggers (``debug=off``), so that of the
subsections there are ``cpu/kvmtimer``, ``cpu/envcfg`` and, since version 12,
``cpu/kvm-mp-state``; under KVM ``cpu/vector`` as well, if misa has V.  What misa says
on loading we do not read: it has V where that subsection is.

Rule 3: nothing here is fcsr, and nothing vcsr: QEMU gets neither of KVM.  Its own
``frm``, ``vxrm`` and ``vxsat`` are what a reset leaves.

Sources: QEMU 11.0.0, target/riscv/machine.c (version 11); version 12 is of the series
"Preserve MP state across migration" of August 2026.  Where its subsection stands among
the others is our guess: behind the timer's, KVM's other one.  Which vector registers
QEMU gets and puts is said in target/riscv/kvm/kvm-cpu.c.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.protocol.qemu_stream.records import VmState
from vfiomig.protocol.qemu_stream.vmstate import field
from vfiomig.uapi.kvm_riscv import PRV_S

if TYPE_CHECKING:
    from vfiomig.protocol.qemu_stream.records import Field

IDSTR: Final = "cpu"
VECTOR: Final = "cpu/vector"
TIMER: Final = "cpu/kvmtimer"
ENVCFG: Final = "cpu/envcfg"
MP_STATE: Final = "cpu/kvm-mp-state"


class MpStatePlace(enum.Enum):
    """Where a version of QEMU has a CPU's mp_state in the stream."""

    NOWHERE = "nowhere"
    SUBSECTION = "subsection"
    FIELD = "field"  # behind the last of the base: the fourth version of the patch


class CpuLayout(NamedTuple):
    """What a QEMU's section of a CPU looks like."""

    version: int
    mp_state: MpStatePlace = MpStatePlace.NOWHERE


class KvmTimer(NamedTuple):
    """The timer of a vCPU: ticks, ticks, and KVM_RISCV_TIMER_STATE_*."""

    time: int
    compare: int
    state: int


class Vectors(NamedTuple):
    """The vector unit of a vCPU, as far as QEMU has it.

    ``v`` of up to 1024 bits each (RV_VLEN_MAX), ``vtype`` of 64, the others of 32.
    """

    v: tuple[int, ...] = (0,) * 32
    vtype: int = 0
    vl: int = 0
    vstart: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RiscvCpu:
    """One CPU's values in the stream, by QEMU's names of them.

    64 bits each, but for ``scounteren`` (32) and ``priv`` (8).  ``timer``, ``mp_state``
    or ``vector`` of ``None`` was not sent; without ``vector`` misa has no V.
    """

    gpr: tuple[int, ...] = (0,) * 32
    fpr: tuple[int, ...] = (0,) * 32
    pc: int = 0
    priv: int = PRV_S
    mhartid: int = 0
    mstatus: int = 0
    mip: int = 0
    mie: int = 0
    satp: int = 0
    stval: int = 0
    stvec: int = 0
    sepc: int = 0
    scause: int = 0
    sscratch: int = 0
    scounteren: int = 0
    senvcfg: int = 0
    timer: KvmTimer | None = None
    mp_state: int | None = None
    vector: Vectors | None = None


# --- what is where -----------------------------------------------------------------


class _Row(NamedTuple):
    """A field: where a value of ours is its value, it says so; else what a reset sets.

    A tuple is an array.  ``has_v``: it is misa, which has V where that is.
    """

    name: str
    type: str
    reset: int | tuple[int, ...] = 0
    is_ours: bool = False
    has_v: bool = False


# Major interrupts by falling default priority: the AIA specification, where the first
# has QEMU's 4; those that are not here have the lowest, 255.
_BY_PRIORITY: Final = (
    *(47, 23, 46, 45, 22, 44, 43, 21, 42, 41, 20, 40),
    *(11, 3, 7, 9, 1, 5, 12, 10, 2, 6),
    *(39, 19, 38, 37, 18, 36, 35, 17, 34, 33, 16, 32),
)
_M_EXTERNAL: Final = 11
_S_EXTERNAL: Final = 9


def _priorities(own: int) -> tuple[int, ...]:
    """Return a mode's table of priorities; its external interrupt has none."""
    ranks = {irq: 4 + at for at, irq in enumerate(_BY_PRIORITY)}
    return tuple(0 if irq == own else ranks.get(irq, 255) for irq in range(64))


_NO_RESERVATION: Final = (1 << 64) - 1  # load_res: none
_PRIV_1_13: Final = 3
_RV64: Final = 2
_RV64GC: Final = sum(1 << (ord(letter) - ord("A")) for letter in "IMAFDC")
_RVV: Final = 1 << (ord("V") - ord("A"))
_VEXT_1_0: Final = 0x1_0000  # what QEMU begins with, whether there is V or not
_SGEIP: Final = 1 << 12
_RESET_VECTOR: Final = 0x1000
_COUNTERS: Final = 32
_LONGEST_VECTOR: Final = 128  # bytes: RV_VLEN_MAX
_VILL: Final = 1  # a reset sets it, and under KVM nobody clears it
_VECTOR_WORDS: Final = struct.Struct(f"<{32 * _LONGEST_VECTOR // 8}Q")

_PMU_COUNTER: Final = VmState(
    vmsd_name="cpu/pmu",
    version=3,
    fields=(
        field("mhpmcounter_val", "uint64", 0),
        field("mhpmcounter_prev", "uint64", 0),
    ),
)


def _own(name: str, type_: str = "uint64") -> _Row:
    return _Row(name, type_, is_ours=True)


_BEFORE_PMU: Final = (
    _own("gpr"),
    _own("fpr"),
    _Row("miprio", "uint8", _priorities(_M_EXTERNAL)),
    _Row("siprio", "uint8", _priorities(_S_EXTERNAL)),
    _own("pc"),
    _Row("load_res", "uint64", _NO_RESERVATION),
    _Row("load_val", "uint64"),
    _Row("frm", "uint8"),
    _Row("badaddr", "uint64"),
    _Row("guest_phys_fault_addr", "uint64"),
    _Row("priv_ver", "uint32", _PRIV_1_13),
    _Row("vext_ver", "uint32", _VEXT_1_0),
    _Row("misa_mxl", "uint32", _RV64),
    _Row("misa_ext", "uint32", _RV64GC, has_v=True),
    _Row("unused", "unused_buffer"),
    _Row("misa_ext_mask", "uint32", _RV64GC, has_v=True),
    _own("priv", "uint8"),
    _Row("virt_enabled", "bool"),
    _Row("resetvec", "uint64", _RESET_VECTOR),
    _own("mhartid"),
    _own("mstatus"),
    _own("mip"),
    _Row("miclaim", "uint64", _SGEIP),
    _own("mie"),
    _Row("mvien", "uint64"),
    _Row("mvip", "uint64"),
    _Row("sie", "uint64"),
    _Row("mideleg", "uint64"),
    _own("satp"),
    _own("stval"),
    _Row("medeleg", "uint64"),
    _own("stvec"),
    _own("sepc"),
    _own("scause"),
    _Row("mtvec", "uint64"),
    _Row("mepc", "uint64"),
    _Row("mcause", "uint64"),
    _Row("mtval", "uint64"),
    _Row("miselect", "uint64"),
    _Row("siselect", "uint64"),
    _own("scounteren", "uint32"),
    _Row("mcounteren", "uint32"),
    _Row("scountinhibit", "uint32"),
    _Row("mcountinhibit", "uint32"),
)
_BEHIND_PMU: Final = (
    _Row("mhpmevent_val", "uint64", (0,) * _COUNTERS),
    _own("sscratch"),
    _Row("mscratch", "uint64"),
    _Row("stimecmp", "uint64"),
)


# Fields of the base state that have a value of ours, by `RiscvCpu`'s names.
OUR_FIELDS: Final = frozenset(
    row.name for row in (*_BEFORE_PMU, *_BEHIND_PMU) if row.is_ours
)


def vm_state(cpu: RiscvCpu, layout: CpuLayout) -> VmState:
    """Return the record of a CPU in its FULL section.

    Raises:
        ValueError: a value does not fit its field, once it is encoded.
    """
    fields = [_field(row, cpu) for row in _BEFORE_PMU]
    fields.append(field("env.pmu_ctrs", "struct", (_PMU_COUNTER,) * _COUNTERS))
    fields += [_field(row, cpu) for row in _BEHIND_PMU]
    if layout.mp_state is MpStatePlace.FIELD:
        fields.append(field("env.mp_state", "uint32", cpu.mp_state or 0))
    return VmState(
        vmsd_name=IDSTR,
        version=layout.version,
        fields=tuple(fields),
        subsections=subsections_of(cpu, layout),
    )


def _field(row: _Row, cpu: RiscvCpu) -> Field:
    if row.type == "unused_buffer":
        return field(row.name, row.type, bytes(4))
    value = getattr(cpu, row.name) if row.is_ours else row.reset
    if row.has_v and cpu.vector is not None:
        value = _RV64GC | _RVV
    return field(f"env.{row.name}", row.type, value)


def subsections_of(cpu: RiscvCpu, layout: CpuLayout) -> tuple[VmState, ...]:
    """Return the subsections that are sent of a CPU, in their order."""
    found = []
    if cpu.vector is not None:
        found.append(_vector(cpu.vector))
    if cpu.timer is not None:
        pairs = zip(KvmTimer._fields, cpu.timer, strict=True)
        named = {f"kvm_timer_{name}": value for name, value in pairs}
        found.append(_subsection(TIMER, 1, "uint64", named))
    if layout.mp_state is MpStatePlace.SUBSECTION and cpu.mp_state is not None:
        named = {"kvm_mp_state": cpu.mp_state}
        found.append(_subsection(MP_STATE, 1, "uint32", named))
    named = {"menvcfg": 0, "senvcfg": cpu.senvcfg, "henvcfg": 0}
    found.append(_subsection(ENVCFG, 2, "uint64", named))
    return tuple(found)


def _subsection(name: str, version: int, type_: str, values: dict[str, int]) -> VmState:
    fields = tuple(field(f"env.{key}", type_, value) for key, value in values.items())
    return VmState(vmsd_name=name, version=version, fields=fields)


# --- vectors -----------------------------------------------------------------------


def _vector(unit: Vectors) -> VmState:
    """Return the subsection of a vector unit.

    A register is in words of 64 bits, the lowest first, whatever its length.
    """
    try:
        data = b"".join(it.to_bytes(_LONGEST_VECTOR, "little") for it in unit.v)
        words = _VECTOR_WORDS.unpack(data)
    except (OverflowError, struct.error):
        message = "env.vreg: not 32 registers of at most 1024 bits"
        raise ValueError(message) from None
    return VmState(
        vmsd_name=VECTOR,
        version=3,
        fields=(
            field("env.vreg", "uint64", words),
            field("env.vtype", "uint64", unit.vtype),
            field("env.vl", "uint32", unit.vl),
            field("env.vstart", "uint32", unit.vstart),
            field("env.vxrm", "uint8", 0),
            field("env.vxsat", "uint8", 0),
            field("env.vill", "bool", _VILL),
        ),
    )


def vectors_of(words: tuple[int, ...], vtype: int, vl: int, vstart: int) -> Vectors:
    """Return the vector unit whose registers are these 512 words of 64 bits."""
    data = _VECTOR_WORDS.pack(*words)
    registers = (
        data[at : at + _LONGEST_VECTOR] for at in range(0, len(data), _LONGEST_VECTOR)
    )
    v = tuple(int.from_bytes(each, "little") for each in registers)
    return Vectors(v, vtype, vl, vstart)
