"""What one simulated migration came to: the facts that every report is made from."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vfiomig.frontends.scenario import Scenario
    from vfiomig.migration.metrics import Metrics, Outcome


class Verdict(enum.Enum):
    """What is known of a device's state after the migration."""

    VERIFIED = "state verified"
    NOTHING_TO_MOVE = "nothing to move"
    UNVERIFIED = "unverified"
    DIFFERS = "state differs"
    DID_NOT_ARRIVE = "did not arrive"


@dataclass(slots=True, kw_only=True)
class Digests:
    """Digests of a device's snapshots, hex; ``None`` where none was taken.

    ``source_at_start`` when the migration begins; ``source_at_stop`` on entering
    STOP; ``destination_before`` on opening; ``destination_after`` within the write
    that enters RUNNING; ``source_after_failure`` once the source goes on, before any
    guest traffic, next to ``source_before_failure``, taken just before it did.
    """

    source_at_start: str | None = None
    source_at_stop: str | None = None
    destination_before: str | None = None
    destination_after: str | None = None
    source_before_failure: str | None = None
    source_after_failure: str | None = None


@dataclass(slots=True, kw_only=True)
class DeviceReport:
    """One device: what it is, its digests, and what they prove.

    ``reason`` says in words why nothing could be verified.
    """

    name: str
    target: str
    digests: Digests
    verdict: Verdict = Verdict.DID_NOT_ARRIVE
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class HartReport:
    """One hart of a RISC-V guest, as KVM told of it, and what it does after the move.

    ``source`` and ``destination`` are its mode and mp_state at the stop and on arrival
    ("U, runnable"), "" where it did not come so far.  ``retired_user`` and
    ``retired_supervisor`` count instructions since the destination ran.  ``befell`` is
    what the guest tells that should not have happened to it.
    """

    hart: int
    role: str
    source: str
    destination: str
    retired_user: int
    retired_supervisor: int
    befell: str


@dataclass(slots=True, kw_only=True)
class XenEvents:
    """Events of the host to a Xen guest, each of which is to be handled once.

    ``merged`` found their port pending, so that one handling covers them and the one
    before.  ``lost`` went to memory that the guest does not see, or are not handled now
    that all has come to rest.
    """

    sent_at_source: int = 0
    sent_at_destination: int = 0
    merged: int = 0
    handled_at_source: int = 0
    handled_at_destination: int = 0
    lost: int = 0


@dataclass(slots=True, kw_only=True)
class XenStoreReport:
    """XenStore when the source had stopped, or else when it failed, and on arrival.

    ``transactions`` were open; the guest ended those that it held at the destination,
    where they ``committed``, or ``conflicted`` with another change (EAGAIN), or were
    ``unknown`` there.  ``events`` are watch events that waited for the guest.
    ``share_of_downtime`` is how much of it the link took for the store.
    """

    nodes: int = 0
    watches: int = 0
    watches_arrived: int = 0
    events: int = 0
    events_arrived: int = 0
    transactions: int = 0
    committed: int = 0
    conflicted: int = 0
    unknown: int = 0
    share_of_downtime: float | None = None


@dataclass(slots=True, kw_only=True)
class XenDisk:
    """The disk's two ends: how often they met, and what was answered.

    ``unheard`` are responses that the front end was never told of.
    """

    connections_at_source: int = 0
    connections_at_destination: int = 0
    completed_at_source: int = 0
    completed_at_destination: int = 0
    unheard: int = 0


@dataclass(slots=True, kw_only=True)
class XenReport:
    """A Xen guest; ``page`` is the way to shared_info, ``befell`` what went wrong."""

    page: str
    events: XenEvents
    store: XenStoreReport
    disk: XenDisk
    befell: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Death:
    """A driver that raised what no errno stands for."""

    party: str
    device: str
    access: str
    error: str
    where: str


@dataclass(slots=True, kw_only=True)
class RunReport:
    """One run of a scenario, whole.

    ``reason`` is one line on why the outcome is not "completed"; ``ok`` tells whether
    it ended as the scenario expects, with nothing lost.  ``flip_unnoticed``: a bit
    arrived flipped, and the destination ran all the same.  ``lost`` are devices that
    the source could not bring back, each with the reason.  ``notes`` are remarks.
    Behind the devices come the RAM of a machine, its harts, and its Xen guest.
    """

    scenario: Scenario
    outcome: Outcome
    reason: str
    ok: bool
    devices: list[DeviceReport]
    metrics: Metrics
    death: Death | None = None
    flip_unnoticed: bool = False
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    harts: list[HartReport] = field(default_factory=list)
    xen: XenReport | None = None

    @property
    def with_states(self) -> list[DeviceReport]:
        """Those of ``devices`` that have a device_state: not RAM, for one."""
        names = {device.name for device in self.scenario.devices}
        return [device for device in self.devices if device.name in names]
