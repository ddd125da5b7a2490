"""The guest of a simulated machine, and what is known of its RAM when it has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.frontends.run_report import DeviceReport, Digests, Verdict
from vfiomig.vm.machine import Machine, RunState
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.workload import RamLoad, Workload, fill

if TYPE_CHECKING:
    from vfiomig.frontends.machine_scenario import LoadSpec, MachineSpec
    from vfiomig.frontends.simulated_machine import SimulatedMachine

RAM: Final = "ram"  # what reports call it


def make_guest(spec: MachineSpec, party: str, seed: int) -> Machine:
    """Make one side's guest: the source's has contents, and goes on writing."""
    memory = GuestMemory.of_pc(spec.ram, spec.family)
    if party != "source":
        return Machine(spec.type, memory)
    try:
        if spec.filled:
            fill(memory, spec.filled, seed)
        loads = [
            Workload(memory, ram_load(each, spec, seed + number))
            for number, each in enumerate(spec.loads)
        ]
    except BaseException:
        memory.close()
        raise
    return Machine(spec.type, memory, loads, RunState.RUNNING)


def ram_load(spec: LoadSpec, machine: MachineSpec, seed: int) -> RamLoad:
    """Return what a load of a scenario does to the RAM of its machine."""
    return RamLoad(
        dirty_rate=spec.dirty_rate,
        working_set=spec.working_set or machine.ram - spec.offset,
        offset=spec.offset,
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
            if device.verdict is Verdict.DIFFERS or device.name == RAM:
                continue
            if source.config(device.name) != destination.config(device.name):
                device.verdict = Verdict.DIFFERS
                device.reason = "its configuration space is not the source's"

    def _digest(self, side: int) -> str | None:
        guest = self._sides[side].guest
        return guest.memory.digest() if guest is not None else None
