"""KVM's register ids of RISC-V are those that a kernel gives."""

from __future__ import annotations

import pytest

from vfiomig.uapi import kvm_riscv as kvm

_RV64 = kvm.KVM_REG_RISCV | kvm.KVM_REG_SIZE_U64


# As KVM_GET_REG_LIST of a 64-bit host has them.
@pytest.mark.parametrize(
    ("made", "listed"),
    [
        (_RV64 | kvm.KVM_REG_RISCV_CORE, 0x8030_0000_0200_0000),
        (_RV64 | kvm.KVM_REG_RISCV_CORE | 10, 0x8030_0000_0200_000A),
        (
            _RV64 | kvm.KVM_REG_RISCV_CORE | kvm.KVM_REG_RISCV_CORE_MODE,
            0x8030_0000_0200_0020,
        ),
        (
            _RV64
            | kvm.KVM_REG_RISCV_CSR
            | kvm.KVM_REG_RISCV_CSR_GENERAL
            | kvm.KVM_RISCV_CSRS.index("satp"),
            0x8030_0000_0300_0008,
        ),
        (
            _RV64 | kvm.KVM_REG_RISCV_TIMER | kvm.KVM_REG_RISCV_TIMER_COMPARE,
            0x8030_0000_0400_0002,
        ),
        (
            kvm.KVM_REG_RISCV | kvm.KVM_REG_SIZE_U32 | kvm.KVM_REG_RISCV_FP_F,
            0x8020_0000_0500_0000,
        ),
        (_RV64 | kvm.KVM_REG_RISCV_FP_D | 31, 0x8030_0000_0600_001F),
        (
            kvm.KVM_REG_RISCV
            | kvm.KVM_REG_SIZE_U32
            | kvm.KVM_REG_RISCV_FP_D
            | kvm.KVM_REG_RISCV_FP_D_FCSR,
            0x8020_0000_0600_0020,
        ),
        (
            _RV64 | kvm.KVM_REG_RISCV_CONFIG | kvm.KVM_REG_RISCV_CONFIG_SATP_MODE,
            0x8030_0000_0100_0006,
        ),
        (
            _RV64 | kvm.KVM_REG_RISCV_VECTOR | kvm.KVM_RISCV_VECTOR_CSRS.index("vlenb"),
            0x8030_0000_0900_0004,
        ),
        (
            kvm.KVM_REG_RISCV
            | kvm.KVM_REG_SIZE_U128
            | kvm.KVM_REG_RISCV_VECTOR
            | kvm.KVM_REG_RISCV_VECTOR_REG_0,
            0x8040_0000_0900_0006,
        ),
    ],
)
def test_ids_are_the_kernels(made: int, listed: int) -> None:
    assert made == listed
