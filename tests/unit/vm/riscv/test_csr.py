"""CSRs, interrupts and WFI, as a running guest meets them."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.vm.riscv.guests import CODE, HANDLER, Guest
from vfiomig.uapi.kvm_riscv import (
    KVM_RISCV_CSRS,
    KVM_RISCV_MODE_S,
    KVM_RISCV_MODE_U,
    KVM_RISCV_TIMER_STATE_OFF,
    KVM_RISCV_TIMER_STATE_ON,
)
from vfiomig.vm.riscv.csr import NUMBERS

ONES = (1 << 64) - 1
INTERRUPT = 1 << 63
SIE, SPIE, SPP = 1 << 1, 1 << 5, 1 << 8
SSI, STI, SEI = 1 << 1, 1 << 5, 1 << 9  # bits of sie and sip
COUNT = "loop: addi t0, t0, 1\nj loop"


def test_the_numbers_are_the_manuals() -> None:
    numbers = (0x100, 0x104, 0x105, 0x140, 0x141, 0x142, 0x143, 0x144, 0x180)
    csrs = dict(zip(KVM_RISCV_CSRS, (*numbers, 0x106, 0x10A), strict=True))
    assert csrs | {"cycle": 0xC00, "time": 0xC01, "instret": 0xC02} == NUMBERS


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("sstatus", SIE | SPIE | SPP | 3 << 18 | 2 << 32),  # SUM, MXR; UXL is 64 bits
        ("sie", SSI | STI | SEI),
        ("stvec", ONES & ~2),
        ("sscratch", ONES),
        ("sepc", ONES & ~3),
        ("scause", ONES),
        ("stval", ONES),
        ("sip", SSI),
        ("scounteren", 7),
        ("senvcfg", 1),
    ],
)
def test_what_a_guest_can_write(name: str, readable: int) -> None:
    with Guest(f"csrw {name}, a1\ncsrr a0, {name}\nend: ebreak") as guest:
        guest.set(a1=ONES)
        guest.run(2)
        assert guest.register("a0") == readable


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("csrrw a0, sscratch, a1", 0b1010),
        ("csrrs a0, sscratch, a1", 0b1110),
        ("csrrc a0, sscratch, a1", 0b0100),
        ("csrrwi a0, sscratch, 10", 0b1010),
        ("csrrsi a0, sscratch, 10", 0b1110),
        ("csrrci a0, sscratch, 10", 0b0100),
        ("csrrs a0, sscratch, zero", 0b1100),
        ("csrrci a0, sscratch, 0", 0b1100),
        ("csrrw a0, sscratch, zero", 0),
    ],
)
def test_the_six_instructions(text: str, after: int) -> None:
    with Guest(f"{text}\nend: ebreak") as guest:
        guest.set(a1=0b1010)
        guest.set_csr(sscratch=0b1100)
        assert guest.run(1) == 1
        assert (guest.register("a0"), guest.csr("sscratch")) == (0b1100, after)


def test_a_register_and_a_csr_change_places() -> None:
    with Guest("csrrw sp, sscratch, sp") as guest:
        guest.set(sp=1)
        guest.set_csr(sscratch=2)
        guest.run(1)
        assert (guest.register("sp"), guest.csr("sscratch")) == (2, 1)


def test_time_is_the_hosts_and_the_delta() -> None:
    with Guest("rdtime: csrr a0, time\nend: ebreak") as guest:
        guest.now, guest.hart.time_delta = 1000, -200 % (1 << 64)
        guest.run(1)
        assert guest.register("a0") == 800


def test_instret_counts_what_is_before_it() -> None:
    text = "nop\nnop\ncsrr a0, instret\nnop\ncsrr a1, cycle\nend: ebreak"
    with Guest(text) as guest:
        guest.hart.retired[:] = [100, 0]
        guest.run(5)
        assert (guest.register("a0"), guest.register("a1")) == (102, 104)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "cycle"), (1, "time"), (2, "instret")]
)
def test_scounteren_lets_user_mode_read_a_counter(number: int, name: str) -> None:
    for enabled in (1 << number, ~(1 << number) & 7):
        with Guest(f"csrr a0, {name}\nend: ebreak") as guest:
            guest.hart.mode = KVM_RISCV_MODE_U
            guest.set_csr(scounteren=enabled)
            assert guest.run(1) == (enabled == 1 << number)


# -- interrupts


@pytest.mark.parametrize(
    ("mode", "sstatus", "taken"),
    [
        (KVM_RISCV_MODE_S, 0, False),
        (KVM_RISCV_MODE_S, SIE, True),
        (KVM_RISCV_MODE_U, 0, True),  # whatever SIE is
        (KVM_RISCV_MODE_U, SIE, True),
    ],
)
@pytest.mark.parametrize("bit", [SSI, SEI])
def test_an_interrupt_is_taken_if_it_is_enabled(
    mode: int, sstatus: int, bit: int, *, taken: bool
) -> None:
    with Guest(COUNT) as guest:
        guest.hart.mode = mode
        guest.set_csr(sstatus=sstatus, sie=SSI | SEI, sip=bit)
        guest.set_csr(stvec=HANDLER)
        guest.run(50)
        if not taken:
            assert guest.register("t0") >= 25
            return
        code = bit.bit_length() - 1
        assert guest.register("t0") == 0
        assert (guest.csr("scause"), guest.csr("sepc")) == (INTERRUPT | code, CODE)
        was_s = SPP if mode == KVM_RISCV_MODE_S else 0
        was_on = SPIE if sstatus else 0
        assert guest.csr("sstatus") == was_s | was_on
        assert guest.hart.mode == KVM_RISCV_MODE_S


def test_what_sie_hides_is_not_taken() -> None:
    with Guest(COUNT) as guest:
        guest.hart.mode = KVM_RISCV_MODE_U
        guest.set_csr(sie=STI, sip=SSI | SEI)
        guest.run(50)
        assert guest.register("t0") >= 25


def test_external_comes_before_software_before_timer() -> None:
    with Guest(COUNT) as guest:
        guest.hart.timer_state = KVM_RISCV_TIMER_STATE_ON
        guest.set_csr(sie=SSI | STI | SEI, sip=SSI | SEI)
        taken = []
        for _ in range(3):
            guest.hart.pc, guest.hart.mode = CODE, KVM_RISCV_MODE_U
            guest.run(1)
            code = guest.csr("scause") & ~INTERRUPT
            taken.append(code)
            guest.set_csr(sip=guest.csr("sip") & ~(1 << code))
        assert taken == [9, 1, 5]


@pytest.mark.parametrize(("now", "taken"), [(999, False), (1000, True), (5000, True)])
@pytest.mark.parametrize("state", [KVM_RISCV_TIMER_STATE_OFF, KVM_RISCV_TIMER_STATE_ON])
def test_the_timer_is_due_from_compare_on(now: int, state: int, *, taken: bool) -> None:
    with Guest(COUNT) as guest:
        guest.hart.timer_compare, guest.hart.timer_state = 1300, state
        guest.hart.time_delta = 300
        guest.now = now
        guest.set_csr(sie=STI, sstatus=SIE)
        guest.run(1)
        due = taken and state == KVM_RISCV_TIMER_STATE_ON
        assert guest.csr("scause") == (INTERRUPT | 5 if due else 0)


def test_an_interrupt_comes_between_two_instructions_of_a_loop() -> None:
    with Guest(COUNT) as guest:
        ticks = itertools.count()
        guest.engine = type(guest.engine)(
            guest.memory, guest.harts, lambda: next(ticks)
        )
        guest.hart.timer_compare = 5
        guest.hart.timer_state = KVM_RISCV_TIMER_STATE_ON
        guest.set_csr(sie=STI, sstatus=SIE)
        guest.run(100_000)
        # Some slices later it was in the loop, between two rounds.
        assert guest.trapped() == (INTERRUPT | 5, CODE, 0)
        assert 0 < guest.register("t0") < 40_000


@pytest.mark.parametrize("name", ["sstatus", "sie", "sip"])
def test_an_interrupt_that_is_let_through_is_taken_at_once(name: str) -> None:
    assert SSI == SIE == 2
    with Guest(f"csrrsi zero, {name}, 2\n{COUNT}") as guest:
        guest.set_csr(sie=SSI, sip=SSI, sstatus=SIE)
        guest.set_csr(**{name: 0})
        guest.run(100)
        assert guest.trapped() == (INTERRUPT | 1, CODE + 4, 0)
        assert guest.register("t0") == 0


def test_vectors_are_of_interrupts_alone() -> None:
    with Guest("ebreak") as guest:
        guest.set_csr(stvec=HANDLER | 1, sie=SSI, sip=SSI, sstatus=SIE)
        guest.put("nop\ntaken: j taken", HANDLER)
        guest.run(1)
        assert guest.hart.pc == guest.labels["taken"]
        assert guest.csr("scause") == INTERRUPT | 1
        guest.hart.pc = CODE
        guest.run(1)
        assert guest.trapped() == (3, CODE, CODE)


# -- WFI


def test_a_hart_waits_until_something_is_pending() -> None:
    with Guest("wfi\nloop: addi t0, t0, 1\nj loop") as guest:
        guest.set_csr(sie=SSI)
        assert guest.run(100) == 1
        assert (guest.hart.is_waiting, guest.hart.pc) == (True, CODE + 4)
        for sip in (0, SEI):  # nothing, and what sie hides
            guest.set_csr(sip=sip)
            assert guest.run(100) == 0
            assert guest.hart.is_waiting
        guest.set_csr(sip=SSI)
        assert guest.run(100) >= 100  # SIE is clear: it goes on, and no trap
        assert not guest.hart.is_waiting
        assert guest.csr("scause") == 0


def test_a_timer_ends_a_wait_with_a_trap() -> None:
    with Guest("wfi\nebreak") as guest:
        guest.hart.timer_compare = 50
        guest.hart.timer_state = KVM_RISCV_TIMER_STATE_ON
        guest.set_csr(sie=STI, sstatus=SIE)
        guest.run(10)
        guest.now = 49
        assert guest.run(10) == 0
        guest.now = 50
        guest.run(1)
        assert guest.trapped() == (INTERRUPT | 5, CODE + 4, 0)


def test_a_hart_that_is_kicked_out_of_its_wait_goes_on() -> None:
    with Guest("wfi\nloop: addi t0, t0, 1\nj loop") as guest:
        guest.run(10)
        guest.hart.is_waiting = False
        assert guest.run(10) >= 10


def test_a_wait_with_something_pending_is_none() -> None:
    with Guest("wfi\nloop: addi t0, t0, 1\nj loop") as guest:
        guest.set_csr(sie=SSI, sip=SSI)
        assert guest.run(10) >= 10
        assert not guest.hart.is_waiting
