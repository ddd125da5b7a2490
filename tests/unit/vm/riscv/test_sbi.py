"""SBI calls: what a guest gets for them, and what they do to harts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.vm.riscv.guests import CODE, DATA, Guest
from vfiomig.uapi.kvm_riscv import (
    KVM_RISCV_MODE_S,
    KVM_RISCV_MODE_U,
    KVM_RISCV_TIMER_STATE_OFF,
    KVM_RISCV_TIMER_STATE_ON,
)
from vfiomig.vm.riscv import sbi
from vfiomig.vm.riscv.hart import CSR, Start

if TYPE_CHECKING:
    from collections.abc import Iterator

ONES = (1 << 64) - 1
BASE, TIME, IPI, HSM = 0x10, 0x54494D45, 0x735049, 0x48534D
NOT_SUPPORTED, INVALID_PARAM, ALREADY_AVAILABLE = -2, -3, -6
SSI, STI = 1 << 1, 1 << 5


def called(
    guest: Guest, extension: int, function: int, *arguments: int
) -> tuple[int, int]:
    """Let hart 0 make a call; return its error, with its sign, and its value."""
    guest.hart.pc = CODE
    guest.set(a0=99, a1=98, a7=extension, a6=function)
    for number, argument in enumerate(arguments):
        guest.set(**{f"a{number}": argument})
    assert guest.run(1) == 1
    assert guest.hart.pc == CODE + 4
    error = guest.register("a0")
    return error - (error >> 63 << 64), guest.register("a1")


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Guest("ecall\nafter: ebreak", harts=3) as made:
        yield made


def test_the_base_extension(guest: Guest) -> None:
    assert called(guest, BASE, 0) == (0, 0x0100_0000)
    assert called(guest, BASE, 1) == (0, 3)  # KVM
    for extension in (BASE, TIME, IPI, HSM):
        assert called(guest, BASE, 3, extension) == (0, 1)
    assert called(guest, BASE, 3, 0x52464E43) == (0, 0)  # RFENCE


@pytest.mark.parametrize(
    ("extension", "function"),
    [(0x52464E43, 0), (BASE, 7), (TIME, 1), (HSM, 3), (0, 0), (ONES, ONES)],
)
def test_what_is_not_there_is_not_supported(
    guest: Guest, extension: int, function: int
) -> None:
    assert called(guest, extension, function) == (NOT_SUPPORTED, 0)


def test_a_call_from_user_mode_is_none(guest: Guest) -> None:
    guest.hart.mode = KVM_RISCV_MODE_U
    guest.set(a7=HSM, a6=1)
    guest.run(1)
    assert guest.trapped() == (8, CODE, 0)
    assert not guest.hart.is_stopped


def test_set_timer_arms_it_and_takes_back_what_was_due(guest: Guest) -> None:
    guest.set_csr(sip=STI | SSI)
    assert called(guest, TIME, 0, 12345) == (0, 0)
    assert guest.hart.timer_compare == 12345
    assert guest.hart.timer_state == KVM_RISCV_TIMER_STATE_ON
    assert guest.csr("sip") == SSI


@pytest.mark.parametrize(
    ("mask", "base", "harts"),
    [(0b1, 0, {0}), (0b110, 0, {1, 2}), (0b11, 1, {1, 2}), (0, ONES, {0, 1, 2})],
)
def test_an_ipi_is_pending_at_its_harts(
    guest: Guest, mask: int, base: int, harts: set[int]
) -> None:
    assert called(guest, IPI, 0, mask, base) == (0, 0)
    pending = {hart.hart_id for hart in guest.harts if hart.csr[CSR["sip"]] == SSI}
    assert pending == harts


@pytest.mark.parametrize(("mask", "base"), [(0b1000, 0), (0b111, 1), (1, 1 << 63)])
def test_an_ipi_to_nobody_is_sent_to_nobody(guest: Guest, mask: int, base: int) -> None:
    assert called(guest, IPI, 0, mask, base) == (INVALID_PARAM, 0)
    assert [hart.csr[CSR["sip"]] for hart in guest.harts] == [0, 0, 0]


# -- hart state management


def test_a_start_is_queued_and_taken_when_the_hart_runs(guest: Guest) -> None:
    target = guest.harts[1]
    target.csr[:] = [ONES] * len(target.csr)
    target.x[5], target.mode, target.pc = 7, KVM_RISCV_MODE_U, 0x1234
    target.timer_state, target.timer_compare = KVM_RISCV_TIMER_STATE_ON, 5
    assert called(guest, HSM, 2, 1) == (0, 1)  # STOPPED
    assert called(guest, HSM, 0, 1, DATA, 0xABC) == (0, 0)
    assert called(guest, HSM, 2, 1) == (0, 0)  # STARTED, though it did not run yet
    assert target.start == Start(DATA, 0xABC)
    # Nobody who reads registers sees it.
    assert (target.pc, target.mode, target.x[5]) == (0x1234, KVM_RISCV_MODE_U, 7)
    guest.put("addi a2, a0, 100\nend: j end", DATA)
    assert guest.engine.run(target, 2) == 2
    assert target.start is None
    assert (target.mode, target.x[5]) == (KVM_RISCV_MODE_S, 0)
    assert target.x[10:13] == [1, 0xABC, 101]
    expected = [0] * len(target.csr)
    expected[CSR["scounteren"]] = 7
    assert target.csr == expected
    assert target.timer_state == KVM_RISCV_TIMER_STATE_OFF


def test_who_runs_cannot_be_started(guest: Guest) -> None:
    assert called(guest, HSM, 0, 0, DATA, 0) == (ALREADY_AVAILABLE, 0)
    assert called(guest, HSM, 0, 2, DATA, 0) == (0, 0)
    assert called(guest, HSM, 0, 2, CODE, 1) == (ALREADY_AVAILABLE, 0)
    assert guest.harts[2].start == Start(DATA, 0)


@pytest.mark.parametrize("function", [0, 2])
def test_a_hart_that_is_not_there(guest: Guest, function: int) -> None:
    assert called(guest, HSM, function, 3, DATA, 0) == (INVALID_PARAM, 0)


def test_a_hart_stops_itself_behind_its_call(guest: Guest) -> None:
    guest.set(a7=HSM, a6=1)
    assert guest.run(100) == 1
    assert guest.hart.is_stopped
    assert guest.hart.pc == CODE + 4
    assert guest.run(100) == 0
    # Forced to run by somebody else it returns from its call.
    guest.hart.is_stopped = False
    assert guest.run(1) == 0
    assert guest.trapped()[:2] == (3, CODE + 4)


def test_the_functions_answer_who_is_no_hart(guest: Guest) -> None:
    harts = {hart.hart_id: hart for hart in guest.harts}
    assert [sbi.hart_status(harts, at).value for at in range(3)] == [0, 1, 1]
    assert sbi.hart_start(harts, 0, CODE, 0).error == ALREADY_AVAILABLE
    assert sbi.hart_start(harts, 7, CODE, 0).error == INVALID_PARAM
    assert sbi.hart_start(harts, 2, CODE, 0) == (0, 0)
    sbi.hart_stop(guest.hart)
    assert [sbi.hart_status(harts, at).value for at in range(3)] == [1, 1, 0]
