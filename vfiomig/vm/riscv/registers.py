"""The ids of KVM's registers (ONE_REG) as values, and their names.

Rule 1: these are the registers of a vCPU with RV64GCV and no AIA or Smstateen, on a
host without Zicbom, Zicbop and Zicboz (whose block sizes are CONFIG's others).

Rule 2: ``f0`` to ``f31`` and ``fcsr`` are FP_D's, as QEMU asks for where there is D.
FP_F's are another view of the same memory: ``fp_f.f0`` and so on.

Source: <asm/kvm.h> of RISC-V, Linux 6.16; arch/riscv/kvm/vcpu_onereg.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vfiomig.uapi.kvm_riscv import (
    KVM_REG_ARCH_MASK,
    KVM_REG_RISCV,
    KVM_REG_RISCV_CONFIG,
    KVM_REG_RISCV_CONFIG_ISA,
    KVM_REG_RISCV_CONFIG_MARCHID,
    KVM_REG_RISCV_CONFIG_MIMPID,
    KVM_REG_RISCV_CONFIG_MVENDORID,
    KVM_REG_RISCV_CONFIG_SATP_MODE,
    KVM_REG_RISCV_CORE,
    KVM_REG_RISCV_CORE_MODE,
    KVM_REG_RISCV_CORE_PC,
    KVM_REG_RISCV_CSR,
    KVM_REG_RISCV_CSR_GENERAL,
    KVM_REG_RISCV_FP_D,
    KVM_REG_RISCV_FP_D_FCSR,
    KVM_REG_RISCV_FP_F,
    KVM_REG_RISCV_FP_F_FCSR,
    KVM_REG_RISCV_SUBTYPE_MASK,
    KVM_REG_RISCV_TIMER,
    KVM_REG_RISCV_TIMER_COMPARE,
    KVM_REG_RISCV_TIMER_FREQUENCY,
    KVM_REG_RISCV_TIMER_STATE,
    KVM_REG_RISCV_TIMER_TIME,
    KVM_REG_RISCV_TYPE_MASK,
    KVM_REG_RISCV_VECTOR,
    KVM_REG_RISCV_VECTOR_REG_0,
    KVM_REG_SIZE_MASK,
    KVM_REG_SIZE_SHIFT,
    KVM_RISCV_CSRS,
    KVM_RISCV_VECTOR_CSRS,
)
from vfiomig.vm.riscv.hart import VLENB

_WORD: Final = 8  # unsigned long of RV64, and a timer's
_HALF: Final = 4
_LARGEST: Final = 8  # KVM_REG_SIZE_U2048
_INDEX_MASK: Final = ((1 << 64) - 1) & ~(
    KVM_REG_ARCH_MASK
    | KVM_REG_SIZE_MASK
    | KVM_REG_RISCV_TYPE_MASK
    | KVM_REG_RISCV_SUBTYPE_MASK
)

# x1 to x31, by the names of the ABI.
GPR_NAMES: Final = (
    *("ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{number}" for number in range(8)),
    *(f"s{number}" for number in range(2, 12)),
    *("t3", "t4", "t5", "t6"),
)
_CONFIGS: Final = {
    "config.isa": KVM_REG_RISCV_CONFIG_ISA,
    "config.mvendorid": KVM_REG_RISCV_CONFIG_MVENDORID,
    "config.marchid": KVM_REG_RISCV_CONFIG_MARCHID,
    "config.mimpid": KVM_REG_RISCV_CONFIG_MIMPID,
    "config.satp_mode": KVM_REG_RISCV_CONFIG_SATP_MODE,
}
_TIMERS: Final = {
    "timer.frequency": KVM_REG_RISCV_TIMER_FREQUENCY,
    "timer.time": KVM_REG_RISCV_TIMER_TIME,
    "timer.compare": KVM_REG_RISCV_TIMER_COMPARE,
    "timer.state": KVM_REG_RISCV_TIMER_STATE,
}


@dataclass(frozen=True, slots=True)
class RegisterId:
    """An id in its parts: ``size`` in bytes, ``type`` and ``subtype`` as in uapi.

    ``index`` is all that is left: bits that belong to no part make it one that no
    register has.
    """

    size: int
    type: int
    subtype: int
    index: int

    @classmethod
    def decode(cls, number: int) -> RegisterId:
        """Take an id of 64 bits apart.

        Raises:
            ValueError: it is not RISC-V's, or of a size that no register can have.
        """
        log = (number & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT
        if not 0 <= number < 1 << 64 or number & KVM_REG_ARCH_MASK != KVM_REG_RISCV:
            message = f"{number:#018x} is no register of RISC-V"
            raise ValueError(message)
        if log > _LARGEST:
            message = f"{number:#018x} is of a size that no register has"
            raise ValueError(message)
        return cls(
            size=1 << log,
            type=number & KVM_REG_RISCV_TYPE_MASK,
            subtype=number & KVM_REG_RISCV_SUBTYPE_MASK,
            index=number & _INDEX_MASK,
        )

    def encode(self) -> int:
        """Return the id of 64 bits."""
        log = self.size.bit_length() - 1
        size = log << KVM_REG_SIZE_SHIFT
        return KVM_REG_RISCV | size | self.type | self.subtype | self.index


def config(index: int) -> RegisterId:
    """Return a register of struct kvm_riscv_config."""
    return RegisterId(_WORD, KVM_REG_RISCV_CONFIG, 0, index)


def core(index: int) -> RegisterId:
    """Return a register of struct kvm_riscv_core: 0 pc, 1 to 31 x1 to x31, 32 mode."""
    return RegisterId(_WORD, KVM_REG_RISCV_CORE, 0, index)


def csr(index: int) -> RegisterId:
    """Return a CSR by its place in struct kvm_riscv_csr."""
    return RegisterId(_WORD, KVM_REG_RISCV_CSR, KVM_REG_RISCV_CSR_GENERAL, index)


def timer(index: int) -> RegisterId:
    """Return a register of struct kvm_riscv_timer."""
    return RegisterId(_WORD, KVM_REG_RISCV_TIMER, 0, index)


def single(index: int) -> RegisterId:
    """Return f0 to f31 of FP_F; 32 is fcsr."""
    return RegisterId(_HALF, KVM_REG_RISCV_FP_F, 0, index)


def floating(index: int) -> RegisterId:
    """Return f0 to f31 of FP_D; 32 is fcsr, of 4 bytes."""
    size = _HALF if index == KVM_REG_RISCV_FP_D_FCSR else _WORD
    return RegisterId(size, KVM_REG_RISCV_FP_D, 0, index)


def vector(index: int) -> RegisterId:
    """Return a CSR of V by its place in `KVM_RISCV_VECTOR_CSRS`; 6 to 37 are v0 on."""
    size = VLENB if index >= KVM_REG_RISCV_VECTOR_REG_0 else _WORD
    return RegisterId(size, KVM_REG_RISCV_VECTOR, 0, index)


# Every register that we have by its name, in KVM's order (KVM_GET_REG_LIST).
REGISTERS: Final[dict[str, RegisterId]] = {
    **{name: config(index) for name, index in _CONFIGS.items()},
    "pc": core(KVM_REG_RISCV_CORE_PC),
    **{name: core(1 + at) for at, name in enumerate(GPR_NAMES)},
    "mode": core(KVM_REG_RISCV_CORE_MODE),
    **{name: csr(at) for at, name in enumerate(KVM_RISCV_CSRS)},
    **{name: timer(index) for name, index in _TIMERS.items()},
    **{f"fp_f.f{number}": single(number) for number in range(32)},
    "fp_f.fcsr": single(KVM_REG_RISCV_FP_F_FCSR),
    **{f"f{number}": floating(number) for number in range(32)},
    "fcsr": floating(KVM_REG_RISCV_FP_D_FCSR),
    **{name: vector(at) for at, name in enumerate(KVM_RISCV_VECTOR_CSRS)},
    **{f"v{at}": vector(KVM_REG_RISCV_VECTOR_REG_0 + at) for at in range(32)},
}
NUMBERS: Final = {name: register.encode() for name, register in REGISTERS.items()}
REGISTER_LIST: Final = tuple(NUMBERS.values())
_NAMES: Final = {number: name for name, number in NUMBERS.items()}


def name_of(number: int) -> str | None:
    """Return the name of an id's register; ``None`` if we do not have it."""
    return _NAMES.get(number)
