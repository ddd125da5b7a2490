"""A guest: its machine type, its RAM, what it does to that, and whether it runs."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.riscv.board import VirtBoard
    from vfiomig.vm.workload import Workload
    from vfiomig.vm.xen.guest import XenGuest


class RunState(enum.Enum):
    """QEMU's RunState, as query-status names it: those of a migration."""

    RUNNING = "running"
    PAUSED = "paused"
    FINISH_MIGRATE = "finish-migrate"  # stopped, to be moved
    POST_MIGRATE = "postmigrate"  # moved: it runs elsewhere
    IN_MIGRATE = "inmigrate"  # waits for what comes


class Machine:
    """One guest; ``machine_type`` is QEMU's name of it (``pc-i440fx-7.2``).

    Its workloads write to its RAM while it runs, by virtual time in nanoseconds; the
    harts of a ``board``, if it has one, execute instructions.  ``xen`` is what it does
    as a Xen guest, if it is one.  It closes its memory.
    """

    def __init__(
        self,
        machine_type: str,
        memory: GuestMemory,
        workloads: Sequence[Workload] = (),
        run_state: RunState = RunState.IN_MIGRATE,
        board: VirtBoard | None = None,
        xen: XenGuest | None = None,
    ) -> None:
        self.machine_type = machine_type
        self.memory = memory
        self.workloads = tuple(workloads)
        self.run_state = run_state
        self.board = board
        self.xen = xen

    def start(self, now: int) -> None:
        """Let it run from ``now`` on (vm_start).

        Raises:
            VfiomigError: KVM refuses what a hart is to be.
        """
        if self.board is not None:
            self.board.vm_start(now)
        if self.xen is not None:
            self.xen.start(now)
        self.run_state = RunState.RUNNING

    def stop(self, run_state: RunState) -> None:
        """Stop it, and leave it in ``run_state`` (vm_stop)."""
        if self.board is not None:
            self.board.vm_stop()
        if self.xen is not None:
            self.xen.stop()
        self.run_state = run_state

    def run_until(self, now: int) -> None:
        """Let the vCPUs work until ``now``, if they run."""
        if self.run_state is RunState.RUNNING:
            for workload in self.workloads:
                workload.run_until(now)
            if self.board is not None:
                self.board.run_until(now)
            if self.xen is not None:
                self.xen.run_until(now)

    def throttle(self, now: int, percent: int) -> None:
        """Take ``percent`` of their time from the vCPUs (cpu_throttle_set)."""
        for workload in self.workloads:
            workload.throttle(now, percent)

    def close(self) -> None:
        """Free its RAM."""
        self.memory.close()
