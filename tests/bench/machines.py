"""Two devices and what migrates one to the other, with nothing around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfiomig.client.device import DeviceHandle
from vfiomig.client.region import find_migration_region
from vfiomig.client.v1 import V1Client
from vfiomig.host.device_fd import DeviceFd
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, exchange
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.side import MigratingDevice
from vfiomig.migration.source import Source
from vfiomig.migration.transport import make_memory_pair

if TYPE_CHECKING:
    from vfiomig.host.device_ops import TrappedDriver

LINK = LinkModel(bandwidth=1 << 30, latency=100_000)

Wrap = Callable[[DeviceFd], DeviceHandle]


@dataclass
class Side:
    """One opened device and its client."""

    fd: DeviceFd
    client: V1Client

    @classmethod
    def of(cls, driver: TrappedDriver, wrap: Wrap = lambda fd: fd) -> Side:
        fd = DeviceFd(driver)
        handle = wrap(fd)
        return cls(fd, V1Client(handle, find_migration_region(handle)))


def migrate(source: Side, destination: Side) -> Metrics:
    """Migrate one device; it must arrive."""
    metrics = Metrics()
    here, there = VirtualClock(), VirtualClock()
    near, far = make_memory_pair()
    forth, back = Channel(LINK, here, there), Channel(LINK, there, here)
    source.client.vm_state_change(running=True)
    leaving = Source(
        [MigratingDevice("device", source.client)],
        clock=here,
        estimate=DowntimeEstimate(link=LINK),
        limits=Limits(),
        metrics=metrics,
    )
    arriving = Destination(
        [MigratingDevice("device", destination.client)], clock=there, metrics=metrics
    )
    first = Party(leaving.migrate(), near, outgoing=forth, incoming=back)
    second = Party(arriving.load(), far, outgoing=back, incoming=forth)
    exchange(first, second)
    assert first.result().outcome is Outcome.COMPLETED
    assert second.result().outcome is Outcome.COMPLETED
    near.close()
    far.close()
    return metrics
