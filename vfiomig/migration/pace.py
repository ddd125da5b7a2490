"""How fast a source may send, and what it measured: migration_rate_limit of QEMU.

Virtual time is in nanoseconds, bandwidth in bytes a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.migration.clock import SECOND

if TYPE_CHECKING:
    from vfiomig.migration.clock import LinkModel, VirtualClock
    from vfiomig.migration.convergence import DowntimeEstimate
    from vfiomig.migration.metrics import Metrics
    from vfiomig.migration.parameters import Parameters

BUFFER_DELAY: Final = 100_000_000  # ns: the window of QEMU's rate limit
_XFER_LIMIT_RATIO: Final = SECOND // BUFFER_DELAY
MAX_WAIT: Final = 50_000_000  # ns: the longest turn of RAM, at which others are due

_NEVER: Final = 1 << 62  # ns, or bytes: no limit lets it through


class Pace(Protocol):
    """What the loop asks of it."""

    @property
    def threshold(self) -> int:
        """Pending bytes below which they can be moved within the downtime limit."""

    @property
    def has_measured(self) -> bool:
        """Whether what is expected of a downtime is known at all."""

    def is_exceeded(self) -> bool:
        """Tell whether no more may be sent before `wait`."""

    def room(self) -> int:
        """Return how many bytes may be sent before it must be asked again."""

    def expected(self, pending: int) -> int:
        """Return the downtime, in ns, of so many bytes."""

    def wait(self) -> None:
        """Let the rest of the window pass, if no more may be sent in it."""


class Unpaced:
    """No limit but the link's own rate; the downtime is what a model expects."""

    threshold = 0
    has_measured = True

    def __init__(self, estimate: DowntimeEstimate) -> None:
        self.expected = estimate.of

    def is_exceeded(self) -> bool:
        """Never."""
        return False

    def room(self) -> int:
        """Return more than anybody has."""
        return _NEVER

    def wait(self) -> None:
        """Go on at once."""


class QemuPace:
    """QEMU's windows of 100 ms: a budget of bytes in each, a bandwidth measured.

    The threshold is 0 until the first window is over, then the bandwidth of the last
    one times the downtime limit; avail-switchover-bandwidth, if it is given, counts
    instead of that.  ``began`` is when the window did.
    """

    def __init__(
        self,
        *,
        clock: VirtualClock,
        metrics: Metrics,
        link: LinkModel,
        parameters: Parameters,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._link = link
        self._budget = parameters.max_bandwidth // _XFER_LIMIT_RATIO
        self._downtime_limit = parameters.downtime_limit
        self._switchover_bandwidth = parameters.avail_switchover_bandwidth
        self._completes_at_threshold = parameters.rules.completes_at_threshold
        self.threshold = 0
        self.has_measured = False
        self.begin_window()

    def begin_window(self) -> None:
        """Let a window begin now, whatever went before it."""
        self.began = self._clock.now
        self._first_byte = self._metrics.sent_bytes

    def is_exceeded(self) -> bool:
        """Tell whether the window's budget is used up (qemu_file_rate_limit)."""
        used = self._metrics.sent_bytes - self._first_byte
        return bool(self._budget) and used > self._budget

    def room(self) -> int:
        """Return what is left of the budget and can go within 50 ms, at least 1."""
        within = self._link.bandwidth * MAX_WAIT // SECOND
        if self._budget:
            left = self._first_byte + self._budget - self._metrics.sent_bytes
            within = min(within, left)
        return max(within, 1)

    def expected(self, pending: int) -> int:
        """Return the downtime of so many bytes at the bandwidth that was measured."""
        if not pending:
            return 0
        if not self.threshold:
            return _NEVER
        # Pending bytes equal to the threshold take the limit itself; QEMU goes over
        # below it, and since 11.1 at it.
        beyond = 0 if self._completes_at_threshold else 1
        return pending * self._downtime_limit // self.threshold + beyond

    def wait(self) -> None:
        """Close the window when its time is over; wait for that when it is used up."""
        self._update()
        if self.is_exceeded():
            rest = self.began + BUFFER_DELAY - self._clock.now
            self._clock.advance(max(rest, 0))
            self._update()

    def _update(self) -> None:
        """Measure, once a window (migration_update_counters)."""
        spent = self._clock.now - self.began
        if spent < BUFFER_DELAY:
            return
        sent = self._metrics.sent_bytes - self._first_byte
        bandwidth = self._switchover_bandwidth or sent * SECOND // spent
        self.threshold = bandwidth * self._downtime_limit // SECOND
        self._metrics.measured_bandwidth = bandwidth
        self.has_measured = True
        self.begin_window()
