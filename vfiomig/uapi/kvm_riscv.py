"""KVM's registers of a RISC-V vCPU, and its mp_state.

Source: <asm/kvm.h> and <asm/ptrace.h> of RISC-V and <linux/kvm.h>, Linux 6.16.

An id of ONE_REG is architecture | size | type | subtype | index, in the bits that the
masks name.  The index is the place in the structure of that type, in elements.
"""

from __future__ import annotations

from typing import Final

KVM_REG_ARCH_MASK: Final = 0xFF00_0000_0000_0000
KVM_REG_RISCV: Final = 0x8000_0000_0000_0000

KVM_REG_SIZE_SHIFT: Final = 52
KVM_REG_SIZE_MASK: Final = 0x00F0_0000_0000_0000
KVM_REG_SIZE_U8: Final = 0x0000_0000_0000_0000
KVM_REG_SIZE_U16: Final = 0x0010_0000_0000_0000
KVM_REG_SIZE_U32: Final = 0x0020_0000_0000_0000
KVM_REG_SIZE_U64: Final = 0x0030_0000_0000_0000
KVM_REG_SIZE_U128: Final = 0x0040_0000_0000_0000
KVM_REG_SIZE_U256: Final = 0x0050_0000_0000_0000
KVM_REG_SIZE_U512: Final = 0x0060_0000_0000_0000
KVM_REG_SIZE_U1024: Final = 0x0070_0000_0000_0000
KVM_REG_SIZE_U2048: Final = 0x0080_0000_0000_0000

KVM_REG_RISCV_TYPE_SHIFT: Final = 24
KVM_REG_RISCV_TYPE_MASK: Final = 0x0000_0000_FF00_0000
KVM_REG_RISCV_SUBTYPE_SHIFT: Final = 16
KVM_REG_RISCV_SUBTYPE_MASK: Final = 0x0000_0000_00FF_0000

KVM_REG_RISCV_CONFIG: Final = 1 << KVM_REG_RISCV_TYPE_SHIFT
KVM_REG_RISCV_CORE: Final = 2 << KVM_REG_RISCV_TYPE_SHIFT
KVM_REG_RISCV_CSR: Final = 3 << KVM_REG_RISCV_TYPE_SHIFT
KVM_REG_RISCV_TIMER: Final = 4 << KVM_REG_RISCV_TYPE_SHIFT
KVM_REG_RISCV_FP_F: Final = 5 << KVM_REG_RISCV_TYPE_SHIFT
KVM_REG_RISCV_FP_D: Final = 6 << KVM_REG_RISCV_TYPE_SHIFT
KVM_REG_RISCV_VECTOR: Final = 9 << KVM_REG_RISCV_TYPE_SHIFT

KVM_REG_RISCV_CSR_GENERAL: Final = 0 << KVM_REG_RISCV_SUBTYPE_SHIFT

# struct kvm_riscv_config
KVM_REG_RISCV_CONFIG_ISA: Final = 0
KVM_REG_RISCV_CONFIG_MVENDORID: Final = 2
KVM_REG_RISCV_CONFIG_MARCHID: Final = 3
KVM_REG_RISCV_CONFIG_MIMPID: Final = 4
KVM_REG_RISCV_CONFIG_SATP_MODE: Final = 6

# struct kvm_riscv_core: 0 is pc, 1 to 31 are x1 to x31, then the mode.
KVM_REG_RISCV_CORE_PC: Final = 0
KVM_REG_RISCV_CORE_MODE: Final = 32
KVM_RISCV_MODE_U: Final = 0
KVM_RISCV_MODE_S: Final = 1

# struct kvm_riscv_csr: the CSRs of VS mode, which the guest calls by these names.
KVM_RISCV_CSRS: Final = (
    "sstatus",
    "sie",
    "stvec",
    "sscratch",
    "sepc",
    "scause",
    "stval",
    "sip",
    "satp",
    "scounteren",
    "senvcfg",
)

# struct kvm_riscv_timer
KVM_REG_RISCV_TIMER_FREQUENCY: Final = 0
KVM_REG_RISCV_TIMER_TIME: Final = 1
KVM_REG_RISCV_TIMER_COMPARE: Final = 2
KVM_REG_RISCV_TIMER_STATE: Final = 3
KVM_RISCV_TIMER_STATE_OFF: Final = 0
KVM_RISCV_TIMER_STATE_ON: Final = 1

# struct __riscv_f_ext_state and __riscv_d_ext_state: behind f[32].
KVM_REG_RISCV_FP_F_FCSR: Final = 32
KVM_REG_RISCV_FP_D_FCSR: Final = 32

# struct __riscv_v_ext_state, up to its pointer; behind that stand v0 to v31.
KVM_RISCV_VECTOR_CSRS: Final = ("vstart", "vl", "vtype", "vcsr", "vlenb")
KVM_REG_RISCV_VECTOR_REG_0: Final = 6

# struct kvm_mp_state: RISC-V has these two of KVM's.
KVM_MP_STATE_RUNNABLE: Final = 0
KVM_MP_STATE_INIT_RECEIVED: Final = 2
KVM_MP_STATE_STOPPED: Final = 5

KVM_CAP_MP_STATE: Final = 14

# QEMU's PRV_U, PRV_S, PRV_M (target/riscv/cpu_bits.h): what `env.priv` holds.
PRV_U: Final = 0
PRV_S: Final = 1
PRV_M: Final = 3
