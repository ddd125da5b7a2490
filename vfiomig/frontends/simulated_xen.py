"""What becomes of a Xen guest: its events counted at both ends, its store compared."""

from __future__ import annotations

import errno
import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.frontends.run_report import (
    DeviceReport,
    Digests,
    Verdict,
    XenDisk,
    XenEvents,
    XenReport,
    XenStoreReport,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.frontends.simulated_machine import SimulatedMachine
    from vfiomig.migration.metrics import Metrics
    from vfiomig.protocol.qemu_stream.xen_state import XenState
    from vfiomig.vm.xen.guest import XenGuest

XEN: Final = "xen"  # what reports call shared_info and the event channels
XENSTORE: Final = "xenstore"


class _Moment(NamedTuple):
    """What one side had when it did not run."""

    state: XenState
    nodes: int
    watches: int
    events: int
    transactions: int


class XenWitness:
    """Takes what the hosts of both sides have, and judges what came of it.

    Each moment is told once; without a Xen guest nothing is taken.
    """

    def __init__(self, source: SimulatedMachine, destination: SimulatedMachine) -> None:
        self._sides = source, destination
        self._digests = {XEN: Digests(), XENSTORE: Digests()}
        self._at_stop: _Moment | None = None
        self._on_arrival: _Moment | None = None
        self._at_failure: _Moment | None = None
        self._handled = self._completed = self._connections = 0  # until the stop

    def at_start(self) -> None:
        """Take what both have before anything moves."""
        self._take("source_at_start", _moment(self._guest(0)))
        self._take("destination_before", _moment(self._guest(1)))

    def at_stop(self) -> None:
        """Take what must arrive: the source is stopped."""
        guest = self._guest(0)
        self._at_stop = _moment(guest)
        self._take("source_at_stop", self._at_stop)
        if guest is not None:
            own = guest.front.registers
            self._handled, self._completed = own.handled, own.completed
            self._connections = own.connections

    def on_arrival(self) -> None:
        """Take what arrived: the destination has all, and does not run yet."""
        if self._on_arrival is None:
            self._on_arrival = _moment(self._guest(1))
            self._take("destination_after", self._on_arrival)

    def after_failure(self) -> None:
        """Take what the source goes on with."""
        found = self._at_failure = _moment(self._guest(0))
        self._take("source_after_failure", found)
        self._take("source_before_failure", self._at_stop or found)

    def run_on(self, *, has_moved: bool) -> None:
        """Let the guest go on where it runs, then come to rest."""
        machine = self._sides[has_moved]
        guest = self._guest(has_moved)
        if guest is None or machine.xen is None or machine.guest is None:
            return
        until = machine.clock.now + machine.xen.run_on
        machine.guest.run_until(until)
        guest.settle(until)

    def report(self) -> list[DeviceReport]:
        """Return what moved; nothing without a Xen guest."""
        guest = self._guest(0)
        if guest is None:
            return []
        plan = guest.plan
        is_one = plan.vcpus == 1
        page = f"shared_info {plan.way}, {plan.bits} bits, {plan.vcpus} vCPU"
        store = f"{guest.host.store.nodes} nodes"
        targets = {XEN: page + "s" * (not is_one), XENSTORE: store}
        return [
            DeviceReport(name=name, target=target, digests=self._digests[name])
            for name, target in targets.items()
        ]

    def judge(
        self, devices: Sequence[DeviceReport], metrics: Metrics, *, has_moved: bool
    ) -> XenReport | None:
        """Count what became of the events and of the store; say what went wrong."""
        source, destination = self._guest(0), self._guest(1)
        if source is None or destination is None:
            return None
        runs = destination if has_moved else source
        report = XenReport(
            page=source.plan.way,
            events=self._events(source, destination, runs),
            store=self._store(runs, metrics),
            disk=self._disk(runs),
        )
        for device, reasons in (
            (XEN, _events_that_went_wrong(report, runs)),
            (XENSTORE, _store_that_went_wrong(report, has_moved=has_moved)),
        ):
            report.befell += reasons
            for each in devices:
                if each.name == device and reasons:
                    each.verdict = Verdict.DIFFERS
                    each.reason = "; ".join(reasons)
        return report

    def _events(
        self, source: XenGuest, destination: XenGuest, runs: XenGuest
    ) -> XenEvents:
        ports = source.host.ports, destination.host.ports
        sent = [each.sent + each.strayed for each in ports]
        handled = runs.front.registers.handled
        at_source = handled if runs is source else self._handled
        return XenEvents(
            sent_at_source=sent[0],
            sent_at_destination=sent[1],
            merged=sum(each.merged for each in ports),
            handled_at_source=at_source,
            handled_at_destination=handled - at_source,
            lost=sum(sent) - handled,
        )

    def _store(self, runs: XenGuest, metrics: Metrics) -> XenStoreReport:
        stop, arrival = self._at_stop or self._at_failure, self._on_arrival
        own = runs.front.registers
        downtime = metrics.downtime
        return XenStoreReport(
            nodes=stop.nodes if stop else 0,
            watches=stop.watches if stop else 0,
            watches_arrived=arrival.watches if arrival else 0,
            events=stop.events if stop else 0,
            events_arrived=arrival.events if arrival else 0,
            transactions=stop.transactions if stop else 0,
            committed=own.committed,
            conflicted=own.conflicted,
            unknown=own.unknown,
            share_of_downtime=metrics.xenstore_time / downtime if downtime else None,
        )

    def _disk(self, runs: XenGuest) -> XenDisk:
        own = runs.front.registers
        has_moved = runs is self._guest(1)
        completed = self._completed if has_moved else own.completed
        connections = self._connections if has_moved else own.connections
        return XenDisk(
            connections_at_source=connections,
            connections_at_destination=own.connections - connections,
            completed_at_source=completed,
            completed_at_destination=own.completed - completed,
            unheard=runs.front.stuck,
        )

    def _guest(self, side: int) -> XenGuest | None:
        guest = self._sides[side].guest
        return guest.xen if guest is not None else None

    def _take(self, when: str, moment: _Moment | None) -> None:
        if moment is not None:
            *others, store = moment.state
            setattr(self._digests[XEN], when, _digest(others))
            setattr(self._digests[XENSTORE], when, _digest(store))


def _moment(guest: XenGuest | None) -> _Moment | None:
    if guest is None:
        return None
    store = guest.host.store
    return _Moment(
        guest.host.save(),
        store.nodes,
        store.watches,
        len(store.events(store.domid)),
        store.transactions,
    )


def _digest(state: object) -> str:
    return hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest()


def _events_that_went_wrong(report: XenReport, runs: XenGuest) -> list[str]:
    found = []
    if lost := report.events.lost:
        what = "sent and never handled" if lost > 0 else "handled and never sent"
        found.append(f"{_counted(abs(lost), 'event')} {what}")
    if unheard := report.disk.unheard:
        found.append(f"{_counted(unheard, 'response')} of the disk never heard of")
    if runs.front.registers.times_back:
        found.append("time went back")
    if error := runs.front.registers.error:
        found.append(f"the front end was refused ({errno.errorcode.get(error, error)})")
    elif not runs.front.is_connected:
        found.append("the disk's two ends did not meet again")
    return found


def _store_that_went_wrong(report: XenReport, *, has_moved: bool) -> list[str]:
    store = report.store
    found = []
    if has_moved:
        if missing := store.watches - store.watches_arrived:
            found.append(f"{missing} of {store.watches} watches did not arrive")
        if missing := store.events - store.events_arrived:
            found.append(f"{missing} of {store.events} watch events did not arrive")
    if store.unknown:
        found.append(
            f"{_counted(store.unknown, 'open transaction')} unknown afterwards"
        )
    return found


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
