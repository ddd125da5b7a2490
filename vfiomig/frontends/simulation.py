"""One simulated live migration, from a scenario to a report.

Everything real is real here: two hosts, their drivers, the client, the bytes.  Only
time is a model.  This file wires them, takes the snapshots at the moments that the
contract names, arms faults, and compares.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vfiomig import __version__
from vfiomig.client.recorder import HistoryWriter
from vfiomig.frontends.causes import cause_of, in_words, words_of_death
from vfiomig.frontends.remarks import remarks_on_devices, remarks_on_faults
from vfiomig.frontends.run_report import Death, DeviceReport, Digests, RunReport
from vfiomig.frontends.run_sinks import Sinks
from vfiomig.frontends.scenario import ScenarioError
from vfiomig.frontends.simulated_guest import RamWitness
from vfiomig.frontends.simulated_harts import HartWitness
from vfiomig.frontends.simulated_link import SimulatedLink
from vfiomig.frontends.simulated_machine import SimulatedMachine
from vfiomig.frontends.simulated_xen import XenWitness
from vfiomig.frontends.verdicts import judge_devices, run_is_ok
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.observer import Unobserved
from vfiomig.migration.source import Source
from vfiomig.protocol.errors import DriverDiedError, VfiomigError
from vfiomig.protocol.history import Header, RegionShape

if TYPE_CHECKING:
    from vfiomig.frontends.scenario import Fault, Scenario
    from vfiomig.frontends.simulated_machine import SimulatedDevice
    from vfiomig.migration.side import Ending, MigratingMachine


def simulate(scenario: Scenario, sinks: Sinks | None = None) -> RunReport:
    """Run one scenario and report on it.

    Raises:
        ScenarioError: it cannot be run as it stands.
        TargetError: a target names nothing that can be run.
        TargetStartError: a target does not start.
    """
    with tempfile.TemporaryDirectory(prefix="vfiomig-") as folder:
        run = _Run(scenario, sinks or Sinks(), Path(folder))
        try:
            return run.go()
        finally:
            run.close()


class _Run(Unobserved):
    """The run of one scenario; it watches its own migration."""

    def __init__(self, scenario: Scenario, sinks: Sinks, folder: Path) -> None:
        self._scenario = scenario
        self._sinks = sinks
        self._log = HistoryWriter(sinks.history) if sinks.history is not None else None
        self._metrics = Metrics()
        self._digests = {spec.name: Digests() for spec in scenario.devices}
        self._link_model = LinkModel(scenario.link.bandwidth, scenario.link.latency)
        self._link = SimulatedLink(scenario, sinks.stream)
        self._machines: list[SimulatedMachine] = []
        self._death: Death | None = None
        self._start_failure = ""
        self._armed: set[int] = set()  # places of faults whose moment came
        self._is_interrupted = False
        for party in ("source", "destination"):
            self._machines.append(self._machine(party, folder / party))
        self._source, self._destination = self._machines
        self._ram = RamWitness(self._source, self._destination)
        self._harts = HartWitness(self._source, self._destination)
        self._xen = XenWitness(self._source, self._destination)
        self._parts = self._ram, self._harts, self._xen
        self._require_faults()

    def go(self) -> RunReport:
        """Migrate, and judge what came of it."""
        self._begin_history()
        endings = self._migrate()
        outcome = self._outcome(endings)
        has_moved = outcome is Outcome.COMPLETED
        if has_moved:
            self._link.require_faults(self._metrics.stream_bytes)
            self._harts.run_on()
        else:
            for part in self._parts:
                part.after_failure()
        self._xen.run_on(has_moved=has_moved)
        devices = [
            DeviceReport(
                name=spec.name, target=spec.target, digests=self._digests[spec.name]
            )
            for spec in self._scenario.devices
        ]
        devices += [each for part in self._parts for each in part.report()]
        judge_devices(devices, outcome)
        self._ram.judge_config(devices)
        report = RunReport(
            scenario=self._scenario,
            outcome=outcome,
            reason=self._reason(outcome, endings),
            ok=False,
            devices=devices,
            metrics=self._metrics,
            death=self._death,
            flip_unnoticed=outcome is Outcome.COMPLETED and self._link.flips,
            harts=self._harts.judge(devices),
            xen=self._xen.judge(devices, self._metrics, has_moved=has_moved),
            lost=[f"{name}: {in_words(why)}" for e in endings for name, why in e.lost],
        )
        report.notes += remarks_on_faults(self._scenario, outcome, self._armed)
        report.notes += remarks_on_devices(self._machines)
        report.notes += self._harts.remarks()
        self._close_machines(report)
        report.ok = run_is_ok(report)
        return report

    def close(self) -> None:
        """Let everything go that is still held."""
        self._link.close()
        for machine in self._machines:
            machine.close()
        if self._log is not None:
            self._log.flush()

    # -- wiring --------------------------------------------------------------------

    def _machine(self, party: str, folder: Path) -> SimulatedMachine:
        folder.mkdir()
        try:
            return SimulatedMachine(
                party,
                self._scenario,
                folder=folder,
                clock=VirtualClock(),
                log=self._log,
            )
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> list[Ending]:
        """Run both sides to their ends; none if it did not come so far."""
        try:
            return self._exchange() if self._warm_up() else []
        except KeyboardInterrupt:  # what was found so far is still worth a report
            self._is_interrupted = True
            return []

    def _exchange(self) -> list[Ending]:
        forth = Channel(self._link_model, self._source.clock, self._destination.clock)
        back = Channel(self._link_model, self._destination.clock, self._source.clock)
        return self._link.run(
            lambda machine: self._make_source(machine).migrate(),
            lambda machine: self._make_destination(machine).load(),
            (self._source, self._destination),
            (forth, back),
        )

    def _make_source(self, machine: MigratingMachine | None) -> Source:
        limits = self._scenario.limits
        return Source(
            self._source.participants(),
            clock=self._source.clock,
            estimate=DowntimeEstimate(
                link=self._link_model, load_bandwidth=self._scenario.load_bandwidth
            ),
            limits=Limits(
                downtime=limits.downtime,
                rounds=limits.rounds,
                switches_anyway=limits.when_not_converging == "switch-over",
                cancel_at=limits.cancel_at,
            ),
            metrics=self._metrics,
            guest=self._source,
            observer=self,
            machine=machine,
        )

    def _make_destination(self, machine: MigratingMachine | None) -> Destination:
        return Destination(
            self._destination.participants(),
            clock=self._destination.clock,
            metrics=self._metrics,
            load_bandwidth=self._scenario.load_bandwidth,
            observer=self,
            machine=machine,
        )

    def _warm_up(self) -> bool:
        """Start the source's VM, let it work, and take the first snapshots."""
        device = ""
        try:
            for simulated in self._source.devices:
                device = simulated.spec.name
                simulated.client.vm_state_change(running=True)
                simulated.work(self._scenario.warm_up)
                self._digests[device].source_at_start = simulated.digest()
            for simulated in self._destination.devices:
                device = simulated.spec.name
                self._digests[device].destination_before = simulated.digest()
            for part in self._parts:
                part.at_start()
            self._arm("source", "start")
            self._arm("destination", "start")
        except (OSError, VfiomigError) as error:
            self._start_failure = f"source, {device}: {in_words(error)}"
            self._note_death("source", device, error)
            return False
        return True

    def _arm(
        self,
        party: str,
        at: str,
        number: int | None = None,
        device: str | None = None,
    ) -> None:
        for place, fault in enumerate(self._scenario.faults):
            if (
                (fault.party, fault.at, fault.number) == (party, at, number)
            ) and device in (None, fault.device):
                self._device_of(fault).fail(fault.on, fault.code)
                self._armed.add(place)

    # -- watching ------------------------------------------------------------------

    def round_began(self, number: int, pending_bytes: int) -> None:
        """Arm the faults of this round."""
        self._arm("source", "round", number)
        if self._sinks.view is not None:
            self._sinks.view.round_began(number, pending_bytes)

    def buffer_sent(self, device: str, size: int, now: int) -> None:
        """Pass it on to who looks on."""
        if self._sinks.view is not None:
            self._sinks.view.sent(self._metrics.sent_bytes, now)

    def pages_sent(self, count: int, now: int) -> None:
        """Pass it on to who looks on."""
        if self._sinks.view is not None:
            self._sinks.view.sent(self._metrics.sent_bytes, now)

    def source_stopped(self, device: str) -> None:
        """Take the snapshot that everything is compared with."""
        self._digests[device].source_at_stop = self._source.device(device).digest()

    def source_stops_copying(self) -> None:
        """Take the digests of all but devices; arm the faults of stop-and-copy."""
        for part in self._parts:
            part.at_stop()
        self._arm("source", "stop")

    def source_will_continue(self, device: str) -> None:
        """Take the snapshot that the source must still have when it goes on."""
        self._digests[device].source_before_failure = self._digest_if_alive(device)

    def source_continues(self, device: str) -> None:
        """Take the snapshot that shows whether it has."""
        self._digests[device].source_after_failure = self._digest_if_alive(device)

    def buffer_will_load(self, device: str, number: int, size: int) -> None:
        """Arm the faults of this buffer."""
        self._arm("destination", "buffer", number, device)

    def destination_will_run(self, device: str) -> None:
        """Take what arrived beside the state; arm the faults of the last write."""
        for part in self._parts:
            part.on_arrival()
        self._destination.device(device).take_config()
        self._arm("destination", "end", device=device)

    def destination_runs(self, device: str) -> None:
        """Take the snapshot before anything else reaches the device."""
        digest = self._destination.device(device).digest()
        self._digests[device].destination_after = digest

    def state_changed(self, party: str, device: str, state: str, now: int) -> None:
        """Pass it on to who looks on."""
        if self._sinks.view is not None:
            self._sinks.view.state_changed(party, device, state, now)

    def _digest_if_alive(self, device: str) -> str | None:
        """Take a snapshot where a death must not stop the others from going on."""
        try:
            return self._source.device(device).digest()
        except DriverDiedError as error:
            self._note_death("source", device, error)
            return None

    # -- what came of it -----------------------------------------------------------

    def _outcome(self, endings: list[Ending]) -> Outcome:
        for party, ending in zip(("source", "destination"), endings, strict=False):
            if ending.error is not None:
                self._note_death(party, ending.device, ending.error)
        if self._death is not None:
            return Outcome.DIED
        if self._is_interrupted:
            return Outcome.INTERRUPTED
        return endings[0].outcome if endings else Outcome.FAILED

    def _note_death(self, party: str, device: str, error: Exception) -> None:
        if isinstance(error, DriverDiedError) and self._death is None:
            party, device = error.device or (party, device)
            self._death = Death(
                party=party,
                device=device,
                access=error.access,
                error=error.error,
                where=error.where,
            )

    def _reason(self, outcome: Outcome, endings: list[Ending]) -> str:
        if self._death is not None:
            return words_of_death(self._death)
        if outcome is Outcome.COMPLETED:
            return ""
        if outcome is Outcome.INTERRUPTED:
            return f"after {self._metrics.stream_bytes} bytes of the stream"
        if self._link.was_cut:
            return f"the link was cut at byte {self._scenario.link.cut}"
        return cause_of(*endings) if endings else self._start_failure

    def _require_faults(self) -> None:
        """Refuse a scenario whose faults a device cannot have.

        Raises:
            ScenarioError: naming the fault.
        """
        for number, fault in enumerate(self._scenario.faults):
            if self._device_of(fault).bench.fail is None:
                self.close()
                place = f"fault[{number}].device"
                raise self._wrong(place, f"{fault.device} has no fail()")

    def _device_of(self, fault: Fault) -> SimulatedDevice:
        machine = self._source if fault.party == "source" else self._destination
        return machine.device(fault.device)

    def _wrong(self, key: str, reason: str) -> ScenarioError:
        file = self._scenario.file or "the built-in scenario"
        return ScenarioError(f"{file}: {key}: {reason}")

    def _close_machines(self, report: RunReport) -> None:
        """Close all devices; a driver that dies of it has died all the same."""
        for machine in self._machines:
            for device, failure in machine.close():
                what = f"{machine.party}, {device}"
                report.notes.append(f"{what}: {in_words(failure)}")
                if isinstance(failure, DriverDiedError) and report.death is None:
                    self._note_death(machine.party, device, failure)
                    report.outcome, report.death = Outcome.DIED, self._death
                    report.reason = self._reason(Outcome.DIED, [])

    def _begin_history(self) -> None:
        if self._log is not None:
            shapes = {
                device.label: RegionShape.of(device.region)
                for machine in self._machines
                for device in machine.devices
            }
            self._log.begin(
                Header(recorded_by=f"vfiomig {__version__}", devices=shapes)
            )
