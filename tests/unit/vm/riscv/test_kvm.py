"""A vCPU as KVM shows it: A1 to A3 of the facts."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.vm.riscv.hart import CSR, FREQUENCY, Hart, Start
from vfiomig.vm.riscv.kvm import KvmVcpu
from vfiomig.vm.riscv.registers import NUMBERS

S, U, M = 1, 0, 3
RUNNABLE, STOPPED = 0, 5
OFF, ON = 0, 1
WORDS = st.integers(0, 2**64 - 1)


def vcpu(index: int = 0, *, has_mp_state: bool = True, ticks: int = 0) -> KvmVcpu:
    return KvmVcpu(Hart(hart_id=index), lambda: ticks, has_mp_state=has_mp_state)


def test_the_first_vcpu_is_made_on_and_all_others_off_in_s() -> None:
    made = [vcpu(index) for index in range(3)]
    assert [each.get_mp_state() for each in made] == [RUNNABLE, STOPPED, STOPPED]
    assert [each.get("mode") for each in made] == [S, S, S]


@given(WORDS)
def test_mode_is_s_if_1_was_written_and_else_u(value: int) -> None:
    it = vcpu()
    it.set("mode", value)
    assert it.get("mode") == (S if value == 1 else U)


def test_m_written_as_mode_selects_u() -> None:
    it = vcpu()
    it.set("mode", M)
    assert it.get("mode") == U


@given(WORDS, WORDS)
def test_mode_and_sstatus_are_independent(mode: int, sstatus: int) -> None:
    it = vcpu()
    it.set("mode", mode)
    it.set("sstatus", sstatus)
    assert it.get("mode") == (S if mode == 1 else U)
    assert it.get("sstatus") == sstatus


def test_a_register_is_the_one_of_its_name() -> None:
    it = vcpu()
    # Those that take no value, and those that show others once more, have dots.
    names = [name for name in NUMBERS if "." not in name]
    names.remove("mode")
    names.remove("vlenb")
    for number, name in enumerate(names):
        it.set(name, number)
    assert [it.get(name) for name in names] == list(range(len(names)))
    assert it.hart.pc == 0  # the first of the list
    assert it.hart.x == list(range(32))  # behind it x1 to x31
    assert it.hart.csr == list(range(32, 43))
    assert it.hart.f == list(range(43, 75))
    assert it.hart.fcsr == 75
    unit = it.hart.vector
    assert (unit.vstart, unit.vl, unit.vtype, unit.vcsr) == (76, 77, 78, 79)
    assert unit.v == list(range(80, 112))
    assert it.hart.csr[CSR["satp"]] == it.get("satp")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0x8030_0000_0200_0021, errno.ENOENT),  # behind the core's last
        (0x8030_0000_0201_0000, errno.ENOENT),  # the core has no subtypes
        (0x8030_0000_0300_000B, errno.ENOENT),  # behind senvcfg
        (0x8030_0000_0301_0000, errno.ENOENT),  # AIA
        (0x8030_0000_0302_0000, errno.ENOENT),  # Smstateen
        (0x8030_0000_0400_0004, errno.ENOENT),
        (0x8030_0001_0200_0000, errno.ENOENT),  # a bit of no part
        (0x8030_0000_0F00_0000, errno.ENOENT),  # no such type
        (0x6030_0000_0200_0000, errno.ENOENT),  # ARM's
        (0x8020_0000_0200_0000, errno.EINVAL),  # pc of RV32
        (0x8020_0000_0300_0000, errno.EINVAL),
        (0x8020_0000_0400_0001, errno.EINVAL),
        (0x8020_0000_0600_0000, errno.EINVAL),
        (0x8030_0000_0100_0001, errno.ENOENT),  # the block size of Zicbom
        (0x8030_0000_0100_0005, errno.ENOENT),  # of Zicboz
        (0x8030_0000_0100_0007, errno.ENOENT),  # of Zicbop
        (0x8020_0000_0100_0000, errno.EINVAL),
        (0x8020_0000_0500_0021, errno.ENOENT),  # behind F's fcsr
        (0x8030_0000_0500_0000, errno.EINVAL),
        (0x8030_0000_0500_0021, errno.EINVAL),  # F's size is looked at first
        (0x8030_0000_0600_0020, errno.EINVAL),  # D's fcsr has 32 bits
        (0x8020_0000_0600_0021, errno.ENOENT),  # D's index is looked at first
        (0x8020_0000_0601_0000, errno.ENOENT),  # and a subtype is part of it
        (0x8030_0000_0900_0005, errno.ENOENT),  # the pointer to the registers
        (0x8020_0000_0900_0000, errno.EINVAL),
        (0x8030_0000_0900_0006, errno.EINVAL),  # v0 in 8 bytes
        (0x8050_0000_0900_0006, errno.EINVAL),  # and in 32
        (0x8040_0000_0900_0026, errno.ENOENT),  # behind v31
    ],
)
def test_what_is_no_register_is_refused(number: int, code: int) -> None:
    it = vcpu()
    with pytest.raises(OSError, match="0x") as got:
        it.get_one_reg(number)
    assert got.value.errno == code
    with pytest.raises(OSError, match="0x") as put:
        it.set_one_reg(number, 0)
    assert put.value.errno == code


@pytest.mark.parametrize(
    ("name", "bits"),
    [("a0", 64), ("fp_f.f0", 32), ("fcsr", 32), ("vl", 64), ("v0", 128)],
)
def test_a_value_of_more_bits_than_the_register_is_refused(
    name: str, bits: int
) -> None:
    it = vcpu()
    it.set(name, 2**bits - 1)
    for value in (-1, 1 << bits):
        with pytest.raises(OSError, match=f"{name}: .* {bits} bits") as error:
            it.set(name, value)
        assert error.value.errno == errno.EINVAL
    assert it.get(name) == 2**bits - 1


# --- FP_F, V and CONFIG ------------------------------------------------------------


def union_of(vcpu: KvmVcpu) -> bytes:
    """Return struct __riscv_d_ext_state as it lies in memory: f[32], fcsr."""
    doubles = [vcpu.get(f"f{number}") for number in range(32)]
    return struct.pack("<32QI", *doubles, vcpu.get("fcsr"))


@given(st.integers(0, 31), WORDS)
def test_fp_f_is_the_memory_of_fp_d_and_not_its_low_halves(at: int, value: int) -> None:
    it = vcpu()
    it.set(f"f{at}", value)
    it.set("fcsr", 0x77)
    # struct __riscv_f_ext_state, which the union has at the same place.
    *singles, fcsr = struct.unpack_from("<33I", union_of(it))
    assert [it.get(f"fp_f.f{number}") for number in range(32)] == singles
    assert it.get("fp_f.fcsr") == fcsr == it.get("f16") % 2**32


@given(st.integers(0, 32), st.integers(0, 2**32 - 1), WORDS)
def test_a_write_of_fp_f_changes_one_word_of_that_memory(
    at: int, value: int, other: int
) -> None:
    it = vcpu()
    for number in range(32):
        it.set(f"f{number}", other)
    wanted = bytearray(union_of(it))
    struct.pack_into("<I", wanted, 4 * at, value)
    it.set("fp_f.fcsr" if at == 32 else f"fp_f.f{at}", value)
    assert union_of(it) == wanted


def test_only_its_own_vlenb_can_be_set() -> None:
    it = vcpu()
    assert it.get("vlenb") == 16
    it.set("vlenb", 16)
    for value in (0, 15, 32):
        with pytest.raises(OSError, match="the host's have 16") as error:
            it.set("vlenb", value)
        assert error.value.errno == errno.EINVAL


def test_config_is_what_the_host_is() -> None:
    names = ("isa", "mvendorid", "marchid", "mimpid", "satp_mode")
    # I, M, A, F, D, C, V by their places in the alphabet; Sv39 is mode 8.
    isa = 1 << 8 | 1 << 12 | 1 | 1 << 5 | 1 << 3 | 1 << 2 | 1 << 21
    it = vcpu()
    assert [it.get(f"config.{name}") for name in names] == [isa, 0, 0, 0, 8]
    bare = KvmVcpu(Hart(hart_id=0), lambda: 0, has_vector=False)
    assert bare.get("config.isa") == isa & ~(1 << 21)


@pytest.mark.parametrize("name", ["mvendorid", "marchid", "mimpid", "isa"])
def test_another_config_is_refused_once_the_vcpu_has_run(name: str) -> None:
    it = vcpu()
    own = 0x112D if name == "isa" else 0x5B7  # the first is IMAFDC
    it.set(f"config.{name}", own)
    assert it.get(f"config.{name}") == own
    it.has_run = True
    it.set(f"config.{name}", own)
    with pytest.raises(OSError, match="has run") as error:
        it.set(f"config.{name}", 1)
    assert error.value.errno == errno.EBUSY
    assert it.get(f"config.{name}") == own


@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize(
    ("name", "value"), [("satp_mode", 10), ("isa", 1 << 25), ("isa", 1 << 63)]
)
def test_what_no_config_takes_is_invalid(name: str, value: int, has_run: bool) -> None:
    it = vcpu()
    it.has_run = has_run
    with pytest.raises(OSError, match=name) as error:
        it.set(f"config.{name}", value)
    assert error.value.errno == errno.EINVAL


def test_isa_takes_f_d_and_v_away_and_nothing_else() -> None:
    it = vcpu()
    host = it.get("config.isa")
    it.set("config.isa", 1 << 7)  # H, which no guest gets
    assert it.get("config.isa") == host & ~(1 << 5 | 1 << 3 | 1 << 21)
    assert not {"f0", "fcsr", "fp_f.f0", "v0", "vl"} & set(it.register_names())
    for name in ("f0", "fcsr", "fp_f.f0", "v0", "vl"):
        with pytest.raises(OSError, match="no register") as error:
            it.get(name)
        assert error.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="no register") as error:
        it.get_one_reg(0x8030_0000_0900_0006)  # without V no size is looked at
    assert error.value.errno == errno.ENOENT
    it.set("config.isa", host)
    assert it.register_names() == tuple(NUMBERS)


# --- mp_state ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 0x050C6370])
def test_riscv_has_two_mp_states(value: int) -> None:
    it = vcpu()
    with pytest.raises(OSError, match="mp_state") as error:
        it.set_mp_state(value)
    assert error.value.errno == errno.EINVAL
    assert it.get_mp_state() == RUNNABLE


def test_made_runnable_it_is_as_it_was_when_it_stopped() -> None:
    it = vcpu(1)
    it.hart.pc, it.hart.x[10], it.hart.mode = 0x1234, 7, U
    it.set_mp_state(RUNNABLE)
    assert it.get_mp_state() == RUNNABLE
    assert (it.get("pc"), it.get("a0"), it.get("mode")) == (0x1234, 7, U)


def test_made_runnable_it_still_waits() -> None:
    it = vcpu()
    it.hart.is_waiting = True
    it.set_mp_state(RUNNABLE)
    assert it.hart.is_waiting


def test_one_in_wfi_is_runnable_and_a_kick_ends_that() -> None:
    it = vcpu()
    it.hart.is_waiting = True
    assert it.get_mp_state() == RUNNABLE
    it.kick()
    assert not it.hart.is_waiting


def test_a_queued_start_shows_as_runnable_and_in_no_register() -> None:
    it = vcpu(1)
    before = {name: it.get(name) for name in NUMBERS}
    it.hart.start = Start(0x8000_0000, 9)
    it.hart.is_stopped = False  # what hart_start does
    assert it.get_mp_state() == RUNNABLE
    assert {name: it.get(name) for name in NUMBERS} == before


def test_without_the_capability_there_is_no_mp_state() -> None:
    it = vcpu(has_mp_state=False)
    with pytest.raises(OSError, match="KVM_CAP_MP_STATE"):
        it.get_mp_state()
    with pytest.raises(OSError, match="KVM_CAP_MP_STATE"):
        it.set_mp_state(STOPPED)
    assert not it.hart.is_stopped


# --- the timer ---------------------------------------------------------------------


def test_only_its_own_frequency_can_be_set() -> None:
    it = vcpu()
    assert it.get("timer.frequency") == FREQUENCY
    it.set("timer.frequency", FREQUENCY)
    with pytest.raises(OSError, match="Hz") as error:
        it.set("timer.frequency", FREQUENCY - 1)
    assert error.value.errno == errno.EINVAL


def test_a_timer_that_is_off_cannot_be_turned_off() -> None:
    it = vcpu()
    with pytest.raises(OSError, match="off already") as error:
        it.set("timer.state", OFF)
    assert error.value.errno == errno.EINVAL
    it.set("timer.state", ON)
    assert it.get("timer.state") == ON
    it.set("timer.state", OFF)
    assert it.get("timer.state") == OFF


def test_the_guests_time_goes_on_from_what_was_set() -> None:
    host = 1000
    it = KvmVcpu(Hart(hart_id=0), lambda: host)
    it.set("timer.time", 20)
    assert it.get("timer.time") == 20
    host += 5
    assert it.get("timer.time") == 25
    it.set("timer.compare", 2**64 - 1)
    assert it.get("timer.compare") == 2**64 - 1
