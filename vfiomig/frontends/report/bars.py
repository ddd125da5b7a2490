"""Where things stand in the picture of the bytes of each round: numbers, no markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.report.axis import byte_ticks
from vfiomig.frontends.report.timeline import CHARACTER, WIDTH, Mark
from vfiomig.frontends.report.units import bytes_text

if TYPE_CHECKING:
    from vfiomig.migration.metrics import Metrics

_LEFT: Final = 80
_RIGHT: Final = 20
_PLOT: Final = WIDTH - _LEFT - _RIGHT
_TOP: Final = 24
_HEIGHT: Final = 170
_AXIS: Final = 40
_BEYOND_MEASURE: Final = 8  # times what was sent
_WIDEST: Final = 120.0  # of one round, the gap included
_BAR: Final = 0.7  # of that, the bar
_LABEL: Final = 9 * CHARACTER  # "1023 MiB", and some air
_NUMBER_STEPS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000, 100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The bytes sent, as a bar, and the bytes that were pending, as a line over it.

    ``kind`` is "round" or "stop-and-copy"; the latter has no line.
    """

    x: float
    width: float
    y: float
    height: float
    pending_y: float | None
    kind: str
    label: str
    label_y: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """The picture: bars standing on ``bottom``, with the rounds' numbers below."""

    width: int
    height: float
    top: float
    bottom: float
    left: float
    right: float
    bars: list[Bar]
    numbers: list[Mark]
    ticks: list[tuple[float, str]]

    @property
    def is_clipped(self) -> bool:
        """Tell whether some device claimed more pending bytes than the picture has."""
        return any(bar.pending_y == self.top for bar in self.bars)


def bar_chart(metrics: Metrics) -> BarChart | None:
    """Return the bytes of each round and of stop-and-copy; None if there were none."""
    sent = [one.sent_bytes for one in metrics.rounds]
    pending: list[int | None] = [one.pending_bytes for one in metrics.rounds]
    names = [f"round {one.number}" for one in metrics.rounds]
    if metrics.stopped_at is not None:
        sent.append(metrics.stop_and_copy_bytes)
        pending.append(None)
        names.append("stop-and-copy")
    if not (highest := _highest(sent, [count or 0 for count in pending])):
        return None
    ticks = byte_ticks(highest)
    scale = _HEIGHT / ticks[-1].value
    slot = min(_WIDEST, _PLOT / len(sent))
    bottom = float(_TOP + _HEIGHT)
    bars = []
    for number, (name, count, waiting) in enumerate(
        zip(names, sent, pending, strict=True)
    ):
        width = slot * _BAR
        height = round(max(count * scale, 1.0 if count else 0.0), 2)
        line = None if waiting is None else _line(bottom, waiting * scale)
        said = "" if waiting is None else f", {bytes_text(waiting)} pending before"
        bar = Bar(
            x=round(_LEFT + slot * number + (slot - width) / 2, 2),
            width=round(width, 2),
            y=round(bottom - height, 2),
            height=height,
            pending_y=line,
            kind="round" if waiting is not None else "stop-and-copy",
            label=bytes_text(count) if slot >= _LABEL else "",
            label_y=round(min(bottom - height, line if line else bottom) - 5, 2),
            title=f"{name}: {bytes_text(count)} sent{said}",
        )
        bars.append(bar)
    return BarChart(
        width=WIDTH,
        height=bottom + _AXIS,
        top=_TOP,
        bottom=bottom,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        bars=bars,
        numbers=_numbers(metrics, slot),
        ticks=[(round(bottom - t.value * scale, 2), t.label) for t in ticks],
    )


def _highest(sent: list[int], pending: list[int]) -> int:
    """Return the bytes that the picture must have room for.

    What is pending is only claimed: a claim beyond all measure must not flatten the
    bytes that were sent.
    """
    most, claimed = max(sent, default=0), max(pending, default=0)
    return max(most, min(claimed, _BEYOND_MEASURE * most)) if most else claimed


def _line(bottom: float, height: float) -> float:
    return round(max(bottom - height, float(_TOP)), 2)


def _numbers(metrics: Metrics, slot: float) -> list[Mark]:
    """Return the rounds' numbers, as many as have room side by side."""
    widest = len(str(len(metrics.rounds))) * CHARACTER + 8
    step = next(step for step in _NUMBER_STEPS if step * slot >= widest)
    return [
        Mark(x=round(_LEFT + slot * (place + 0.5), 2), label=str(one.number))
        for place, one in enumerate(metrics.rounds)
        if one.number % step == 0 or step == 1
    ]
