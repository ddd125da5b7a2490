"""What a migration did, in numbers that say what they count.

Times are virtual nanoseconds since the migration began, on one time line for both
sides.  Bytes are counted at the source's end of the stream unless a field says
otherwise.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

# Parts of a machine that go in one piece.
StateKind: TypeAlias = Literal["harts", "xen", "xenstore"]


class Outcome(enum.Enum):
    """How a migration ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_CONVERGED = "not-converged"
    DIED = "died"
    INTERRUPTED = "interrupted"


@dataclass(slots=True, kw_only=True)
class Round:
    """One round of pre-copy: until as much was sent as was pending when it began.

    ``device_bytes`` are the buffers' bytes, ``ram_bytes`` the pages', zero pages
    included, without framing; ``pending_bytes`` is what was pending when it began, an
    estimate; ``polls`` counts how often all were asked.
    """

    number: int
    began_at: int
    pending_bytes: int
    ended_at: int = 0
    device_bytes: int = 0
    ram_bytes: int = 0
    buffers: int = 0
    polls: int = 0
    # The last look found a buffer of 0 bytes, or none: it would go on for ever.
    is_idle: bool = False

    @property
    def sent_bytes(self) -> int:
        """Bytes of buffers and pages, as pending bytes are counted."""
        return self.device_bytes + self.ram_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A device_state that a party reached, and when."""

    at: int
    party: str  # "source" or "destination"
    device: str
    device_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """A status of query-migrate at the source, and when it began."""

    at: int
    status: str


@dataclass(slots=True, kw_only=True)
class Metrics:
    """The numbers of one migration; ``None`` where it did not come that far."""

    rounds: list[Round] = field(default_factory=list)
    state_changes: list[StateChange] = field(default_factory=list)

    # Bytes of the stream, framing included; of multifd's channels beside it; and of
    # the buffers.
    stream_bytes: int = 0
    channel_bytes: int = 0
    precopy_device_bytes: int = 0
    stop_and_copy_device_bytes: int = 0
    # Buffers as the destination's devices took them.
    loaded_device_bytes: int = 0

    # A machine's other parts, framing included but for the sections' heads and feet:
    # pages before and after its stop; devices' FULL sections, harts' and those of a Xen
    # guest and of its store, whole; the VM description.
    precopy_ram_bytes: int = 0
    stop_and_copy_ram_bytes: int = 0
    config_bytes: int = 0
    hart_bytes: int = 0
    xen_bytes: int = 0
    xenstore_bytes: int = 0
    # How long the link took for the store: its share of the downtime.
    xenstore_time: int = 0
    vmdesc_bytes: int = 0
    # Pages that were sent with their contents, and as zero (QEMU: normal, duplicate).
    normal_pages: int = 0
    zero_pages: int = 0
    loaded_ram_pages: int = 0
    dirty_syncs: int = 0
    # What auto-converge took from the guest in the end, in percent of its time.
    cpu_throttle: int = 0
    # Bytes a second in the last window of 100 ms; the threshold is made of it.
    measured_bandwidth: int | None = None
    # What query-migrate would have said, and since when.
    statuses: list[StatusChange] = field(default_factory=list)

    # From the guest's stop at the source to the destination's last RUNNING; what was
    # expected of it when pre-copy ended: pending_bytes over the link and into the
    # destination, the time of trapped accesses left out.
    stopped_at: int | None = None
    resumed_at: int | None = None
    expected_downtime: int | None = None
    pending_bytes_at_switch_over: int | None = None
    # When the source knew how it ended.
    ended_at: int | None = None

    def count_state(self, kind: StateKind, size: int, duration: int) -> None:
        """Count a part that went in one piece, and how long it took."""
        match kind:
            case "harts":
                self.hart_bytes += size
            case "xen":
                self.xen_bytes += size
            case "xenstore":
                self.xenstore_bytes += size
                self.xenstore_time += duration

    @property
    def downtime(self) -> int | None:
        """How long neither side ran; ``None`` if the destination never did."""
        if self.stopped_at is None or self.resumed_at is None:
            return None
        return self.resumed_at - self.stopped_at

    @property
    def sent_bytes(self) -> int:
        """Bytes that have gone over the link."""
        return self.stream_bytes + self.channel_bytes

    @property
    def stop_and_copy_bytes(self) -> int:
        """Bytes of buffers and pages that were sent behind the stop."""
        return self.stop_and_copy_device_bytes + self.stop_and_copy_ram_bytes

    @property
    def device_bytes(self) -> int:
        """All bytes of buffers that were sent."""
        return self.precopy_device_bytes + self.stop_and_copy_device_bytes
