"""One hart of a guest under KVM: what its guest sees, and what only KVM knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.uapi.kvm_riscv import (
    KVM_RISCV_CSRS,
    KVM_RISCV_MODE_S,
    KVM_RISCV_TIMER_STATE_OFF,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

FREQUENCY: Final = 10_000_000  # ticks of the timer a second: QEMU's virt machine
CSR: Final[Mapping[str, int]] = {name: at for at, name in enumerate(KVM_RISCV_CSRS)}
VLENB: Final = 16  # bytes of a vector register


@dataclass(slots=True, kw_only=True)
class VectorUnit:
    """What a hart with V has: ``v`` of `VLENB` bytes each, the others of 64 bits.

    A guest of ours has no instruction for it; what is in it is somebody else's.
    """

    v: list[int] = field(default_factory=lambda: [0] * 32)
    vstart: int = 0
    vl: int = 0
    vtype: int = 0
    vcsr: int = 0


class Start(NamedTuple):
    """A start that SBI HSM queued: taken when the hart next enters KVM_RUN.

    The kernel keeps it apart from the registers (KVM_REQ_VCPU_RESET and the reset
    context), so that nobody who reads registers sees it.
    """

    pc: int
    opaque: int  # to be a1; a0 will be the hart's id


@dataclass(slots=True, kw_only=True)
class Hart:
    """A vCPU of KVM; numbers are of 64 bits, without a sign.

    ``x[0]`` is 0.  ``mode`` is KVM_RISCV_MODE_S or _U, and no part of ``csr``, which
    holds the CSRs of VS mode in KVM's order (`CSR` has the places).  ``fcsr`` has 32
    bits.  ``machine_ids`` are mvendorid, marchid and mimpid.  ``time_delta`` is what
    the guest's time is ahead of the host's, in ticks of `FREQUENCY`.
    ``is_stopped`` is the kernel's power_off.  ``is_waiting``: in WFI; whoever kicks the
    hart out of KVM_RUN ends that, so it is never migrated.  ``retired`` counts
    instructions by mode, U first.
    """

    hart_id: int
    pc: int = 0
    x: list[int] = field(default_factory=lambda: [0] * 32)
    mode: int = KVM_RISCV_MODE_S
    csr: list[int] = field(default_factory=lambda: [0] * len(KVM_RISCV_CSRS))
    f: list[int] = field(default_factory=lambda: [0] * 32)
    fcsr: int = 0
    vector: VectorUnit = field(default_factory=VectorUnit)
    machine_ids: list[int] = field(default_factory=lambda: [0] * 3)
    time_delta: int = 0
    timer_compare: int = 0
    timer_state: int = KVM_RISCV_TIMER_STATE_OFF
    is_stopped: bool = False
    start: Start | None = None
    is_waiting: bool = False
    retired: list[int] = field(default_factory=lambda: [0, 0])
