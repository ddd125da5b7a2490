"""Windows that are alike are gone through once: a pace that leaps over the others.

A window begins where nothing is left of the one before but what is counted, so the
next one does the same as long as nothing that decides changes: the round, the dirty
sync, the stretch of RAM that is sent, what a device has to say.  After each window the
pace looks whether the last one was such, and how often it may come again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.migration.pace import QemuPace
from vfiomig.migration.pre_copy import ROUND_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.convergence import Limits
    from vfiomig.migration.metrics import Metrics, Round
    from vfiomig.migration.pace import Pace
    from vfiomig.migration.what_if.device import ModelledDevice
    from vfiomig.migration.what_if.ram import ModelledRam
    from vfiomig.migration.what_if.stretches import Stretch
    from vfiomig.migration.what_if.wire import Wire

# Fewer are as soon gone through one after another.
_WORTH_IT: Final = 2
_ANY: Final = 1 << 40
_NEAR: Final = 0.05  # of what a device sends in a window

_COUNTED: Final = (
    "stream_bytes",
    "precopy_device_bytes",
    "precopy_ram_bytes",
    "normal_pages",
    "zero_pages",
)
_COUNTED_IN_ROUND: Final = ("device_bytes", "ram_bytes", "buffers", "polls")


class _Moment(NamedTuple):
    """What is known at the end of a window."""

    now: int
    arrived: int
    counted: tuple[int, ...]
    in_round: tuple[int, ...]
    rounds: int
    syncs: int
    place: Stretch | None
    devices: tuple[tuple[float, float, float], ...]
    sent: tuple[int, ...]
    pending: int


class LeapingPace:
    """A `Pace` in front of another, for modelled handlers.

    ``ram`` and ``devices`` are given with `watch`, for they need a pace themselves.
    """

    def __init__(self, pace: Pace, *, wire: Wire, limits: Limits) -> None:
        self._pace = pace
        self._wire = wire
        self._metrics: Metrics = wire.metrics
        self._limits = limits
        self._ram: ModelledRam | None = None
        self._devices: Sequence[ModelledDevice] = ()
        self._last: _Moment | None = None
        self._sent: tuple[int, ...] = ()  # by each device in the window before
        self._began = pace.began if isinstance(pace, QemuPace) else 0
        self.is_exceeded = pace.is_exceeded
        self.room = pace.room
        self.expected = pace.expected

    @property
    def has_measured(self) -> bool:
        """Whether what is expected of a downtime is known at all."""
        return self._pace.has_measured

    @property
    def threshold(self) -> int:
        """Pending bytes below which they can be moved within the downtime limit."""
        return self._pace.threshold

    def watch(self, ram: ModelledRam | None, devices: Sequence[ModelledDevice]) -> None:
        """Know who is to be moved ahead."""
        self._ram, self._devices = ram, devices

    def wait(self) -> None:
        """Let the window pass if it is over, and those that are like it."""
        self._pace.wait()
        if not self._has_closed():
            return
        last, moment = self._last, self._moment()
        sent = _differences(last.sent, moment.sent) if last is not None else ()
        if last is not None and self._is_alike(last, moment, sent):
            times = self._most_leaps(last, moment)
            if times >= _WORTH_IT:
                self._leap(times, last, moment)
                moment = self._moment()
        self._last, self._sent = moment, sent

    def _has_closed(self) -> bool:
        """Tell whether a window has just ended; without windows every pass is one."""
        if not isinstance(self._pace, QemuPace):
            return True
        began, self._began = self._began, self._pace.began
        return began != self._began

    def _moment(self) -> _Moment:
        metrics, ram = self._metrics, self._ram
        current = metrics.rounds[-1]
        return _Moment(
            now=self._wire.source.now,
            arrived=self._wire.destination.now,
            counted=tuple(getattr(metrics, name) for name in _COUNTED),
            in_round=tuple(getattr(current, name) for name in _COUNTED_IN_ROUND),
            rounds=len(metrics.rounds),
            syncs=metrics.dirty_syncs,
            place=ram.place if ram is not None and ram.pending_estimate() else None,
            devices=tuple(device.amounts for device in self._devices),
            sent=tuple(device.sent for device in self._devices),
            pending=sum(device.pending for device in self._devices),
        )

    def _is_alike(self, before: _Moment, after: _Moment, sent: tuple[int, ...]) -> bool:
        """Tell whether nothing was decided in a window, and devices were as before."""
        return (
            len(sent) == len(self._sent)
            and all(map(_are_near, sent, self._sent))
            and before.rounds == after.rounds
            and before.syncs == after.syncs
            and before.place is after.place
            and before.now < after.now
            and not self._metrics.rounds[-1].is_idle
        )

    def _most_leaps(self, before: _Moment, after: _Moment) -> int:
        """Return how many windows like the last one come at least."""
        current = self._metrics.rounds[-1]
        duration = after.now - before.now
        device, ram, buffers, _ = _differences(before.in_round, after.in_round)
        leaps = _ANY
        if device + ram:
            left = current.pending_bytes - current.sent_bytes
            leaps = min(leaps, left // (device + ram) - 2)
        if buffers:
            leaps = min(leaps, (ROUND_LIMIT - current.buffers) // buffers - 2)
        if self._limits.cancel_at is not None:
            leaps = min(leaps, (self._limits.cancel_at - after.now) // duration - 1)
        if self._ram is not None:
            pages = self._pages(before, after)
            leaps = min(leaps, self._ram.most_leaps(pages, duration))
        for number, each in enumerate(self._devices):
            if sent := after.sent[number] - before.sent[number]:
                change = _changes(before, after, number)
                leaps = min(leaps, each.most_leaps(change, sent))
        if self._ram is None:
            leaps = self._before_decision(leaps, after.pending - before.pending, after)
        return leaps if leaps < _ANY else 0

    def _before_decision(self, leaps: int, change: int, after: _Moment) -> int:
        """Return how many of them stay on this side of the downtime limit."""
        while leaps >= _WORTH_IT:
            pending = after.pending + change * leaps
            if pending > 0 and self.expected(pending) > self._limits.downtime:
                return leaps
            leaps //= 2
        return 0

    def _leap(self, times: int, before: _Moment, after: _Moment) -> None:
        metrics, duration = self._metrics, after.now - before.now
        counted = _differences(before.counted, after.counted)
        _add(metrics, _COUNTED, counted, times)
        in_round = _differences(before.in_round, after.in_round)
        _add(metrics.rounds[-1], _COUNTED_IN_ROUND, in_round, times)
        self._wire.leap(
            counted[0] * times,
            duration * times,
            (after.arrived - before.arrived) * times,
        )
        metrics.rounds[-1].ended_at = self._wire.source.now
        if self._ram is not None and (pages := self._pages(before, after)):
            self._ram.leap(pages * times)
        for number, device in enumerate(self._devices):
            # One that sent nothing only works on, however long.
            if sent := after.sent[number] - before.sent[number]:
                change = _changes(before, after, number)
                device.leap(times, change, sent, duration * times)
        if isinstance(self._pace, QemuPace):
            self._pace.begin_window()
            self._began = self._pace.began

    def _pages(self, before: _Moment, after: _Moment) -> int:
        difference = _differences(before.counted, after.counted)
        return difference[3] + difference[4]


def _differences(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(late - early for early, late in zip(before, after, strict=True))


def _are_near(one: int, other: int) -> bool:
    return abs(one - other) <= _NEAR * max(one, other)


def _changes(
    before: _Moment, after: _Moment, number: int
) -> tuple[float, float, float]:
    early, late = before.devices[number], after.devices[number]
    return late[0] - early[0], late[1] - early[1], late[2] - early[2]


def _add(
    to: Metrics | Round, names: Sequence[str], amounts: tuple[int, ...], times: int
) -> None:
    for name, amount in zip(names, amounts, strict=True):
        setattr(to, name, getattr(to, name) + amount * times)
