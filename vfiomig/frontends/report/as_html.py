"""A run as one self-contained page: no script, nothing from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import vfiomig
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.bars import bar_chart
from vfiomig.frontends.report.page import page_of
from vfiomig.frontends.report.parameters import command_of, parameters
from vfiomig.frontends.report.parts import (
    HART_HEADINGS,
    hart_rows,
    machine_figures,
    pre_copy_words,
    rounds_words,
    stop_and_copy_words,
)
from vfiomig.frontends.report.timeline import switch_over_timeline, whole_timeline
from vfiomig.frontends.report.units import bytes_text, time_text
from vfiomig.frontends.report.verdict import (
    device_words,
    downtime_words,
    overall_verdict,
)

if TYPE_CHECKING:
    from vfiomig.frontends.run_report import DeviceReport, RunReport
    from vfiomig.migration.metrics import Round

_DIGEST_LENGTH: Final = 12
_DIGEST_COLUMNS: Final = {
    "source_at_start": "source at start",
    "source_at_stop": "source at stop",
    "destination_before": "destination before",
    "destination_after": "destination after",
    "source_before_failure": "source at failure",
    "source_after_failure": "source after failure",
}


def as_html(report: RunReport) -> bytes:
    """Return the page, in UTF-8."""
    return page_of("timeline.html.j2", _facts(report))


def _facts(report: RunReport) -> dict[str, object]:
    metrics, verdict = report.metrics, overall_verdict(report)
    taken = [
        name
        for name in _DIGEST_COLUMNS
        if any(getattr(device.digests, name) for device in report.devices)
    ]
    return {
        "name": plain(report.scenario.name),
        "outcome": report.outcome.value,
        "verdict": verdict.text,
        "tone": verdict.tone.value,
        "notes": [plain(note) for note in report.notes],
        "figures": _figures(report),
        "timeline": whole_timeline(report),
        "switch_over": switch_over_timeline(report),
        "chart": bar_chart(metrics),
        "rounds": [_round_row(one) for one in metrics.rounds],
        "digest_columns": [_DIGEST_COLUMNS[name] for name in taken],
        "devices": [_device_row(device, taken) for device in report.devices],
        "hart_headings": HART_HEADINGS,
        "harts": list(hart_rows(report)),
        "changes": [
            (time_text(c.at), c.party, plain(c.device), plain(c.device_state))
            for c in sorted(metrics.state_changes, key=lambda change: change.at)
        ],
        "parameters": parameters(report.scenario),
        "command": command_of(report.scenario),
        "version": vfiomig.__version__,
    }


def _figures(report: RunReport) -> list[tuple[str, str, str]]:
    """Return the numbers that a reader looks for first: what, how much, and beside."""
    metrics = report.metrics
    total = metrics.ended_at
    pre_copied, precopy_parts = pre_copy_words(report)
    rounds = rounds_words(metrics)
    return [
        ("downtime", *downtime_words(metrics, report.scenario.limits.downtime)),
        ("pre-copy", pre_copied, "; ".join(filter(None, (rounds, precopy_parts)))),
        ("stop-and-copy", *stop_and_copy_words(report)),
        *machine_figures(report),
        ("stream", bytes_text(metrics.stream_bytes), "framing included"),
        (
            "whole migration",
            "-" if total is None else time_text(total),
            "virtual time",
        ),
    ]


def _round_row(one: Round) -> list[str]:
    return [
        str(one.number),
        time_text(one.began_at),
        time_text(one.ended_at - one.began_at) if one.ended_at else "-",
        bytes_text(one.pending_bytes),
        bytes_text(one.sent_bytes),
        str(one.buffers),
        str(one.polls),
    ]


def _device_row(device: DeviceReport, taken: list[str]) -> dict[str, object]:
    digests = [getattr(device.digests, name) for name in taken]
    return {
        "name": plain(device.name),
        "target": plain(device.target),
        "verdict": device_words(device.verdict),
        "kind": device.verdict.name.lower(),
        "reason": plain(device.reason),
        "digests": [(d[:_DIGEST_LENGTH], d) if d else ("-", "") for d in digests],
    }
