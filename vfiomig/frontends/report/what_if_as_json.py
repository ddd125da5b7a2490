"""Forecasts as JSON, by the names that specs/README.md lists; keys are only added.

Times are virtual nanoseconds, sizes bytes, rates bytes or units a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

import vfiomig
from vfiomig.frontends.plain_text import plain

if TYPE_CHECKING:
    from vfiomig.frontends.what_if import WhatIf
    from vfiomig.migration.what_if.forecast import Forecast

_SCHEMA: Final = 1


def what_if_as_json(report: WhatIf) -> bytes:
    """Return the report as indented JSON, ending in a line end."""
    facts = {
        "schema": _SCHEMA,
        "scenario": plain(report.scenario.name),
        "own": _point(report.own),
        "curves": [
            {
                "axis": curve.axis.name,
                "points": [
                    {
                        "value": point.value,
                        "is_own": point.is_own,
                        **_point(point.forecast),
                    }
                    for point in curve.points
                ],
            }
            for curve in report.curves
        ],
        "notes": list(report.notes),
        "environment": {"vfiomig": vfiomig.__version__},
    }
    return msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"


def _point(forecast: Forecast) -> dict[str, object]:
    metrics = forecast.metrics
    return {
        "outcome": forecast.outcome.value,
        "converges": forecast.converges,
        "reason": forecast.reason,
        "rounds": len(metrics.rounds),
        "dirty_syncs": metrics.dirty_syncs,
        "cpu_throttle": metrics.cpu_throttle,
        "downtime": metrics.downtime,
        "expected_downtime": metrics.expected_downtime,
        "total_time": metrics.ended_at,
        "stream_bytes": metrics.stream_bytes,
        "precopy_ram_bytes": metrics.precopy_ram_bytes,
        "stop_and_copy_ram_bytes": metrics.stop_and_copy_ram_bytes,
        "precopy_device_bytes": metrics.precopy_device_bytes,
        "stop_and_copy_device_bytes": metrics.stop_and_copy_device_bytes,
        "config_bytes": metrics.config_bytes,
        "normal_pages": metrics.normal_pages,
        "zero_pages": metrics.zero_pages,
    }
