"""The section of a RISC-V CPU: its bytes, its description, and streams that lie.

Fields, widths and order are those of target/riscv/machine.c of QEMU 11.0.
"""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream import framing, vmdesc
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import SectionFull, SectionName, VmState
from vfiomig.protocol.qemu_stream.riscv_cpu import (
    CpuLayout,
    KvmTimer,
    MpStatePlace,
    RiscvCpu,
    Vectors,
    describe,
    full_section,
    read_rest,
)
from vfiomig.protocol.qemu_stream.vmstate import find

ELEVEN = CpuLayout(11)
TWELVE = CpuLayout(12, MpStatePlace.SUBSECTION)
FOURTH = CpuLayout(11, MpStatePlace.FIELD)  # v4 of the patch: no new version
SECTION, INSTANCE = 45, 2
# Behind type and id: 1 + 3 bytes of name, instance, version.
BASE = 5 + 4 + 4 + 4
BASE_SIZE = (
    32 * 8 * 2  # gpr, fpr
    + 64 * 2  # miprio, siprio
    + 3 * 8  # pc, load_res, load_val
    + 1  # frm
    + 2 * 8  # badaddr, guest_phys_fault_addr
    + 6 * 4  # priv_ver, vext_ver, misa_mxl, misa_ext, unused, misa_ext_mask
    + 1  # priv
    + 1  # virt_enabled
    + 20 * 8  # resetvec to mtval
    + 2 * 8  # miselect, siselect
    + 4 * 4  # scounteren, mcounteren, scountinhibit, mcountinhibit
    + 32 * 2 * 8  # pmu_ctrs
    + 32 * 8  # mhpmevent_val
    + 3 * 8  # sscratch, mscratch, stimecmp
)
FULL = RiscvCpu(
    gpr=tuple(range(100, 132)),
    fpr=tuple(range(200, 232)),
    pc=1,
    priv=0,
    mhartid=2,
    mstatus=3,
    mip=4,
    mie=5,
    satp=6,
    stval=7,
    stvec=8,
    sepc=9,
    scause=10,
    sscratch=11,
    scounteren=12,
    senvcfg=13,
    timer=KvmTimer(14, 15, 1),
    mp_state=5,
)

# A vector register is 16 words of 64 bits, whatever its length.
VECTORS = Vectors(
    v=tuple(number << 64 | 0x100 + number for number in range(32)),
    vtype=1 << 63 | 2,
    vl=3,
    vstart=4,
)

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
FILE = st.tuples(*[U64] * 32)
_SMALL = {"gpr": FILE, "fpr": FILE, "priv": st.integers(0, 255), "scounteren": U32}
UNITS = st.builds(
    Vectors,
    v=st.lists(st.integers(0, 2**1024 - 1), min_size=1, max_size=3).map(
        lambda v: tuple((v * 32)[:32])
    ),
    vtype=U64,
    vl=U32,
    vstart=U32,
)
CPUS = st.builds(
    RiscvCpu,
    vector=st.none() | UNITS,
    timer=st.none() | st.builds(KvmTimer, U64, U64, U64),
    mp_state=st.none() | U32,
    **{
        each.name: _SMALL.get(each.name, U64)
        for each in dataclasses.fields(RiscvCpu)
        if each.name not in ("timer", "mp_state", "vector")
    },
)


def section(cpu: RiscvCpu = FULL, layout: CpuLayout = TWELVE) -> bytes:
    return full_section(SECTION, INSTANCE, cpu, layout)


def read(
    data: bytes, layout: CpuLayout = TWELVE, *, takes_mp_state: bool = True
) -> RiscvCpu:
    """Read from behind the section's id; what is asked for behind the end is cut."""
    at = 5
    reading = read_rest(
        SECTION, INSTANCE, layout, takes_mp_state=takes_mp_state, position=at
    )
    wanted = next(reading)
    while True:
        piece, at = data[at : at + wanted], at + wanted
        try:
            wanted = reading.send(piece)
        except StopIteration as end:
            assert at == len(data)
            cpu: RiscvCpu = end.value
            return cpu


def test_a_value_stands_where_qemu_has_it() -> None:
    data = section()
    assert data[:BASE] == b"\4" + struct.pack(">I", 45) + b"\3cpu" + struct.pack(
        ">II", 2, 12
    )
    words = {
        0: FULL.gpr[0],
        31 * 8: FULL.gpr[31],
        32 * 8: FULL.fpr[0],
        640: FULL.pc,
        648: 2**64 - 1,  # load_res
        715: FULL.mhartid,
        723: FULL.mstatus,
        731: FULL.mip,
        739: 1 << 12,  # miclaim: SGEIP
        747: FULL.mie,
        787: FULL.satp,
        795: FULL.stval,
        811: FULL.stvec,
        819: FULL.sepc,
        827: FULL.scause,
        1411 + 256: FULL.sscratch,
    }
    for offset, value in words.items():
        assert struct.unpack_from(">Q", data, BASE + offset) == (value,), offset
    assert data[BASE + 705] == FULL.priv
    assert data[BASE + 883 : BASE + 887] == FULL.scounteren.to_bytes(4, "big")
    assert data[BASE + 512 + 11] == 0  # miprio of the M external interrupt
    assert data[BASE + 512 + 9] == 19  # IPRIO_DEFAULT_S
    assert data[BASE + 512 + 63] == 255


def test_base_and_subsections_have_the_sizes_of_their_fields() -> None:
    timer = 1 + 1 + len("cpu/kvmtimer") + 4 + 3 * 8
    mp_state = 1 + 1 + len("cpu/kvm-mp-state") + 4 + 4
    envcfg = 1 + 1 + len("cpu/envcfg") + 4 + 3 * 8
    frame = BASE + 5
    assert BASE_SIZE == 1691
    assert len(section()) == frame + BASE_SIZE + timer + mp_state + envcfg
    assert len(section(layout=ELEVEN)) == frame + BASE_SIZE + timer + envcfg
    bare = dataclasses.replace(FULL, timer=None, mp_state=None)
    assert len(section(bare)) == frame + BASE_SIZE + envcfg
    assert len(section(bare, FOURTH)) == frame + BASE_SIZE + 4 + envcfg


def test_a_subsection_has_its_frame() -> None:
    at = section().index(b"\5\x0ccpu/kvmtimer")
    assert at == BASE + BASE_SIZE
    assert section()[at + 14 :].startswith(struct.pack(">IQQQ", 1, 14, 15, 1))
    assert b"\5\x10cpu/kvm-mp-state" + struct.pack(">II", 1, 5) in section()


@given(CPUS)
def test_what_was_written_is_read(cpu: RiscvCpu) -> None:
    assert read(section(cpu)) == cpu
    eleven = dataclasses.replace(cpu, mp_state=None)
    assert read(section(cpu, ELEVEN), ELEVEN) == eleven


def test_vectors_stand_where_qemu_has_them() -> None:
    cpu = dataclasses.replace(FULL, vector=VECTORS)
    data = section(cpu)
    # The first of the subsections, version 3 since QEMU 11.0.
    frame = b"\5\x0acpu/vector" + struct.pack(">I", 3)
    began = BASE + BASE_SIZE
    assert data[began : began + len(frame)] == frame
    at = began + len(frame)
    words = struct.unpack_from(">512Q", data, at)
    for number in range(32):
        told = words[16 * number : 16 * number + 16]
        assert told == (0x100 + number, number, *[0] * 14)
    # vtype, vl, vstart, vxrm, vxsat, vill
    assert struct.unpack_from(">QIIBBB", data, at + 4096) == (
        1 << 63 | 2,
        3,
        4,
        0,
        0,
        1,
    )
    assert data[at + 4096 + 19 :].startswith(b"\5\x0ccpu/kvmtimer")
    assert read(data) == cpu


@pytest.mark.parametrize(
    ("vector", "misa"), [(None, 0x0000_112D), (VECTORS, 0x0020_112D)]
)
def test_misa_has_v_where_vectors_are_sent(vector: Vectors | None, misa: int) -> None:
    data = section(dataclasses.replace(FULL, vector=vector))
    # priv_ver 1.13, vext_ver 1.0 at any rate, RV64, misa_ext, unused, misa_ext_mask
    assert struct.unpack_from(">6I", data, BASE + 681) == (
        3,
        0x1_0000,
        2,
        misa,
        0,
        misa,
    )


def test_the_description_has_the_vectors() -> None:
    told = describe(INSTANCE, dataclasses.replace(FULL, vector=VECTORS), TWELVE)
    subsections = told["subsections"]
    assert isinstance(subsections, list)
    assert [(each["vmsd_name"], each["version"]) for each in subsections] == [
        ("cpu/vector", 3),
        ("cpu/kvmtimer", 1),
        ("cpu/kvm-mp-state", 1),
        ("cpu/envcfg", 2),
    ]
    assert [(each["name"], each["type"]) for each in subsections[0]["fields"]] == [
        ("env.vreg", "uint64"),
        ("env.vtype", "uint64"),
        ("env.vl", "uint32"),
        ("env.vstart", "uint32"),
        ("env.vxrm", "uint8"),
        ("env.vxsat", "uint8"),
        ("env.vill", "bool"),
    ]


@pytest.mark.parametrize(
    ("vector", "what"),
    [
        (Vectors(v=(1 << 1024,) * 32), "vreg"),
        (Vectors(v=(-1,) * 32), "vreg"),
        (Vectors(v=(0,) * 31), "vreg"),
        (Vectors(vl=1 << 32), "vl"),
        (Vectors(vtype=1 << 64), "vtype"),
    ],
)
def test_vectors_that_do_not_fit_are_not_written(vector: Vectors, what: str) -> None:
    with pytest.raises(ValueError, match=f"env.{what}"):
        section(dataclasses.replace(FULL, vector=vector))


@pytest.mark.parametrize(
    "values", [{"scounteren": 1 << 32}, {"priv": 256}, {"pc": 1 << 64}, {"pc": -1}]
)
def test_a_value_that_does_not_fit_is_not_written(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        section(dataclasses.replace(FULL, **values))  # type: ignore[arg-type]


def test_the_description_explains_the_section() -> None:
    name = SectionName("cpu", INSTANCE)
    description = describe(INSTANCE, FULL, TWELVE)
    assert description["name"] == "cpu"
    assert description["instance_id"] == INSTANCE
    assert description["version"] == 12
    fields = description["fields"]
    assert isinstance(fields, list)
    assert fields[0] == {
        "name": "env.gpr",
        "array_len": 32,
        "type": "uint64",
        "size": 8,
    }
    document = vmdesc.vm_description([description], page_size=4096)
    stream = b"".join(
        (
            framing.STREAM_HEAD,
            section(),
            framing.STREAM_END,
            framing.vm_description(vmdesc.text_of(document)),
        )
    )
    records = [each.record for each in read_stream(memoryview(stream))]
    assert isinstance(records[1], SectionFull)
    state = records[2]
    assert isinstance(state, VmState)
    assert find(state, ["env.priv"]) == 0
    assert find(state, ["env.gpr", 10]) == FULL.gpr[10]
    assert find(state, ["cpu/kvm-mp-state", "env.kvm_mp_state"]) == 5
    assert find(state, ["cpu/kvmtimer", "env.kvm_timer_compare"]) == 15
    assert vmdesc.devices_of(document.document)[name] == description


# --- streams that lie --------------------------------------------------------------


@pytest.mark.parametrize("layout", [ELEVEN, TWELVE])
def test_a_section_of_another_version_is_refused(layout: CpuLayout) -> None:
    other = TWELVE if layout is ELEVEN else ELEVEN
    text = f"version {other.version} cannot be loaded, only {layout.version}"
    with pytest.raises(StreamError, match=text) as error:
        read(section(layout=other), layout)
    assert error.value.position == BASE - 4


def test_a_section_cut_anywhere_is_told_where() -> None:
    data = section()
    for size in range(5, len(data)):
        with pytest.raises(StreamError, match="ends within section 'cpu'") as error:
            read(data[:size])
        assert error.value.position == size


@pytest.mark.parametrize(
    ("old", "new", "text", "position"),
    [
        (b"\3cpu", b"\3gpu", "'gpu' is no section 'cpu'", 5),
        (b"\3cpu\0\0\0\2", b"\3cpu\0\0\0\1", "instance 1 of 'cpu' comes before 2", 9),
        (b"\x0ccpu/kvmtimer", b"\x0ccpu/kvmtimes", "'cpu/kvmtimes' is not known", 1708),
        (
            b"timer\0\0\0\1",
            b"timer\0\0\0\2",
            "version 2 cannot be loaded, only 1",
            1722,
        ),
        (b"\5\x0acpu", b"\1\x0acpu", "0x01 begins no subsection or footer", 1776),
        (b"\x7e\0\0\0\x2d", b"\x7e\0\0\0\x2e", "the footer of section 46", 1817),
    ],
)
def test_what_does_not_belong_there_is_refused(
    old: bytes, new: bytes, text: str, position: int
) -> None:
    data = section()
    assert data.count(old) == 1
    with pytest.raises(StreamError, match=text) as error:
        read(data.replace(old, new))
    assert error.value.position == position


def test_a_subsection_that_comes_twice_is_refused() -> None:
    data = section()
    first, rest = data.index(b"\5\x10cpu/kvm"), data.index(b"\5\x0acpu/env")
    with pytest.raises(StreamError, match="'cpu/kvm-mp-state' comes twice") as error:
        read(data[:rest] + data[first:])
    assert error.value.position == rest


def test_an_mp_state_is_refused_where_kvm_takes_none() -> None:
    with pytest.raises(StreamError, match="ENOTSUP") as error:
        read(section(), takes_mp_state=False)
    assert error.value.position == section().index(b"\5\x10cpu/kvm")
    bare = dataclasses.replace(FULL, mp_state=None)
    assert read(section(bare), takes_mp_state=False) == bare


def test_version_11_knows_no_mp_state() -> None:
    forged = section().replace(struct.pack(">II", 2, 12), struct.pack(">II", 2, 11), 1)
    with pytest.raises(StreamError, match="'cpu/kvm-mp-state' is not known"):
        read(forged, ELEVEN)


def test_without_a_new_version_no_gate_tells_the_fourth_patch_from_its_base() -> None:
    assert read(section(layout=FOURTH), FOURTH) == FULL
    with pytest.raises(StreamError, match="begins no subsection") as error:
        read(section(layout=FOURTH), ELEVEN)
    assert error.value.position == BASE + BASE_SIZE
    with pytest.raises(StreamError, match="begins no subsection"):
        read(section(layout=ELEVEN), FOURTH)


@given(st.data())
def test_damage_is_an_error_with_a_position_or_another_cpu(data: st.DataObject) -> None:
    whole = bytearray(section())
    at = data.draw(st.integers(5, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        cpu = read(bytes(whole))
    except StreamError as error:
        where = error.position
    else:
        # Some bytes are values, and of any value.
        where = 5 if isinstance(cpu, RiscvCpu) else 0
    assert 5 <= where <= len(whole)
