"""Axes: round numbers at even distances, few enough to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.report.units import BYTE_UNITS, TIME_UNITS, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTE_STEPS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on an axis: the value it stands for, and what is written there."""

    value: int
    label: str


def time_ticks(begin: int, end: int, *, origin: int = 0, most: int = 8) -> list[Tick]:
    """Return at most ``most`` ticks or so between two virtual times.

    The labels count from ``origin``, all in one unit.
    """
    step = _decimal_step((end - begin) / most)
    first = -((origin - begin) // step) * step
    values = list(range(first, end - origin + 1, step))
    name, unit = unit_of(max(map(abs, values), default=0), TIME_UNITS)
    decimals = _decimals(step, unit)
    return [
        Tick(
            value=origin + value,
            label=f"{value / unit:.{decimals}f} {name}" if value else "0",
        )
        for value in values
    ]


def byte_ticks(highest: int, *, most: int = 4) -> list[Tick]:
    """Return ticks from 0 to ``highest`` bytes or just above it."""
    step = next(step for step in _byte_steps() if step * most >= highest)
    values = range(0, highest + step, step)
    return [Tick(value=value, label=_bytes_label(value, step)) for value in values]


def _decimal_step(at_least: float) -> int:
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= at_least:
                return step * factor
        step *= 10


def _decimals(step: int, unit: int) -> int:
    """Return how many decimals tell neighbours apart when written in ``unit``."""
    decimals = 0
    while step % unit and decimals < len("nanosecond"):
        step *= 10
        decimals += 1
    return decimals


def _byte_steps() -> Iterator[int]:
    unit = 1
    while True:
        yield from (step * unit for step in _BYTE_STEPS)
        unit <<= 10


def _bytes_label(value: int, step: int) -> str:
    name, unit = unit_of(step, BYTE_UNITS)
    return f"{value // unit} {name}" if value else "0"
