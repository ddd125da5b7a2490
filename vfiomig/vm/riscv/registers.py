"""The ids of KVM's registers (ONE_REG) as values, and their names.

Rule 1: these are the registers of a vCPU with RV64GC and no AIA, Smstateen or V.  The
floating-point ones are FP_D's, as QEMU asks for where there is D; fcsr, which QEMU does
not carry, and CONFIG, which no migration changes, are left out.

Source: <asm/kvm.h> of RISC-V, Linux 6.16; arch/riscv/kvm/vcpu_onereg.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vfiomig.uapi.kvm_riscv import (
    KVM_REG_ARCH_MASK,
    KVM_REG_RISCV,
    KVM_REG_RISCV_CORE,
    KVM_REG_RISCV_CORE_MODE,
    KVM_REG_RISCV_CORE_PC,
    KVM_REG_RISCV_CSR,
    KVM_REG_RISCV_CSR_GENERAL,
    KVM_REG_RISCV_FP_D,
    KVM_REG_RISCV_SUBTYPE_MASK,
    KVM_REG_RISCV_TIMER,
    KVM_REG_RISCV_TIMER_COMPARE,
    KVM_REG_RISCV_TIMER_FREQUENCY,
    KVM_REG_RISCV_TIMER_STATE,
    KVM_REG_RISCV_TIMER_TIME,
    KVM_REG_RISCV_TYPE_MASK,
    KVM_REG_SIZE_MASK,
    KVM_REG_SIZE_SHIFT,
    KVM_RISCV_CSRS,
)

_WORD: Final = 8  # unsigned long of RV64, and a timer's
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


def core(index: int) -> RegisterId:
    """Return a register of struct kvm_riscv_core: 0 pc, 1 to 31 x1 to x31, 32 mode."""
    return RegisterId(_WORD, KVM_REG_RISCV_CORE, 0, index)


def csr(index: int) -> RegisterId:
    """Return a CSR by its place in struct kvm_riscv_csr."""
    return RegisterId(_WORD, KVM_REG_RISCV_CSR, KVM_REG_RISCV_CSR_GENERAL, index)


def timer(index: int) -> RegisterId:
    """Return a register of struct kvm_riscv_timer."""
    return RegisterId(_WORD, KVM_REG_RISCV_TIMER, 0, index)


def floating(index: int) -> RegisterId:
    """Return f0 to f31."""
    return RegisterId(_WORD, KVM_REG_RISCV_FP_D, 0, index)


# Every register that we have by its name, in KVM's order (KVM_GET_REG_LIST).
REGISTERS: Final[dict[str, RegisterId]] = {
    "pc": core(KVM_REG_RISCV_CORE_PC),
    **{name: core(1 + at) for at, name in enumerate(GPR_NAMES)},
    "mode": core(KVM_REG_RISCV_CORE_MODE),
    **{name: csr(at) for at, name in enumerate(KVM_RISCV_CSRS)},
    **{name: timer(index) for name, index in _TIMERS.items()},
    **{f"f{number}": floating(number) for number in range(32)},
}
NUMBERS: Final = {name: register.encode() for name, register in REGISTERS.items()}
REGISTER_LIST: Final = tuple(NUMBERS.values())
_NAMES: Final = {number: name for name, number in NUMBERS.items()}


def name_of(number: int) -> str | None:
    """Return the name of an id's register; ``None`` if we do not have it."""
    return _NAMES.get(number)
