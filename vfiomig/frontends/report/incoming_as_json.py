"""A stream that was loaded, as JSON: keys are only ever added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from vfiomig.frontends.incoming_report import verdict_of
from vfiomig.frontends.plain_text import plain

if TYPE_CHECKING:
    from vfiomig.frontends.incoming_report import IncomingReport
    from vfiomig.frontends.run_report import DeviceReport

_SCHEMA: Final = 1


def incoming_as_json(report: IncomingReport) -> bytes:
    """Return the report as indented JSON, ending in a line end."""
    encoded = msgspec.json.encode(incoming_as_dict(report))
    return msgspec.json.format(encoded, indent=2) + b"\n"


def incoming_as_dict(report: IncomingReport) -> dict[str, object]:
    """Return the report as what JSON is made of."""
    ram = report.ram
    return {
        "schema": _SCHEMA,
        "incoming": plain(report.file),
        "stream_bytes": report.size,
        "scenario": plain(report.scenario),
        "machine_type": None
        if report.machine_type is None
        else plain(report.machine_type),
        "outcome": report.outcome.value,
        "ok": report.ok,
        "reason": plain(report.reason),
        "verified": verdict_of(report),
        "expected_from": None
        if report.expected_from is None
        else plain(report.expected_from),
        "devices": [
            {
                **_digested(each.report),
                "section": plain(each.idstr),
                "buffers": each.buffers,
                "bytes": each.size,
                "changed_config_bytes": each.changed_config,
                "device_state": each.device_state,
            }
            for each in report.devices
        ],
        "ram": {
            "loaded": None if ram.report is None else _digested(ram.report),
            "pages": ram.pages,
            "encoded_pages": ram.encoded,
            "missing_pages": ram.missing,
            "left_out": {plain(k): plain(why) for k, why in ram.left_out.items()},
        },
        "passed_over": {plain(k): count for k, count in report.passed_over.items()},
        "commands": report.commands,
        "notes": [plain(each) for each in report.notes],
    }


def _digested(device: DeviceReport) -> dict[str, object]:
    digests = device.digests
    return {
        "name": plain(device.name),
        "target": plain(device.target),
        "verdict": device.verdict.name.lower().replace("_", "-"),
        "reason": plain(device.reason),
        "snapshots": {
            "source_at_stop": digests.source_at_stop,
            "destination_before": digests.destination_before,
            "destination_after": digests.destination_after,
        },
    }
