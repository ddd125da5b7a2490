"""Migrations of a small guest with a scripted device, over a link that may be bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.unit.client.scripted_driver import OpenDevice, ScriptedDriver
from tests.unit.migration.guests import SmallGuest
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, exchange
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.source import Source
from vfiomig.migration.transport import make_memory_pair

if TYPE_CHECKING:
    import mmap

    from tests.unit.client.scripted_migration import Wrap
    from vfiomig.migration.side import Ending

LINK = LinkModel(bandwidth=1 << 30, latency=1000)
PATH = "0000:00:02.0"
CONFIG = bytes(range(1, 256)) + b"\0"
DATA = (0x1000, 8)
PAGES, FILLED = 6, (0, 2, 3)


@dataclass(frozen=True, slots=True)
class Moved:
    """How it ended, and whether all that arrived is what was sent."""

    source: Ending
    destination: Ending
    is_equal: bool

    @property
    def has_completed(self) -> bool:
        ends = self.source.outcome, self.destination.outcome
        return ends == (Outcome.COMPLETED, Outcome.COMPLETED)


def move(link: Wrap = lambda stream: stream) -> Moved:
    """Migrate a guest of `PAGES` pages and a device with two buffers of 8 bytes."""
    driver = ScriptedDriver(pending=[8, 0, 8, 0], buffers=[DATA, DATA])
    with (
        SmallGuest(PAGES, *FILLED) as guest,
        SmallGuest(PAGES) as other,
        OpenDevice(driver, name="a") as device,
        OpenDevice(ScriptedDriver(), name="a") as target,
    ):
        device.start_vm()
        configs = bytearray(CONFIG), bytearray(CONFIG)
        there, here = VirtualClock(), VirtualClock()
        metrics = Metrics()
        source = Source(
            [device.participant._replace(path=PATH, config=configs[0])],
            clock=there,
            estimate=DowntimeEstimate(link=LINK),
            limits=Limits(downtime=0, rounds=1000),
            metrics=metrics,
            machine=guest.migrating(),
        )
        destination = Destination(
            [target.participant._replace(path=PATH, config=configs[1])],
            clock=here,
            metrics=metrics,
            machine=other.migrating(),
        )
        out, back = make_memory_pair()
        forth, answer = Channel(LINK, there, here), Channel(LINK, here, there)
        left = Party(source.migrate(), link(out), outgoing=forth, incoming=answer)
        right = Party(destination.load(), back, outgoing=answer, incoming=forth)
        exchange(left, right, patience=1)
        for end in (out, back):
            end.close()
        is_equal = (
            guest.memory.digest() == other.memory.digest()
            and target.driver.committed == _buffers(device.driver.memory)
            and configs[0] == configs[1]
        )
        return Moved(left.result(), right.result(), is_equal)


def _buffers(memory: mmap.mmap) -> list[bytes]:
    return [memory[DATA[0] : DATA[0] + DATA[1]]] * 2
