"""A forecast in words and cells, the same on a terminal and on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.frontends.report.units import bytes_text, time_text
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from vfiomig.frontends.what_if import Curve, WhatIf
    from vfiomig.migration.what_if.forecast import Forecast

_ENDS: Final = {
    Outcome.COMPLETED: "over the limit",  # it switched over all the same
    Outcome.CANCELLED: "cancelled",
    Outcome.NOT_CONVERGED: "no",
}


def headings(curve_name: str, *, has_ram: bool) -> list[str]:
    """Return the headings of a curve's table; `cells` go below them."""
    ram = ["RAM before", "RAM after"] if has_ram else []
    return [
        curve_name,
        "converges",
        "rounds",
        "downtime",
        "total",
        *ram,
        "devices before",
        "devices after",
    ]


def cells(value: str, forecast: Forecast, *, has_ram: bool) -> list[str]:
    """Return one point of a curve: bytes before and after the stop, by part."""
    metrics = forecast.metrics
    counts = [metrics.precopy_device_bytes, metrics.stop_and_copy_device_bytes]
    if has_ram:
        counts[:0] = [metrics.precopy_ram_bytes, metrics.stop_and_copy_ram_bytes]
    return [
        value,
        converges_words(forecast),
        str(len(metrics.rounds)),
        "-" if metrics.downtime is None else time_text(metrics.downtime),
        "-" if metrics.ended_at is None else time_text(metrics.ended_at),
        *map(bytes_text, counts),
    ]


def converges_words(forecast: Forecast) -> str:
    """Say whether it converges, in a word or two."""
    if forecast.converges:
        return "yes, late" if forecast.is_late else "yes"
    return _ENDS[forecast.outcome]


def own_words(report: WhatIf) -> str:
    """Say in a line what becomes of the scenario as it stands."""
    metrics = report.own.metrics
    rounds = f"{len(metrics.rounds)} round{'s' if len(metrics.rounds) != 1 else ''}"
    if metrics.downtime is None:
        return f"would not complete: {report.own.reason}"
    times = (
        f"downtime {time_text(metrics.downtime)}, "
        f"{time_text(metrics.ended_at or 0)} in all"
    )
    if report.own.is_late:
        times += f", over the limit of {time_text(report.own.limit)}"
    if report.own.converges:
        return f"would converge after {rounds}: {times}"
    return f"would not converge, and go over all the same after {rounds}: {times}"


def curve_words(curve: Curve) -> str:
    """Say where along a curve it converges."""
    good = [point.forecast.converges for point in curve.points]
    text = curve.axis.text
    first, last = curve.points[0].value, curve.points[-1].value
    if all(good):
        return f"converges everywhere from {text(first)} to {text(last)}"
    if not any(good):
        return f"converges nowhere from {text(first)} to {text(last)}"
    changes = [n for n in range(1, len(good)) if good[n] != good[n - 1]]
    if len(changes) > 1:
        return f"converges at {sum(good)} of {len(good)} values"
    edge = changes[0]
    if good[0]:
        return f"converges up to {text(curve.points[edge - 1].value)}"
    return f"converges from {text(curve.points[edge].value)} on"
