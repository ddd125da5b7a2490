"""What a driver was seen to do in pre-copy and when stopped: numbers, asked beforehand.

Nobody can know that from outside, so it is measured on a fresh driver, and a
`ModelledDevice` goes by it.  Times are virtual nanoseconds, sizes bytes, work is in
units of guest traffic.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple


class Seen(NamedTuple):
    """One point of a `Curve`."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What was seen, in order of ``at``; straight lines between, and beyond the last.

    Between two that are the same, and beyond, it does not change.

    Raises:
        ValueError: nothing was seen.
    """

    seen: tuple[Seen, ...]

    def __post_init__(self) -> None:
        if not self.seen:
            message = "a curve of no points"
            raise ValueError(message)

    def value(self, at: float) -> float:
        """Return the value there."""
        seen = self.seen
        if len(seen) == 1 or at <= seen[0].at:
            return seen[0].value
        place = bisect.bisect_left(seen, at, key=lambda one: one.at)
        place = min(place, len(seen) - 1)
        first, last = seen[place - 1], seen[place]
        return _between(at, first.at, last.at, first.value, last.value)

    def rising(self) -> Curve:
        """Return the same, but never lower than before: it can be turned round."""
        highest = self.seen[0].value
        points = []
        for at, value in self.seen:
            highest = max(highest, value)
            points.append(Seen(at, highest))
        return Curve(tuple(points))

    def grown(self, value: float, more: float) -> float:
        """Return what a rising curve is at, ``more`` behind where it was ``value``."""
        seen = self.seen
        if len(seen) == 1 or value < seen[0].value:
            return self.value(seen[0].at + more) if len(seen) > 1 else value
        place = bisect.bisect_left(seen, value, key=lambda one: one.value)
        if place == len(seen):
            first, last = seen[-2], seen[-1]
            if last.value <= first.value:
                return value
            at = _between(value, first.value, last.value, first.at, last.at)
        elif place == 0:
            at = seen[0].at
        else:
            first, last = seen[place - 1], seen[place]
            at = _between(value, first.value, last.value, first.at, last.at)
        return max(self.value(at + more), value)


def _between(x: float, x0: float, x1: float, y0: float, y1: float) -> float:
    return y1 if x1 == x0 else y0 + (x - x0) * (y1 - y0) / (x1 - x0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessTimes:
    """Virtual time that the client's accesses take, at both ends.

    ``buffer`` and ``last_buffer`` are a buffer's in pre-copy and behind the stop;
    ``complete`` and ``end`` are what is asked before the first of those and behind the
    last.  At the destination a buffer takes ``load`` and ``load_byte`` for each byte;
    ``run`` is the way to RUNNING.
    """

    set_up: int = 0
    poll: int = 0
    buffer: int = 0
    stop: int = 0
    complete: int = 0
    last_buffer: int = 0
    end: int = 0
    load: int = 0
    load_byte: float = 0.0
    run: int = 0


_NOTHING = Curve((Seen(0, 0),))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """One device.  What a person may change of it is its ``work`` (units a second).

    ``first_pending`` is what is pending when pre-copy begins; a buffer has at most
    ``buffer`` bytes, each of which takes ``drop`` from pending_bytes.  ``growth``:
    what is pending after so much work, all having been sent before; ``idle_pending``
    of it never goes away.  ``extra``: what it sends while stopped beyond what was
    pending, by all the work that it did; ``last_buffer`` bytes at a time.

    ``offers_again``: a buffer after which nobody asked for pending_bytes comes once
    more when it is stopped.  ``config_bytes`` is the size of its FULL section, 0 for
    none.
    """

    name: str
    idstr: str
    work: int = 0
    warm_up: int = 0
    config_bytes: int = 0
    first_pending: int = 0
    idle_pending: int = 0
    buffer: int = 0
    drop: float = 1.0
    growth: Curve = _NOTHING
    extra: Curve = _NOTHING
    last_buffer: int = 0
    offers_again: bool = False
    times: AccessTimes = field(default_factory=AccessTimes)
