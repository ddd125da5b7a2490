"""Harts that run: translated blocks, and between them what only a machine can do.

Rule 1: a hart is all there is.  An engine holds nothing of it between two runs, so
registers may be read and set in between, and another engine may go on with it.

Rule 2: an interrupt is looked for when a run begins, after each trap and instruction of
the system (but for CSRs that have no say in it), and each `SLICE` instructions.

Rule 3: an instruction that traps is not retired, and takes from the budget none the
less, so that a guest that traps for ever does not run for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.uapi.kvm_riscv import KVM_RISCV_MODE_U
from vfiomig.vm.riscv import sbi
from vfiomig.vm.riscv.csr import ALL, QUIET, Counters, due_interrupt, is_woken, perform
from vfiomig.vm.riscv.instructions import CSR_INSTRUCTIONS
from vfiomig.vm.riscv.tlb import CodePages, Frames, Tlb
from vfiomig.vm.riscv.trap import (
    BREAKPOINT,
    ECALL_FROM_U,
    ILLEGAL,
    INTERRUPT,
    Trap,
    enter_trap,
    leave_trap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.riscv.hart import Hart
    from vfiomig.vm.riscv.translate import Block

SLICE: Final = 4096  # instructions
_SUPERVISORS: Final = frozenset({"sret", "wfi", "sfence.vma"})


class Engine:
    """Runs the harts of a guest, one at a time.

    ``time`` returns the host's time in ticks of `hart.FREQUENCY`.
    """

    def __init__(
        self, memory: GuestMemory, harts: Sequence[Hart], time: Callable[[], int]
    ) -> None:
        self._memory = memory
        self._harts = {hart.hart_id: hart for hart in harts}
        self._time = time
        self._frames = Frames(memory)
        self._code = CodePages(memory)

    def run(self, hart: Hart, budget: int) -> int:
        """Let a hart run about ``budget`` instructions; return how many it retired.

        It ends early when the hart waits or stops.  What a block does not divide, at
        most 63 instructions, may be above the budget.
        """
        if hart.is_stopped:
            return 0
        sbi.take_start(hart)
        self._code.drop_changed()
        tlb = Tlb(self._memory, self._frames, self._code, hart)
        before = sum(hart.retired)
        left = budget
        while left > 0 and not hart.is_stopped and not self.is_asleep(hart):
            part = min(left, SLICE)
            left -= part - self._run_part(hart, tlb, part)
        return sum(hart.retired) - before

    def is_asleep(self, hart: Hart) -> bool:
        """Whether a hart waits; if something wakes it now, it does no longer."""
        if hart.is_waiting and is_woken(hart, self._guest_time(hart)):
            hart.is_waiting = False
        return hart.is_waiting

    def _guest_time(self, hart: Hart) -> int:
        return self._time() + hart.time_delta & ALL

    def _run_part(self, hart: Hart, tlb: Tlb, budget: int) -> int:
        """Run up to an instruction of the system or a trap; return what is left."""
        code = due_interrupt(hart, self._guest_time(hart))
        if code is not None:
            enter_trap(hart, INTERRUPT | code, 0)
        mode, left, cost = hart.mode, budget, 0
        blocks, load, store = tlb.blocks[mode], tlb.load, tlb.store
        try:
            while left > 0:
                block = blocks.get(hart.pc) or tlb.block(hart.pc)
                if block.run is None:
                    done = sum(hart.retired) + budget - left
                    is_quiet = self._perform(hart, tlb, block, done)
                    left -= 1
                    if is_quiet:
                        continue
                    break
                left = block.run(hart, left, load, store)
        except Trap as trap:
            left = left if trap.left is None else trap.left
            enter_trap(hart, trap.cause, trap.value)
            cost = 1
        hart.retired[mode] += budget - left
        return left - cost

    def _perform(self, hart: Hart, tlb: Tlb, block: Block, retired: int) -> bool:
        """Perform an instruction of the system.

        Return whether it changed neither the mode nor what may interrupt the hart.

        Raises ``Trap``; the hart is as before then.
        """
        it = block.instruction
        is_user = hart.mode == KVM_RISCV_MODE_U
        if it is None or (is_user and it.name in _SUPERVISORS):
            raise Trap(ILLEGAL, block.word)
        if it.name == "ebreak":
            raise Trap(BREAKPOINT, hart.pc)
        if it.name == "ecall" and is_user:
            raise Trap(ECALL_FROM_U)
        if it.name == "sret":
            leave_trap(hart)
            return False
        is_csr = it.name in CSR_INSTRUCTIONS
        if is_csr and perform(hart, it, Counters(self._guest_time(hart), retired)):
            tlb.flush()
        hart.pc = hart.pc + 4 & ALL
        if it.name == "ecall":
            sbi.call(hart, self._harts)
        elif it.name == "wfi":
            hart.is_waiting = True
        elif it.name == "sfence.vma":
            tlb.flush()
        return is_csr and it.imm in QUIET
