"""Runs made by hand: numbers that a reader can check in the head."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vfiomig.frontends.device_scenario import DeviceSpec
from vfiomig.frontends.hart_scenario import HartsSpec
from vfiomig.frontends.link_scenario import Flip
from vfiomig.frontends.machine_scenario import LoadSpec, MachineSpec
from vfiomig.frontends.run_report import (
    Death,
    DeviceReport,
    Digests,
    HartReport,
    RunReport,
    Verdict,
    XenDisk,
    XenEvents,
    XenReport,
    XenStoreReport,
)
from vfiomig.frontends.scenario import (
    Fault,
    Scenario,
    builtin_scenario,
)
from vfiomig.frontends.xen_scenario import XenSpec
from vfiomig.migration.metrics import Metrics, Outcome, Round, StateChange, StatusChange
from vfiomig.vm.riscv.program import Role

MS = 10**6
MIB = 1 << 20


def scenario(*names: str, expected: Outcome = Outcome.COMPLETED) -> Scenario:
    """Return a scenario from a file, with serial devices of these names."""
    folder = Path("scenarios")
    devices = tuple(
        DeviceSpec(name=name, target="serial", work=1000, folder=folder)
        for name in names or ("gpu0", "port")
    )
    return dataclasses.replace(
        builtin_scenario(),
        name="a tight link",
        file=folder / "tight.toml",
        devices=devices,
        expected=expected,
    )


def device(name: str, verdict: Verdict = Verdict.VERIFIED) -> DeviceReport:
    """Return a device whose digests are what its verdict says."""
    stop, before = "5" * 32, "b" * 32
    after = {
        Verdict.VERIFIED: stop,
        Verdict.NOTHING_TO_MOVE: stop,
        Verdict.DIFFERS: "d" * 32,
    }.get(verdict)
    if verdict is Verdict.UNVERIFIED:
        return DeviceReport(
            name=name, target="serial", digests=Digests(), verdict=verdict
        )
    digests = Digests(
        source_at_start="a" * 32,
        source_at_stop=stop,
        destination_before=stop if verdict is Verdict.NOTHING_TO_MOVE else before,
        destination_after=after,
    )
    return DeviceReport(name=name, target="serial", digests=digests, verdict=verdict)


def moved(*devices: DeviceReport) -> RunReport:
    """Return a run that completed: two rounds, and 20 ms of downtime."""
    devices = devices or (device("gpu0"), device("port"))
    rounds = [
        Round(
            number=1,
            began_at=1 * MS,
            ended_at=501 * MS,
            pending_bytes=64 * MIB,
            device_bytes=64 * MIB,
            buffers=64,
            polls=65,
        ),
        Round(
            number=2,
            began_at=501 * MS,
            ended_at=564 * MS,
            pending_bytes=8 * MIB,
            device_bytes=9 * MIB,
            buffers=9,
            polls=9,
        ),
    ]
    moments = [
        ("destination", 0, "RESUMING"),
        ("source", 1, "PRE_COPY"),
        ("source", 564, "STOP_AND_COPY"),
        ("source", 580, "STOP"),
        ("destination", 584, "RUNNING"),
    ]
    changes = [
        StateChange(at=at * MS, party=party, device=one.name, device_state=state)
        for party, at, state in moments
        for one in devices
    ]
    metrics = Metrics(
        rounds=rounds,
        state_changes=changes,
        statuses=[StatusChange(at=0, status="setup")],
        stream_bytes=75 * MIB + 512 * 1024,
        precopy_device_bytes=73 * MIB,
        stop_and_copy_device_bytes=2 * MIB,
        loaded_device_bytes=75 * MIB,
        stopped_at=564 * MS,
        resumed_at=584 * MS,
        expected_downtime=18 * MS,
        pending_bytes_at_switch_over=2 * MIB,
        ended_at=585 * MS,
    )
    return RunReport(
        scenario=scenario(*(one.name for one in devices)),
        outcome=Outcome.COMPLETED,
        reason="",
        ok=True,
        devices=list(devices),
        metrics=metrics,
    )


def failed(*, unharmed: bool = True) -> RunReport:
    """Return a run whose link broke in stop-and-copy; the source goes on."""
    report = moved()
    report.outcome, report.ok = Outcome.FAILED, False
    report.reason = "the link was cut at byte 70000000"
    metrics = report.metrics
    metrics.resumed_at, metrics.ended_at = None, 574 * MS
    metrics.state_changes = [
        change for change in metrics.state_changes if change.at < 570 * MS
    ]
    for one in report.devices:
        one.verdict, one.digests.destination_after = Verdict.DID_NOT_ARRIVE, None
        one.digests.source_before_failure = one.digests.source_at_stop
        one.digests.source_after_failure = "5" * 32 if unharmed else "c" * 32
        change = StateChange(
            at=574 * MS, party="source", device=one.name, device_state="RUNNING"
        )
        metrics.state_changes.append(change)
    return report


def died() -> RunReport:
    """Return a run whose driver raised what no errno stands for, in pre-copy."""
    report = failed()
    report.outcome = Outcome.DIED
    report.death = Death(
        party="source",
        device="gpu0",
        access="read of pending_bytes",
        error="TypeError: no len()",
        where="gpu.py:42",
    )
    report.lost = ["gpu0: died"]
    report.metrics.stopped_at = None
    report.metrics.expected_downtime = None
    report.metrics.state_changes = [
        change for change in report.metrics.state_changes if change.at <= 1 * MS
    ]
    return report


def everything() -> RunReport:
    """Return a run that fills every field of a report."""
    report = died()
    given = report.scenario
    fault = Fault(
        party="source", device="gpu0", on="data", code=5, at="round", number=2
    )
    report.scenario = dataclasses.replace(
        given,
        link=dataclasses.replace(given.link, cut=70_000_000, flip=Flip(1000, 3)),
        limits=dataclasses.replace(given.limits, cancel_at=10**9),
        load_bandwidth=1 << 30,
        faults=(fault,),
        machine=MachineSpec(
            type="virt",
            ram=64 * MIB,
            filled=16 * MIB,
            qemu="7.2",
            loads=(
                LoadSpec(dirty_rate=MIB, working_set=MIB, offset=0, pattern="stride"),
            ),
            harts=HartsSpec(
                roles=(Role.USER, Role.STOPPED),
                policy="all-runnable",
                destination_policy="mp-state",
                mp_state=True,
                destination_mp_state=True,
                instructions=1_000_000,
                run_on=20_000_000,
            ),
            xen=XenSpec(
                page="pinned",
                layout=32,
                vcpus=2,
                vcpu_info="registered",
                requests=10_000,
                renegotiate=20 * MS,
                replaced_at=(5 * MS,),
                nodes=10,
                node_size=64,
                watches=4,
                transactions=2,
                quirks="qemu",
                run_on=50 * MS,
            ),
        ),
    )
    report.notes = ["close: port: EIO (Input/output error)"]
    report.harts = [
        HartReport(
            hart=0,
            role="user",
            source="U, runnable",
            destination="S, runnable",
            retired_user=0,
            retired_supervisor=24,
            befell="panic: instruction page fault at 0x10000",
        )
    ]
    report.xen = XenReport(
        page="pinned",
        events=XenEvents(
            sent_at_source=1234, sent_at_destination=10, merged=3, lost=44
        ),
        store=XenStoreReport(
            nodes=56, watches=4, transactions=2, share_of_downtime=0.25
        ),
        disk=XenDisk(connections_at_source=2, connections_at_destination=1),
        befell=["44 events sent and never handled"],
    )
    report.xen.events.handled_at_source = 1200
    return report


def hostile(text: str) -> RunReport:
    """Return a run that says ``text`` wherever words come from outside."""
    report = everything()
    names = [text, f"{text}2"]
    devices = tuple(
        dataclasses.replace(spec, name=name, target=text)
        for spec, name in zip(report.scenario.devices, names, strict=True)
    )
    report.scenario = dataclasses.replace(
        report.scenario, name=text, file=Path(text) / text, devices=devices
    )
    report.reason, report.notes, report.lost = text, [text], [text]
    for one, name in zip(report.devices, names, strict=True):
        one.name, one.target, one.reason = name, text, text
    report.harts[0].befell = text
    assert report.xen is not None
    report.xen.befell = [text]
    report.metrics.state_changes = [
        StateChange(at=7, party="source", device=text, device_state=text)
    ]
    report.death = Death(party=text, device=text, access=text, error=text, where=text)
    return report
