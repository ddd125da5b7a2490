"""QEMU's view of a hart: what each level puts, and the timer, which goes by itself."""

from __future__ import annotations

import dataclasses
import errno

import pytest

from tests.unit.vm.riscv.moving import name_of
from vfiomig.protocol.qemu_stream.riscv_cpu import (
    CpuLayout,
    KvmTimer,
    MpStatePlace,
    RiscvCpu,
    Vectors,
)
from vfiomig.vm.riscv.cpu import Cpu
from vfiomig.vm.riscv.hart import Hart
from vfiomig.vm.riscv.kvm import KvmVcpu
from vfiomig.vm.riscv.sync import (
    MP_STATE,
    POLICIES,
    MpStatePut,
    PutLevel,
    SyncPolicy,
)

RUNNABLE, STOPPED = 0, 5
ALL = list(POLICIES.values())
# The fourth version of the patch (A6): put at every level, a field, no new version.
FOURTH = dataclasses.replace(
    MP_STATE,
    name="v4",
    layout=CpuLayout(11, MpStatePlace.FIELD),
    at_runtime=MpStatePut.ALWAYS,
    at_full=MpStatePut.ALWAYS,
)
# The ninth: a reset picks a boot hart at random; here it has picked this one.
NINTH = dataclasses.replace(MP_STATE, name="v9", boot_hart=1)


def cpu(policy: SyncPolicy, index: int = 0, *, has_mp_state: bool = True) -> Cpu:
    hart = Hart(hart_id=index)
    return Cpu(KvmVcpu(hart, lambda: 0, has_mp_state=has_mp_state), policy)


def keeps_mp_state(it: Cpu, level: PutLevel) -> bool:
    """Tell whether a put leaves mp_state alone, whichever it is."""
    kept = True
    for is_stopped in (False, True):
        it.vcpu.hart.is_stopped = is_stopped
        it.put_registers(level)
        kept &= it.vcpu.hart.is_stopped is is_stopped
    return kept


@pytest.mark.parametrize("policy", ALL, ids=name_of)
@pytest.mark.parametrize("index", [0, 1])
def test_a_runtime_put_never_touches_mp_state(policy: SyncPolicy, index: int) -> None:
    it = cpu(policy, index)
    it.load(RiscvCpu(mp_state=STOPPED))
    assert keeps_mp_state(it, PutLevel.RUNTIME)


def test_the_fourth_version_touches_it() -> None:
    assert not keeps_mp_state(cpu(FOURTH), PutLevel.RUNTIME)


@pytest.mark.parametrize("policy", ALL, ids=name_of)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_reset_lets_the_first_hart_run_and_no_other(
    policy: SyncPolicy, index: int
) -> None:
    it = cpu(policy, index)
    it.load(RiscvCpu(mp_state=RUNNABLE))
    for was in (True, False):
        it.vcpu.hart.is_stopped = was
        it.reset(0x8000_0000, 0)
        it.put_registers(PutLevel.RESET)
        assert it.vcpu.hart.is_stopped is (index != 0)
        assert not it.mp_state_is_loaded
        assert it.mp_state == (STOPPED if index else RUNNABLE)


def test_a_random_boot_hart_is_not_the_first() -> None:
    for index, is_stopped in ((0, True), (1, False)):
        it = cpu(NINTH, index)
        it.put_registers(PutLevel.RESET)
        assert it.vcpu.hart.is_stopped is is_stopped


def test_forcing_is_of_the_secondaries_alone() -> None:
    assert keeps_mp_state(cpu(POLICIES["all-runnable"], 0), PutLevel.FULL)
    it = cpu(POLICIES["all-runnable"], 1)
    it.put_registers(PutLevel.FULL)
    assert it.vcpu.get_mp_state() == RUNNABLE


def test_a_full_put_sets_what_was_loaded_and_else_nothing() -> None:
    it = cpu(MP_STATE, 1)
    assert keeps_mp_state(it, PutLevel.FULL)
    it.load(RiscvCpu(mp_state=RUNNABLE))
    it.put_registers(PutLevel.FULL)
    assert it.vcpu.get_mp_state() == RUNNABLE
    it.load(RiscvCpu(mp_state=None))  # a stream of a source without the capability
    assert keeps_mp_state(it, PutLevel.FULL)


@pytest.mark.parametrize("policy", ALL, ids=name_of)
def test_m_is_never_written_as_mode(policy: SyncPolicy) -> None:
    it = cpu(policy)
    it.priv = 3
    if policy.puts_mode and not policy.skips_m:
        with pytest.raises(OSError, match="priv is M") as error:
            it.put_registers(PutLevel.FULL)
        assert error.value.errno == errno.EINVAL
    else:
        it.put_registers(PutLevel.FULL)
    assert it.vcpu.get("mode") == 1


@pytest.mark.parametrize("level", PutLevel)
def test_the_mode_is_put_at_every_level(level: PutLevel) -> None:
    it = cpu(MP_STATE)
    it.priv = 0
    it.put_registers(level)
    assert it.vcpu.get("mode") == 0


@pytest.mark.parametrize("level", PutLevel)
def test_a_runtime_put_leaves_floating_point_alone(level: PutLevel) -> None:
    it = cpu(MP_STATE)
    it.pc, it.gpr[10], it.csr["satp"], it.fpr[3] = 1, 2, 3, 4
    it.put_registers(level)
    hart = it.vcpu.hart
    assert (hart.pc, hart.x[10], it.vcpu.get("satp")) == (1, 2, 3)
    assert hart.f[3] == (0 if level is PutLevel.RUNTIME else 4)


# --- V, and what QEMU does not know --------------------------------------------------

UNIT = Vectors(tuple(range(1 << 120, (1 << 120) + 32)), 1 << 63, 7, 3)


@pytest.mark.parametrize("level", PutLevel)
def test_a_runtime_put_leaves_vectors_alone(level: PutLevel) -> None:
    it = cpu(MP_STATE)
    it.vector = UNIT
    it.put_registers(level)
    unit = it.vcpu.hart.vector
    put = (tuple(unit.v), unit.vtype, unit.vl, unit.vstart)
    assert put == (Vectors() if level is PutLevel.RUNTIME else UNIT)


def test_vectors_are_got_sent_and_loaded() -> None:
    it, there = cpu(MP_STATE), cpu(MP_STATE)
    it.vector = UNIT
    it.put_registers(PutLevel.FULL)
    it.vector = Vectors()
    it.get_registers()
    assert it.save().vector == UNIT
    there.load(it.save())
    there.put_registers(PutLevel.FULL)
    assert [there.vcpu.get(f"v{number}") for number in range(32)] == list(UNIT.v)


def test_vl_and_vstart_have_32_bits_in_qemu() -> None:
    it = cpu(MP_STATE)
    it.vcpu.set("vl", 1 << 32 | 5)
    it.vcpu.set("vstart", 1 << 63 | 6)
    it.get_registers()
    assert it.vector is not None
    assert (it.vector.vl, it.vector.vstart) == (5, 6)


def test_of_a_longer_vector_register_the_low_bytes_are_put() -> None:
    it = cpu(MP_STATE)
    it.load(RiscvCpu(vector=Vectors(v=((1 << 1024) - 1,) * 32)))
    it.put_registers(PutLevel.FULL)
    assert it.vcpu.get("v31") == (1 << 128) - 1


# kvm_riscv_get_regs_fp and _put_regs_fp of QEMU 11.1 ask for f[0] to f[31]; those of
# vectors for vstart, vl, vtype, vlenb and v0 to v31.  Nobody asks for these two.
@pytest.mark.parametrize("name", ["fcsr", "vcsr"])
def test_qemu_neither_gets_nor_puts_it_though_kvm_has_it(name: str) -> None:
    it, there = cpu(MP_STATE), cpu(MP_STATE)
    it.vcpu.set(name, 0x7)
    it.get_registers()
    there.load(it.save())
    for level in PutLevel:
        there.put_registers(level)
        it.reset(0, 0)
        it.put_registers(level)
    assert there.vcpu.get(name) == 0  # lost
    assert it.vcpu.get(name) == 0x7  # and not even a reset clears it


def bare(vector: Vectors | None = None) -> Cpu:
    """Return a CPU of a host without V that has loaded a vector unit, or none."""
    it = Cpu(KvmVcpu(Hart(hart_id=0), lambda: 0, has_vector=False), MP_STATE)
    it.load(RiscvCpu(vector=vector))
    return it


def test_without_v_no_vectors_are_got_put_or_sent() -> None:
    it = bare()
    it.put_registers(PutLevel.FULL)
    it.get_registers()
    assert it.save().vector is None


def test_vectors_that_kvm_does_not_have_are_never_dropped() -> None:
    with pytest.raises(OSError, match="no register") as error:
        bare(UNIT).put_registers(PutLevel.FULL)
    assert error.value.errno == errno.ENOENT


def test_misa_without_v_is_loaded_as_well() -> None:
    it = cpu(MP_STATE)
    it.load(RiscvCpu(vector=None))
    it.vcpu.set("v1", 5)
    it.put_registers(PutLevel.FULL)
    it.get_registers()
    assert it.save().vector is None
    assert it.vcpu.get("v1") == 5


def test_a_reset_leaves_floating_point_and_vectors_as_they_are() -> None:
    it = cpu(MP_STATE)
    it.fpr[3], it.vector, it.gpr[3] = 4, UNIT, 5
    it.reset(0x8000_0000, 0)
    it.put_registers(PutLevel.RESET)
    get = it.vcpu.get
    assert (get("f3"), get("v0"), get("gp")) == (4, UNIT.v[0], 0)


def test_what_qemu_has_is_not_got_again() -> None:
    it = cpu(MP_STATE)
    it.put_registers(PutLevel.FULL)
    it.vcpu.set("pc", 0x100)
    it.synchronize()
    assert it.pc == 0x100
    assert it.is_dirty
    it.vcpu.set("pc", 0x200)
    it.synchronize()
    assert it.pc == 0x100


@pytest.mark.parametrize("policy", ALL, ids=name_of)
def test_only_a_policy_that_gets_the_mode_has_it_in_the_stream(
    policy: SyncPolicy,
) -> None:
    it = cpu(policy)
    it.vcpu.set("mode", 0)
    it.get_registers()
    assert it.save().priv == (0 if policy.gets_mode else 1)


@pytest.mark.parametrize(
    ("policy", "has_cap", "sent"),
    [
        ("unpatched", True, None),
        ("all-runnable", True, None),
        ("mp-state", True, STOPPED),
        ("mp-state", False, None),
    ],
)
def test_mp_state_is_sent_by_who_gets_it_where_kvm_tells_it(
    policy: str, has_cap: bool, sent: int | None
) -> None:
    it = cpu(POLICIES[policy], 1, has_mp_state=has_cap)
    it.get_registers()
    assert it.save().mp_state == sent


def test_an_mp_state_that_kvm_cannot_take_is_never_dropped() -> None:
    it = cpu(MP_STATE, has_mp_state=False)
    with pytest.raises(OSError, match="KVM_CAP_MP_STATE") as error:
        it.load(RiscvCpu(mp_state=RUNNABLE))
    assert error.value.errno == errno.ENOTSUP


def test_the_fourth_version_drops_it() -> None:
    it = cpu(FOURTH, 1, has_mp_state=False)
    it.load(RiscvCpu(mp_state=RUNNABLE))
    it.put_registers(PutLevel.FULL)
    assert it.vcpu.hart.is_stopped


# --- the timer ---------------------------------------------------------------------


def test_the_timer_is_got_once_and_put_once() -> None:
    host = 100
    it = Cpu(KvmVcpu(Hart(hart_id=0), lambda: host), MP_STATE)
    it.vcpu.set("timer.compare", 500)
    it.vcpu.set("timer.state", 1)
    it.get_timer()
    assert it.timer == KvmTimer(100, 500, 1)
    host = 900
    it.get_timer()
    assert it.timer == KvmTimer(100, 500, 1)
    it.vcpu.set("timer.compare", 0)
    assert it.put_timer() is None
    # Time goes on from where it stood.
    assert [it.vcpu.get(f"timer.{name}") for name in KvmTimer._fields] == [100, 500, 1]
    it.vcpu.set("timer.compare", 7)
    assert it.put_timer() is None
    assert it.vcpu.get("timer.compare") == 7


def test_no_timer_is_turned_off_that_is_off() -> None:
    it = cpu(MP_STATE)
    it.load(RiscvCpu(timer=KvmTimer(1, 2, 0)))
    assert it.put_timer() is None  # KVM would refuse it
    assert it.vcpu.get("timer.state") == 0


def test_no_put_of_registers_moves_the_timer() -> None:
    it = cpu(MP_STATE)
    it.load(RiscvCpu(timer=KvmTimer(1, 2, 1)))
    for level in PutLevel:
        it.put_registers(level)
    assert it.vcpu.get("timer.compare") == 0


def test_another_frequency_is_reported_and_the_timer_put_all_the_same() -> None:
    it = cpu(MP_STATE)
    it.load(RiscvCpu(timer=KvmTimer(1, 2, 1)))
    it.timer_frequency = 24_000_000
    assert it.put_timer() == (
        "hart 0: the timer has 10000000 Hz here, and had 24000000 Hz"
    )
    assert it.vcpu.get("timer.compare") == 2
