"""The board: in which order QEMU drives harts, and a guest that really goes on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.unit.vm.riscv.moving import (
    RAM,
    Is,
    board,
    guest,
    memory,
    move,
    name_of,
    shown,
)
from vfiomig.protocol.errors import StateError
from vfiomig.protocol.qemu_stream.riscv_cpu import KvmTimer, RiscvCpu
from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.riscv.board import BootError, PutError, VirtBoard
from vfiomig.vm.riscv.hart_state import differences
from vfiomig.vm.riscv.program import Facts, Role, load_program, read_progress
from vfiomig.vm.riscv.sync import ALL_RUNNABLE, MP_STATE, POLICIES, UNPATCHED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.riscv.sync import SyncPolicy

MS = 1_000_000  # nanoseconds
ROLES = (
    Role.USER,
    Role.SUPERVISOR,
    Role.WAITING,
    Role.STOPPED,
    Role.NEVER_STARTED,
)
USER, SUPERVISOR, WAITING, STOPPED, NEVER = range(5)


@pytest.fixture
def ram() -> Iterator[GuestMemory]:
    with memory() as made:
        yield made


@pytest.fixture
def other_ram() -> Iterator[GuestMemory]:
    with memory() as made:
        yield made


def booted(ram: GuestMemory, policy: SyncPolicy = MP_STATE) -> VirtBoard:
    """Return a guest of all roles, 20 ms old, with hart 0 in U mode; it runs."""
    made = VirtBoard(ram, len(ROLES), policy, instructions=1_000_000)
    made.boot(ROLES)
    made.vm_start(0)
    now = 20 * MS
    made.run_until(now)
    while made.states()[USER].mode == "S":
        now += MS // 10
        made.run_until(now)
    return made


def moved(source: VirtBoard, ram: GuestMemory) -> tuple[tuple[str, ...], Facts, Facts]:
    """Move a guest with its RAM; let it run 20 ms.

    Return how harts differed, and what RAM tells before and after.
    """
    destination = VirtBoard(
        ram, len(source.harts), source.policy, instructions=source.instructions
    )
    before = move(source, destination)
    ram.write(VIRT_RAM, source.memory.read(VIRT_RAM, RAM))
    then = read_progress(ram, len(source.harts))
    found = differences(before, destination.states())
    destination.vm_start(7 * MS)
    destination.run_until(27 * MS)
    return found, then, read_progress(ram, len(source.harts))


# --- a guest goes on, or does not -------------------------------------------------


def test_the_guest_goes_on_with_what_was_merged(
    ram: GuestMemory, other_ram: GuestMemory
) -> None:
    found, then, now = moved(booted(ram), other_ram)
    assert found == ()
    assert now.boots == 1
    assert [hart.panic for hart in now.harts] == [None] * len(ROLES)
    assert now.harts[USER].loops > then.harts[USER].loops
    assert now.harts[USER].ecalls > then.harts[USER].ecalls
    assert now.harts[SUPERVISOR].loops > then.harts[SUPERVISOR].loops
    # Their timers fire each millisecond, and went with them.
    assert 18 <= now.harts[SUPERVISOR].ticks - then.harts[SUPERVISOR].ticks <= 21
    assert 18 <= now.harts[WAITING].wakeups - then.harts[WAITING].wakeups <= 21
    assert now.harts[STOPPED] == then.harts[STOPPED]
    assert not now.harts[STOPPED].returned
    assert now.harts[NEVER] == then.harts[NEVER]


def test_unpatched_a_user_program_goes_on_in_s_and_its_fetch_faults(
    ram: GuestMemory, other_ram: GuestMemory
) -> None:
    found, then, now = moved(booted(ram, UNPATCHED), other_ram)
    assert found == (
        "hart 0: mode S, and the source's was U",
        "hart 1: is stopped, and the source's ran",
        "hart 2: is stopped, and the source's ran",
    )
    panic = now.harts[USER].panic
    assert panic is not None
    assert panic.cause == 12  # instruction page fault: a page of U, from S
    for hart in (SUPERVISOR, WAITING, STOPPED, NEVER):
        assert now.harts[hart] == then.harts[hart]


def test_forced_to_run_a_stopped_hart_returns_and_another_boots_again(
    ram: GuestMemory, other_ram: GuestMemory
) -> None:
    found, then, now = moved(booted(ram, ALL_RUNNABLE), other_ram)
    assert found == (
        "hart 3: runs, and the source's was stopped",
        "hart 4: runs, and the source's was stopped",
    )
    assert (then.boots, now.boots) == (1, 2)  # the kernel's entry, a second time
    assert now.harts[STOPPED].returned  # from hart_stop, which never does
    assert not then.harts[STOPPED].returned


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
def test_a_hart_that_was_never_started_executes_nothing_unless_forced(
    policy: SyncPolicy, ram: GuestMemory, other_ram: GuestMemory
) -> None:
    source = booted(ram, policy)
    destination = VirtBoard(other_ram, len(ROLES), policy)
    move(source, destination)
    other_ram.write(VIRT_RAM, ram.read(VIRT_RAM, RAM))
    destination.vm_start(0)
    destination.run_until(10 * MS)
    executed = sum(destination.states()[NEVER].retired)
    assert (executed > 0) is (policy is ALL_RUNNABLE)


def test_back_where_it_came_from_it_still_goes_on(
    ram: GuestMemory, other_ram: GuestMemory
) -> None:
    there = VirtBoard(other_ram, len(ROLES), MP_STATE, instructions=1_000_000)
    before = move(booted(ram), there)
    here = VirtBoard(ram, len(ROLES), MP_STATE, instructions=1_000_000)
    move(there, here)
    assert differences(before, here.states()) == ()
    then = read_progress(ram, len(ROLES))
    here.vm_start(0)
    here.run_until(10 * MS)
    now = read_progress(ram, len(ROLES))
    assert now.harts[WAITING].wakeups > then.harts[WAITING].wakeups
    assert now.harts[USER].loops > then.harts[USER].loops


# --- time --------------------------------------------------------------------------


def test_what_a_guest_did_depends_on_the_time_alone(
    ram: GuestMemory, other_ram: GuestMemory
) -> None:
    told = []
    for where, times in (
        (ram, [9 * MS]),
        (other_ram, [1, 777, 4 * MS, 4 * MS, 9 * MS]),
    ):
        made = VirtBoard(where, len(ROLES), MP_STATE, instructions=500_000)
        made.boot(ROLES)
        made.vm_start(0)
        for now in times:
            made.run_until(now)
        told.append((made.states(), where.digest()))
    assert told[0] == told[1]


@pytest.mark.parametrize("instructions", [900, 7_000, 200_000, 1_000_000])
def test_a_hart_does_its_instructions_a_second(
    instructions: int, ram: GuestMemory
) -> None:
    made = VirtBoard(ram, 1, MP_STATE, instructions=instructions)
    made.boot([Role.SUPERVISOR])
    made.vm_start(0)
    made.run_until(100 * MS)
    (state,) = made.states()
    # It ends with a round, of a millisecond at most, and within a block of 64.
    assert abs(sum(state.retired) - instructions // 10) <= instructions // 1000 + 64


def test_nobody_runs_ahead_of_the_time(ram: GuestMemory) -> None:
    made = VirtBoard(ram, 1, MP_STATE, instructions=1_000)
    made.boot([Role.SUPERVISOR])
    made.vm_start(0)
    made.run_until(MS - 1)
    assert made.states()[0].retired == (0, 0)
    made.run_until(MS)
    assert made.states()[0].retired != (0, 0)


def test_a_throttle_takes_its_share(ram: GuestMemory) -> None:
    made = VirtBoard(ram, 1, MP_STATE, instructions=200_000)
    made.boot([Role.SUPERVISOR])
    made.vm_start(0)
    made.throttle(0, 90)
    made.run_until(100 * MS)
    assert sum(made.states()[0].retired) == pytest.approx(2_000, rel=0.1)
    with pytest.raises(ValueError, match="throttle of 100"):
        made.throttle(100 * MS, 100)


def test_a_stopped_machine_does_nothing(ram: GuestMemory) -> None:
    made = booted(ram)
    made.vm_stop()
    before = made.states(), ram.digest()
    made.run_until(10**9)
    assert (made.states(), ram.digest()) == before


# --- the order of events -------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES.values(), ids=name_of)
def test_a_board_is_made_with_its_first_hart_to_run_the_kernel(
    policy: SyncPolicy,
) -> None:
    made = board(policy, 3)
    states = made.states()
    assert shown(states) == ["run S", "stop S", "stop S"]
    assert [state.hsm_status for state in states] == ["started", "stopped", "stopped"]
    assert {state.pc for state in states} == {VIRT_RAM}
    assert [state.registers["a0"] for state in states] == [0, 1, 2]
    assert len({state.registers["a1"] for state in states}) == 1


def test_a_stop_kicks_all_harts_out_of_wfi_and_gets_their_timers() -> None:
    made = guest(MP_STATE, Is.SUPERVISOR, Is.WAITING)
    made.vcpus[1].set("timer.compare", 99)
    made.vm_stop()
    assert not made.harts[1].is_waiting
    assert [cpu.timer_is_dirty for cpu in made.cpus] == [True, True]
    assert made.cpus[1].timer == KvmTimer(0, 99, 0)


def test_what_was_loaded_is_not_got_over() -> None:
    destination = board(MP_STATE, 1)
    destination.pre_load()
    destination.load(0, RiscvCpu(pc=0x1234, mp_state=0))
    destination.synchronize_all_states()
    destination.post_init()
    assert destination.states()[0].pc == 0x1234


def test_a_runtime_put_comes_before_the_first_instruction(ram: GuestMemory) -> None:
    load_program(ram, [Role.SUPERVISOR])
    made = VirtBoard(ram, 1, MP_STATE)
    made.synchronize_all_states()  # as a monitor that looks at registers
    made.cpus[0].gpr[27] = 0x77  # and changes one (s11) that the guest never uses
    made.vm_start(0)
    assert made.harts[0].x[27] == 0
    made.run_until(50 * MS)
    assert made.harts[0].x[27] == 0x77
    assert not made.cpus[0].is_dirty


def test_only_a_stopped_machine_is_saved_or_loaded() -> None:
    made = guest(MP_STATE, Is.SUPERVISOR)
    with pytest.raises(StateError, match="cannot save the harts: they run"):
        made.save()
    with pytest.raises(StateError, match="cannot load the harts: they run"):
        made.pre_load()


def test_a_reset_while_it_runs_boots_the_guest_again(ram: GuestMemory) -> None:
    made = booted(ram)
    made.system_reset()
    assert shown(made.states()) == ["run S"] + ["stop S"] * 4
    made.run_until(100 * MS)
    facts = read_progress(ram, len(ROLES))
    assert facts.boots == 2
    assert facts.harts[WAITING].wakeups > 0
    assert not made.states()[WAITING].is_stopped


# --- what KVM refuses ----------------------------------------------------------------


def test_a_full_put_that_kvm_refuses_ends_qemu() -> None:
    destination = board(MP_STATE, 2)
    destination.pre_load()
    destination.load(1, RiscvCpu(mp_state=7))
    text = r"hart 1: KVM refused a FULL put: mp_state 7: RISC-V has 0 .* and 5"
    with pytest.raises(PutError, match=text):
        destination.post_init()


def test_a_reset_put_that_kvm_refuses_stops_the_machine_for_good() -> None:
    made = guest(MP_STATE, Is.SUPERVISOR, Is.SUPERVISOR)
    # A reset that leaves M, as QEMU's did before 10.2, under a put without a guard.
    made.cpus[1].policy = dataclasses.replace(MP_STATE, reset_priv=3)
    made.system_reset()
    assert made.internal_error is not None
    assert made.internal_error.startswith("hart 1: KVM refused a RESET put: priv is M")
    assert not made.is_running
    with pytest.raises(StateError, match="the machine cannot run: hart 1"):
        made.vm_start(0)


def test_a_runtime_put_that_kvm_refuses_stops_it_too() -> None:
    made = guest(MP_STATE, Is.SUPERVISOR)
    made.synchronize_all_states()
    made.cpus[0].priv = 3
    made.run_until(100 * MS)
    assert made.internal_error is not None
    assert "a RUNTIME put" in made.internal_error
    assert not made.is_running


def test_a_timer_state_that_is_none_ends_qemu() -> None:
    made = board(MP_STATE, 1)
    made.pre_load()
    made.load(0, RiscvCpu(timer=KvmTimer(0, 0, 7)))
    made.post_init()
    with pytest.raises(PutError, match="hart 0: KVM refused the timer"):
        made.vm_start(0)
    assert not made.is_running


def test_another_frequency_is_reported_and_the_machine_runs() -> None:
    source = guest(MP_STATE, Is.SUPERVISOR, Is.SUPERVISOR)
    destination = board(MP_STATE, 2, frequency=24_000_000)
    move(source, destination)
    for cpu, other in zip(destination.cpus, source.cpus, strict=True):
        cpu.timer_frequency = other.timer_frequency
    destination.vm_start(0)
    assert destination.is_running
    assert destination.reports == [
        f"hart {index}: the timer has 24000000 Hz here, and had 10000000 Hz"
        for index in range(2)
    ]


# --- booting -------------------------------------------------------------------------


def test_a_guest_that_does_not_come_to_its_roles_is_told(ram: GuestMemory) -> None:
    stuck = dataclasses.replace(MP_STATE, boot_hart=1)
    made = VirtBoard(ram, 1, stuck)
    text = "did not boot in 262144 instructions: hart 0 is at 0x80000000 in S"
    with pytest.raises(BootError, match=text):
        made.boot([Role.SUPERVISOR])
    assert not made.is_running


def test_roles_and_harts_are_as_many(ram: GuestMemory) -> None:
    with pytest.raises(ValueError, match="2 roles for 1 harts"):
        VirtBoard(ram, 1, MP_STATE).boot([Role.USER, Role.USER])


@pytest.mark.parametrize(("count", "instructions"), [(0, 1), (1, 0), (-1, 1)])
def test_a_board_has_harts_and_a_speed(
    count: int, instructions: int, ram: GuestMemory
) -> None:
    with pytest.raises(ValueError, match="instructions a second"):
        VirtBoard(ram, count, MP_STATE, instructions=instructions)
