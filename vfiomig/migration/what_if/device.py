"""A device as a handler that sends only sizes: `device_saving`, by a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.clock import SECOND
from vfiomig.protocol.qemu_stream import framing

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.loop_rules import LoopRules
    from vfiomig.migration.metrics import Round
    from vfiomig.migration.what_if.profile import DeviceProfile
    from vfiomig.migration.what_if.wire import Wire

_HEAD: Final = framing.SECTION_HEAD.size
_DATA: Final = framing.DATA_HEAD.size
_FOOT: Final = len(framing.END_OF_STATE) + len(framing.section_foot(1))
# A device is steady where a window changes what is pending by less than this part of
# what it sends; else as many windows go at once as change so much of it.
_STEADY: Final = 0.02
_SHARE: Final = 8
_ANY: Final = 1 << 40


class ModelledDevice:
    """One device, a `SaveHandler`; ``load_bandwidth`` as in `DeviceLoading`.

    What is pending is what it began with and never sent, and what became dirty again
    of what it did send.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        rules: LoopRules,
        *,
        wire: Wire,
        load_bandwidth: int | None,
    ) -> None:
        self.name = profile.name
        self._profile = profile
        self._times = profile.times
        self._growth = profile.growth.rising()
        self._rules = rules
        self._wire = wire
        self._metrics = wire.metrics
        self._load_bandwidth = load_bandwidth
        self._unsent = float(max(profile.first_pending - profile.idle_pending, 0))
        self._first = self._unsent
        self._again = 0.0
        self._work = float(profile.warm_up)
        self._ran_until = 0
        self._owed = 0  # work that is due, times SECOND
        self._has_asked = False
        self._last = 0.0  # what the last buffer took, if nobody asked since
        self.sent = 0  # bytes of buffers, in pre-copy

    @property
    def pending(self) -> int:
        """Its pending_bytes."""
        return round(self._unsent + self._again) + self._profile.idle_pending

    def run_until(self, now: int) -> None:
        """Do the work that is due until ``now``: whole units, at its rate."""
        self._owed += self._profile.work * (now - self._ran_until)
        self._ran_until = now
        work, self._owed = divmod(self._owed, SECOND)
        if not work:
            return
        self._work += work
        share = 1 - self._unsent / self._first if self._first else 1.0
        if share > 0:
            grown = self._growth.grown(self._again / share, work)
            self._again = max(grown * share, self._again)

    # -- a SaveHandler

    def save_setup(self) -> Steps[None]:
        """Open its section."""
        self._pass(self._times.set_up)
        self._wire.send(len(framing.start_section(1, self._profile.idstr)))
        yield from ()

    def pending_estimate(self) -> int:
        """Return pending_bytes as often as this QEMU counts it in its estimate."""
        return self._ask() * self._rules.in_estimate if self._rules.in_estimate else 0

    def pending_exact(self, threshold: int) -> int:
        """Return pending_bytes as often as this QEMU counts it in the end."""
        return self._ask() * self._rules.in_exact

    def save_iterate(self, current: Round) -> Steps[bool]:
        """Save one buffer; True when there was none."""
        if not (self._has_asked and self.pending):
            self._ask()
        self._has_asked = False
        if not self.pending:
            self._wire.send(_HEAD + _DATA + _FOOT)
            yield from ()
            return True
        size = self._take()
        self._pass(self._times.buffer)
        self._wire.send(_HEAD + _DATA + size + _FOOT)
        self._load(size)
        current.buffers += 1
        current.device_bytes += size
        current.is_idle = not size
        self._metrics.precopy_device_bytes += size
        self.sent += size
        return False

    def save_complete_precopy(self) -> Steps[None]:
        """Save all that is left."""
        profile, times = self._profile, self._times
        self._pass(times.complete)
        if profile.offers_again:
            self._again += self._last
        left = (self._unsent + self._again) / profile.drop
        left = round(left + profile.extra.value(self._work))
        self._unsent = self._again = 0.0
        head = _HEAD
        while left > 0:
            size = min(left, profile.last_buffer or left)
            left -= size
            self._pass(times.last_buffer)
            self._wire.send(head + _DATA + size)
            self._load(size)
            head = 0
            self._metrics.stop_and_copy_device_bytes += size
        self._pass(times.end)
        self._wire.send(head + _FOOT)
        yield from ()

    def save_state(self) -> Steps[None]:
        """Send the configuration space, if it has one."""
        if self._profile.config_bytes:
            self._wire.send(self._profile.config_bytes)
            self._metrics.config_bytes += self._profile.config_bytes
        yield from ()

    def stop(self) -> None:
        """Let the VM be stopped."""
        self._pass(self._times.stop)

    def run_at_destination(self) -> None:
        """Let the VM run there."""
        self._wire.destination.advance(self._times.run)

    # -- many windows at once

    @property
    def amounts(self) -> tuple[float, float, float]:
        """What is unsent, dirty again, and all work done: what a window changes."""
        return self._unsent, self._again, self._work

    def most_leaps(self, changes: tuple[float, float, float], sent: int) -> int:
        """Return how often a window in which it ``sent`` bytes may come again."""
        unsent, again, _ = changes
        leaps = _ANY
        if unsent < 0:
            leaps = min(leaps, int(self._unsent / -unsent) - 2)
        if not self._is_steady(again, sent):
            leaps = min(leaps, int(max(self._again, sent) / _SHARE / abs(again)))
        return leaps

    def leap(
        self, times: int, changes: tuple[float, float, float], sent: int, duration: int
    ) -> None:
        """Let such a window have come so many times more, in ``duration`` ns."""
        self._unsent = max(self._unsent + times * changes[0], 0.0)
        if not self._is_steady(changes[1], sent):
            self._again = max(self._again + times * changes[1], 0.0)
        self._work += times * changes[2]
        # What was not done yet of the last one is still to be done.
        self._ran_until += duration

    # -- amounts

    def _is_steady(self, change: float, sent: int) -> bool:
        return abs(change) <= sent * _STEADY

    def _take(self) -> int:
        """Take a buffer out of what is pending; return its bytes."""
        profile = self._profile
        pending = self._unsent + self._again
        taken = min(profile.buffer * profile.drop, pending)
        first = min(taken, self._unsent)
        self._last = taken
        self._unsent -= first
        self._again -= taken - first
        if self._unsent + self._again < 1:
            self._unsent = self._again = 0.0
        return round(taken / profile.drop)

    def _load(self, size: int) -> None:
        """Let the destination take a buffer in."""
        if not size:
            return
        duration = self._times.load + round(size * self._times.load_byte)
        if self._load_bandwidth is not None:
            duration += size * SECOND // self._load_bandwidth
        self._wire.destination.advance(duration)

    def _ask(self) -> int:
        self._pass(self._times.poll)
        self._has_asked = True
        self._last = 0.0
        return self.pending

    def _pass(self, duration: int) -> None:
        self._wire.source.advance(duration)
