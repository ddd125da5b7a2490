"""Words and instructions, against the words of another assembler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.vm.riscv.assembler import assemble
from vfiomig.vm.riscv.instructions import (
    BY_NAME,
    ROWS,
    Format,
    Instruction,
    decode,
    encode,
)

# As llvm-mc 14 has them (-triple=riscv64): each instruction once.
GOLDEN = (
    ("lui x10, 0x12345", 0x12345537),
    ("auipc x31, 0xfffff", 0xFFFFFF97),
    ("jal x1, -4", 0xFFDFF0EF),
    ("jal x0, 2048", 0x0010006F),
    ("jalr x0, 0(x1)", 0x00008067),
    ("jalr x5, -2048(x6)", 0x800302E7),
    ("beq x1, x2, 8", 0x00208463),
    ("bne x10, x0, -4", 0xFE051EE3),
    ("blt x5, x6, -4096", 0x8062C063),
    ("bge x5, x6, 4094", 0x7E62DFE3),
    ("bltu x30, x31, 2048", 0x01FF60E3),
    ("bgeu x1, x0, 64", 0x0400F063),
    ("lb x1, -1(x2)", 0xFFF10083),
    ("lh x3, 2(x4)", 0x00221183),
    ("lw x15, -20(x8)", 0xFEC42783),
    ("ld x1, 8(x2)", 0x00813083),
    ("lbu x10, 0(x11)", 0x0005C503),
    ("lhu x10, 2047(x11)", 0x7FF5D503),
    ("lwu x10, -2048(x11)", 0x8005E503),
    ("sb x1, 31(x2)", 0x00110FA3),
    ("sh x1, 32(x2)", 0x02111023),
    ("sw x10, -20(x8)", 0xFEA42623),
    ("sd x1, 8(x2)", 0x00113423),
    ("addi x1, x0, 1", 0x00100093),
    ("slti x1, x2, -1", 0xFFF12093),
    ("sltiu x1, x2, 1", 0x00113093),
    ("xori x1, x2, -1", 0xFFF14093),
    ("ori x1, x2, 0x55", 0x05516093),
    ("andi x1, x2, 0x7ff", 0x7FF17093),
    ("slli x10, x10, 32", 0x02051513),
    ("srli x10, x10, 1", 0x00155513),
    ("srai x10, x10, 63", 0x43F55513),
    ("add x10, x10, x11", 0x00B50533),
    ("sub x10, x10, x11", 0x40B50533),
    ("sll x1, x2, x3", 0x003110B3),
    ("slt x1, x2, x3", 0x003120B3),
    ("sltu x1, x2, x3", 0x003130B3),
    ("xor x1, x2, x3", 0x003140B3),
    ("srl x1, x2, x3", 0x003150B3),
    ("sra x1, x2, x3", 0x403150B3),
    ("or x1, x2, x3", 0x003160B3),
    ("and x1, x2, x3", 0x003170B3),
    ("addiw x15, x15, 1", 0x0017879B),
    ("slliw x1, x2, 31", 0x01F1109B),
    ("srliw x1, x2, 5", 0x0051509B),
    ("sraiw x1, x2, 16", 0x4101509B),
    ("addw x1, x2, x3", 0x003100BB),
    ("subw x1, x2, x3", 0x403100BB),
    ("sllw x1, x2, x3", 0x003110BB),
    ("srlw x1, x2, x3", 0x003150BB),
    ("sraw x1, x2, x3", 0x403150BB),
    ("fence x0, x0, 0xff", 0x0FF0000F),
    ("fence.i", 0x0000100F),
    ("csrrw x2, sscratch, x2", 0x14011173),
    ("csrrs x10, time, x0", 0xC0102573),
    ("csrrc x0, sip, x5", 0x1442B073),
    ("csrrwi x1, satp, 31", 0x180FD0F3),
    ("csrrsi x0, sstatus, 2", 0x10016073),
    ("csrrci x0, sstatus, 2", 0x10017073),
    ("sfence.vma", 0x12000073),
    ("sfence.vma x5, x6", 0x12628073),
    ("ecall", 0x00000073),
    ("ebreak", 0x00100073),
    ("sret", 0x10200073),
    ("wfi", 0x10500073),
)
ILLEGAL = {
    "zeros": 0x0000_0000,
    "ones": 0xFFFF_FFFF,
    "compressed nop": 0x0000_0001,
    "mul x10, x10, x11": 0x02B5_0533,
    "amoadd.w x0, x11, (x12)": 0x00B6_202F,
    "slli of 64": 0x0405_1513 | 1 << 26,
    "slliw of 32": 0x0205_151B,
    "load of no width": 0x0005_7503,
    "store of no width": 0x0011_7423,
    "branch of no condition": 0x0020_A463,
    "mret": 0x3020_0073,
    "ecall with a register": 0x0000_00F3,
}

registers = st.integers(0, 31)


def signed(bits: int, step: int = 1) -> st.SearchStrategy[int]:
    half = (1 << bits - 1) // step
    return st.integers(-half, half - 1).map(lambda number: number * step)


IMMEDIATES = {
    Format.I: signed(12),
    Format.LOAD: signed(12),
    Format.S: signed(12),
    Format.SHIFT: st.integers(0, 63),
    Format.SHIFT_WORD: st.integers(0, 31),
    Format.B: signed(13, 2),
    Format.U: signed(32, 1 << 12),
    Format.J: signed(21, 2),
    Format.CSR: st.integers(0, 0xFFF),
    Format.CSR_IMMEDIATE: st.integers(0, 0xFFF),
}
HAS = {  # the registers of a format
    Format.R: "rd rs1 rs2",
    Format.S: "rs1 rs2",
    Format.B: "rs1 rs2",
    Format.U: "rd",
    Format.J: "rd",
    Format.FENCE: "rs1 rs2",
    Format.NONE: "",
}


@st.composite
def instructions(draw: st.DrawFn) -> Instruction:
    row = draw(st.sampled_from(ROWS))
    fields = {name: draw(registers) for name in HAS.get(row.format, "rd rs1").split()}
    imm = draw(IMMEDIATES[row.format]) if row.format in IMMEDIATES else 0
    return Instruction(row.name, **fields, imm=imm)


@pytest.mark.parametrize(("text", "word"), GOLDEN)
def test_an_instruction_has_the_word_of_another_assembler(text: str, word: int) -> None:
    assert assemble(text)[0] == [word]
    decoded = decode(word)
    assert decoded is not None
    assert decoded.name == text.split()[0]
    assert encode(decoded) == word


def test_each_instruction_is_among_them() -> None:
    assert {text.split()[0] for text, _ in GOLDEN} == BY_NAME.keys()


@given(instructions())
def test_what_is_encoded_is_decoded(instruction: Instruction) -> None:
    assert decode(encode(instruction)) == instruction


@given(st.integers(0, 0xFFFF_FFFF))
def test_a_word_is_one_instruction_at_most(word: int) -> None:
    matching = [row.name for row in ROWS if word & row.mask == row.match]
    decoded = decode(word)
    assert matching == ([] if decoded is None else [decoded.name])


@pytest.mark.parametrize("word", ILLEGAL.values(), ids=ILLEGAL)
def test_what_is_no_rv64i_is_illegal(word: int) -> None:
    assert decode(word) is None


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction("addi", imm=2048),
        Instruction("sd", imm=-2049),
        Instruction("beq", imm=3),
        Instruction("beq", imm=4096),
        Instruction("jal", imm=1 << 20),
        Instruction("lui", imm=0x1001),
        Instruction("slli", imm=64),
        Instruction("slliw", imm=32),
        Instruction("csrrw", imm=4096),
        Instruction("add", rd=32),
        Instruction("add", rs1=-1),
    ],
)
def test_what_does_not_fit_is_refused(instruction: Instruction) -> None:
    with pytest.raises(ValueError, match=instruction.name):
        encode(instruction)
