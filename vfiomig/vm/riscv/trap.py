"""Traps into S mode: their causes, and what they do to a hart.

Privileged manual (20211203), sections 4.1.1, 4.1.3, 4.1.8 and table 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_S, KVM_RISCV_MODE_U
from vfiomig.vm.riscv.hart import CSR

if TYPE_CHECKING:
    from vfiomig.vm.riscv.hart import Hart

FETCH_MISALIGNED: Final = 0
FETCH_ACCESS: Final = 1
ILLEGAL: Final = 2
BREAKPOINT: Final = 3
LOAD_MISALIGNED: Final = 4
LOAD_ACCESS: Final = 5
STORE_MISALIGNED: Final = 6
STORE_ACCESS: Final = 7
ECALL_FROM_U: Final = 8
FETCH_PAGE: Final = 12
LOAD_PAGE: Final = 13
STORE_PAGE: Final = 15

INTERRUPT: Final = 1 << 63  # in scause
SOFTWARE: Final = 1  # bits of sip and sie, and codes of scause
TIMER: Final = 5
EXTERNAL: Final = 9

SIE: Final = 1 << 1  # bits of sstatus
SPIE: Final = 1 << 5
SPP: Final = 1 << 8
SUM: Final = 1 << 18
MXR: Final = 1 << 19

_SSTATUS: Final = CSR["sstatus"]
_STVEC: Final = CSR["stvec"]
_SEPC: Final = CSR["sepc"]
_SCAUSE: Final = CSR["scause"]
_STVAL: Final = CSR["stval"]


class Trap(Exception):  # noqa: N818 -- no error of ours: the guest's handler takes it
    """An exception of the guest.

    ``left`` is what is left of the budget where a translated block met it.
    """

    def __init__(self, cause: int, value: int = 0) -> None:
        super().__init__(f"trap {cause}, {value:#x}")
        self.cause = cause
        self.value = value
        self.left: int | None = None


def enter_trap(hart: Hart, cause: int, value: int) -> None:
    """Let the hart take a trap at its pc: it goes on in S mode at stvec."""
    csr = hart.csr
    status = csr[_SSTATUS] & ~(SPP | SPIE | SIE)
    if hart.mode == KVM_RISCV_MODE_S:
        status |= SPP
    if csr[_SSTATUS] & SIE:
        status |= SPIE
    csr[_SSTATUS], csr[_SEPC] = status, hart.pc
    csr[_SCAUSE], csr[_STVAL] = cause, value
    hart.mode = KVM_RISCV_MODE_S
    vector = csr[_STVEC]
    hart.pc = vector & ~3
    if vector & 1 and cause & INTERRUPT:
        hart.pc = hart.pc + 4 * (cause & ~INTERRUPT) & (INTERRUPT << 1) - 1


def leave_trap(hart: Hart) -> None:
    """Perform an SRET."""
    csr = hart.csr
    before = csr[_SSTATUS]
    status = before & ~(SPP | SIE) | SPIE
    if before & SPIE:
        status |= SIE
    csr[_SSTATUS] = status
    hart.mode = KVM_RISCV_MODE_S if before & SPP else KVM_RISCV_MODE_U
    hart.pc = csr[_SEPC]
