"""What the two sides of a migration have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vfiomig.migration.metrics import Metrics, Outcome, StateChange
from vfiomig.migration.parameters import Parameters
from vfiomig.protocol.qemu_stream import framing, vmdesc
from vfiomig.protocol.qemu_stream.page_batch import PAGE_SIZE
from vfiomig.protocol.qemu_stream.records import SectionName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vfiomig.client.v1 import V1Client
    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.observer import Observer
    from vfiomig.migration.ram_channels import ReceivingChannels
    from vfiomig.migration.ram_loading import PagePlaces
    from vfiomig.migration.ram_pages import PageSender
    from vfiomig.vm.machine import Machine


def _nothing() -> None:
    """Log no DMA: there is none."""


def _no_pages() -> int:
    """Sync no DMA: there is none."""
    return 0


class MigratingDevice(NamedTuple):
    """A device that takes part: its name, and the client that drives it.

    In the stream it is called by its place on the bus, ``path``, as QEMU does
    (``0000:00:04.0``); without one by its name, any text of at most 250 bytes.
    ``config`` is its PCI configuration space, if that moves as well.
    """

    name: str
    client: V1Client
    path: str = ""
    config: bytearray | None = None

    @property
    def idstr(self) -> str:
        """What its sections are called."""
        return (self.path or self.name) + framing.VFIO_SUFFIX


class MigratingMachine(NamedTuple):
    """The guest around the devices, and the parameters that it migrates by.

    ``sync_dma`` takes what devices wrote by DMA into the migration's log, and returns
    how many pages became dirty by it; it is asked between ``start_dma`` and
    ``stop_dma``.  With multifd
    the source has the ``sender`` of its pages, and the destination the ``channels``,
    which put them into the ``places``.
    """

    machine: Machine
    parameters: Parameters = Parameters()
    sync_dma: Callable[[], int] = _no_pages
    sender: PageSender | None = None
    channels: ReceivingChannels | None = None
    places: PagePlaces | None = None
    start_dma: Callable[[], None] = _nothing
    stop_dma: Callable[[], None] = _nothing


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


def description_of(
    devices: Iterable[MigratingDevice],
    before: Iterable[dict[str, object]] = (),
    behind: Iterable[dict[str, object]] = (),
) -> bytes:
    """Return the VM description of a machine with these devices.

    What goes ``before`` them, the harts, and ``behind``, is described already.
    """
    described = [
        *before,
        *(
            vmdesc.describe_data(
                SectionName(device.idstr, 0), framing.config_state_size(device.config)
            )
            for device in devices
            if device.config is not None
        ),
        *behind,
    ]
    return vmdesc.text_of(vmdesc.vm_description(described, page_size=PAGE_SIZE))
