"""Harts in any state: the invariants I1 to I15 of A8, and the policies that break them.

What a policy must keep is stated once and held against all of them: the one that was
merged keeps it, and each that is known to be bad breaks what it is known for.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, find, given, settings
from hypothesis import strategies as st

from tests.unit.vm.riscv.moving import (
    BEHIND_STOP,
    Is,
    board,
    guest,
    memory,
    move,
    name_of,
)
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.riscv_cpu import CpuLayout, MpStatePlace
from vfiomig.uapi.kvm_riscv import KVM_RISCV_CSRS
from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.riscv import sbi
from vfiomig.vm.riscv.board import VirtBoard
from vfiomig.vm.riscv.cpu import Cpu
from vfiomig.vm.riscv.hart import FREQUENCY, Hart
from vfiomig.vm.riscv.hart_state import HartState, differences
from vfiomig.vm.riscv.kvm import KvmVcpu
from vfiomig.vm.riscv.program import Role, read_progress
from vfiomig.vm.riscv.sync import (
    ALL_RUNNABLE,
    MP_STATE,
    POLICIES,
    UNPATCHED,
    MpStatePut,
    PutLevel,
    SyncPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MS = 1_000_000
FOURTH = dataclasses.replace(
    MP_STATE,
    name="v4",
    layout=CpuLayout(11, MpStatePlace.FIELD),
    at_runtime=MpStatePut.ALWAYS,
    at_full=MpStatePut.ALWAYS,
)
NINTH = dataclasses.replace(MP_STATE, name="v9", boot_hart=1)

BOOLS = st.booleans()
# A guest has many harts, and a hart many registers: one example is many of each.
SOME = settings(max_examples=max(settings().max_examples // 4, 10))


@dataclasses.dataclass(frozen=True)
class Registers:
    """What a hart has beside mode and mp_state."""

    pc: int
    x: tuple[int, ...]
    csr: tuple[int, ...]
    f: tuple[int, ...]
    v: tuple[int, ...]
    vtype: int
    vl: int
    vstart: int
    timer: tuple[int, int, int]  # time, compare, state


@dataclasses.dataclass(frozen=True)
class AnyHart:
    """A hart in any state that KVM can show."""

    is_stopped: bool
    mode: int
    registers: Registers
    is_waiting: bool

    def settle(self, vcpu: KvmVcpu) -> None:
        """Make a vCPU's hart like this."""
        hart, told = vcpu.hart, self.registers
        hart.is_stopped, hart.mode = self.is_stopped, self.mode
        hart.is_waiting = self.is_waiting and not self.is_stopped
        hart.pc, hart.x[1:] = told.pc, told.x
        hart.csr[:], hart.f[:] = told.csr, told.f
        hart.vector.v[:] = told.v
        for name in ("vtype", "vl", "vstart"):
            setattr(hart.vector, name, getattr(told, name))
        time, compare, state = told.timer
        vcpu.set("timer.time", time)
        vcpu.set("timer.compare", compare)
        hart.timer_state = state


def _registers(seed: int) -> Registers:
    """Return registers of a seed: 0 has all of them 0, 1 all bits, others anything."""
    random = Random(seed)

    def word(bits: int = 64) -> int:
        return (0, 2**bits - 1)[seed] if seed < 2 else random.getrandbits(bits)

    return Registers(
        pc=word(),
        x=tuple(word() for _ in range(31)),
        csr=tuple(word(32 if n == "scounteren" else 64) for n in KVM_RISCV_CSRS),
        f=tuple(word() for _ in range(32)),
        v=tuple(word(128) for _ in range(32)),
        vtype=word(),
        vl=word(32),
        vstart=word(32),
        timer=(word(), word(), word(1)),
    )


REGISTERS = st.integers(0, 2**32).map(_registers)
HARTS = st.lists(
    st.builds(AnyHart, BOOLS, st.integers(0, 1), REGISTERS, BOOLS),
    min_size=1,
    max_size=6,
)
MERGED_OR_BAD = [MP_STATE, FOURTH, NINTH]


def settled(policy: SyncPolicy, harts: Sequence[AnyHart]) -> VirtBoard:
    """Return a board that runs, with its harts as told."""
    made = board(policy, len(harts))
    made.vm_start(0)
    for cpu, hart in zip(made.cpus, harts, strict=True):
        cpu.is_dirty = False
        hart.settle(cpu.vcpu)
    return made


def by_id(made: VirtBoard) -> dict[int, Hart]:
    return {hart.hart_id: hart for hart in made.harts}


def at_rest(made: VirtBoard) -> list[tuple[bool, int]]:
    return [(hart.is_stopped, hart.mode) for hart in made.harts]


# --- I1, I2, I3, I10, I13, I14, I15: what is carried --------------------------------


@pytest.mark.parametrize("policy", MERGED_OR_BAD, ids=name_of)
@SOME
@given(harts=HARTS)
def test_every_hart_is_what_it_was(policy: SyncPolicy, harts: list[AnyHart]) -> None:
    source, destination = settled(policy, harts), board(policy, len(harts))
    before = move(source, destination)
    assert differences(before, destination.states()) == ()
    for hart, vcpu in zip(harts, destination.vcpus, strict=True):
        assert vcpu.get("mode") == hart.mode
        assert vcpu.get_mp_state() == (5 if hart.is_stopped else 0)
        assert vcpu.hart.x == [0, *hart.registers.x]
        assert tuple(vcpu.hart.csr) == hart.registers.csr
        assert tuple(vcpu.hart.f) == hart.registers.f
        assert vcpu.hart.pc == hart.registers.pc
        unit = vcpu.hart.vector
        assert tuple(unit.v) == hart.registers.v
        assert (unit.vtype, unit.vl, unit.vstart) == (
            hart.registers.vtype,
            hart.registers.vl,
            hart.registers.vstart,
        )


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
@SOME
@given(harts=HARTS, lost=st.lists(st.integers(1, 2**32 - 1), min_size=2, max_size=2))
def test_fcsr_and_vcsr_are_lost_and_that_is_told(
    policy: SyncPolicy, harts: list[AnyHart], lost: list[int]
) -> None:
    # KVM has them as ONE_REG, and no QEMU up to 11.1 gets or puts them: kvm-cpu.c.
    source, destination = settled(policy, harts), board(policy, len(harts))
    source.vcpus[-1].set("fcsr", lost[0])
    source.vcpus[-1].set("vcsr", lost[1])
    before = move(source, destination)
    told = [line for line in differences(before, destination.states()) if "csr" in line]
    assert told == [
        f"hart {len(harts) - 1}: {name} 0x0, and the source's was {value:#x}"
        for name, value in zip(("fcsr", "vcsr"), lost, strict=True)
    ]


@SOME
@given(harts=HARTS)
def test_mode_and_sstatus_travel_apart(harts: list[AnyHart]) -> None:
    source, destination = settled(MP_STATE, harts), board(MP_STATE, len(harts))
    for vcpu in source.vcpus:
        # SPP of the guest's own sstatus says the opposite of the mode it is in.
        vcpu.set("sstatus", 0 if vcpu.get("mode") else 1 << 8)
    move(source, destination)
    for was, now in zip(source.vcpus, destination.vcpus, strict=True):
        for name in ("mode", "sstatus"):
            assert now.get(name) == was.get(name)


@SOME
@given(harts=HARTS)
def test_hsm_answers_as_before(harts: list[AnyHart]) -> None:
    source, destination = settled(MP_STATE, harts), board(MP_STATE, len(harts))
    move(source, destination)
    there = by_id(destination)
    for index, hart in enumerate(harts):
        was = sbi.hart_status(by_id(source), index)
        assert sbi.hart_status(there, index) == was
        started = sbi.hart_start(there, index, 0x8000_0000, 1)
        already = 0 if hart.is_stopped else -6  # SBI_ERR_ALREADY_AVAILABLE
        assert started.error == already


@SOME
@given(harts=HARTS)
def test_the_timer_goes_on_when_the_machine_starts(harts: list[AnyHart]) -> None:
    destination = board(MP_STATE, len(harts))
    move(settled(MP_STATE, harts), destination)
    destination.vm_start(0)
    for hart, vcpu in zip(harts, destination.vcpus, strict=True):
        names = ("time", "compare", "state")
        assert tuple(vcpu.get(f"timer.{name}") for name in names) == (
            hart.registers.timer
        )
    assert destination.reports == []


@SOME
@given(harts=HARTS, frequency=st.integers(1, 10**9))
def test_another_frequency_is_reported_and_fatal_to_nobody(
    harts: list[AnyHart], frequency: int
) -> None:
    assume(frequency != FREQUENCY)
    destination = board(MP_STATE, len(harts), frequency=frequency)
    move(settled(MP_STATE, harts), destination)
    for cpu in destination.cpus:
        cpu.timer_frequency = FREQUENCY
    destination.vm_start(0)
    assert len(destination.reports) == len(harts)
    assert destination.is_running


@SOME
@given(harts=HARTS)
def test_there_and_back_is_as_if_nothing_had_been(harts: list[AnyHart]) -> None:
    here, there = settled(MP_STATE, harts), board(MP_STATE, len(harts))
    before = move(here, there)
    back = board(MP_STATE, len(harts))
    there.vm_start(0)
    move(there, back)
    assert differences(before, back.states()) == ()
    back.vm_start(0)
    times = [(v.get("timer.time"), v.get("timer.compare")) for v in back.vcpus]
    assert times == [hart.registers.timer[:2] for hart in harts]


def loaded_alone(policy: SyncPolicy, source: VirtBoard) -> list[HartState]:
    """Load what a source sends into harts that saw no machine made, and no reset."""
    states = []
    for values in source.save():
        cpu = Cpu(KvmVcpu(Hart(hart_id=values.mhartid), lambda: 0), policy)
        cpu.load(values)
        cpu.put_registers(PutLevel.FULL)
        states.append(HartState.of(cpu.vcpu))
    return states


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
@SOME
@given(harts=HARTS)
def test_what_was_made_and_reset_before_does_not_show(
    policy: SyncPolicy, harts: list[AnyHart]
) -> None:
    source, destination = settled(policy, harts), board(policy, len(harts))
    move(source, destination)
    assert differences(loaded_alone(policy, source), destination.states()) == ()


def test_a_random_boot_hart_shows_where_no_mp_state_is_sent() -> None:
    source = guest(NINTH, Is.SUPERVISOR, Is.NEVER_STARTED, has_mp_state=False)
    destination = board(NINTH, 2)
    move(source, destination)
    assert differences(loaded_alone(NINTH, source), destination.states()) == (
        "hart 0: is stopped, and the source's ran",
        "hart 1: runs, and the source's was stopped",
    )


# --- I5 to I9: what is put -----------------------------------------------------------


def mp_states_kept(policy: SyncPolicy, harts: list[AnyHart], level: PutLevel) -> bool:
    """Tell whether a put leaves all mp_states as the kernel has them."""
    made = board(policy, len(harts))
    for hart, cpu in zip(harts, made.cpus, strict=True):
        cpu.vcpu.hart.is_stopped = hart.is_stopped
        cpu.put_registers(level)
    return [h.is_stopped for h in harts] == [h.is_stopped for h in made.harts]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
@SOME
@given(harts=HARTS)
def test_a_runtime_put_sets_no_mp_state(
    policy: SyncPolicy, harts: list[AnyHart]
) -> None:
    assert mp_states_kept(policy, harts, PutLevel.RUNTIME)


@SOME
@given(harts=HARTS)
def test_a_full_put_sets_none_where_none_was_loaded(harts: list[AnyHart]) -> None:
    assert mp_states_kept(MP_STATE, harts, PutLevel.FULL)


@pytest.mark.parametrize(
    ("policy", "level"),
    [(FOURTH, PutLevel.RUNTIME), (ALL_RUNNABLE, PutLevel.FULL)],
    ids=["v4", "all-runnable"],
)
def test_who_is_known_to_set_it_is_caught(policy: SyncPolicy, level: PutLevel) -> None:
    resting = AnyHart(True, 1, _registers(0), False)
    assert not mp_states_kept(policy, [resting, resting], level)


def is_reset(made: VirtBoard) -> bool:
    """Tell whether exactly hart 0 runs, all are in S, and nothing is loaded."""
    states = [(index != 0, 1) for index in range(len(made.harts))]
    loaded = any(cpu.mp_state_is_loaded for cpu in made.cpus)
    return at_rest(made) == states and not loaded


@SOME
@given(harts=HARTS)
def test_a_reset_leaves_hart_0_to_run_in_s(harts: list[AnyHart]) -> None:
    made = settled(MP_STATE, harts)
    made.system_reset()
    assert is_reset(made)
    destination = board(MP_STATE, len(harts))
    move(settled(MP_STATE, harts), destination)
    destination.system_reset()
    assert is_reset(destination)


@pytest.mark.parametrize("policy", [UNPATCHED, ALL_RUNNABLE, NINTH], ids=name_of)
def test_a_reset_that_does_not_is_caught(policy: SyncPolicy) -> None:
    made = settled(policy, [AnyHart(False, 0, _registers(0), False)])
    made.system_reset()
    assert not is_reset(made)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
@SOME
@given(count=st.integers(1, 6))
def test_a_cold_boot_is_as_the_reset_alone(policy: SyncPolicy, count: int) -> None:
    made = board(policy, count)  # FULL, then RESET
    alone = [
        Cpu(KvmVcpu(Hart(hart_id=index), lambda: 0), policy) for index in range(count)
    ]
    for cpu, other in zip(alone, made.cpus, strict=True):
        cpu.reset(other.pc, other.gpr[11])
        cpu.put_registers(PutLevel.RESET)
    states = [HartState.of(cpu.vcpu) for cpu in alone]
    assert differences(states, made.states()) == ()


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
@SOME
@given(harts=HARTS)
def test_a_second_full_put_changes_nothing(
    policy: SyncPolicy, harts: list[AnyHart]
) -> None:
    destination = board(policy, len(harts))
    move(settled(policy, harts), destination)
    once = destination.states()
    destination.post_init()
    assert destination.states() == once


# --- I11, I12: the stream ------------------------------------------------------------


@SOME
@given(harts=HARTS, source_has=BOOLS, destination_has=BOOLS)
def test_an_mp_state_is_sent_where_kvm_tells_it_and_never_dropped(
    harts: list[AnyHart], source_has: bool, destination_has: bool
) -> None:
    source = board(MP_STATE, len(harts), has_mp_state=source_has)
    destination = board(MP_STATE, len(harts), has_mp_state=destination_has)
    assert all((cpu.mp_state is not None) is source_has for cpu in source.save())
    if source_has and not destination_has:
        with pytest.raises(StreamError, match="ENOTSUP"):
            move(source, destination)
    else:
        move(source, destination)


@pytest.mark.parametrize("sender", [*POLICIES.values(), FOURTH], ids=name_of)
@pytest.mark.parametrize("receiver", [*POLICIES.values(), FOURTH], ids=name_of)
def test_only_equal_versions_load(sender: SyncPolicy, receiver: SyncPolicy) -> None:
    source = guest(sender, Is.SUPERVISOR)
    destination = board(receiver, 1)
    if sender.layout == receiver.layout:
        move(source, destination)
        return
    with pytest.raises(StreamError) as error:
        move(source, destination)
    told_by_version = "version" in str(error.value)
    # The fourth patch has its base's version, and nothing tells them apart in time.
    assert told_by_version is (sender.layout.version != receiver.layout.version)


# --- why all harts must not be forced to run -----------------------------------------

GUESTS = st.lists(st.sampled_from(list(Is)[:5]), min_size=1, max_size=5).filter(
    # Somebody boots a guest, and somebody is left who runs.
    lambda harts: (
        harts[0] is not Is.NEVER_STARTED
        and any(each not in (Is.STOPPED, Is.NEVER_STARTED) for each in harts)
    )
)


def goes_wrong(policy: SyncPolicy) -> Callable[[list[Is]], bool]:
    def check(harts: list[Is]) -> bool:
        destination = board(policy, len(harts))
        before = move(guest(policy, *harts), destination)
        return differences(before, destination.states()) != ()

    return check


@SOME
@given(harts=GUESTS)
def test_what_was_merged_is_right_for_every_guest(harts: list[Is]) -> None:
    assert not goes_wrong(MP_STATE)(harts)


@pytest.mark.parametrize(
    ("secondary", "role"),
    [(Is.STOPPED, Role.STOPPED), (Is.NEVER_STARTED, Role.NEVER_STARTED)],
)
def test_the_shortest_guest_that_forcing_breaks_has_one_secondary_that_stands(
    secondary: Is, role: Role
) -> None:
    others = {Is.STOPPED, Is.NEVER_STARTED} - {secondary}
    guests = GUESTS.filter(lambda harts: not others & set(harts))
    run = settings(max_examples=200, database=None)
    least = find(guests, goes_wrong(ALL_RUNNABLE), settings=run)
    assert least == [Is.SUPERVISOR, secondary]
    text = {
        Role.STOPPED: "hart 1: runs, and the source's was stopped: "
        "its hart_stop returned",
        Role.NEVER_STARTED: "hart 1: runs, and the source's was stopped: "
        "it booted the guest again",
    }
    assert what_happens(ALL_RUNNABLE, [Role.SUPERVISOR, role]) == [text[role]]
    assert what_happens(MP_STATE, [Role.SUPERVISOR, role]) == []


def what_happens(policy: SyncPolicy, roles: list[Role]) -> list[str]:
    """Really move such a guest, let it go on, and say what became of its harts."""
    with memory() as here, memory() as there:
        source = VirtBoard(here, len(roles), policy)
        source.boot(roles)
        destination = VirtBoard(there, len(roles), policy)
        before = move(source, destination)
        found = differences(before, destination.states())
        there.write(VIRT_RAM, here.read(VIRT_RAM, here.size))
        destination.vm_start(0)
        destination.run_until(20 * MS)
        facts = read_progress(there, len(roles))
    did = []
    if facts.harts[1].returned:
        did.append("its hart_stop returned")
    if facts.boots > 1:
        did.append("it booted the guest again")
    return [f"{line}: {', '.join(did)}" for line in found]


def test_a_hart_that_is_forced_runs_from_behind_its_stop() -> None:
    destination = board(ALL_RUNNABLE, 2)
    move(guest(ALL_RUNNABLE, Is.SUPERVISOR, Is.STOPPED), destination)
    assert destination.states()[1].pc == BEHIND_STOP
