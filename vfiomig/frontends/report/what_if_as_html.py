"""Forecasts as one self-contained page: no script, nothing from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vfiomig
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.page import page_of
from vfiomig.frontends.report.parameters import command_of, parameters
from vfiomig.frontends.report.what_if_chart import downtime_chart, total_chart
from vfiomig.frontends.report.what_if_words import (
    cells,
    curve_words,
    headings,
    own_words,
)

if TYPE_CHECKING:
    from vfiomig.frontends.what_if import Curve, WhatIf


def what_if_as_html(report: WhatIf) -> bytes:
    """Return the page, in UTF-8."""
    has_ram = report.scenario.machine is not None
    is_good = report.own.converges and not report.own.is_late
    facts = {
        "name": plain(report.scenario.name),
        "verdict": f"The scenario {plain(own_words(report))}.",
        "tone": "good" if is_good else "caution",
        "notes": list(report.notes),
        "curves": [_curve(curve, has_ram=has_ram) for curve in report.curves],
        "parameters": parameters(report.scenario),
        "command": f"{command_of(report.scenario)} --what-if",
        "version": vfiomig.__version__,
    }
    return page_of("what_if.html.j2", facts)


def _curve(curve: Curve, *, has_ram: bool) -> dict[str, object]:
    return {
        "title": curve.axis.title,
        "words": curve_words(curve),
        "charts": [downtime_chart(curve), total_chart(curve)],
        "headings": headings(curve.axis.name, has_ram=has_ram),
        "rows": [
            {
                "is_own": point.is_own,
                "kind": "good" if point.forecast.converges else "bad",
                "cells": cells(
                    curve.axis.text(point.value), point.forecast, has_ram=has_ram
                ),
            }
            for point in curve.points
        ],
    }
