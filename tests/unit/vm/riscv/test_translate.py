"""Any small program, translated in blocks, against the same one step by step."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vm.riscv.guests import CODE, DATA, Guest
from tests.unit.vm.riscv.test_arithmetic import BOUNDARIES, REGISTERS, TAKEN
from vfiomig.vm.riscv.instructions import Instruction, encode
from vfiomig.vm.riscv.translate import python_of, translate

TOP = 2**64
PAGE = 4096
LENGTH: Final = 8
LONGEST: Final = 64  # what a block may take above a budget
USED: Final = range(6)  # x0 to x5; x6 points to memory, and nobody writes it
used = st.sampled_from(USED)


def at_distance(number: int) -> st.SearchStrategy[int]:
    """Return distances from an instruction to any, or to the one behind the last."""
    return st.integers(-number, LENGTH - number).map(lambda to: 4 * to)


def made(
    *names: str,
    rd: st.SearchStrategy[int] = used,
    rs1: st.SearchStrategy[int] = used,
    imm: st.SearchStrategy[int],
) -> st.SearchStrategy[Instruction]:
    return st.builds(Instruction, st.sampled_from(names), rd, rs1, used, imm)


def any_instruction(number: int) -> st.SearchStrategy[Instruction]:
    return st.one_of(
        made(*REGISTERS, imm=st.just(0)),
        made("addi", imm=st.integers(-2048, 2047)),
        made("ld", "sd", rs1=st.just(6), imm=st.sampled_from([0, 8, 16, 4])),  # 4: no
        made(*TAKEN, imm=at_distance(number)),
        made("jal", imm=at_distance(number)),
    )


programs = st.tuples(*(any_instruction(number) for number in range(LENGTH)))


class Stepping:
    """The program, an instruction at a time; ``memory`` are three words."""

    def __init__(self, program: tuple[Instruction, ...], x: list[int]) -> None:
        self.program = program
        self.x = x
        self.pc = CODE
        self.memory = [0, 0, 0]

    def step(self) -> bool:
        """Perform one; return False if it traps, or is behind the last."""
        number = (self.pc - CODE) // 4
        if number == LENGTH:
            return False
        it = self.program[number]
        a, b = self.x[it.rs1], self.x[it.rs2]
        follows = self.pc + 4
        if it.name in REGISTERS:
            self.x[it.rd] = REGISTERS[it.name](a, b) % TOP
        elif it.name == "addi":
            self.x[it.rd] = (a + it.imm) % TOP
        elif it.name in TAKEN:
            follows = self.pc + it.imm if TAKEN[it.name](a, b) else follows
        elif it.name == "jal":
            self.x[it.rd], follows = follows, self.pc + it.imm
        elif it.imm % 8:
            return False
        elif it.name == "ld":
            self.x[it.rd] = self.memory[it.imm // 8]
        else:
            self.memory[it.imm // 8] = b
        self.x[0], self.pc = 0, follows
        return True


@given(
    program=programs,
    values=st.lists(st.sampled_from(BOUNDARIES), min_size=5, max_size=5),
    budgets=st.lists(st.integers(1, 100), min_size=1, max_size=3),
)
def test_a_block_does_what_its_instructions_do(
    program: tuple[Instruction, ...], values: list[int], budgets: list[int]
) -> None:
    other = Stepping(program, [0, *values, DATA])
    with Guest() as guest:
        for number, it in enumerate(program):
            guest.set_word(CODE + 4 * number, encode(it), 4)
        guest.hart.x[:7] = other.x
        for budget in budgets:
            retired = guest.run(budget)
            trapped = guest.csr("scause") != 0
            if trapped:  # then it went on in the handler
                retired = budget + LONGEST
            steps = 0
            while steps < retired and other.step():
                steps += 1
            place = guest.csr("sepc") if trapped else guest.hart.pc
            assert place == other.pc
            assert guest.hart.x[:7] == other.x
            assert [guest.word(DATA + 8 * at) for at in range(3)] == other.memory
            if trapped:
                assert not other.step()
                return
            assert retired == steps >= budget


def test_a_block_can_be_read() -> None:
    page = b"".join(
        encode(it).to_bytes(4, "little")
        for it in (
            Instruction("addi", 5, 5, imm=1),
            Instruction("ld", 6, 7, imm=8),
            Instruction("bne", rs1=5, rs2=6, imm=-8),
            Instruction("ecall"),
        )
    ).ljust(PAGE, b"\0")
    text = python_of(page, CODE)
    assert "x5 = x5 + 1\n" in text
    assert "if x5 != x6:" in text
    assert "continue" in text
    # What is not performed by a block is the block's end, or all of it.
    assert translate(page, CODE + 12).run is None
    assert translate(page, CODE + 12).instruction == Instruction("ecall")
    assert translate(page, CODE + 16) == (None, None, 0)


def test_the_same_code_is_translated_once() -> None:
    page = encode(Instruction("addi")).to_bytes(4, "little") * (PAGE // 4)
    assert translate(page, CODE) is translate(bytes(bytearray(page)), CODE)
    assert translate(page, CODE) is not translate(page, CODE + PAGE)


@pytest.mark.parametrize("word", [0x0000_0013, 0x0000_0063, 0xFFDF_F06F, 0x0000_006F])
def test_a_page_of_one_instruction_is_a_block_of_bounded_length(word: int) -> None:
    page = word.to_bytes(4, "little") * (PAGE // 4)
    assert len(python_of(page, CODE + 2048).splitlines()) < 1000
