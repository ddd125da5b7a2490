"""What a QEMU gets of a vCPU, puts into it, and sends: three policies, as data.

Rule 1: a policy says what QEMU does at which level, never how that ends.

Sources: QEMU 8.2.0 to 11.1.0, target/riscv/kvm/kvm-cpu.c; the patch "Fix VM resume
after QEMU+KVM migration" in its third version (July 2025); the two that were merged for
11.2 (August 2026), "Synchronize privilege mode" and "Preserve MP state across
migration".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.riscv_cpu import CpuLayout, MpStatePlace
from vfiomig.uapi.kvm_riscv import PRV_M, PRV_S

if TYPE_CHECKING:
    from collections.abc import Mapping


class PutLevel(enum.IntEnum):
    """How much QEMU puts into a vCPU (KVM_PUT_*_STATE)."""

    RUNTIME = 1  # before each KVM_RUN, if QEMU has the state
    RESET = 2  # after a reset of the system
    FULL = 3  # once the machine is made, and once it is loaded


class MpStatePut(enum.Enum):
    """What of mp_state a put at some level puts."""

    NOTHING = "nothing"
    BY_INDEX = "the boot hart runnable, all others stopped"
    SECONDARIES_RUNNABLE = "all but index 0 runnable"
    IF_LOADED = "what a stream brought, if it did"
    ALWAYS = "what QEMU has"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPolicy:
    """How one QEMU keeps its view of a hart and KVM's the same.

    ``reset_priv`` is what ``env.priv`` is after a reset.  ``skips_m``: no mode is put
    where that is M.  ``at_runtime``, ``at_reset`` and ``at_full`` are of mp_state; the
    ``boot_hart`` is the index that `MpStatePut.BY_INDEX` lets run.  Nothing is got or
    put of mp_state where KVM has no KVM_CAP_MP_STATE.
    """

    name: str
    layout: CpuLayout
    reset_priv: int = PRV_S  # since 10.2; M before
    gets_mode: bool = False
    puts_mode: bool = False
    skips_m: bool = False
    gets_mp_state: bool = False
    at_runtime: MpStatePut = MpStatePut.NOTHING
    at_reset: MpStatePut = MpStatePut.BY_INDEX
    at_full: MpStatePut = MpStatePut.NOTHING
    boot_hart: int = 0

    def mp_state_put(self, level: PutLevel) -> MpStatePut:
        """Return what a put at ``level`` puts of mp_state."""
        if level is PutLevel.RUNTIME:
            return self.at_runtime
        return self.at_reset if level is PutLevel.RESET else self.at_full


UNPATCHED: Final = SyncPolicy(name="unpatched", layout=CpuLayout(11))

# It was written on 10.1, where a reset leaves M in env.priv and the stream has version
# 10; the layout is 11's, so that it can stand in for the unpatched one.
ALL_RUNNABLE: Final = SyncPolicy(
    name="all-runnable",
    layout=CpuLayout(11),
    reset_priv=PRV_M,
    gets_mode=True,
    puts_mode=True,
    skips_m=True,
    at_full=MpStatePut.SECONDARIES_RUNNABLE,
)

MP_STATE: Final = SyncPolicy(
    name="mp-state",
    layout=CpuLayout(12, MpStatePlace.SUBSECTION),
    gets_mode=True,
    puts_mode=True,
    gets_mp_state=True,
    at_full=MpStatePut.IF_LOADED,
)

POLICIES: Final[Mapping[str, SyncPolicy]] = {
    policy.name: policy for policy in (UNPATCHED, ALL_RUNNABLE, MP_STATE)
}
