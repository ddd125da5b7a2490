"""Forecasts on a terminal, or in a file that somebody reads: curves and tables.

Rule 1: the last line says what becomes of the scenario as it stands.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rich.text import Text

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.units import time_text
from vfiomig.frontends.report.what_if_words import (
    cells,
    curve_words,
    headings,
    own_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from vfiomig.frontends.what_if import Curve, WhatIf

_ROWS: Final = 9
_STEP: Final = 3  # columns from one point to the next
_OWN: Final = "<- the scenario"


def print_what_if(report: WhatIf, console: Console) -> None:
    """Print all curves, the scenario's own fate last."""
    has_ram = report.scenario.machine is not None
    _line(console, f"{plain(report.scenario.name)}: what a migration would do", "bold")
    for curve in report.curves:
        _line(console, "")
        _line(console, f"{curve.axis.title}: {curve_words(curve)}", "bold")
        _line(console, "")
        for line in _picture(curve):
            _line(console, line)
        _line(console, "")
        for number, line in enumerate(_table(curve, has_ram=has_ram)):
            _line(console, line, "" if number else "dim")
    _line(console, "")
    for note in report.notes:
        _line(console, f"note: {note}")
    is_good = report.own.converges and not report.own.is_late
    style = "bold green" if is_good else "bold yellow"
    _line(console, f"the scenario {plain(own_words(report))}", style)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text.rstrip(), style=style), soft_wrap=True)


def _table(curve: Curve, *, has_ram: bool) -> Iterator[str]:
    rows = [headings(curve.axis.name, has_ram=has_ram)]
    rows += [
        cells(curve.axis.text(point.value), point.forecast, has_ram=has_ram)
        for point in curve.points
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    marks = ["", *(_OWN if point.is_own else "" for point in curve.points)]
    for row, mark in zip(rows, marks, strict=True):
        line = "  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True))
        yield f"{line}  {mark}"


def _picture(curve: Curve) -> Iterator[str]:
    """Yield the downtimes as a curve of characters, one column of them a point."""
    downtimes = [point.forecast.metrics.downtime for point in curve.points]
    known = [downtime for downtime in downtimes if downtime]
    if not known:
        yield "no downtime: it completes nowhere"
        return
    low, high = min(known), max(known)
    rows = [_row(downtime, low, high) for downtime in downtimes]
    label = max(len(time_text(low)), len(time_text(high)))
    for number in range(_ROWS):
        side = {0: time_text(high), _ROWS - 1: time_text(low)}.get(number, "")
        if low == high and number:
            side = ""
        marks = (
            _mark(curve, place) if row == number else " "
            for place, row in enumerate(rows)
        )
        yield f"{side:>{label}} |{_spaced(list(marks))}"
    none = ["x" if downtime is None else " " for downtime in downtimes]
    yield f"{'never':>{label}} |{_spaced(none)}" if any(map(str.strip, none)) else ""
    yield f"{'':>{label}} +{'-' * (_STEP * len(rows) + 1)}"
    first, last = curve.points[0].value, curve.points[-1].value
    ends = curve.axis.text(first), curve.axis.text(last)
    gap = max(_STEP * len(rows) + 1 - sum(map(len, ends)), 1)
    yield f"{'':>{label}}  {ends[0]}{'':{gap}}{ends[1]}"
    yield f"{'':>{label}}  downtime: * converges, o is over the limit; # the scenario"


def _row(downtime: int | None, low: int, high: int) -> int | None:
    """Return the line of a downtime, by its magnitude; the highest is in line 0."""
    if downtime is None:
        return None
    if low == high:
        return 0
    part = math.log(max(downtime, low) / low) / math.log(high / low)
    return round((1 - part) * (_ROWS - 1))


def _mark(curve: Curve, place: int) -> str:
    point = curve.points[place]
    if point.is_own:
        return "#"
    is_good = point.forecast.converges and not point.forecast.is_late
    return "*" if is_good else "o"


def _spaced(marks: Sequence[str]) -> str:
    return "".join(f"{mark:>{_STEP}}" for mark in marks)
