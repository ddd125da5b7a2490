"""A small assembler: RV64I in the syntax of the manual, to words.

A line is ``[label:] [instruction [operand, ...]] [# comment]``.  Operands are registers
(by their ABI names, or x0 to x31), numbers, symbols with an offset (``table + 8``), and
``offset(register)``.  A target of a branch or jump is a label, or a distance as a
number.  The pseudo-instructions are those of `_PSEUDO`, ``li`` and ``la``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.vm.riscv.csr import NUMBERS
from vfiomig.vm.riscv.instructions import BY_NAME, Format, Instruction, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

_ABI: Final = (
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 "
    "s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
)
REGISTERS: Final[dict[str, int]] = (
    {name: number for number, name in enumerate(_ABI.split())}
    | {f"x{number}": number for number in range(32)}
    | {"fp": 8}
)
# What a pseudo-instruction stands for; {0} is its first operand.
_PSEUDO: Final = {
    "nop": "addi zero, zero, 0",
    "mv": "addi {0}, {1}, 0",
    "not": "xori {0}, {1}, -1",
    "neg": "sub {0}, zero, {1}",
    "snez": "sltu {0}, zero, {1}",
    "seqz": "sltiu {0}, {1}, 1",
    "beqz": "beq {0}, zero, {1}",
    "bnez": "bne {0}, zero, {1}",
    "bltz": "blt {0}, zero, {1}",
    "bgez": "bge {0}, zero, {1}",
    "j": "jal zero, {0}",
    "call": "jal ra, {0}",
    "jr": "jalr zero, 0({0})",
    "ret": "jalr zero, 0(ra)",
    "csrr": "csrrs {0}, {1}, zero",
    "csrw": "csrrw zero, {0}, {1}",
    "csrs": "csrrs zero, {0}, {1}",
    "csrc": "csrrc zero, {0}, {1}",
}
_OPERANDS: Final = {
    Format.R: "dab",
    Format.I: "dai",
    Format.LOAD: "dm",
    Format.SHIFT: "dai",
    Format.SHIFT_WORD: "dai",
    Format.S: "bm",
    Format.B: "abt",
    Format.U: "dh",
    Format.J: "dt",
    Format.CSR: "dca",
    Format.CSR_IMMEDIATE: "dcu",
    Format.FENCE: "ab",
    Format.NONE: "",
}
_BARE: Final = {"sfence.vma": 2, "fence": 3, "fence.i": 3}  # operands left out are zero
_MEMORY: Final = re.compile(r"(.*)\((\w+)\)")
_LABEL: Final = re.compile(r"\s*([A-Za-z_]\w*):\s*(.*)")


class _Line(NamedTuple):
    number: int
    at: int
    name: str
    operands: list[str]


def assemble(
    text: str, at: int = 0, symbols: Mapping[str, int] | None = None
) -> tuple[list[int], dict[str, int]]:
    """Return the words of a program that begins at ``at``, and its labels' addresses.

    Raises:
        ValueError: a line that cannot be read; the message has its number.
    """
    lines, labels = _read(text, at)
    known = {**(symbols or {}), **labels}
    words = []
    for line in lines:
        try:
            words.append(encode(_instruction(line, known)))
        except (ValueError, KeyError, IndexError) as error:
            message = f"line {line.number}: {line.name} {', '.join(line.operands)}"
            raise ValueError(f"{message}: {error}") from None
    return words, labels


def _read(text: str, at: int) -> tuple[list[_Line], dict[str, int]]:
    """Place the instructions, pseudo-instructions replaced."""
    lines: list[_Line] = []
    labels: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        rest = raw.partition("#")[0].strip()
        while found := _LABEL.fullmatch(rest):
            label, rest = found[1], found[2]
            if label in labels:
                message = f"line {number}: a second label {label}"
                raise ValueError(message)
            labels[label] = at
        for name, operands in _expanded(rest, number):
            lines.append(_Line(number, at, name, operands))
            at += 4
    return lines, labels


def _expanded(text: str, number: int) -> list[tuple[str, list[str]]]:
    if not text:
        return []
    name, operands = _split(text)
    if name == "la":
        target, symbol = operands
        upper = ("auipc", [target, f"%upper {symbol}"])
        return [upper, ("addi", [target, target, f"%lower {symbol}"])]
    if name == "li":
        return _loaded(operands[0], _number(operands[1]))
    if name in _PSEUDO:
        try:
            return [_split(_PSEUDO[name].format(*operands))]
        except IndexError:
            message = f"line {number}: {name} has too few operands"
            raise ValueError(message) from None
    return [(name, operands)]


def _loaded(register: str, value: int) -> list[tuple[str, list[str]]]:
    """Return what loads a number of 32 bits with its sign."""
    low = (value + 0x800 & 0xFFF) - 0x800
    if value == low:
        return [("addi", [register, "zero", str(value)])]
    high = (value - low & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
    upper = ("lui", [register, str(high >> 12)])
    return [upper, ("addiw", [register, register, str(low)])]


def _split(text: str) -> tuple[str, list[str]]:
    name, _, rest = text.partition(" ")
    return name, [operand.strip() for operand in rest.split(",")] if rest else []


def _instruction(line: _Line, symbols: Mapping[str, int]) -> Instruction:
    letters = _OPERANDS[BY_NAME[line.name].format]
    operands = line.operands
    if not operands and line.name in _BARE:
        return Instruction(line.name)
    if len(operands) != len(letters):
        message = f"{len(letters)} operands, not {len(operands)}"
        raise ValueError(message)
    fields: dict[str, int] = {}
    for letter, operand in zip(letters, operands, strict=True):
        fields |= _field(letter, operand, line.at, symbols)
    return Instruction(line.name, **fields)


def _field(
    letter: str, operand: str, at: int, symbols: Mapping[str, int]
) -> dict[str, int]:
    match letter:
        case "d" | "a" | "b":
            name = {"d": "rd", "a": "rs1", "b": "rs2"}[letter]
            return {name: REGISTERS[operand]}
        case "m":
            found = _MEMORY.fullmatch(operand)
            if found is None:
                message = f"{operand} is not offset(register)"
                raise ValueError(message)
            offset = _value(found[1] or "0", at, symbols)
            return {"imm": offset, "rs1": REGISTERS[found[2]]}
        case "t":
            known = operand in symbols
            return {"imm": symbols[operand] - at if known else _number(operand)}
        case "c":
            known = operand in NUMBERS
            return {"imm": NUMBERS[operand] if known else _number(operand)}
        case "u":
            return {"rs1": _number(operand)}
        case "h":
            return {"imm": _high(_value(operand, at, symbols))}
        case _:
            return {"imm": _value(operand, at, symbols)}


def _value(text: str, at: int, symbols: Mapping[str, int]) -> int:
    if text.startswith("%"):
        # The two of `la`: the second is one instruction behind the first.
        half, _, symbol = text.partition(" ")
        distance = _sum(symbol, symbols) - (at if half == "%upper" else at - 4)
        low = (distance + 0x800 & 0xFFF) - 0x800
        return distance - low >> 12 if half == "%upper" else low
    return _sum(text, symbols)


def _high(value: int) -> int:
    """Return the immediate of lui and auipc from its high 20 bits, signed or not."""
    if not -(1 << 19) <= value < 1 << 20:
        message = f"{value} has no 20 bits"
        raise ValueError(message)
    return ((value ^ 1 << 19) - (1 << 19) << 12) if value >= 0 else value << 12


def _sum(text: str, symbols: Mapping[str, int]) -> int:
    parts = [part.strip() for part in text.split("+")]
    return sum(symbols[part] if part in symbols else _number(part) for part in parts)


def _number(text: str) -> int:
    return int(text, 0)
