"""When pre-copy has gone far enough.

QEMU goes over when what is pending takes less than downtime-limit at the bandwidth it
measured; until its first window of 100 ms has passed that bandwidth is 0, so anything
pending is iterated once at least.  Two things that QEMU does not count are counted
here: the link's latency, and the time that the destination needs to take the data.
What is pending is an estimate all the same (V1-PEND-01), and a device may have far
more to say once it is stopped.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from vfiomig.migration.clock import SECOND, LinkModel

DEFAULT_DOWNTIME_LIMIT: Final = 300_000_000  # ns; QEMU's downtime-limit
DEFAULT_ROUNDS_LIMIT: Final = 30


class Decision(enum.Enum):
    """What follows a look at the pending bytes."""

    ITERATE = "iterate"
    SWITCH_OVER = "switch over"
    GIVE_UP = "give up"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class DowntimeEstimate:
    """How long the device will not run, as far as pending bytes tell.

    ``load_bandwidth`` is the rate at which the destination takes data, in bytes a
    second; ``None`` if it takes no time.
    """

    link: LinkModel
    load_bandwidth: int | None = None

    def of(self, pending: int) -> int:
        """Return nanoseconds for ``pending`` bytes: link, latency and loading."""
        loading = (
            0
            if self.load_bandwidth is None
            else pending * SECOND // self.load_bandwidth
        )
        return self.link.duration(pending) + self.link.latency + loading


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known between two iterations: the moment, the bytes, the rounds.

    ``expected`` is the downtime if it went over now; times in nanoseconds.
    ``rounds_ended`` leaves out those of QEMU's first window: nothing could be expected.
    """

    now: int
    pending: int
    expected: int
    rounds_begun: int
    rounds_ended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a migration may cost; times in nanoseconds.

    After ``rounds`` rounds of pre-copy that ended above ``downtime`` it gives up, or
    goes over all the same if ``switches_anyway``.  ``cancel_at`` is the moment at
    which a person gives up.
    """

    downtime: int = DEFAULT_DOWNTIME_LIMIT
    rounds: int = DEFAULT_ROUNDS_LIMIT
    switches_anyway: bool = False
    cancel_at: int | None = None

    def decide(self, look: Look) -> Decision:
        """Say what follows a look at the pending bytes."""
        if self.cancel_at is not None and look.now >= self.cancel_at:
            return Decision.CANCEL
        has_iterated = look.rounds_begun > 0
        if not look.pending or (has_iterated and look.expected <= self.downtime):
            return Decision.SWITCH_OVER
        if look.rounds_ended >= self.rounds:
            return Decision.SWITCH_OVER if self.switches_anyway else Decision.GIVE_UP
        return Decision.ITERATE
