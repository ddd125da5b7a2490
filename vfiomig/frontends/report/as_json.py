"""A run as JSON, for programs: every fact, by the names that specs/README.md lists.

Keys are only ever added.  Times are virtual nanoseconds.  All but ``environment`` is
the same for the same run.
"""

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING, Final, cast

import msgspec

import vfiomig
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.verdict import overall_verdict

if TYPE_CHECKING:
    from vfiomig.frontends.run_report import RunReport
    from vfiomig.frontends.scenario import Scenario

_SCHEMA: Final = 1


def as_dict(report: RunReport) -> dict[str, object]:
    """Return the report as what JSON is made of."""
    metrics = report.metrics
    facts: dict[str, object] = {
        "schema": _SCHEMA,
        "scenario": _scenario(report.scenario),
        "seed": report.scenario.seed,
        "outcome": report.outcome.value,
        "expected": report.scenario.expected.value,
        "ok": report.ok,
        "reason": report.reason,
        "verified": "",
        "devices": _devices(report),
        "harts": msgspec.to_builtins(report.harts),
        "xen": msgspec.to_builtins(report.xen),
        "metrics": {
            **msgspec.to_builtins(metrics),
            "downtime": metrics.downtime,
            "device_bytes": metrics.device_bytes,
            "total_time": metrics.ended_at,
        },
        "death": msgspec.to_builtins(report.death),
        "flip_unnoticed": report.flip_unnoticed,
        "lost": list(report.lost),
        "notes": list(report.notes),
        "environment": {
            "vfiomig": vfiomig.__version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
        },
    }
    result = cast("dict[str, object]", _without_claims(facts))
    result["verified"] = overall_verdict(report).text
    return result


def as_json(report: RunReport) -> bytes:
    """Return the report as indented JSON, ending in a line end."""
    encoded = msgspec.json.encode(as_dict(report))
    return msgspec.json.format(encoded, indent=2) + b"\n"


def _scenario(scenario: Scenario) -> dict[str, object]:
    """Return what is not said elsewhere in the report of the scenario."""
    return {
        "name": scenario.name,
        "file": str(scenario.file) if scenario.file else None,
        "conduct": scenario.conduct,
        "transport": scenario.transport,
        "warm_up": scenario.warm_up,
        "link": {
            "bandwidth": scenario.link.bandwidth,
            "latency": scenario.link.latency,
            "cut": scenario.link.cut,
            "flip": scenario.link.flip and scenario.link.flip._asdict(),
        },
        "source_access_cost": scenario.source_access_cost,
        "destination_access_cost": scenario.destination_access_cost,
        "load_bandwidth": scenario.load_bandwidth,
        "limits": msgspec.to_builtins(scenario.limits),
        "faults": msgspec.to_builtins(scenario.faults),
        "machine": msgspec.to_builtins(scenario.machine),
        "parameters": _parameters(scenario) if scenario.machine else None,
    }


def _parameters(scenario: Scenario) -> dict[str, object]:
    """Return QEMU's parameters and capabilities by QEMU's names."""
    values = dataclasses.asdict(scenario.parameters)
    values.pop("rules")  # those of machine.qemu
    return {name.replace("_", "-"): value for name, value in values.items()}


def _devices(report: RunReport) -> list[object]:
    work = {device.name: device.work for device in report.scenario.devices}
    return [
        {
            "name": device.name,
            "target": device.target,
            "work": work.get(device.name),
            "verdict": device.verdict.name.lower().replace("_", "-"),
            "reason": device.reason,
            "snapshots": msgspec.to_builtins(device.digests),
        }
        for device in report.devices
    ]


def _without_claims(value: object) -> object:
    """Make every text plain: no claim but the report's own, and all of it UTF-8."""
    match value:
        case str():
            return plain(value)
        case dict():
            return {key: _without_claims(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_without_claims(inner) for inner in value]
        case _:
            return value
