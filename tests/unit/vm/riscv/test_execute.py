"""A hart that runs: flow, traps, memory, budgets; its pages are in test_pages."""

from __future__ import annotations

import pytest

from tests.unit.vm.riscv.guests import CODE, DATA, HANDLER, RAM, Guest
from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_S, KVM_RISCV_MODE_U
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.riscv.assembler import assemble
from vfiomig.vm.riscv.execute import Engine
from vfiomig.vm.riscv.hart import Hart
from vfiomig.vm.riscv.instructions import Instruction, encode

END = VIRT_RAM + RAM
SIE, SPIE, SPP = 1 << 1, 1 << 5, 1 << 8
LOOP = "loop: addi t0, t0, 1\naddi t1, t1, 2\nbne t0, a0, loop\nend: ebreak"

# -- the budget, and what is retired


def test_a_loop_ends_where_it_should_and_counts_each_instruction() -> None:
    with Guest(LOOP) as guest:
        guest.set(a0=1000)
        assert guest.run(3001) == 3000
        assert (guest.register("t0"), guest.register("t1")) == (1000, 2000)
        assert guest.trapped() == (3, guest.labels["end"], guest.labels["end"])
        assert guest.hart.retired == [0, 3000]


def test_a_loop_without_an_end_ends_with_the_budget() -> None:
    with Guest(LOOP) as guest:
        for budget in (1, 10, 100, 10_000):
            before = guest.register("t0")
            retired = guest.run(budget)
            assert budget <= retired < budget + 64
            assert guest.register("t0") - before == retired // 3
        assert sum(guest.hart.retired) == 3 * guest.register("t0")


def test_an_if_counts_only_what_it_does() -> None:
    text = "beqz a0, behind\nli a1, 1\nli a2, 2\nbehind: li a3, 3\nend: ebreak"
    for value, retired in ((1, 4), (0, 2)):
        with Guest(text) as guest:
            guest.set(a0=value)
            assert guest.run(1) == retired
            assert guest.hart.pc == guest.labels["end"]


def test_a_trap_under_an_if_is_exact() -> None:
    text = "bnez a0, behind\nli a1, 1\nld a2, 0(a4)\nbehind: ld a3, 0(a4)\nebreak"
    for value, place, done in ((0, 8, 2), (1, 12, 1)):
        with Guest(text) as guest:
            guest.set(a0=value, a4=END)
            assert guest.run(1) == done
            assert guest.trapped() == (5, CODE + place, END)


def test_calls_and_returns() -> None:
    text = """
        li   sp, 0
        jal  ra, outer
        ebreak
    outer:
        mv   s0, ra
        jal  ra, inner
        addi sp, sp, 1
        jr   s0
    inner:
        addi sp, sp, 16
        jalr ra, 1(ra)      # the lowest bit is cleared
    """
    with Guest(text) as guest:
        assert guest.trap() == (3, CODE + 8, CODE + 8)
        assert guest.register("sp") == 17
        assert sum(guest.hart.retired) == 8


def test_jumps_forward_and_backward_in_a_block() -> None:
    text = (
        "j third\nfirst: li a0, 1\nj fourth\nthird: li a2, 3\nj first\nfourth: ebreak"
    )
    with Guest(text) as guest:
        assert guest.run(1) == 5
        assert (guest.register("a0"), guest.register("a2")) == (1, 3)
        assert guest.hart.pc == guest.labels["fourth"]


def test_code_goes_on_in_the_next_page() -> None:
    with Guest("nop\nnop\nli a0, 7\nend: ebreak", at=CODE + 0x1000 - 8) as guest:
        guest.run_to("end")
        assert guest.register("a0") == 7
        assert sum(guest.hart.retired) == 3


def test_a_hart_that_stands_runs_nothing() -> None:
    with Guest(LOOP) as guest:
        guest.hart.is_stopped = True
        assert guest.run(100) == 0
        assert (guest.hart.pc, guest.hart.retired) == (CODE, [0, 0])


# -- traps


@pytest.mark.parametrize(
    ("text", "cause", "value"),
    [
        ("ebreak", 3, CODE),
        ("ld a0, 4(a0)", 4, DATA + 4),
        ("lw a0, 2(a0)", 4, DATA + 2),
        ("lh a0, -1(a0)", 4, DATA - 1),
        ("sd a0, 4(a0)", 6, DATA + 4),
        ("sh a0, 1(a0)", 6, DATA + 1),
        ("lb a0, -1(a1)", 5, VIRT_RAM - 1),
        ("ld a0, 0(a2)", 5, END),
        ("sb a0, -1(a1)", 7, VIRT_RAM - 1),
        ("sd a0, 0(a2)", 7, END),
        ("ld a0, -8(zero)", 5, (1 << 64) - 8),
        ("jalr a0, 2(a0)", 0, DATA + 2),
        ("j -2", 0, CODE - 2),
        ("beq a0, a0, 6", 0, CODE + 6),
        ("mret", 2, 0x3020_0073),
        ("csrr a0, 0xF14", 2, 0xF140_2573),
        ("csrw time, a0", 2, encode(Instruction("csrrw", rs1=10, imm=0xC01))),
    ],
)
@pytest.mark.parametrize("mode", [KVM_RISCV_MODE_U, KVM_RISCV_MODE_S])
def test_an_exception_is_precise(text: str, cause: int, value: int, mode: int) -> None:
    with Guest() as guest:
        if text == "mret":
            guest.set_word(CODE, value, 4)
        else:
            guest.put(text, CODE)
        guest.hart.mode = mode
        guest.set(a0=DATA, a1=VIRT_RAM, a2=END)
        registers = list(guest.hart.x)
        assert guest.run(1) == 0
        assert guest.trapped() == (cause, CODE, value)
        assert guest.hart.x == registers
        assert guest.hart.mode == KVM_RISCV_MODE_S
        assert guest.csr("sstatus") == (SPP if mode == KVM_RISCV_MODE_S else 0)
        assert guest.hart.retired == [0, 0]


@pytest.mark.parametrize(
    ("to", "cause"), [(VIRT_RAM - 4, 1), (END, 1), (0, 1), (CODE + 2, 0), (1, 0)]
)
def test_code_that_is_nowhere(to: int, cause: int) -> None:
    with Guest() as guest:
        guest.hart.pc = to
        assert guest.run(1) == 0
        assert guest.trapped() == (cause, to, to)


def test_a_branch_that_is_not_taken_may_lead_anywhere() -> None:
    with Guest("bne a0, a0, 6\nend: ebreak") as guest:
        assert guest.run(1) == 1
        assert guest.hart.pc == guest.labels["end"]


@pytest.mark.parametrize("text", ["sret", "wfi", "sfence.vma", "csrr a0, sstatus"])
def test_what_only_a_supervisor_may(text: str) -> None:
    (word,), _ = assemble(text)
    with Guest(text) as guest:
        guest.hart.mode = KVM_RISCV_MODE_U
        assert guest.run(1) == 0
        assert guest.trapped() == (2, CODE, word)


def test_a_call_from_user_mode_and_back() -> None:
    with Guest("ecall\nback: ebreak") as guest:
        guest.put("csrr t0, sepc\naddi t0, t0, 4\ncsrw sepc, t0\nsret", HANDLER)
        guest.hart.mode = KVM_RISCV_MODE_U
        guest.set_csr(sstatus=SIE)
        guest.run(1)
        assert guest.trapped() == (8, CODE, 0)
        assert guest.csr("sstatus") == SPIE  # from U, with interrupts on
        guest.run_to("back")
        assert guest.hart.mode == KVM_RISCV_MODE_U
        assert guest.csr("sstatus") == SIE | SPIE
        assert guest.hart.retired == [0, 4]  # neither trap was retired


def test_sret_goes_where_spp_says() -> None:
    with Guest("sret") as guest:
        guest.put("target: ebreak", DATA)
        guest.set_csr(sepc=DATA, sstatus=SPP)
        guest.run(1)
        assert (guest.hart.pc, guest.hart.mode) == (DATA, KVM_RISCV_MODE_S)
        assert guest.csr("sstatus") == SPIE


def test_a_guest_that_traps_for_ever_ends_with_the_budget() -> None:
    with Guest("ebreak") as guest:
        guest.set_csr(stvec=END)
        assert guest.run(1000) == 0
        assert (guest.csr("scause"), guest.csr("sepc")) == (1, END)


# -- memory


def test_stores_mark_the_kernels_log() -> None:
    text = "sb a1, 0(a0)\nsd a1, 16(a2)\nld a3, 0(a4)\nloop: sd a1, 0(a5)\nj loop"
    with Guest(text) as guest:
        block = guest.memory.blocks[0]
        guest.set(a0=DATA, a2=DATA + 0x3000, a4=DATA + 0x5000, a5=DATA + 0x6000)
        first = (DATA - VIRT_RAM) >> 12
        for _ in range(2):  # and again, when it was emptied
            guest.hart.pc = CODE
            guest.memory.start_log(LogUser.KERNEL)
            guest.memory.start_log(LogUser.DMA)
            guest.run(1000)
            log, other = (
                guest.memory.log(user, block) for user in (LogUser.KERNEL, LogUser.DMA)
            )
            assert log is not None
            assert other is not None
            assert log.ranges().tolist() == [[first, 1], [first + 3, 1], [first + 6, 1]]
            assert other.count == 0
        guest.memory.start_log(LogUser.KERNEL)
        guest.run(1000)  # it is in the loop
        log = guest.memory.log(LogUser.KERNEL, block)
        assert log is not None
        assert log.ranges().tolist() == [[first + 6, 1]]


def test_a_loop_walks_over_pages_and_ends_at_the_last() -> None:
    text = "loop: ld t0, 0(a0)\nadd a1, a1, t0\nsd a1, 8(a0)\naddi a0, a0, 16\nj loop"
    begin = END - 0x5000
    with Guest(text) as guest:
        for at in range(begin, END, 16):
            guest.set_word(at, at)
        guest.set(a0=begin)
        rounds = (END - begin) // 16
        assert guest.run(5 * rounds + 1) == 5 * rounds
        assert guest.trapped() == (5, CODE, END)
        sums = 0
        for at in range(begin, END, 16):
            sums += at
            assert guest.word(at + 8) == sums
        assert guest.register("a1") == sums


def test_addresses_wrap() -> None:
    with Guest("ld a0, 2040(a1)\nend: ebreak") as guest:
        guest.set(a1=-2048)  # the sum is -8: no RAM, rather than an offset
        guest.run(1)
        assert guest.trapped() == (5, CODE, (1 << 64) - 8)
        guest.hart.pc = CODE
        guest.set(a1=DATA - 2040)
        guest.set_word(DATA, 5)
        guest.run(1)
        assert guest.register("a0") == 5


# -- code that changes

PATCH = """
    jal  ra, there
    sw   a0, 0(a1)
    fence.i
    jal  ra, there
end:
    ebreak
"""


def test_code_that_a_guest_writes_is_what_runs() -> None:
    with Guest() as guest:
        guest.put("there: addi a2, a2, 1\nret", DATA)
        guest.put(PATCH, CODE, {"there": DATA})
        (word,), _ = assemble("addi a2, a2, 100")
        guest.set(a0=word, a1=DATA)
        guest.run(100)
        assert guest.trapped()[:2] == (3, guest.labels["end"])
        assert guest.register("a2") == 101


def test_code_in_a_page_that_was_written_before_it_ran() -> None:
    with Guest() as guest:
        guest.put("there: addi a2, a2, 1\nret", DATA)
        guest.put("sw a3, 16(a1)\n" + PATCH, CODE, {"there": DATA})
        (word,), _ = assemble("addi a2, a2, 100")
        guest.set(a0=word, a1=DATA)
        guest.run(100)
        assert guest.trapped()[:2] == (3, guest.labels["end"])
        assert guest.register("a2") == 101


def test_code_in_the_page_that_writes_it() -> None:
    text = """
    loop:
        addi a2, a2, 1
        sw   a0, 0(a1)
        fence.i
        addi a3, a3, 1
        bne  a3, a4, loop
    end:
        ebreak
    """
    with Guest(text) as guest:
        (word,), _ = assemble("addi a2, a2, 100")
        guest.set(a0=word, a1=CODE, a4=3)
        guest.run(100)
        assert guest.trapped()[:2] == (3, guest.labels["end"])
        assert guest.register("a2") == 201


def test_more_pages_of_code_than_are_kept() -> None:
    # Each page jumps to the next; the last writes the first, and jumps there.
    first, count = CODE + 0x1_0000, 1100
    with GuestMemory.of_virt(8 << 20) as memory:
        for page in range(first, first + 0x1000 * count, 0x1000):
            (word,), _ = assemble("j 0x1000", page)
            memory.write(page, word.to_bytes(4, "little"))
        words, _ = assemble("sw a0, 0(a1)\nfence.i\njr a1")
        last = first + 0x1000 * count
        memory.write(last, b"".join(word.to_bytes(4, "little") for word in words))
        hart = Hart(hart_id=0, pc=first)
        (hart.x[10],), _ = assemble("wfi")
        hart.x[11] = first
        assert Engine(memory, [hart], lambda: 0).run(hart, 5000) == count + 4
        assert (hart.pc, hart.is_waiting) == (first + 4, True)


def test_code_that_others_wrote_between_two_runs() -> None:
    with Guest(LOOP) as guest:
        guest.run(100)
        guest.put("ebreak", CODE)
        guest.run(10)
        guest.hart.pc = CODE
        guest.run(1)
        assert guest.trapped()[:2] == (3, CODE)


def test_two_engines_take_turns_with_a_hart() -> None:
    with Guest(LOOP) as guest, Guest(LOOP) as other:
        guest.set(a0=10_000)
        guest.run(3000)
        hart, there = guest.hart, other.hart
        there.pc, there.x[:] = hart.pc, hart.x
        other.run(3000)
        assert other.register("t0") == 2 * guest.register("t0") == 2000
