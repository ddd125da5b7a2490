"""The guest program: each role is observed, and so is each way to lose a state."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_S, KVM_RISCV_MODE_U
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.riscv import kernel
from vfiomig.vm.riscv.assembler import assemble
from vfiomig.vm.riscv.execute import Engine
from vfiomig.vm.riscv.hart import Hart
from vfiomig.vm.riscv.program import (
    Panic,
    Progress,
    Role,
    is_settled,
    load_program,
    read_progress,
    roles_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROLES = tuple(Role)
USER, SUPERVISOR, WAITING, STOPPED, NEVER = range(len(ROLES))
RAM = 1 << 20
TURN = 2000  # instructions of a hart in a turn
TICKS = 2500  # of the clock in a turn: a quarter of a millisecond
INSTRUCTION_PAGE_FAULT = 12


class Board:
    """Harts that take turns, and a clock that goes on with each turn."""

    def __init__(self, memory: GuestMemory, harts: list[Hart], now: int) -> None:
        self.memory = memory
        self.harts = harts
        self.now = now
        self.engine = Engine(memory, harts, lambda: self.now)

    def turns(self, count: int) -> None:
        for _ in range(count):
            for hart in self.harts:
                self.engine.run(hart, TURN)
            self.now += TICKS

    def settle(self) -> None:
        for _ in range(50):
            if is_settled(self.memory, self.harts):
                return
            self.turns(1)
        raise AssertionError

    @property
    def boots(self) -> int:
        return read_progress(self.memory, len(self.harts)).boots

    def progress(self) -> tuple[Progress, ...]:
        return read_progress(self.memory, len(self.harts)).harts


@contextmanager
def booted(roles: Sequence[Role] = ROLES) -> Iterator[Board]:
    with GuestMemory.of_virt(RAM) as memory:
        entry = load_program(memory, roles)
        harts = [Hart(hart_id=at, is_stopped=at > 0) for at in range(len(roles))]
        harts[0].pc, harts[0].x[10:12] = entry, [0, kernel.ROLES]
        board = Board(memory, harts, 0)
        board.settle()
        yield board


@contextmanager
def moved(board: Board) -> Iterator[Board]:
    """Carry over all that KVM can be asked for, and RAM; nothing of the engine."""
    with GuestMemory.of_virt(RAM) as memory:
        memory.blocks[0].view[:] = board.memory.blocks[0].view
        harts = [
            Hart(
                hart_id=old.hart_id,
                pc=old.pc,
                x=list(old.x),
                mode=old.mode,
                csr=list(old.csr),
                time_delta=board.now + old.time_delta,
                timer_compare=old.timer_compare,
                timer_state=old.timer_state,
                is_stopped=old.is_stopped,
            )
            for old in board.harts
        ]
        yield Board(memory, harts, 0)


def test_each_hart_reaches_its_role() -> None:
    with booted() as board:
        assert board.boots == 1
        assert [hart.mode for hart in board.harts] == [
            KVM_RISCV_MODE_U,
            *[KVM_RISCV_MODE_S] * 4,
        ]
        stopped = [hart.hart_id for hart in board.harts if hart.is_stopped]
        assert stopped == [STOPPED, NEVER]
        assert board.harts[WAITING].is_waiting
        assert board.harts[NEVER].retired == [0, 0]
        assert board.progress()[NEVER] == Progress(0, 0, 0, 0, None, False, False)


def test_each_hart_goes_on_in_its_role() -> None:
    with booted() as board:
        before = board.progress()
        retired = [list(hart.retired) for hart in board.harts]
        board.turns(40)  # ten milliseconds
        after = board.progress()
        gained = [
            [new - old for new, old in zip(hart.retired, olds, strict=True)]
            for hart, olds in zip(board.harts, retired, strict=True)
        ]
        assert after[USER].loops > before[USER].loops + 5000
        calls = after[USER].loops // 256 - before[USER].loops // 256
        assert after[USER].ecalls - before[USER].ecalls in (calls - 1, calls)
        assert gained[USER][0] > 10 * gained[USER][1] > 0
        assert after[SUPERVISOR].loops > before[SUPERVISOR].loops + 5000
        assert after[SUPERVISOR].ticks - before[SUPERVISOR].ticks in (9, 10)
        assert gained[SUPERVISOR][0] == 0
        assert after[WAITING].wakeups - before[WAITING].wakeups in (9, 10)
        assert 0 < gained[WAITING][1] < 1000
        assert after[STOPPED] == before[STOPPED]
        assert after[STOPPED].loops == 100
        assert gained[STOPPED] == gained[NEVER] == [0, 0]
        assert [progress.panic for progress in after] == [None] * 5


@pytest.mark.parametrize("role", [Role.SUPERVISOR, Role.WAITING, Role.STOPPED])
def test_hart_0_may_have_any_role(role: Role) -> None:
    with booted([role, Role.USER]) as board:
        board.turns(8)
        first, second = board.progress()
        assert second.ecalls
        assert (first.ticks > 0) is (role is Role.SUPERVISOR)
        assert (first.wakeups > 0) is (role is Role.WAITING)
        assert board.harts[0].is_stopped is (role is Role.STOPPED)
        assert first.panic is second.panic is None


def test_as_many_harts_as_can_be() -> None:
    with booted([Role.USER] * kernel.MOST_HARTS) as board:
        assert all(progress.ecalls for progress in board.progress())


def test_a_guest_runs_the_same_each_time() -> None:
    with booted() as board, booted() as other:
        board.turns(5)
        other.turns(5)
        assert board.harts == other.harts
        assert board.memory.digest() == other.memory.digest()


# -- after a migration


def test_a_guest_that_is_moved_whole_goes_on() -> None:
    with booted() as source:
        source.turns(5)
        # Wherever it is: within a handler too.
        for hart in source.harts:
            source.engine.run(hart, 37)
        with moved(source) as board, moved(source) as stayed:
            stayed.turns(20)
            before = board.progress()
            board.turns(20)
            after = board.progress()
            assert after[USER].loops > before[USER].loops + 2000
            assert after[SUPERVISOR].ticks - before[SUPERVISOR].ticks in (4, 5, 6)
            assert after[WAITING].wakeups - before[WAITING].wakeups in (4, 5, 6)
            assert after[STOPPED] == before[STOPPED]
            assert after[NEVER] == before[NEVER]
            assert board.boots == 1
            assert [progress.panic for progress in after] == [None] * 5
            assert board.memory.digest() == stayed.memory.digest()


def test_a_hart_in_user_mode_that_goes_on_in_supervisor_mode_panics() -> None:
    with booted() as source, moved(source) as board:
        lost = board.harts[USER]
        lost.mode = KVM_RISCV_MODE_S
        pc = lost.pc
        assert kernel.USER_CODE <= pc < kernel.USER_CODE + 0x1000
        board.turns(3)
        panic = board.progress()[USER].panic
        assert panic == Panic(INSTRUCTION_PAGE_FAULT, pc)
        assert lost.is_stopped
        assert lost.retired[0] == 0
        others = [progress.panic for progress in board.progress()[1:]]
        assert others == [None] * 4


def test_a_hart_that_is_not_run_again_does_nothing() -> None:
    with booted() as source, moved(source) as board:
        board.harts[SUPERVISOR].is_stopped = True
        board.harts[WAITING].is_stopped = True
        before = board.progress()
        board.turns(20)
        assert (
            board.progress()[SUPERVISOR : WAITING + 1]
            == before[SUPERVISOR : WAITING + 1]
        )


def test_a_stopped_hart_that_is_forced_to_run_returns_from_its_call() -> None:
    with booted() as source, moved(source) as board:
        forced = board.harts[STOPPED]
        forced.is_stopped = False
        before = board.progress()[STOPPED]
        assert not before.returned
        board.turns(3)
        after = board.progress()[STOPPED]
        assert after.returned
        assert after.loops > before.loops
        assert after.panic is None
        assert board.boots == 1


def test_a_hart_never_started_that_is_forced_to_run_boots_the_guest_again() -> None:
    with booted() as source, moved(source) as board:
        board.turns(3)
        loops = board.progress()[SUPERVISOR].loops
        forced = board.harts[NEVER]
        # As QEMU's reset leaves it.
        forced.pc, forced.x[10:12] = kernel.ENTRY, [NEVER, kernel.ROLES]
        forced.is_stopped = False
        board.turns(3)
        assert board.boots == 2
        assert board.progress()[NEVER].loops > 0
        assert board.progress()[SUPERVISOR].loops < loops  # cleared under its feet
        # It also started who had stopped.
        assert board.harts[STOPPED].start is None
        assert board.progress()[STOPPED].loops == 100
        assert [progress.panic for progress in board.progress()] == [None] * 5


def test_both_are_seen_of_one_guest_with_both() -> None:
    with booted() as source, moved(source) as board:
        for number in (STOPPED, NEVER):
            board.harts[number].is_stopped = False
        board.harts[NEVER].pc = kernel.ENTRY
        board.harts[NEVER].x[10:12] = [NEVER, kernel.ROLES]
        board.turns(5)
        assert board.boots == 2
        assert board.progress()[STOPPED].returned


def test_a_call_leaves_the_registers_of_the_user_program() -> None:
    with booted([Role.USER]) as board:
        (hart,) = board.harts
        calls = board.progress()[0].ecalls
        counted = (5, 6)  # t0, t1
        for number in range(1, 32):
            if number not in (*counted, 10):
                hart.x[number] = number << 40
        before = list(hart.x)
        board.turns(10)
        for _ in range(1000):
            if hart.mode == KVM_RISCV_MODE_U:
                break
            board.engine.run(hart, 1)
        assert board.progress()[0].ecalls > calls + 5
        changed = {at for at in range(32) if hart.x[at] != before[at]}
        assert changed <= set(counted)


def test_an_oops_of_the_kernel_is_noted_with_its_cause() -> None:
    with booted([Role.SUPERVISOR]) as board:
        board.harts[0].pc = VIRT_RAM + RAM  # mapped, but no RAM
        board.turns(2)
        assert board.progress()[0].panic == Panic(1, VIRT_RAM + RAM)


def test_a_software_interrupt_is_taken_and_forgotten() -> None:
    with booted([Role.USER]) as board:
        board.harts[0].csr[1] |= 2  # sie
        board.harts[0].csr[7] |= 2  # sip
        board.turns(2)
        assert board.harts[0].csr[7] == 0
        assert board.progress()[0].panic is None


# -- the program in RAM


def test_qemu_writes_the_program() -> None:
    with GuestMemory.of_virt(RAM) as memory:
        for user in LogUser:
            memory.start_log(user)
        assert load_program(memory, ROLES) == VIRT_RAM
        marked = {
            user: log.ranges().tolist()
            for user in LogUser
            if (log := memory.log(user, memory.blocks[0])) is not None
        }
        assert marked == {
            LogUser.MIGRATION: [[0, 3]],
            LogUser.DMA: [],
            LogUser.KERNEL: [],
        }
        assert roles_of(memory) == ROLES
        facts = read_progress(memory, len(ROLES))
        assert facts.boots == 0
        assert set(facts.harts) == {Progress(0, 0, 0, 0, None, False, False)}


def test_the_texts_fit_their_pages() -> None:
    for text, at in ((kernel.KERNEL, kernel.ENTRY), (kernel.USER, kernel.USER_CODE)):
        assert 4 * len(assemble(text, at, kernel.SYMBOLS)[0]) <= 4096


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ([], "0 harts: 1 to 32"),
        ([Role.USER] * 33, "33 harts"),
        ([Role.NEVER_STARTED, Role.USER], "hart 0 boots"),
    ],
)
def test_roles_that_cannot_be(roles: list[Role], said: str) -> None:
    with (
        GuestMemory.of_virt(RAM) as memory,
        pytest.raises(ValueError, match=said),
    ):
        load_program(memory, roles)


def test_a_guest_without_the_ram_for_it() -> None:
    for make in (GuestMemory.of_virt, GuestMemory.of_pc):
        with (
            make(9 * 4096) as memory,
            pytest.raises(ValueError, match="does not fit: no RAM"),
        ):
            load_program(memory, ROLES)


def test_ram_that_holds_no_program_is_said_so() -> None:
    with GuestMemory.of_virt(RAM) as memory:
        with pytest.raises(ValueError, match="no table of roles"):
            roles_of(memory)
        memory.write(kernel.ROLES, b"\xff" * 64)
        with pytest.raises(ValueError, match="no table of roles"):
            roles_of(memory)
        with pytest.raises(ValueError, match="at most 32"):
            read_progress(memory, 33)
