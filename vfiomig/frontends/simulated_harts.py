"""What becomes of a guest's harts: how they were and arrived, and what they do then."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.run_report import DeviceReport, Digests, HartReport, Verdict
from vfiomig.vm.riscv import trap
from vfiomig.vm.riscv.hart_state import differences
from vfiomig.vm.riscv.program import Role, read_progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vfiomig.frontends.hart_scenario import HartsSpec
    from vfiomig.frontends.simulated_machine import SimulatedMachine
    from vfiomig.vm.riscv.board import VirtBoard
    from vfiomig.vm.riscv.hart_state import HartState
    from vfiomig.vm.riscv.program import Progress

HARTS: Final = "harts"  # what reports call them

# scause of what no guest of ours expects.
_CAUSES: Final[Mapping[int, str]] = {
    trap.FETCH_ACCESS: "instruction access fault",
    trap.ILLEGAL: "illegal instruction",
    trap.LOAD_ACCESS: "load access fault",
    trap.STORE_ACCESS: "store access fault",
    trap.FETCH_PAGE: "instruction page fault",
    trap.LOAD_PAGE: "load page fault",
    trap.STORE_PAGE: "store page fault",
}


class HartWitness:
    """Asks KVM for the harts of both sides, and judges what it answers.

    Each moment is told once; without harts nothing is asked.
    """

    def __init__(self, source: SimulatedMachine, destination: SimulatedMachine) -> None:
        self._sides = source, destination
        self._digests = Digests()
        self._at_stop: tuple[HartState, ...] = ()
        self._on_arrival: tuple[HartState, ...] = ()
        self._after: tuple[HartState, ...] = ()

    def at_start(self) -> None:
        """Take what both have before anything moves."""
        self._digests.source_at_start = _digest(self._states(0))
        self._digests.destination_before = _digest(self._states(1))

    def at_stop(self) -> None:
        """Take what must arrive: the source is stopped."""
        self._at_stop = self._states(0)
        self._digests.source_at_stop = _digest(self._at_stop)

    def on_arrival(self) -> None:
        """Take what arrived: the destination has all, and does not run yet."""
        if not self._on_arrival:
            self._on_arrival = self._states(1)
            self._digests.destination_after = _digest(self._on_arrival)

    def after_failure(self) -> None:
        """Take what the source goes on with."""
        found = self._digests.source_after_failure = _digest(self._states(0))
        self._digests.source_before_failure = self._digests.source_at_stop or found

    def run_on(self) -> None:
        """Let the destination's guest go on for as long as the scenario says."""
        machine = self._sides[1]
        if machine.guest is None or machine.harts is None:
            return
        machine.guest.run_until(machine.clock.now + machine.harts.run_on)
        self._after = self._states(1)

    def report(self) -> list[DeviceReport]:
        """Return the harts as one of the things that moved; nothing without any."""
        spec = self._sides[0].harts
        if spec is None:
            return []
        target = f"{len(spec.roles)} under {spec.policy}"
        if spec.destination_policy != spec.policy:
            target += f", {spec.destination_policy} at the destination"
        return [DeviceReport(name=HARTS, target=target, digests=self._digests)]

    def judge(self, devices: Sequence[DeviceReport]) -> list[HartReport]:
        """Say of each hart what became of it, and in words where it differs."""
        spec = self._sides[0].harts
        if spec is None:
            return []
        found = differences(self._at_stop, self._on_arrival)
        for device in devices:
            if device.name == HARTS and device.verdict is Verdict.DIFFERS and found:
                device.reason = "; ".join(found)
        return self._of_each(spec)

    def remarks(self) -> list[str]:
        """Return what QEMU would have printed at either side."""
        return [
            f"{machine.party}: {said}"
            for machine in self._sides
            if (board := _board(machine)) is not None
            for said in (*board.reports, *filter(None, [board.internal_error]))
        ]

    def _of_each(self, spec: HartsSpec) -> list[HartReport]:
        board = _board(self._sides[1])
        facts = None
        if board is not None and self._after:
            facts = read_progress(board.memory, len(spec.roles))
        reports = []
        for index, role in enumerate(spec.roles):
            retired = self._after[index].retired if self._after else (0, 0)
            report = HartReport(
                hart=index,
                role=role.value,
                source=_placed(self._at_stop, index),
                destination=_placed(self._on_arrival, index),
                retired_user=retired[0],
                retired_supervisor=retired[1],
                befell=_befell(facts.harts[index]) if facts is not None else "",
            )
            if role is Role.NEVER_STARTED and any(retired):
                report.befell = report.befell or "booted the guest once more"
            reports.append(report)
        return reports

    def _states(self, side: int) -> tuple[HartState, ...]:
        board = _board(self._sides[side])
        return board.states() if board is not None else ()


def _board(machine: SimulatedMachine) -> VirtBoard | None:
    return machine.guest.board if machine.guest is not None else None


def _befell(progress: Progress) -> str:
    """Say what the guest itself tells of a hart's misfortune."""
    if progress.panic is not None:
        cause = _CAUSES.get(progress.panic.cause, f"cause {progress.panic.cause}")
        return f"panic: {cause} at {progress.panic.pc:#x}"
    return "went on behind its hart_stop" if progress.returned else ""


def _placed(states: Sequence[HartState], index: int) -> str:
    """Say in which mode a hart is, and whether it runs."""
    if not states:
        return ""
    return f"{states[index].mode}, {states[index].mp_state}"


def _digest(states: Sequence[HartState]) -> str | None:
    if not states:
        return None
    told = [
        (state.mode, state.is_stopped, state.start, sorted(state.registers.items()))
        for state in states
    ]
    return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()
