"""What a forecast varies: the axes, their values, and how a person writes them.

Rule 1: an axis changes one thing of a scenario; the scenario's own value is among its
values, and leaves the scenario as it is.

Rule 2: values are whole numbers: bytes a second, units a second, nanoseconds.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from vfiomig.frontends.plain_text import quoted
from vfiomig.frontends.report.units import rate_text, time_text
from vfiomig.frontends.toml_values import duration, nearest, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vfiomig.frontends.scenario import Scenario

_SWEEP: Final = re.compile(r"([a-z-]+)=([^.:]+(?:\.[0-9]+)?[a-zA-Z]*)\.\.([^:]+)(:.*)?")
_POINTS: Final = 17
_MOST_POINTS: Final = 200
# Values that are further apart are taken at even ratios, not at even distances.
_FAR: Final = 16
# By default: three steps an octave, three octaves either way; and quarters up to 4.
_STEPS, _OCTAVE = 9, 3
_QUARTERS: Final = 16
_WITHOUT_LIMIT: Final = 1_000_000  # ns: where a downtime limit of 0 is varied from


class SweepError(ValueError):
    """A sweep that cannot be made, in one line (exit 2)."""


class Axis(NamedTuple):
    """One thing to vary: what it is ``of`` a scenario, and the scenario ``with_`` it.

    ``of`` is None where the scenario has no such thing; ``missing`` says what.
    """

    name: str
    title: str
    parse: Callable[[object], object]
    text: Callable[[int], str]
    of: Callable[[Scenario], int | None]
    with_: Callable[[Scenario, int], Scenario]
    missing: str = ""
    is_relative: bool = True


class Sweep(NamedTuple):
    """An axis with the values to take, in order, the scenario's ``own`` among them."""

    axis: Axis
    values: tuple[int, ...]
    own: int


# -- the axes --------------------------------------------------------------------------


def _bandwidth(scenario: Scenario) -> int:
    """Return what the link and max-bandwidth let through."""
    limit = scenario.parameters.max_bandwidth if scenario.machine else 0
    return min(scenario.link.bandwidth, limit or scenario.link.bandwidth)


def _with_bandwidth(scenario: Scenario, value: int) -> Scenario:
    own = _bandwidth(scenario)
    link, limit = scenario.link.bandwidth, scenario.parameters.max_bandwidth
    return dataclasses.replace(
        scenario,
        link=dataclasses.replace(scenario.link, bandwidth=max(link * value // own, 1)),
        parameters=dataclasses.replace(
            scenario.parameters,
            # 0 is no limit, so the least that is one is 10: a byte in each window.
            max_bandwidth=max(limit * value // own, 10) if limit else 0,
        ),
    )


def _dirty_rate(scenario: Scenario) -> int | None:
    machine = scenario.machine
    rate = sum(load.dirty_rate for load in machine.loads) if machine else 0
    return rate or None


def _with_dirty_rate(scenario: Scenario, value: int) -> Scenario:
    own, machine = _dirty_rate(scenario), scenario.machine
    assert machine is not None
    assert own is not None
    loads = tuple(
        dataclasses.replace(load, dirty_rate=load.dirty_rate * value // own)
        for load in machine.loads
    )
    return dataclasses.replace(
        scenario, machine=dataclasses.replace(machine, loads=loads)
    )


def _work(scenario: Scenario) -> int | None:
    return sum(device.work for device in scenario.devices) or None


def _with_work(scenario: Scenario, value: int) -> Scenario:
    own = _work(scenario)
    assert own is not None
    devices = tuple(
        dataclasses.replace(device, work=device.work * value // own)
        for device in scenario.devices
    )
    return dataclasses.replace(scenario, devices=devices)


def _downtime(scenario: Scenario) -> int:
    return scenario.limits.downtime


def _with_downtime(scenario: Scenario, value: int) -> Scenario:
    return dataclasses.replace(
        scenario,
        limits=dataclasses.replace(scenario.limits, downtime=value),
        parameters=dataclasses.replace(scenario.parameters, downtime_limit=value),
    )


def _whole(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,18}", value):
        message = f"must be a whole number, not {quoted(str(value))}"
        raise ValueError(message)
    return int(value)


AXES: Final[Mapping[str, Axis]] = {
    axis.name: axis
    for axis in (
        Axis(
            "bandwidth",
            "bandwidth (the link and max-bandwidth, in their proportion)",
            size(1),
            rate_text,
            _bandwidth,
            _with_bandwidth,
        ),
        Axis(
            "dirty-rate",
            "dirty rate of the guest's RAM (all loads together)",
            size(0),
            rate_text,
            _dirty_rate,
            _with_dirty_rate,
            "a [[machine.load]] that writes",
            is_relative=False,
        ),
        Axis(
            "work",
            "work of the devices (units a second, all together)",
            _whole,
            lambda value: f"{value}/s",
            _work,
            _with_work,
            "a device that works",
            is_relative=False,
        ),
        Axis(
            "downtime-limit",
            "downtime limit",
            duration,
            time_text,
            _downtime,
            _with_downtime,
        ),
    )
}


# -- their values ----------------------------------------------------------------------


def sweeps_of(scenario: Scenario, written: Sequence[str]) -> list[Sweep]:
    """Return what to sweep: what was asked for, or each axis around the scenario.

    Raises:
        SweepError: one of them is not written right, or the scenario has no such thing.
    """
    if written:
        return [_asked_for(scenario, text) for text in written]
    names = ["bandwidth", "dirty-rate", "downtime-limit"]
    if _dirty_rate(scenario) is None:
        names[1:2] = ["work"] if _work(scenario) else []
    return [_around(scenario, AXES[name]) for name in names]


def _around(scenario: Scenario, axis: Axis) -> Sweep:
    own = axis.of(scenario)
    assert own is not None
    if axis.is_relative:
        base = own or _WITHOUT_LIMIT
        steps = range(-_STEPS, _STEPS + 1)
        values = [round(base * 2 ** (step / _OCTAVE)) for step in steps]
    else:
        values = [own * step // 4 for step in range(_QUARTERS + 1)]
    return _sweep(axis, values, own)


def _asked_for(scenario: Scenario, written: str) -> Sweep:
    found = _SWEEP.fullmatch(written)
    if found is None:
        message = (
            f"--sweep {quoted(written)} is not NAME=LOW..HIGH, such as "
            "bandwidth=64M..10G, or NAME=LOW..HIGH:POINTS"
        )
        raise SweepError(message)
    name, low_text, high_text, points_text = found.groups()
    axis = AXES.get(name)
    if axis is None:
        hint = nearest(name, AXES) or f"; known: {', '.join(AXES)}"
        message = f"--sweep {quoted(written)}: nothing is called {quoted(name)}{hint}"
        raise SweepError(message)
    own = axis.of(scenario)
    if own is None:
        message = (
            f"--sweep {quoted(written)}: the scenario does not have {axis.missing}"
        )
        raise SweepError(message)
    try:
        low = cast("int", axis.parse(low_text))
        high = cast("int", axis.parse(high_text))
        points = _points(points_text)
    except ValueError as error:
        message = f"--sweep {quoted(written)}: {error}"
        raise SweepError(message) from None
    if low >= high:
        message = f"--sweep {quoted(written)}: {low_text} is not below {high_text}"
        raise SweepError(message)
    return _sweep(axis, _spread(low, high, points), own)


def _points(text: str | None) -> int:
    if text is None:
        return _POINTS
    number = _whole(text[1:])
    if not 2 <= number <= _MOST_POINTS:
        message = f"points must be 2 to {_MOST_POINTS}, not {number}"
        raise ValueError(message)
    return number


def _spread(low: int, high: int, points: int) -> list[int]:
    parts = [step / (points - 1) for step in range(points)]
    if low and high >= low * _FAR:
        return [round(low * (high / low) ** part) for part in parts]
    return [round(low + (high - low) * part) for part in parts]


def _sweep(axis: Axis, values: Sequence[int], own: int) -> Sweep:
    return Sweep(axis, tuple(sorted({*values, own})), own)
