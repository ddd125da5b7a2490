"""RV64I, Zicsr and what a supervisor needs: one table to decode and to encode by.

The RISC-V Instruction Set Manual, volume I (unprivileged, 20191213: chapters 2, 3, 5
and 9, and the listing of chapter 24) and II (privileged, 20211203: chapter 4).
Compressed instructions, multiplications, atomics and floating point are left out: they
are illegal here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_REGISTERS: Final = 32


class Format(enum.Enum):
    """Where a word holds the operands (volume I, section 2.2 and 2.3)."""

    R = "rd, rs1, rs2"
    I = "rd, rs1, imm"  # noqa: E741 -- the manual's letter
    LOAD = "rd, imm(rs1)"  # the fields of I
    SHIFT = "rd, rs1, shamt of 6 bits"
    SHIFT_WORD = "rd, rs1, shamt of 5 bits"
    S = "rs2, imm(rs1)"
    B = "rs1, rs2, target"
    U = "rd, imm"
    J = "rd, target"
    CSR = "rd, csr, rs1"
    CSR_IMMEDIATE = "rd, csr, uimm"
    FENCE = "rs1, rs2"
    NONE = ""


class Instruction(NamedTuple):
    """An instruction by its name in the manual.

    ``imm`` is signed; of a U format its low 12 bits are zero.  Of the CSR formats it is
    the number of the CSR, and ``rs1`` of CSR_IMMEDIATE is the immediate.
    """

    name: str
    rd: int = 0
    rs1: int = 0
    rs2: int = 0
    imm: int = 0


class Row(NamedTuple):
    """``word & mask == match`` is what makes a word that instruction."""

    name: str
    format: Format
    match: int
    mask: int


def _row(name: str, kind: Format, opcode: int, funct3: int = -1, high: int = 0) -> Row:
    """Return a row; ``high`` is what the highest bits are that the format has free."""
    match, mask = opcode, 0x7F
    if funct3 >= 0:
        match, mask = match | funct3 << 12, mask | 0x7000
    shift = _HIGH_BITS.get(kind)
    if shift is not None:
        match, mask = match | high << shift, mask | (0xFFFF_FFFF >> shift) << shift
    return Row(name, kind, match, mask)


_HIGH_BITS: Final = {Format.R: 25, Format.SHIFT: 26, Format.SHIFT_WORD: 25}

_OP: Final = {
    # name: funct3, funct7
    "add": (0, 0x00),
    "sub": (0, 0x20),
    "sll": (1, 0x00),
    "slt": (2, 0x00),
    "sltu": (3, 0x00),
    "xor": (4, 0x00),
    "srl": (5, 0x00),
    "sra": (5, 0x20),
    "or": (6, 0x00),
    "and": (7, 0x00),
}
_OP_WORD: Final = ("add", "sub", "sll", "srl", "sra")
_IMMEDIATE: Final = ("add", "slt", "sltu", "xor", "or", "and")
_SHIFTS: Final = ("sll", "srl", "sra")

LOADS: Final = {"lb": 0, "lh": 1, "lw": 2, "ld": 3, "lbu": 4, "lhu": 5, "lwu": 6}
STORES: Final = {"sb": 0, "sh": 1, "sw": 2, "sd": 3}
BRANCHES: Final = {"beq": 0, "bne": 1, "blt": 4, "bge": 5, "bltu": 6, "bgeu": 7}
_CSR: Final = {"csrrw": 1, "csrrs": 2, "csrrc": 3}
CSR_INSTRUCTIONS: Final = frozenset(_CSR) | {f"{name}i" for name in _CSR}


def _immediate(name: str) -> str:
    return "sltiu" if name == "sltu" else f"{name}i"


ROWS: Final = (
    _row("lui", Format.U, 0x37),
    _row("auipc", Format.U, 0x17),
    _row("jal", Format.J, 0x6F),
    _row("jalr", Format.LOAD, 0x67, 0),
    *(_row(name, Format.B, 0x63, at) for name, at in BRANCHES.items()),
    *(_row(name, Format.LOAD, 0x03, at) for name, at in LOADS.items()),
    *(_row(name, Format.S, 0x23, at) for name, at in STORES.items()),
    *(_row(_immediate(name), Format.I, 0x13, _OP[name][0]) for name in _IMMEDIATE),
    *(
        _row(f"{name}i", Format.SHIFT, 0x13, _OP[name][0], _OP[name][1] >> 1)
        for name in _SHIFTS
    ),
    *(_row(name, Format.R, 0x33, *functs) for name, functs in _OP.items()),
    _row("addiw", Format.I, 0x1B, 0),
    *(_row(f"{name}iw", Format.SHIFT_WORD, 0x1B, *_OP[name]) for name in _SHIFTS),
    *(_row(f"{name}w", Format.R, 0x3B, *_OP[name]) for name in _OP_WORD),
    _row("fence", Format.I, 0x0F, 0),
    _row("fence.i", Format.I, 0x0F, 1),
    *(_row(name, Format.CSR, 0x73, at) for name, at in _CSR.items()),
    *(
        _row(f"{name}i", Format.CSR_IMMEDIATE, 0x73, at + 4)
        for name, at in _CSR.items()
    ),
    Row("sfence.vma", Format.FENCE, 0x1200_0073, 0xFE00_7FFF),
    Row("ecall", Format.NONE, 0x0000_0073, 0xFFFF_FFFF),
    Row("ebreak", Format.NONE, 0x0010_0073, 0xFFFF_FFFF),
    Row("sret", Format.NONE, 0x1020_0073, 0xFFFF_FFFF),
    Row("wfi", Format.NONE, 0x1050_0073, 0xFFFF_FFFF),
)
BY_NAME: Final = {row.name: row for row in ROWS}
_BY_OPCODE: Final = {
    opcode: tuple(row for row in ROWS if row.match & 0x7F == opcode)
    for opcode in {row.match & 0x7F for row in ROWS}
}


def decode(word: int) -> Instruction | None:
    """Return the instruction of a 32-bit word, or None if it is illegal here."""
    for row in _BY_OPCODE.get(word & 0x7F, ()):
        if word & row.mask == row.match:
            return Instruction(row.name, *_operands(row.format, word))
    return None


def encode(instruction: Instruction) -> int:
    """Return the word of an instruction; operands that it does not have are ignored.

    Raises:
        ValueError: an operand that does not fit.
        KeyError: no such instruction.
    """
    row = BY_NAME[instruction.name]
    registers = instruction.rd, instruction.rs1, instruction.rs2
    if not all(0 <= register < _REGISTERS for register in registers):
        message = f"{instruction.name}: no such register"
        raise ValueError(message)
    return row.match | _FIELDS[row.format](instruction)


def _operands(kind: Format, word: int) -> tuple[int, int, int, int]:
    """Return rd, rs1, rs2 and the immediate; 0 for what the format does not have."""
    rd, rs1, rs2 = word >> 7 & 31, word >> 15 & 31, word >> 20 & 31
    top = _signed(word >> 25, 7)
    match kind:
        case Format.R:
            return rd, rs1, rs2, 0
        case Format.I | Format.LOAD:
            return rd, rs1, 0, _signed(word >> 20, 12)
        case Format.SHIFT:
            return rd, rs1, 0, word >> 20 & 63
        case Format.SHIFT_WORD:
            return rd, rs1, 0, rs2
        case Format.S:
            return 0, rs1, rs2, top << 5 | rd
        case Format.B:
            imm = (top >> 6) << 12 | (rd & 1) << 11 | (top & 63) << 5 | rd & 30
            return 0, rs1, rs2, imm
        case Format.U:
            return rd, 0, 0, _signed(word >> 12, 20) << 12
        case Format.J:
            middle = (word >> 12 & 0xFF) << 12 | (word >> 20 & 1) << 11
            return rd, 0, 0, (top >> 6) << 20 | middle | word >> 20 & 0x7FE
        case Format.CSR | Format.CSR_IMMEDIATE:
            return rd, rs1, 0, word >> 20
        case Format.FENCE:
            return 0, rs1, rs2, 0
        case Format.NONE:
            return 0, 0, 0, 0


def _of_i(it: Instruction) -> int:
    imm = _checked(it, -(1 << 11), 1 << 11, 1) & 0xFFF
    return it.rd << 7 | it.rs1 << 15 | imm << 20


def _of_s(it: Instruction) -> int:
    imm = _checked(it, -(1 << 11), 1 << 11, 1)
    return (imm & 31) << 7 | it.rs1 << 15 | it.rs2 << 20 | (imm >> 5 & 127) << 25


def _of_b(it: Instruction) -> int:
    imm = _checked(it, -(1 << 12), 1 << 12, 2)
    low = (imm >> 11 & 1) << 7 | (imm >> 1 & 15) << 8
    high = (imm >> 5 & 63) << 25 | (imm >> 12 & 1) << 31
    return low | it.rs1 << 15 | it.rs2 << 20 | high


def _of_u(it: Instruction) -> int:
    return it.rd << 7 | _checked(it, -(1 << 31), 1 << 31, 1 << 12) & 0xFFFF_F000


def _of_j(it: Instruction) -> int:
    imm = _checked(it, -(1 << 20), 1 << 20, 2)
    low = (imm >> 12 & 0xFF) << 12 | (imm >> 11 & 1) << 20
    return it.rd << 7 | low | (imm >> 1 & 0x3FF) << 21 | (imm >> 20 & 1) << 31


def _shifted_by(bits: int) -> Callable[[Instruction], int]:
    def fields(it: Instruction) -> int:
        return it.rd << 7 | it.rs1 << 15 | _checked(it, 0, 1 << bits, 1) << 20

    return fields


_FIELDS: Final[dict[Format, Callable[[Instruction], int]]] = {
    Format.R: lambda it: it.rd << 7 | it.rs1 << 15 | it.rs2 << 20,
    Format.I: _of_i,
    Format.LOAD: _of_i,
    Format.SHIFT: _shifted_by(6),
    Format.SHIFT_WORD: _shifted_by(5),
    Format.S: _of_s,
    Format.B: _of_b,
    Format.U: _of_u,
    Format.J: _of_j,
    Format.CSR: _shifted_by(12),
    Format.CSR_IMMEDIATE: _shifted_by(12),
    Format.FENCE: lambda it: it.rs1 << 15 | it.rs2 << 20,
    Format.NONE: lambda _it: 0,
}


def _checked(it: Instruction, least: int, behind: int, step: int) -> int:
    if not least <= it.imm < behind or it.imm % step:
        message = f"{it.name}: {it.imm} does not fit"
        raise ValueError(message)
    return it.imm


def _signed(value: int, bits: int) -> int:
    """Return the low bits of a value as a number with a sign."""
    sign = 1 << bits - 1
    return (value & (2 * sign - 1) ^ sign) - sign
