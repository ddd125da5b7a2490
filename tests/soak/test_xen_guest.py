"""A million events of a Xen guest cross a whole migration: none is lost or doubled."""

from __future__ import annotations

from typing import Final

import pytest

from tests.unit.migration.xen_migration import LastAnswer, Side, migrate
from vfiomig.migration.metrics import Outcome
from vfiomig.vm.xen.guest import XenPlan
from vfiomig.vm.xen.shared_info import LAYOUTS

EVENTS: Final = 1_000_000
SECOND: Final = 1_000_000_000
STEP: Final = 10_000_000


def run_until_sent(side: Side, events: int) -> None:
    """Run a guest until its host has sent so many more."""
    wanted = side.xen.host.ports.sent + events
    while side.xen.host.ports.sent < wanted:
        assert side.clock.now < 60 * SECOND, "the disk has stopped"
        side.clock.now += STEP
        side.machine.run_until(side.clock.now)


@pytest.mark.parametrize("bits", LAYOUTS)
def test_a_million_events_of_a_guest_cross_a_migration(
    bits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced_at = tuple(range(SECOND // 7, 20 * SECOND, SECOND // 7))
    plan = XenPlan(
        bits=bits,
        vcpus=2,
        requests=100_000,
        renegotiates=SECOND,
        replaced_at=replaced_at,
        nodes=100,
        watches=20,
        transactions=3,
    )
    with Side(plan) as source, Side(plan) as destination:
        source.boot(ran=0)
        run_until_sent(source, EVENTS // 2)
        source.observer = last = LastAnswer(source)
        endings = migrate(source, destination)
        assert [each.outcome for each in endings] == [Outcome.COMPLETED] * 2
        run_until_sent(destination, EVENTS // 2)
        destination.xen.settle(destination.clock.now)
        there, here = (side.xen.host.ports for side in (source, destination))
        own = destination.xen.front.registers
        at_source = source.xen.front.registers.handled
        with capsys.disabled():
            print(  # noqa: T201 -- a soak says what it soaked
                f"\n{bits} bits: {there.sent} events sent at the source, {here.sent} at"
                f" the destination; {at_source} and {own.handled - at_source} handled"
                f" there, in {own.connections} connections"
            )
        assert there.sent - at_source == last.has_answered
        assert there.sent + here.sent >= EVENTS
        assert own.handled == there.sent + here.sent
        assert (own.error, own.unknown, destination.xen.front.stuck) == (0, 0, 0)
