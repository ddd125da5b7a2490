"""Ids of ONE_REG: the numbers of A1, their parts and their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.uapi.kvm_riscv import (
    KVM_REG_RISCV_CONFIG,
    KVM_REG_RISCV_CORE,
    KVM_REG_RISCV_CSR,
    KVM_REG_RISCV_FP_D,
    KVM_REG_RISCV_FP_F,
    KVM_REG_RISCV_TIMER,
    KVM_REG_RISCV_VECTOR,
)
from vfiomig.vm.riscv.registers import NUMBERS, REGISTER_LIST, RegisterId, name_of


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("pc", 0x8030_0000_0200_0000),
        ("ra", 0x8030_0000_0200_0001),
        ("sp", 0x8030_0000_0200_0002),
        ("gp", 0x8030_0000_0200_0003),
        ("tp", 0x8030_0000_0200_0004),
        ("t0", 0x8030_0000_0200_0005),
        ("t2", 0x8030_0000_0200_0007),
        ("s0", 0x8030_0000_0200_0008),
        ("s1", 0x8030_0000_0200_0009),
        ("a0", 0x8030_0000_0200_000A),
        ("a1", 0x8030_0000_0200_000B),
        ("a7", 0x8030_0000_0200_0011),
        ("s2", 0x8030_0000_0200_0012),
        ("s11", 0x8030_0000_0200_001B),
        ("t3", 0x8030_0000_0200_001C),
        ("t6", 0x8030_0000_0200_001F),
        ("mode", 0x8030_0000_0200_0020),
        ("sstatus", 0x8030_0000_0300_0000),
        ("sie", 0x8030_0000_0300_0001),
        ("stvec", 0x8030_0000_0300_0002),
        ("sscratch", 0x8030_0000_0300_0003),
        ("sepc", 0x8030_0000_0300_0004),
        ("scause", 0x8030_0000_0300_0005),
        ("stval", 0x8030_0000_0300_0006),
        ("sip", 0x8030_0000_0300_0007),
        ("satp", 0x8030_0000_0300_0008),
        ("scounteren", 0x8030_0000_0300_0009),
        ("senvcfg", 0x8030_0000_0300_000A),
        ("timer.frequency", 0x8030_0000_0400_0000),
        ("timer.time", 0x8030_0000_0400_0001),
        ("timer.compare", 0x8030_0000_0400_0002),
        ("timer.state", 0x8030_0000_0400_0003),
        ("f0", 0x8030_0000_0600_0000),
        ("f31", 0x8030_0000_0600_001F),
        ("fcsr", 0x8020_0000_0600_0020),
        ("fp_f.f0", 0x8020_0000_0500_0000),
        ("fp_f.f31", 0x8020_0000_0500_001F),
        ("fp_f.fcsr", 0x8020_0000_0500_0020),
        ("config.isa", 0x8030_0000_0100_0000),
        ("config.mvendorid", 0x8030_0000_0100_0002),
        ("config.marchid", 0x8030_0000_0100_0003),
        ("config.mimpid", 0x8030_0000_0100_0004),
        ("config.satp_mode", 0x8030_0000_0100_0006),
        ("vstart", 0x8030_0000_0900_0000),
        ("vl", 0x8030_0000_0900_0001),
        ("vtype", 0x8030_0000_0900_0002),
        ("vcsr", 0x8030_0000_0900_0003),
        ("vlenb", 0x8030_0000_0900_0004),
        ("v0", 0x8040_0000_0900_0006),  # 16 bytes; behind the state's pointer
        ("v31", 0x8040_0000_0900_0025),
    ],
)
def test_a_register_has_the_number_of_the_header(name: str, number: int) -> None:
    assert NUMBERS[name] == number
    assert name_of(number) == name


def test_an_id_is_taken_apart_into_what_the_masks_name() -> None:
    # AIA's iprio1 of RV32: size U32, type CSR, subtype 1, index 1.
    register = RegisterId.decode(0x8020_0000_0301_0001)
    assert register == RegisterId(4, KVM_REG_RISCV_CSR, 1 << 16, 1)
    assert name_of(register.encode()) is None


def test_all_registers_are_listed_once() -> None:
    types = [RegisterId.decode(number).type for number in REGISTER_LIST]
    # In the order of kvm_riscv_vcpu_copy_reg_indices(), as many as its num_*_regs().
    assert types == (
        [KVM_REG_RISCV_CONFIG] * 5  # of 8: no block sizes
        + [KVM_REG_RISCV_CORE] * 33
        + [KVM_REG_RISCV_CSR] * 11
        + [KVM_REG_RISCV_TIMER] * 4
        + [KVM_REG_RISCV_FP_F] * 33
        + [KVM_REG_RISCV_FP_D] * 33
        + [KVM_REG_RISCV_VECTOR] * 37
    )
    assert len(set(REGISTER_LIST)) == len(REGISTER_LIST)


@given(
    st.sampled_from([1 << log for log in range(9)]),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**16 - 1),
)
def test_decode_undoes_encode(size: int, type_: int, subtype: int, index: int) -> None:
    register = RegisterId(size, type_ << 24, subtype << 16, index)
    assert RegisterId.decode(register.encode()) == register


@given(st.integers(0, 2**56 - 1))
def test_encode_undoes_decode(rest: int) -> None:
    number = 0x80 << 56 | rest
    if rest >> 52 > 8:
        with pytest.raises(ValueError, match="size"):
            RegisterId.decode(number)
    else:
        assert RegisterId.decode(number).encode() == number


@pytest.mark.parametrize("number", [0x6030_0000_0200_0000, -1, 1 << 64 | 0x80 << 56])
def test_what_is_not_riscvs_is_no_register(number: int) -> None:
    with pytest.raises(ValueError, match="no register of RISC-V"):
        RegisterId.decode(number)
