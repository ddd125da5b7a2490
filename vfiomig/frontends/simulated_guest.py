"""The guest of a simulated machine, and what is known of its RAM when it has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.frontends.run_report import DeviceReport, Digests, Verdict
from vfiomig.vm.machine import Machine
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.riscv import kernel
from vfiomig.vm.riscv.board import VirtBoard
from vfiomig.vm.riscv.sync import POLICIES
from vfiomig.vm.workload import RamLoad, Workload, fill
from vfiomig.vm.xen.guest import XenGuest
from vfiomig.vm.xen.host import memory_of as xen_memory_of

if TYPE_CHECKING:
    from vfiomig.frontends.hart_scenario import HartsSpec
    from vfiomig.frontends.machine_scenario import LoadSpec, MachineSpec
    from vfiomig.frontends.simulated_machine import SimulatedMachine

RAM: Final = "ram"  # what reports call it
_SETTLED: Final = (Verdict.DIFFERS, Verdict.DID_NOT_ARRIVE)


def make_guest(spec: MachineSpec, party: str, seed: int) -> Machine:
    """Make one side's guest: the source's has contents, and goes on writing."""
    memory = _memory_of(spec)
    try:
        board = _make_board(spec.harts, memory, party)
        xen = XenGuest(memory, spec.xen.plan) if spec.xen is not None else None
        if party != "source":
            return Machine(spec.type, memory, board=board, xen=xen)
        if spec.filled:
            fill(memory, spec.filled, seed)
        loads = [
            Workload(memory, ram_load(each, spec, seed + number))
            for number, each in enumerate(spec.loads)
        ]
        if board is not None and spec.harts is not None:
            memory.write(kernel.ENTRY, bytes(kernel.END - kernel.ENTRY))
            board.boot(spec.harts.roles)
        if xen is not None:
            xen.boot(seed)
    except BaseException:
        memory.close()
        raise
    machine = Machine(spec.type, memory, loads, board=board, xen=xen)
    machine.start(now=0)
    return machine


def _memory_of(spec: MachineSpec) -> GuestMemory:
    if spec.harts is not None:
        return GuestMemory.of_virt(spec.ram)
    if spec.xen is not None:
        return xen_memory_of(spec.ram, spec.family)
    return GuestMemory.of_pc(spec.ram, spec.family)


def _make_board(
    spec: HartsSpec | None, memory: GuestMemory, party: str
) -> VirtBoard | None:
    if spec is None:
        return None
    return VirtBoard(
        memory,
        len(spec.roles),
        POLICIES[spec.policy_of(party)],
        instructions=spec.instructions,
        has_mp_state=spec.has_mp_state(party),
    )


def ram_load(spec: LoadSpec, machine: MachineSpec, seed: int) -> RamLoad:
    """Return what a load of a scenario does to the RAM of its machine."""
    return RamLoad(
        dirty_rate=spec.dirty_rate,
        working_set=spec.working_set or machine.ram - spec.offset,
        offset=spec.offset,
        block=machine.ram_block,
        pattern="random" if spec.pattern == "random" else "stride",
        seed=seed,
    )


class RamWitness:
    """Takes the digests of both sides' RAM, and judges what else a machine moves.

    Each moment is told once; without a guest nothing is taken.
    """

    def __init__(self, source: SimulatedMachine, destination: SimulatedMachine) -> None:
        self._sides = source, destination
        self.digests = Digests()

    def at_start(self) -> None:
        """Take what both have before anything moves."""
        self.digests.source_at_start = self._digest(0)
        self.digests.destination_before = self._digest(1)

    def at_stop(self) -> None:
        """Take what must arrive: the source is stopped."""
        self.digests.source_at_stop = self._digest(0)

    def on_arrival(self) -> None:
        """Take what arrived: the destination has all, and does not run yet."""
        if self.digests.destination_after is None:
            self.digests.destination_after = self._digest(1)

    def after_failure(self) -> None:
        """Take what the source goes on with, before its guest writes."""
        found = self.digests.source_after_failure = self._digest(0)
        # One that was not stopped has written since: nothing but itself to compare.
        self.digests.source_before_failure = self.digests.source_at_stop or found

    def report(self) -> list[DeviceReport]:
        """Return RAM as one of the things that moved; nothing without a guest."""
        guest = self._sides[0].guest
        if guest is None:
            return []
        target = f"{guest.memory.size} bytes of {guest.machine_type}"
        return [DeviceReport(name=RAM, target=target, digests=self.digests)]

    def judge_config(self, devices: list[DeviceReport]) -> None:
        """Find devices whose configuration space did not arrive as it was."""
        source, destination = self._sides
        for device in devices:
            if device.verdict in _SETTLED or not source.has(device.name):
                continue
            if source.config(device.name) != destination.config(device.name):
                device.verdict = Verdict.DIFFERS
                device.reason = "its configuration space is not the source's"

    def _digest(self, side: int) -> str | None:
        guest = self._sides[side].guest
        return guest.memory.digest() if guest is not None else None
