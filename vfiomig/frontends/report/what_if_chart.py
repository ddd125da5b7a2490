"""Where things stand in a chart of forecasts: numbers, no markup.

Rule 1: heights are magnitudes, each line of the grid ten times the one below it; what
never ends stands on a line of its own above them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.frontends.report.units import time_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.frontends.what_if import Curve, Point
    from vfiomig.migration.metrics import Metrics

WIDTH: Final = 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 16, 50, 226
HEIGHT: Final = _BOTTOM + 40
_NEVER: Final = 32  # the height of what never ends
_LABELS: Final = 4
_FAR: Final = 16


class Dot(NamedTuple):
    """A point: where it is, its colour's name, and what it says."""

    x: float
    y: float
    kind: str
    title: str


class Mark(NamedTuple):
    """A line of the grid, and what is written at it."""

    at: float
    label: str


class Chart(NamedTuple):
    """One quantity of a curve; ``path`` joins the dots that have a value."""

    title: str
    dots: list[Dot]
    path: str
    rows: list[Mark]
    columns: list[Mark]
    own: float
    never: float | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


def downtime_chart(curve: Curve) -> Chart:
    """Return the chart of downtimes."""
    return _chart(curve, "downtime", lambda metrics: metrics.downtime)


def total_chart(curve: Curve) -> Chart:
    """Return the chart of total times, for what completes."""

    def total(metrics: Metrics) -> int | None:
        return None if metrics.downtime is None else metrics.ended_at

    return _chart(curve, "total time", total)


def _chart(curve: Curve, title: str, of: Callable[[Metrics], int | None]) -> Chart:
    amounts = [of(point.forecast.metrics) for point in curve.points]
    known = [amount for amount in amounts if amount]
    low, high = _decades(known)
    places = _places([point.value for point in curve.points])

    def height(amount: int | None) -> float:
        if amount is None:
            return _NEVER
        part = (math.log10(max(amount, 1)) - low) / (high - low)
        return round(_BOTTOM - min(max(part, 0.0), 1.0) * (_BOTTOM - _TOP), 1)

    dots = [
        Dot(x, height(amount), _kind(point), _title(curve, point, amount, title))
        for x, amount, point in zip(places, amounts, curve.points, strict=True)
    ]
    own = next(n for n, point in enumerate(curve.points) if point.is_own)
    return Chart(
        title=title,
        dots=dots,
        path=_path(dots, amounts),
        rows=[Mark(height(10**n), time_text(10**n)) for n in range(low, high + 1)],
        columns=_columns(curve, places),
        own=places[own],
        never=_NEVER if None in amounts else None,
    )


def _decades(known: list[int]) -> tuple[int, int]:
    if not known:
        return 0, 1
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return low, max(high, low + 1)


def _places(values: list[int]) -> list[float]:
    """Return where values stand: at even ratios if they are far apart."""
    low, high = values[0], values[-1]
    span = WIDTH - _LEFT - _RIGHT
    if high == low:
        return [round(_LEFT + span / 2, 1)] * len(values)
    if low and high >= low * _FAR:
        ratio = math.log(high / low)
        parts = [math.log(value / low) / ratio for value in values]
    else:
        parts = [(value - low) / (high - low) for value in values]
    return [round(_LEFT + span * part, 1) for part in parts]


def _columns(curve: Curve, places: list[float]) -> list[Mark]:
    last = len(places) - 1
    chosen = sorted({round(n * last / (_LABELS - 1)) for n in range(_LABELS)})
    return [Mark(places[n], curve.axis.text(curve.points[n].value)) for n in chosen]


def _path(dots: list[Dot], amounts: list[int | None]) -> str:
    """Return a line through the dots that have a value, broken where one has not."""
    parts, is_down = [], False
    for dot, amount in zip(dots, amounts, strict=True):
        if amount is not None:
            parts.append(f"{'L' if is_down else 'M'}{dot.x} {dot.y}")
        is_down = amount is not None
    return " ".join(parts)


def _kind(point: Point) -> str:
    if point.forecast.converges and not point.forecast.is_late:
        return "good"
    return "bad" if point.forecast.metrics.downtime is None else "caution"


def _title(curve: Curve, point: Point, amount: int | None, what: str) -> str:
    text = "does not complete" if amount is None else f"{what} {time_text(amount)}"
    return f"{curve.axis.text(point.value)}: {text}"
