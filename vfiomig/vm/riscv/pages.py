"""Sv39: from the addresses of a guest to its physical ones.

Privileged manual (20211203), sections 4.3.2 and 4.4.  Where it leaves a choice:
A and D are never set by the hart; a page whose A, or on a store D, is clear faults
(what Svade names).  Pages of 4 KiB, 2 MiB and 1 GiB.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_S, KVM_RISCV_MODE_U
from vfiomig.vm.riscv import trap
from vfiomig.vm.riscv.trap import MXR, SUM, Trap

if TYPE_CHECKING:
    from collections.abc import Callable

    EntryAt = Callable[[int], int]

PAGE: Final = 4096
SATP_BARE: Final = 0
SATP_SV39: Final = 8
SATP_MODE_SHIFT: Final = 60
_SATP_PPN: Final = (1 << 44) - 1

V, R, W, X, U = 1, 2, 4, 8, 16
A, D = 64, 128
_PPN_SHIFT: Final = 10
_RESERVED: Final = 0xFFC0_0000_0000_0000  # 54 to 63: nothing that we offer
_LEVELS: Final = 3
_INDEX: Final = 0x1FF


class Access(enum.Enum):
    """What an access is for, and the causes of its access and its page fault."""

    FETCH = (trap.FETCH_ACCESS, trap.FETCH_PAGE)
    LOAD = (trap.LOAD_ACCESS, trap.LOAD_PAGE)
    STORE = (trap.STORE_ACCESS, trap.STORE_PAGE)


def physical(
    entry_at: EntryAt, satp: int, sstatus: int, mode: int, at: int, access: Access
) -> int:
    """Return the guest physical address of ``at``, which may be no RAM.

    ``entry_at`` returns the 64 bits at a guest physical address, and raises ``OSError``
    if there is no RAM.  ``mode`` is KVM_RISCV_MODE_U or _S.  A satp of a mode that is
    neither Bare nor Sv39 (no guest can set it, but who sets registers from outside)
    maps nothing.

    Raises:
        Trap: a page fault; or an access fault, because the table is no RAM.
    """
    mapping = satp >> SATP_MODE_SHIFT
    if mapping == SATP_BARE:
        return at
    if mapping != SATP_SV39 or _is_torn(at):
        raise Trap(access.value[1], at)
    table = (satp & _SATP_PPN) * PAGE
    for level in reversed(range(_LEVELS)):
        shift = 12 + 9 * level
        try:
            entry = entry_at(table + (at >> shift & _INDEX) * 8)
        except OSError:
            raise Trap(access.value[0], at) from None
        if not entry & V or entry & (R | W) == W or entry & _RESERVED:
            break
        target = entry >> _PPN_SHIFT << 12
        if entry & (R | X):
            inside = (1 << shift) - 1
            if target & inside or not _is_allowed(entry, sstatus, mode, access):
                break
            return target | at & inside
        if entry & (A | D | U):  # reserved in what is no leaf
            break
        table = target
    raise Trap(access.value[1], at)


def _is_allowed(entry: int, sstatus: int, mode: int, access: Access) -> bool:
    if not entry & A:
        return False
    if mode == KVM_RISCV_MODE_U and not entry & U:
        return False
    sees_user = access is not Access.FETCH and sstatus & SUM
    if mode == KVM_RISCV_MODE_S and entry & U and not sees_user:
        return False  # and what U may execute S never does, whatever SUM is
    if access is Access.FETCH:
        return bool(entry & X)
    if access is Access.STORE:
        return entry & (W | D) == W | D
    return bool(entry & R or (sstatus & MXR and entry & X))


def _is_torn(at: int) -> bool:
    """Whether bits 63 to 39 are not all as bit 38."""
    return (at >> 38) not in (0, (1 << 26) - 1)
