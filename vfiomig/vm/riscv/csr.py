"""The CSRs that a guest in VS mode sees, and which interrupt is due.

Privileged manual (20211203), section 4.1; the counters are of chapter 10 of volume I.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.uapi.kvm_riscv import (
    KVM_RISCV_MODE_S,
    KVM_RISCV_TIMER_STATE_OFF,
)
from vfiomig.vm.riscv.hart import CSR
from vfiomig.vm.riscv.instructions import encode
from vfiomig.vm.riscv.pages import SATP_BARE, SATP_MODE_SHIFT, SATP_SV39
from vfiomig.vm.riscv.trap import (
    EXTERNAL,
    ILLEGAL,
    MXR,
    SIE,
    SOFTWARE,
    SPIE,
    SPP,
    SUM,
    TIMER,
    Trap,
)

if TYPE_CHECKING:
    from vfiomig.vm.riscv.hart import Hart
    from vfiomig.vm.riscv.instructions import Instruction

ALL: Final = (1 << 64) - 1
_SSTATUS: Final = CSR["sstatus"]
_SIE: Final = CSR["sie"]
_SIP: Final = CSR["sip"]
_SATP: Final = CSR["satp"]
_SCOUNTEREN: Final = CSR["scounteren"]

_INTERRUPTS: Final = 1 << SOFTWARE | 1 << TIMER | 1 << EXTERNAL
_BY_PRIORITY: Final = (EXTERNAL, SOFTWARE, TIMER)
_UXL: Final = 2 << 32  # U mode has 64 bits; nobody can change it
_SEES_MEMORY: Final = SUM | MXR


class _Csr(NamedTuple):
    """A CSR in `Hart.csr`, and the bits of it that a guest can write."""

    at: int
    writable: int


CSRS: Final = {
    0x100: _Csr(_SSTATUS, SIE | SPIE | SPP | SUM | MXR),
    0x104: _Csr(_SIE, _INTERRUPTS),
    0x105: _Csr(CSR["stvec"], ALL & ~2),
    0x106: _Csr(_SCOUNTEREN, 7),
    0x10A: _Csr(CSR["senvcfg"], 1),
    0x140: _Csr(CSR["sscratch"], ALL),
    0x141: _Csr(CSR["sepc"], ALL & ~3),  # no instruction is at an address of 2 mod 4
    0x142: _Csr(CSR["scause"], ALL),
    0x143: _Csr(CSR["stval"], ALL),
    0x144: _Csr(_SIP, 1 << SOFTWARE),
    0x180: _Csr(_SATP, ALL),
}
CYCLE: Final = 0xC00
TIME: Final = 0xC01
INSTRET: Final = 0xC02
COUNTERS: Final = {"cycle": CYCLE, "time": TIME, "instret": INSTRET}
_NAMES: Final = tuple(CSR)
NUMBERS: Final = COUNTERS | {_NAMES[row.at]: number for number, row in CSRS.items()}
# An access to these changes neither what may interrupt a hart nor what it sees.
QUIET: Final = frozenset(
    {NUMBERS[name] for name in (*COUNTERS, "sscratch", "sepc", "scause", "stval")}
)


class Counters(NamedTuple):
    """What the counters hold at the moment: ticks of the guest's time, instructions."""

    time: int
    retired: int

    def of(self, number: int) -> int:
        """Return a counter by its CSR; a cycle is an instruction."""
        return (self.time if number == TIME else self.retired) & ALL


def pending(hart: Hart, time: int) -> int:
    """Return sip at a time of the guest: the timer's bit is set from compare on."""
    bits = hart.csr[_SIP] & _INTERRUPTS
    if hart.timer_state != KVM_RISCV_TIMER_STATE_OFF and time >= hart.timer_compare:
        bits |= 1 << TIMER
    return bits


def is_woken(hart: Hart, time: int) -> bool:
    """Whether a WFI ends: an interrupt that sie lets through, whatever sstatus says."""
    return bool(pending(hart, time) & hart.csr[_SIE])


def due_interrupt(hart: Hart, time: int) -> int | None:
    """Return the code of the interrupt that the hart takes now, or None."""
    if hart.mode == KVM_RISCV_MODE_S and not hart.csr[_SSTATUS] & SIE:
        return None
    bits = pending(hart, time) & hart.csr[_SIE]
    if not bits:
        return None
    return next(code for code in _BY_PRIORITY if bits >> code & 1)


def perform(hart: Hart, it: Instruction, counters: Counters) -> bool:
    """Perform an instruction of Zicsr, but for the pc.

    Return whether it may have changed which memory the hart sees.

    Raises:
        Trap: there is no such CSR, or not in this mode, or it is read-only.
    """
    kind = it.name.rstrip("i")
    # csrrs and csrrc of x0 (and of an immediate of 0) write nothing.
    writes = kind == "csrrw" or it.rs1 != 0
    if not _is_allowed(hart, it.imm, writes=writes):
        raise Trap(ILLEGAL, encode(it))
    before = _read(hart, it.imm, counters)
    operand = it.rs1 if it.name.endswith("i") else hart.x[it.rs1]
    if it.rd:
        hart.x[it.rd] = before
    if not writes:
        return False
    value = {"csrrw": operand, "csrrs": before | operand, "csrrc": before & ~operand}
    return _write(hart, it.imm, value[kind])


def _is_allowed(hart: Hart, number: int, *, writes: bool) -> bool:
    if number in COUNTERS.values():
        enabled = hart.csr[_SCOUNTEREN] >> number - CYCLE & 1
        return not writes and (hart.mode == KVM_RISCV_MODE_S or bool(enabled))
    return number in CSRS and hart.mode == KVM_RISCV_MODE_S


def _read(hart: Hart, number: int, counters: Counters) -> int:
    if number not in CSRS:
        return counters.of(number)
    at = CSRS[number].at
    if at == _SIP:
        return pending(hart, counters.time)
    return hart.csr[at] | _UXL if at == _SSTATUS else hart.csr[at]


def _write(hart: Hart, number: int, value: int) -> bool:
    at, writable = CSRS[number]
    if at == _SATP and value >> SATP_MODE_SHIFT not in (SATP_BARE, SATP_SV39):
        return False  # "the entire write has no effect"
    before = hart.csr[at]
    hart.csr[at] = before & ~writable | value & writable
    if at == _SSTATUS:
        return bool((before ^ value) & _SEES_MEMORY)
    return at == _SATP
