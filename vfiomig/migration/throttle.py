"""auto-converge: a guest that writes faster than the link carries gets less time.

migration_trigger_throttle and mig_throttle_guest_down of QEMU's migration/ram.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.clock import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.parameters import Parameters

_PERIOD: Final = SECOND  # ns: it looks at most so often
_PATIENCE: Final = 2  # looks in which too much was written, until it acts


class AutoConverge:
    """Looks at each dirty sync; ``slow_down`` gets the percentage taken from the guest.

    ``percentage`` is what was taken last, 0 as long as nothing was.
    """

    def __init__(
        self, parameters: Parameters, slow_down: Callable[[int], None]
    ) -> None:
        self._parameters = parameters
        self._slow_down = slow_down
        self._began: int | None = None
        self._sent_before = 0
        self._dirty_bytes = 0
        self._times_high = 0
        self.percentage = 0

    def look(self, *, now: int, dirty_bytes: int, sent_bytes: int) -> None:
        """Take in one sync: bytes newly dirty in it, bytes sent since the beginning."""
        self._dirty_bytes += dirty_bytes
        if self._began is None:
            self._began = now
        if now <= self._began + _PERIOD:
            return
        sent = sent_bytes - self._sent_before
        limit = sent * self._parameters.throttle_trigger_threshold // 100
        if self._parameters.auto_converge and self._dirty_bytes > limit:
            self._times_high += 1
            if self._times_high >= _PATIENCE:
                self._times_high = 0
                self._raise_percentage(limit)
        self._began, self._sent_before, self._dirty_bytes = now, sent_bytes, 0

    def _raise_percentage(self, limit: int) -> None:
        known = self._parameters
        if not self.percentage:
            wanted = known.cpu_throttle_initial
        else:
            step = known.cpu_throttle_increment
            if known.cpu_throttle_tailslow:
                # The share of time that would just do, if writing follows time.
                left = 100 - self.percentage
                step = min(step, left - left * limit // self._dirty_bytes)
            wanted = self.percentage + max(step, 0)
        self.percentage = min(wanted, known.max_cpu_throttle)
        self._slow_down(self.percentage)
