"""What each plain instruction is in Python.

{a} is rs1, {b} rs2 or the immediate without a sign, {imm} the immediate with it, and
{minus} that one negated.  Registers hold numbers of 64 bits without a sign.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["b", "B", "h", "H", "i", "I", "Q"]  # of memoryview.cast

CONSTANTS: Final = {
    "ALL": "0xFFFFFFFFFFFFFFFF",
    "SIGN": "0x8000000000000000",
    "LOW": "0xFFFFFFFF",
    "HIGH": "0xFFFFFFFF00000000",
}
VALUES: Final = {
    "slt": "1 if {a} ^ SIGN < {b} ^ SIGN else 0",
    "sltu": "1 if {a} < {b} else 0",
    "xor": "{a} ^ {b}",
    "srl": "{a} >> ({b} & 63)",
    "sra": "({a} ^ SIGN) - SIGN >> ({b} & 63) & ALL",
    "or": "{a} | {b}",
    "and": "{a} & {b}",
    "slti": "1 if {a} ^ SIGN < {b} ^ SIGN else 0",
    "sltiu": "1 if {a} < {b} else 0",
    "xori": "{a} ^ {b}",
    "ori": "{a} | {b}",
    "andi": "{a} & {b}",
    "srli": "{a} >> {imm}",
    "srai": "({a} ^ SIGN) - SIGN >> {imm} & ALL",
    "lui": "{b}",
}
# These may leave the 64 bits at one end.  To look first is cheaper than a mask, which
# makes a long number in any case.
UPWARD: Final = {
    "add": "{a} + {b}",
    "sll": "{a} << ({b} & 63)",
    "addi": "{a} + {imm}",
    "slli": "{a} << {imm}",
}
DOWNWARD: Final = {"sub": "{a} - {b}", "addi": "{a} - {minus}"}
ABOVE: Final = "> ALL"
BELOW: Final = "< 0"
# Of these only the low 32 bits count, extended by their sign.
WORDS: Final = {
    "addw": "{a} + {b}",
    "subw": "{a} - {b}",
    "sllw": "{a} << ({b} & 31)",
    "srlw": "({a} & LOW) >> ({b} & 31)",
    "sraw": "({a} << 32 & ALL ^ SIGN) - SIGN >> 32 + ({b} & 31)",
    "addiw": "{a} + {imm}",
    "slliw": "{a} << {imm}",
    "srliw": "({a} & LOW) >> {imm}",
    "sraiw": "({a} << 32 & ALL ^ SIGN) - SIGN >> 32 + {imm}",
}
EXTENDED: Final = "w if (w := ({}) & LOW) < 0x80000000 else w | HIGH"
CONDITIONS: Final = {
    "beq": "{a} == {b}",
    "bne": "{a} != {b}",
    "blt": "{a} ^ SIGN < {b} ^ SIGN",
    "bge": "{a} ^ SIGN >= {b} ^ SIGN",
    "bltu": "{a} < {b}",
    "bgeu": "{a} >= {b}",
}
BESIDE_ZERO: Final = {"blt": "{a} >= SIGN", "bge": "{a} < SIGN"}  # of {a} and x0


class Width(NamedTuple):
    """What a load or store moves."""

    kind: Kind
    shift: int  # the size's logarithm
    value: str  # of {}: the element, or the register


LOADED: Final = {
    "lb": Width("b", 0, "{} & ALL"),
    "lh": Width("h", 1, "{} & ALL"),
    "lw": Width("i", 2, "{} & ALL"),
    "ld": Width("Q", 3, "{}"),
    "lbu": Width("B", 0, "{}"),
    "lhu": Width("H", 1, "{}"),
    "lwu": Width("I", 2, "{}"),
}
STORED: Final = {
    "sb": Width("B", 0, "{} & 0xFF"),
    "sh": Width("H", 1, "{} & 0xFFFF"),
    "sw": Width("I", 2, "{} & LOW"),
    "sd": Width("Q", 3, "{}"),
}
SIZES: Final[dict[Kind, int]] = {
    row.kind: 1 << row.shift for row in (*LOADED.values(), *STORED.values())
}
PLAIN: Final = {
    *VALUES,
    *UPWARD,
    *DOWNWARD,
    *WORDS,
    *LOADED,
    *STORED,
    "auipc",
    "fence",
}
