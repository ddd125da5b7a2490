"""Labels, pseudo-instructions, and what is said of a line that cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.vm.riscv.guests import CODE, RAM, Guest
from vfiomig.vm.riscv.assembler import assemble
from vfiomig.vm.riscv.instructions import Instruction, decode


def test_labels_are_addresses_and_targets_are_distances() -> None:
    words, labels = assemble("j behind\nhere: nop # comment\n\nbehind: j here\n", 0x100)
    assert labels == {"here": 0x104, "behind": 0x108}
    assert [decode(word) for word in words] == [
        Instruction("jal", imm=8),
        Instruction("addi"),
        Instruction("jal", imm=-4),
    ]


def test_a_symbol_has_an_offset() -> None:
    words, _ = assemble("ld a0, field + 8(sp)", symbols={"field": 0x20})
    assert words == assemble("ld x10, 40(x2)")[0]


@given(st.integers(-(1 << 31), (1 << 31) - 1))
@example(0x7FFF_FFFF)
@example(0x7FFF_F800)
@example(-1)
@example(2048)
@example(-2048)
def test_li_loads_any_number_of_32_bits(value: int) -> None:
    with Guest(f"li a0, {value}\nend: ebreak") as guest:
        guest.run_to("end")
        assert guest.register("a0") == value % (1 << 64)


@given(st.integers(0, RAM - 1))
@example(0x800)
@example(0x7FF)
def test_la_reaches_any_place(offset: int) -> None:
    with Guest() as guest:
        guest.put("la a0, place\nend: ebreak", CODE, {"place": CODE + offset})
        guest.run_to("end")
        assert guest.register("a0") == CODE + offset


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nop\nmul a0, a0, a1", "line 2: mul"),
        ("add a0, a1", "line 1: add a0, a1: 3 operands, not 2"),
        ("add a0, a1, q9", "line 1: add a0, a1, q9"),
        ("ld a0, 8", "line 1: .*8 is not offset"),
        ("addi a0, a0, 2048", "line 1: .*2048 does not fit"),
        ("lui a0, 0x100000", "line 1: .*has no 20 bits"),
        ("j nowhere", "line 1: .*nowhere"),
        ("mv a0", "line 1: mv has too few operands"),
        ("a: nop\na: nop", "line 2: a second label a"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        assemble(text)
