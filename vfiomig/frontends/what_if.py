"""What a migration would do, beforehand: a scenario, and it with one thing varied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfiomig.frontends.what_if_axes import sweeps_of
from vfiomig.frontends.what_if_devices import ask_devices
from vfiomig.frontends.what_if_setting import setting_of
from vfiomig.migration.what_if.forecast import forecast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.frontends.scenario import Scenario
    from vfiomig.frontends.what_if_axes import Axis
    from vfiomig.migration.what_if.forecast import Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One forecast of a curve; ``is_own``: it is the scenario's."""

    value: int
    forecast: Forecast
    is_own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What comes of one axis, in the order of its values."""

    axis: Axis
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """All forecasts of one scenario, itself first; ``notes`` are remarks."""

    scenario: Scenario
    own: Forecast
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


def what_if(scenario: Scenario, sweeps: Sequence[str] = ()) -> WhatIf:
    """Forecast a scenario and sweep its axes; ``sweeps`` are as on the command line.

    Raises:
        SweepError: one of them cannot be made.
        TargetError, TargetStartError: as `simulate`.
        ProbeError: a driver died or refused when it was asked.
    """
    wanted = sweeps_of(scenario, sweeps)
    profiles = ask_devices(scenario)
    own = forecast(setting_of(scenario, profiles))
    curves = []
    for axis, values, own_value in wanted:
        points = []
        for value in values:
            is_own = value == own_value
            varied = scenario if is_own else axis.with_(scenario, value)
            one = own if is_own else forecast(setting_of(varied, profiles))
            points.append(Point(value=value, forecast=one, is_own=is_own))
        curves.append(Curve(axis=axis, points=tuple(points)))
    return WhatIf(
        scenario=scenario, own=own, curves=tuple(curves), notes=_notes(scenario)
    )


def _notes(scenario: Scenario) -> tuple[str, ...]:
    notes = []
    link = scenario.link
    if scenario.faults or link.cut is not None or link.flip is not None:
        notes.append("faults are left out: this is what happens without them")
    if scenario.parameters.multifd:
        notes.append("multifd is left out: all pages are taken to go in the stream")
    if scenario.machine is not None and scenario.machine.harts is not None:
        notes.append("the harts are left out: what they write, and their sections")
    if scenario.machine is not None and scenario.machine.xen is not None:
        notes.append("the Xen guest is left out: what it writes, and its sections")
    return tuple(notes)
