"""Where things stand in the picture of a run over virtual time: numbers, no markup.

Rule 1: a lane is one device at one party.  Its device_state is drawn from the moment
it was reached to the next one; the source's is RUNNING before the first.

Rule 2: whatever lasts has at least a visible width, and a label is drawn only where
it fits: what is too short for one has it in its title.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.axis import time_ticks
from vfiomig.frontends.report.units import bytes_text, time_text
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.run_report import RunReport
    from vfiomig.migration.metrics import Metrics, StateChange

WIDTH: Final = 1000
CHARACTER: Final = 6.7  # a monospaced one of 11 pixels
_GUTTER: Final = 150
_MARGIN: Final = 44
_PLOT: Final = WIDTH - _GUTTER - _MARGIN
_HEAD: Final = 26  # the label of the band
_LANE: Final = 22
_BAR: Final = 16
_GAP: Final = 10  # between the parties
_AXIS: Final = 26
_LONGEST_LABEL: Final = 19  # characters that fit the gutter

# The last device_state would end where the picture does: a bit of what follows.
_AFTERMATH: Final = 25
# Downtime narrower than this part of the picture gets a picture of its own.
_NARROW: Final = 6
_KINDS: Final = {
    state.name: state.name.lower()
    for state in (
        DeviceState.RUNNING,
        DeviceState.PRE_COPY,
        DeviceState.STOP_AND_COPY,
        DeviceState.STOP,
        DeviceState.RESUMING,
        DeviceState.ERROR,
    )
}
_INVALID: Final = "invalid"
_PARTIES: Final = ("source", "destination")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A coloured bar: where it stands, its colour's name, and what it says."""

    x: float
    width: float
    kind: str
    label: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A line of the picture, at height ``y``."""

    y: float
    label: str
    title: str
    segments: list[Segment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place on the axis, or of a text."""

    x: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Marks a stretch of time across all lanes; ``text_x`` keeps its label inside."""

    x: float
    width: float
    label: str
    text_x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The picture: lanes from ``top`` to ``bottom``, with the axis below them."""

    width: int
    height: float
    top: float
    bottom: float
    left: float
    right: float
    bar: float
    lanes: list[Lane]
    headings: list[tuple[float, str]]
    ticks: list[Mark]
    band: Band | None
    axis: str

    @property
    def legend(self) -> dict[str, str]:
        """Return the device_states that are in the picture: colour and name."""
        present = {segment.kind for lane in self.lanes for segment in lane.segments}
        names = {**{kind: name for name, kind in _KINDS.items()}, _INVALID: "invalid"}
        return {kind: name for kind, name in names.items() if kind in present}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """A stretch of virtual time, and where its moments are drawn."""

    begin: int
    end: int

    def x(self, moment: int) -> float:
        inside = min(max(moment, self.begin), self.end)
        return round(
            _GUTTER + _PLOT * (inside - self.begin) / (self.end - self.begin), 2
        )

    def shows(self, begin: int, end: int) -> bool:
        if begin == end:
            return self.begin <= begin <= self.end
        return begin < self.end and end > self.begin


def whole_timeline(report: RunReport) -> Timeline:
    """Return the picture from the beginning to a little after the end."""
    window = _Window(begin=0, end=_end(report.metrics))
    return _timeline(report, window, origin=0, axis="virtual time")


def switch_over_timeline(report: RunReport) -> Timeline | None:
    """Return the downtime with its surroundings; None if the whole shows it already."""
    stop = _stop(report)
    if stop is None:
        return None
    begin, end, _ = stop
    length = end - begin
    if not length or length * _NARROW > _end(report.metrics):
        return None
    window = _Window(begin=max(0, begin - length // 3), end=end + length // 3 + 1)
    axis = "virtual time since the source stopped"
    return _timeline(report, window, origin=begin, axis=axis)


def _end(metrics: Metrics) -> int:
    """Return where the whole picture ends."""
    moments = [
        1,
        metrics.ended_at or 0,
        metrics.resumed_at or 0,
        metrics.stopped_at or 0,
        *(change.at for change in metrics.state_changes),
        *(one.ended_at for one in metrics.rounds),
    ]
    return max(moments) + max(moments) // _AFTERMATH


def _timeline(
    report: RunReport, window: _Window, *, origin: int, axis: str
) -> Timeline:
    y = float(_HEAD)
    lanes = [Lane(y=y, label="", title="", segments=_rounds(report.metrics, window))]
    headings = [(y, "rounds")]
    y += _LANE
    for party in _PARTIES:
        y += _GAP
        headings.append((y, party))
        y += _LANE - 4
        for device in report.with_states:
            changes = _changes(report.metrics, party, device.name)
            name = plain(device.name)
            lane = Lane(
                y=y,
                label=_short(name),
                title=f"{party} {name}",
                segments=list(_states(changes, window, f"{party} {name}")),
            )
            lanes.append(lane)
            y += _LANE
    ticks = time_ticks(window.begin, window.end, origin=origin)
    return Timeline(
        width=WIDTH,
        height=y + _AXIS + 18,
        top=_HEAD - 4,
        bottom=y,
        left=_GUTTER,
        right=WIDTH - _MARGIN,
        bar=_BAR,
        lanes=lanes,
        headings=headings,
        ticks=[Mark(x=window.x(tick.value), label=tick.label) for tick in ticks],
        band=_band(report, window),
        axis=axis,
    )


def _changes(metrics: Metrics, party: str, device: str) -> list[tuple[int, str]]:
    """Return the device_states of a lane in order, with the moment of each."""

    def is_here(change: StateChange) -> bool:
        return (change.party, change.device) == (party, device)

    changes = sorted(filter(is_here, metrics.state_changes), key=lambda c: c.at)
    before = [(0, "RUNNING")] if party == "source" else []
    return [*before, *((change.at, change.device_state) for change in changes)]


def _states(
    changes: list[tuple[int, str]], window: _Window, where: str
) -> Iterator[Segment]:
    last = (window.end, "")
    for (begin, state), (end, _) in itertools.pairwise([*changes, last]):
        if window.shows(begin, end):
            x = window.x(begin)
            until = f"to {time_text(end)}" if end != window.end else "to the end"
            yield Segment(
                x=x,
                width=_width(x, window.x(end)),
                kind=_KINDS.get(state, _INVALID),
                label=_if_fits(plain(state), window.x(end) - x),
                title=f"{where}: {plain(state)} from {time_text(begin)} {until}",
            )


def _rounds(metrics: Metrics, window: _Window) -> list[Segment]:
    segments = []
    for one in metrics.rounds:
        end = max(one.ended_at, one.began_at)
        if window.shows(one.began_at, end):
            x = window.x(one.began_at)
            title = f"round {one.number}: {bytes_text(one.sent_bytes)}"
            segment = Segment(
                x=x,
                width=_width(x, window.x(end)),
                kind="odd-round" if one.number % 2 else "even-round",
                label=_if_fits(str(one.number), window.x(end) - x),
                title=f"{title} in {time_text(end - one.began_at)}",
            )
            segments.append(segment)
    return segments


def _stop(report: RunReport) -> tuple[int, int, str] | None:
    """Return from when to when the source did not run, and what to call that."""
    metrics = report.metrics
    if metrics.stopped_at is None:
        return None
    if metrics.downtime is not None and metrics.resumed_at is not None:
        text = f"downtime {time_text(metrics.downtime)}"
        return metrics.stopped_at, metrics.resumed_at, text
    back = [
        change.at
        for change in metrics.state_changes
        if (change.party, change.device_state) == ("source", "RUNNING")
        and change.at >= metrics.stopped_at
    ]
    if not back:
        return metrics.stopped_at, _end(metrics), "stopped for good"
    text = f"stopped for {time_text(max(back) - metrics.stopped_at)}"
    return metrics.stopped_at, max(back), text


def _band(report: RunReport, window: _Window) -> Band | None:
    stop = _stop(report)
    if stop is None:
        return None
    begin, end, label = stop
    x = window.x(begin)
    width = _width(x, window.x(end))
    half = len(label) * CHARACTER / 2
    middle = min(max(x + width / 2, _GUTTER + half), WIDTH - half - 4)
    return Band(x=x, width=width, label=label, text_x=round(middle, 2))


def _width(x: float, end: float) -> float:
    """Return a width that can be seen, however short the time."""
    return round(max(end - x, 1.5), 2)


def _if_fits(label: str, width: float) -> str:
    return label if len(label) * CHARACTER + 12 <= width else ""


def _short(label: str) -> str:
    if len(label) <= _LONGEST_LABEL:
        return label
    # Names that differ do so at the end as often as at the beginning.
    return f"{label[:9]}…{label[-9:]}"
