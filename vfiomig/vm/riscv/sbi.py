"""What KVM answers a guest's SBI calls: Base, TIME, IPI and HSM.

RISC-V Supervisor Binary Interface Specification 1.0, chapters 3 to 6 and 9.  A call is
an ECALL from S mode: a7 is the extension, a6 the function, a0 and on the arguments; the
answer is an error in a0 and a value in a1.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.uapi.kvm_riscv import (
    KVM_RISCV_MODE_S,
    KVM_RISCV_TIMER_STATE_OFF,
    KVM_RISCV_TIMER_STATE_ON,
)
from vfiomig.vm.riscv.csr import ALL
from vfiomig.vm.riscv.hart import CSR, Start, VectorUnit
from vfiomig.vm.riscv.trap import SOFTWARE, TIMER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.vm.riscv.hart import Hart

    Harts = Mapping[int, Hart]  # by their ids

BASE: Final = 0x10
TIME: Final = 0x5449_4D45  # "TIME"
IPI: Final = 0x0073_5049  # "sPI"
HSM: Final = 0x0048_534D  # "HSM"

STARTED: Final = 0  # what hart_status says
STOPPED: Final = 1

_A0: Final = 10
_VERSION: Final = 1 << 24  # 1.0
_IMPLEMENTATION: Final = 3  # KVM, in the specification's list
_COUNTERS: Final = 7  # KVM's reset lets U mode read cycle, time and instret


class Error(enum.IntEnum):
    """SBI's errors, by their names there."""

    SUCCESS = 0
    NOT_SUPPORTED = -2
    INVALID_PARAM = -3
    ALREADY_AVAILABLE = -6


class Answer(NamedTuple):
    """An error for a0 and a value for a1."""

    error: Error = Error.SUCCESS
    value: int = 0


def call(hart: Hart, harts: Harts) -> None:
    """Answer the call that is in the hart's registers; its pc is already behind it."""
    extension, function = hart.x[17], hart.x[16]
    known = _CALLS.get((extension, function))
    answer = known(hart, harts) if known else Answer(Error.NOT_SUPPORTED)
    hart.x[_A0], hart.x[_A0 + 1] = answer.error & ALL, answer.value & ALL


# -- hart state management, for those who ask without being a hart as well


def hart_start(harts: Harts, hart_id: int, pc: int, opaque: int) -> Answer:
    """Queue a start of a stopped hart; it is taken when the hart runs next."""
    hart = harts.get(hart_id)
    if hart is None:
        return Answer(Error.INVALID_PARAM)
    if not hart.is_stopped:
        return Answer(Error.ALREADY_AVAILABLE)
    hart.start = Start(pc, opaque)
    hart.is_stopped = False
    return Answer()


def hart_stop(hart: Hart) -> Answer:
    """Stop a hart; if something else than a start lets it go on, the call returns."""
    hart.is_stopped = True
    return Answer()


def hart_status(harts: Harts, hart_id: int) -> Answer:
    """Return `STARTED` or `STOPPED` as the value."""
    hart = harts.get(hart_id)
    if hart is None:
        return Answer(Error.INVALID_PARAM)
    return Answer(value=STOPPED if hart.is_stopped else STARTED)


def take_start(hart: Hart) -> None:
    """Perform the start that is queued, if one is: KVM's reset of a vCPU."""
    if hart.start is None:
        return
    (pc, opaque), hart.start = hart.start, None
    hart.pc, hart.mode, hart.is_waiting = pc, KVM_RISCV_MODE_S, False
    hart.x[:] = [0] * len(hart.x)
    hart.x[_A0], hart.x[_A0 + 1] = hart.hart_id, opaque
    hart.f[:] = [0] * len(hart.f)
    hart.fcsr, hart.vector = 0, VectorUnit()
    hart.csr[:] = [0] * len(hart.csr)
    hart.csr[CSR["scounteren"]] = _COUNTERS
    hart.timer_compare, hart.timer_state = ALL, KVM_RISCV_TIMER_STATE_OFF


# -- the calls


def _probe(hart: Hart, _harts: Harts) -> Answer:
    return Answer(value=int(hart.x[_A0] in {extension for extension, _ in _CALLS}))


def _set_timer(hart: Hart, _harts: Harts) -> Answer:
    hart.timer_compare, hart.timer_state = hart.x[_A0], KVM_RISCV_TIMER_STATE_ON
    hart.csr[CSR["sip"]] &= ~(1 << TIMER)
    return Answer()


def _send_ipi(hart: Hart, harts: Harts) -> Answer:
    mask, base = hart.x[_A0], hart.x[_A0 + 1]
    if base == ALL:  # all of them, whatever the mask says
        targets = list(harts)
    else:
        targets = [base + bit for bit in range(64) if mask >> bit & 1]
    if not harts.keys() >= set(targets):
        return Answer(Error.INVALID_PARAM)
    for hart_id in targets:
        harts[hart_id].csr[CSR["sip"]] |= 1 << SOFTWARE
    return Answer()


def _always(value: int) -> Callable[[Hart, Harts], Answer]:
    return lambda _hart, _harts: Answer(value=value)


_CALLS: Final[Mapping[tuple[int, int], Callable[[Hart, Harts], Answer]]] = {
    (BASE, 0): _always(_VERSION),
    (BASE, 1): _always(_IMPLEMENTATION),
    (BASE, 2): _always(0),  # the version of the implementation
    (BASE, 3): _probe,
    (BASE, 4): lambda hart, _harts: Answer(value=hart.machine_ids[0]),
    (BASE, 5): lambda hart, _harts: Answer(value=hart.machine_ids[1]),
    (BASE, 6): lambda hart, _harts: Answer(value=hart.machine_ids[2]),
    (TIME, 0): _set_timer,
    (IPI, 0): _send_ipi,
    (HSM, 0): lambda hart, harts: hart_start(harts, *hart.x[_A0 : _A0 + 3]),
    (HSM, 1): lambda hart, _harts: hart_stop(hart),
    (HSM, 2): lambda hart, harts: hart_status(harts, hart.x[_A0]),
}
