"""How harts differ, in words."""

from __future__ import annotations

import dataclasses

import pytest

from vfiomig.vm.riscv.hart import Hart, Start
from vfiomig.vm.riscv.hart_state import HartState, differences
from vfiomig.vm.riscv.kvm import KvmVcpu


def state() -> HartState:
    hart = Hart(hart_id=1, pc=0x8000_0000, retired=[30, 40])
    hart.is_stopped = False
    vcpu = KvmVcpu(hart, lambda: 0)
    vcpu.set_mp_state(0)
    return HartState.of(vcpu, before=(10, 15))


def test_a_state_is_what_kvm_tells() -> None:
    it = state()
    assert (it.index, it.mode, it.mp_state, it.pc) == (1, "S", "runnable", 0x8000_0000)
    assert it.hsm_status == "started"
    assert it.retired == (20, 25)
    assert "mode" not in it.registers
    assert "timer.time" not in it.registers
    assert not any("." in name for name in it.registers)  # FP_F, CONFIG, the timer
    assert "vlenb" not in it.registers
    assert len(it.registers) == 32 + 11 + 33 + 36


def test_a_hart_without_v_differs_from_one_whose_v_is_zero_in_nothing() -> None:
    bare, full = (
        KvmVcpu(Hart(hart_id=0), lambda: 0, has_vector=has) for has in (False, True)
    )
    here, there = HartState.of(bare), HartState.of(full)
    assert "v0" not in here.registers
    assert differences([here], [there]) == ()
    full.set("v7", 1 << 127)
    assert differences([HartState.of(full)], [here]) == (
        "hart 0: v7 0x0, and the source's was 0x80000000000000000000000000000000",
    )


@pytest.mark.parametrize(
    ("was", "now", "line"),
    [
        ({"mode": "U"}, {}, "hart 1: mode S, and the source's was U"),
        (
            {"is_stopped": True},
            {},
            "hart 1: runs, and the source's was stopped",
        ),
        (
            {},
            {"is_stopped": True},
            "hart 1: is stopped, and the source's ran",
        ),
        (
            {"start": Start(0x8000_1000, 0)},
            {},
            "hart 1: is at 0x80000000, and the source's was to start at 0x80001000",
        ),
        ({}, {"retired": (9, 9)}, None),
    ],
)
def test_each_difference_is_a_line(
    was: dict[str, object], now: dict[str, object], line: str | None
) -> None:
    here = dataclasses.replace(state(), **was)  # type: ignore[arg-type]
    there = dataclasses.replace(state(), **now)  # type: ignore[arg-type]
    assert differences([here], [there]) == ((line,) if line else ())


def test_of_many_registers_the_first_are_named() -> None:
    it = state()
    others = it.registers | dict.fromkeys(("pc", "ra", "a0", "satp", "f31"), 0x77)  # type: ignore[operator]
    assert differences([it], [dataclasses.replace(it, registers=others)]) == (
        "hart 1: pc 0x77, and the source's was 0x80000000",
        "hart 1: ra 0x77, and the source's was 0x0",
        "hart 1: a0 0x77, and the source's was 0x0",
        "hart 1: and 2 more registers differ",
    )


def test_a_hart_that_is_missing_is_told() -> None:
    it = state()
    assert differences([it, it], [it]) == ("1 harts, and the source had 2",)
