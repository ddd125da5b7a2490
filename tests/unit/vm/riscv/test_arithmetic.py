"""What instructions compute, against the manual's words said in plain numbers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vm.riscv.guests import CODE, DATA, Guest
from vfiomig.vm.riscv.instructions import BRANCHES
from vfiomig.vm.riscv.templates import CONDITIONS, LOADED, STORED

if TYPE_CHECKING:
    from collections.abc import Callable

    Operation = Callable[[int, int], int]

TOP = 2**64
BOUNDARIES = (
    *(0, 1, 2, 31, 32, 63, 64),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**63 - 1, 2**63, 2**63 + 1, TOP - 2**31, TOP - 2**31 - 1, TOP - 2, TOP - 1),
)
values = st.sampled_from(BOUNDARIES) | st.integers(0, TOP - 1)


def s(value: int, bits: int = 64) -> int:
    """Read the low bits as two's complement: the top bit counts negative."""
    half = 1 << bits - 1
    return value % half - half * (value // half % 2)


def bitwise(rule: Callable[[int, int], bool]) -> Operation:
    def of(a: int, b: int) -> int:
        return sum(2**at for at in range(64) if rule(a // 2**at % 2, b // 2**at % 2))

    return of


REGISTERS: dict[str, Operation] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "sll": lambda a, b: a * 2 ** (b % 64),
    "slt": lambda a, b: int(s(a) < s(b)),
    "sltu": lambda a, b: int(a < b),
    "xor": bitwise(lambda a, b: a != b),
    "srl": lambda a, b: a // 2 ** (b % 64),
    "sra": lambda a, b: s(a) // 2 ** (b % 64),
    "or": bitwise(lambda a, b: a + b > 0),
    "and": bitwise(lambda a, b: a + b == 2),
    "addw": lambda a, b: s(a + b, 32),
    "subw": lambda a, b: s(a - b, 32),
    "sllw": lambda a, b: s(a * 2 ** (b % 32), 32),
    "srlw": lambda a, b: s(a % 2**32 // 2 ** (b % 32), 32),
    "sraw": lambda a, b: s(a, 32) // 2 ** (b % 32),
}
# An immediate is the second operand, extended by its sign.
IMMEDIATES = {
    "addi": "add",
    "slti": "slt",
    "sltiu": "sltu",
    "xori": "xor",
    "ori": "or",
    "andi": "and",
    "addiw": "addw",
}
SHIFTS = {name: name.replace("i", "") for name in ("slli", "srli", "srai")}
WORD_SHIFTS = {f"{name}w": f"{of}w" for name, of in SHIFTS.items()}
TAKEN: dict[str, Callable[[int, int], bool]] = {
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: s(a) < s(b),
    "bge": lambda a, b: s(a) >= s(b),
    "bltu": lambda a, b: a < b,
    "bgeu": lambda a, b: a >= b,
}


@pytest.mark.parametrize("name", REGISTERS)
def test_registers_at_their_bounds(name: str) -> None:
    with Guest(f"{name} a2, a0, a1\nend: ebreak") as guest:
        for a, b in itertools.product(BOUNDARIES, repeat=2):
            guest.hart.pc = CODE
            guest.set(a0=a, a1=b)
            guest.run(1)
            assert guest.register("a2") == REGISTERS[name](a, b) % TOP, (a, b)


@given(
    name=st.sampled_from([*IMMEDIATES, *SHIFTS, *WORD_SHIFTS]),
    a=values,
    imm=st.integers(-2048, 2047) | st.sampled_from([0, -1, 31, 63, -2048, 2047]),
)
def test_immediates(name: str, a: int, imm: int) -> None:
    of = (IMMEDIATES | SHIFTS | WORD_SHIFTS)[name]
    if name in SHIFTS or name in WORD_SHIFTS:
        imm %= 64 if name in SHIFTS else 32
    with Guest(f"{name} a2, a0, {imm}\nend: ebreak") as guest:
        guest.set(a0=a)
        guest.run(1)
        assert guest.register("a2") == REGISTERS[of](a, imm % TOP) % TOP


@pytest.mark.parametrize("imm", [0, 1, 0x7FFFF, 0x80000, 0xFFFFF])
def test_an_upper_immediate_is_extended_by_its_sign(imm: int) -> None:
    with Guest(f"lui a0, {imm}\nauipc a1, {imm}\nend: ebreak") as guest:
        guest.run(1)
        assert guest.register("a0") == s(imm * 2**12, 32) % TOP
        assert guest.register("a1") == (CODE + 4 + s(imm * 2**12, 32)) % TOP


@pytest.mark.parametrize("name", [*REGISTERS, "addi", "addiw", "lui", "lw", "jal"])
def test_x0_stays_zero_and_is_zero(name: str) -> None:
    operands = {"addi": "zero, a0, 1", "addiw": "zero, a0, 1", "lui": "zero, 1"}
    operands |= {"lw": "zero, 0(a3)", "jal": "zero, 4"}
    text = f"{name} {operands.get(name, 'zero, a0, a1')}\nadd a2, zero, zero\nebreak"
    with Guest(text) as guest:
        guest.set(a0=5, a1=3, a2=7, a3=DATA)
        guest.set_word(DATA, 9)
        guest.run(2)
        assert (guest.register("a2"), guest.hart.x[0]) == (0, 0)


@pytest.mark.parametrize("second", ["a1", "zero"])
@pytest.mark.parametrize("name", TAKEN)
def test_branches_at_their_bounds(name: str, second: str) -> None:
    # Far away, so that it is no `if` in the block; and near, so that it is one.
    far = f"{name} a0, {second}, far\nebreak\n" + "nop\n" * 20 + "far: ebreak"
    near = f"{name} a0, {second}, near\nli a2, 1\nnear: ebreak"
    with Guest(far) as first, Guest(near) as other:
        for a, b in itertools.product(BOUNDARIES, repeat=2):
            taken = TAKEN[name](a, 0 if second == "zero" else b)
            for guest in (first, other):
                guest.hart.pc = CODE
                guest.set(a0=a, a1=b, a2=0)
                guest.run(1)
            assert (first.hart.pc == first.labels["far"]) is taken, (a, b)
            assert other.register("a2") == int(not taken), (a, b)


@given(name=st.sampled_from([*LOADED]), data=st.binary(min_size=8, max_size=8))
def test_loads_extend_by_sign_or_zero(name: str, data: bytes) -> None:
    size = {"b": 1, "h": 2, "w": 4, "d": 8}[name[1]]
    with Guest(f"{name} a0, -8(a1)\nend: ebreak") as guest:
        guest.set(a1=DATA + 8)
        guest.memory.write(DATA, data)
        guest.run(1)
        number = sum(byte * 256**at for at, byte in enumerate(data[:size]))
        expected = number if name.endswith("u") else s(number, 8 * size) % TOP
        assert guest.register("a0") == expected


@given(name=st.sampled_from([*STORED]), value=values)
def test_stores_change_as_many_bytes_as_they_say(name: str, value: int) -> None:
    size = {"b": 1, "h": 2, "w": 4, "d": 8}[name[1]]
    with Guest(f"{name} a0, 8(a1)\nend: ebreak") as guest:
        guest.set(a0=value, a1=DATA)
        guest.memory.write(DATA, b"\xaa" * 24)
        guest.run(1)
        low = bytes(value // 256**at % 256 for at in range(size))
        assert guest.memory.read(DATA, 24) == (b"\xaa" * 8 + low).ljust(24, b"\xaa")


def test_each_branch_is_in_the_tables() -> None:
    assert TAKEN.keys() == BRANCHES.keys() == CONDITIONS.keys()
