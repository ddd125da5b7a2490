"""Where in a hart its registers of ONE_REG are: CORE, CSR, FP_F, FP_D and VECTOR.

Rule 1: an index is one that exists, and a value fits its size: `kvm` saw to both.

Rule 2: FP_F and FP_D are one piece of memory (union __riscv_fp_state), and a vCPU that
has D has D's layout in it.  So FP_F's index n is no low half of fn there, but the n-th
word of 32 bits: f0 and f1 are the halves of D's f0, and fcsr is the low half of f16.
D's own fcsr is behind the 32 registers, where F's view does not reach.

Sources: arch/riscv/kvm/{vcpu_onereg,vcpu_fp,vcpu_vector}.c, <asm/ptrace.h> of RISC-V,
Linux 6.16.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.uapi.kvm_riscv import (
    KVM_REG_RISCV_CORE,
    KVM_REG_RISCV_CORE_MODE,
    KVM_REG_RISCV_CORE_PC,
    KVM_REG_RISCV_CSR,
    KVM_REG_RISCV_FP_D,
    KVM_REG_RISCV_FP_D_FCSR,
    KVM_REG_RISCV_FP_F,
    KVM_REG_RISCV_VECTOR,
    KVM_REG_RISCV_VECTOR_REG_0,
    KVM_RISCV_MODE_S,
    KVM_RISCV_MODE_U,
    KVM_RISCV_VECTOR_CSRS,
)
from vfiomig.vm.riscv.hart import VLENB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.vm.riscv.hart import Hart

_U32: Final = (1 << 32) - 1
_VLENB_INDEX: Final = KVM_RISCV_VECTOR_CSRS.index("vlenb")


class Access(NamedTuple):
    """How registers of one type are read and written, by their indexes.

    Either may raise ``OSError``.
    """

    get: Callable[[Hart, int], int]
    set: Callable[[Hart, int, int], None]


def _get_core(hart: Hart, index: int) -> int:
    if index == KVM_REG_RISCV_CORE_PC:
        return hart.pc
    return hart.mode if index == KVM_REG_RISCV_CORE_MODE else hart.x[index]


def _set_core(hart: Hart, index: int, value: int) -> None:
    if index == KVM_REG_RISCV_CORE_PC:
        hart.pc = value
    elif index == KVM_REG_RISCV_CORE_MODE:
        is_s = value == KVM_RISCV_MODE_S
        hart.mode = KVM_RISCV_MODE_S if is_s else KVM_RISCV_MODE_U
    else:
        hart.x[index] = value


def _get_csr(hart: Hart, index: int) -> int:
    return hart.csr[index]


def _set_csr(hart: Hart, index: int, value: int) -> None:
    hart.csr[index] = value


def _get_single(hart: Hart, index: int) -> int:
    return hart.f[index // 2] >> 32 * (index % 2) & _U32


def _set_single(hart: Hart, index: int, value: int) -> None:
    shift = 32 * (index % 2)
    kept = hart.f[index // 2] & ~(_U32 << shift)
    hart.f[index // 2] = kept | value << shift


def _get_double(hart: Hart, index: int) -> int:
    return hart.fcsr if index == KVM_REG_RISCV_FP_D_FCSR else hart.f[index]


def _set_double(hart: Hart, index: int, value: int) -> None:
    if index == KVM_REG_RISCV_FP_D_FCSR:
        hart.fcsr = value
    else:
        hart.f[index] = value


def _get_vector(hart: Hart, index: int) -> int:
    if index >= KVM_REG_RISCV_VECTOR_REG_0:
        return hart.vector.v[index - KVM_REG_RISCV_VECTOR_REG_0]
    if index == _VLENB_INDEX:
        return VLENB
    value: int = getattr(hart.vector, KVM_RISCV_VECTOR_CSRS[index])
    return value


def _set_vector(hart: Hart, index: int, value: int) -> None:
    if index >= KVM_REG_RISCV_VECTOR_REG_0:
        hart.vector.v[index - KVM_REG_RISCV_VECTOR_REG_0] = value
    elif index != _VLENB_INDEX:
        setattr(hart.vector, KVM_RISCV_VECTOR_CSRS[index], value)
    elif value != VLENB:
        message = f"vector registers of {value} bytes: the host's have {VLENB}"
        raise OSError(errno.EINVAL, message)


# By type.
HART_REGISTERS: Final[Mapping[int, Access]] = {
    KVM_REG_RISCV_CORE: Access(_get_core, _set_core),
    KVM_REG_RISCV_CSR: Access(_get_csr, _set_csr),
    KVM_REG_RISCV_FP_F: Access(_get_single, _set_single),
    KVM_REG_RISCV_FP_D: Access(_get_double, _set_double),
    KVM_REG_RISCV_VECTOR: Access(_get_vector, _set_vector),
}
