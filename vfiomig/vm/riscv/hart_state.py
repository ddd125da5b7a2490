"""A hart as KVM shows it, as a value, and how those of two machines differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_S
from vfiomig.vm.riscv.registers import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vfiomig.vm.riscv.hart import Start
    from vfiomig.vm.riscv.kvm import KvmVcpu

_SHOWN: Final = 3  # registers of a hart that differ


@dataclass(frozen=True, slots=True, kw_only=True)
class HartState:
    """One hart at one moment.

    ``registers`` are KVM's by their names, FP's and V's with fcsr and vcsr; without
    ``mode`` and the timer's, FP_F's view of FP_D's, and CONFIG and vlenb, the host's.
    ``is_stopped`` is mp_state STOPPED, and what SBI's hart_status answers as well.
    ``start`` is one that waits for the hart to run: the kernel alone knows it.
    ``retired`` counts instructions since the machine started, in U and in S.
    """

    index: int
    mode: str  # S or U
    is_stopped: bool
    registers: Mapping[str, int]
    start: Start | None
    retired: tuple[int, int]

    @classmethod
    def of(cls, vcpu: KvmVcpu, before: tuple[int, int] = (0, 0)) -> HartState:
        """Ask a vCPU; ``before`` is what it had retired when the machine started."""
        hart = vcpu.hart
        return cls(
            index=hart.hart_id,
            mode="S" if vcpu.get("mode") == KVM_RISCV_MODE_S else "U",
            is_stopped=hart.is_stopped,
            registers={
                name: vcpu.get(name)
                for name in vcpu.register_names()
                if name in _COMPARED
            },
            start=hart.start,
            retired=(hart.retired[0] - before[0], hart.retired[1] - before[1]),
        )

    @property
    def pc(self) -> int:
        """Where it is."""
        return self.registers["pc"]

    @property
    def mp_state(self) -> str:
        """KVM's mp_state, in its word."""
        return "stopped" if self.is_stopped else "runnable"

    @property
    def hsm_status(self) -> str:
        """What SBI's hart_status answers, in its word."""
        return "stopped" if self.is_stopped else "started"


_APART: Final = ("mode", "vlenb", "timer.", "fp_f.", "config.")
_COMPARED: Final = dict.fromkeys(
    name for name in NUMBERS if not name.startswith(_APART)
)


def differences(
    source: Sequence[HartState], destination: Sequence[HartState]
) -> tuple[str, ...]:
    """Say in which a destination's harts are not as the source's were, a line each.

    A register that one of them does not have is 0 there.
    """
    found = []
    if len(source) != len(destination):
        found.append(f"{len(destination)} harts, and the source had {len(source)}")
    for was, now in zip(source, destination, strict=False):
        found += [f"hart {now.index}: {each}" for each in _differences(was, now)]
    return tuple(found)


def _differences(was: HartState, now: HartState) -> list[str]:
    found = []
    if was.mode != now.mode:
        found.append(f"mode {now.mode}, and the source's was {was.mode}")
    if was.is_stopped and not now.is_stopped:
        found.append("runs, and the source's was stopped")
    if now.is_stopped and not was.is_stopped:
        found.append("is stopped, and the source's ran")
    if was.start is not None and now.start != was.start:
        found.append(
            f"is at {now.pc:#x}, and the source's was to start at {was.start.pc:#x}"
        )
    wrong = [
        f"{name} {here:#x}, and the source's was {there:#x}"
        for name in _COMPARED
        if (here := now.registers.get(name, 0)) != (there := was.registers.get(name, 0))
    ]
    found += wrong[:_SHOWN]
    if len(wrong) > _SHOWN:
        found.append(f"and {len(wrong) - _SHOWN} more registers differ")
    return found
