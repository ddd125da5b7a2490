"""What the two sides of a migration have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vfiomig.migration.metrics import Metrics, Outcome, StateChange

if TYPE_CHECKING:
    from vfiomig.client.v1 import V1Client
    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.observer import Observer


class MigratingDevice(NamedTuple):
    """A device that takes part: its name in the stream, and the client that drives it.

    QEMU names it by its place on the bus; here it is any text of at most 250 bytes.
    """

    name: str
    client: V1Client


class Ending(NamedTuple):
    """How one side ended: the error, if there was one, and the devices it lost.

    ``device`` is the one that it was busy with when the error came.
    """

    outcome: Outcome
    error: Exception | None = None
    device: str = ""
    lost: tuple[tuple[str, Exception], ...] = ()


class StateNotes:
    """The device_states that one side reached, noted where they are asked for."""

    def __init__(
        self, party: str, clock: VirtualClock, metrics: Metrics, observer: Observer
    ) -> None:
        self._party = party
        self._clock = clock
        self._metrics = metrics
        self._observer = observer

    def note(self, device: MigratingDevice) -> None:
        """Note the state that a device's client has brought it to."""
        state = device.client.device_state
        name = state.name if state is not None else "invalid"
        change = StateChange(
            at=self._clock.now,
            party=self._party,
            device=device.name,
            device_state=name,
        )
        self._metrics.state_changes.append(change)
        self._observer.state_changed(self._party, device.name, name, change.at)
