"""Whole migrations of a Xen guest, over a link that may be bad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.unit.vm.xen.xen_machines import GuestAlone
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, exchange
from vfiomig.migration.metrics import Metrics
from vfiomig.migration.observer import Unobserved
from vfiomig.migration.side import MigratingMachine
from vfiomig.migration.source import Source
from vfiomig.migration.transport import make_memory_pair
from vfiomig.vm.machine import Machine, RunState

if TYPE_CHECKING:
    from tests.unit.client.scripted_migration import Wrap
    from vfiomig.migration.observer import Observer
    from vfiomig.migration.side import Ending
    from vfiomig.vm.xen.guest import XenPlan

LINK: Final = LinkModel(bandwidth=10**10 // 8, latency=1000)
TYPE: Final = "pc-i440fx-7.2"


class Side:
    """A machine of one Xen guest, and its clock."""

    def __init__(self, plan: XenPlan) -> None:
        self.guest = GuestAlone(plan)
        self.xen = self.guest.xen
        self.memory = self.guest.memory
        self.machine = Machine(TYPE, self.memory, xen=self.xen)
        self.clock = VirtualClock()
        self.observer: Observer = Unobserved()

    def boot(self, ran: int = 12_345_678) -> None:
        """Boot, and run for so long."""
        self.xen.boot(1)
        self.machine.start(0)
        self.machine.run_until(ran)
        self.clock.now = ran

    def destination(
        self, metrics: Metrics | None = None, *, starts_vm: bool = True
    ) -> Destination:
        return Destination(
            [],
            clock=self.clock,
            metrics=metrics or Metrics(),
            starts_vm=starts_vm,
            machine=MigratingMachine(self.machine),
        )

    def source(self, metrics: Metrics) -> Source:
        return Source(
            [],
            clock=self.clock,
            estimate=DowntimeEstimate(link=LINK),
            limits=Limits(),
            metrics=metrics,
            guest=self.machine,
            observer=self.observer,
            machine=MigratingMachine(self.machine),
        )

    @property
    def is_running(self) -> bool:
        return self.machine.run_state is RunState.RUNNING

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()


class LastAnswer(Unobserved):
    """Lets the disk answer once more when the guest has stopped."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.has_answered = False

    def source_stops_copying(self) -> None:
        self.has_answered = self.side.xen.disk.answer()


def migrate(
    source: Side,
    destination: Side,
    *,
    link: Wrap = lambda stream: stream,
    metrics: Metrics | None = None,
) -> tuple[Ending, Ending]:
    """Migrate a guest that runs; return how it ended on both sides."""
    metrics = metrics or Metrics()
    sending = source.source(metrics)
    receiving = destination.destination(metrics)
    out, back = make_memory_pair()
    there, here = source.clock, destination.clock
    forth, answer = Channel(LINK, there, here), Channel(LINK, here, there)
    left = Party(sending.migrate(), link(out), outgoing=forth, incoming=answer)
    right = Party(receiving.load(), back, outgoing=answer, incoming=forth)
    exchange(left, right, patience=1)
    for end in (out, back):
        end.close()
    return left.result(), right.result()
