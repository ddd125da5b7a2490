"""Devices that change by themselves: looked for once a driver, and never accused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.small_drivers import (
    STOP_AND_COPY,
    Bare,
    Framed,
    Ticks,
    TicksOnceUsed,
    bench_for,
    origins_broken,
    small,
)
from vfiomig.conformance.conversation.device import DeviceUnderTest
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, step
from vfiomig.conformance.conversation.ticking import Ticking

if TYPE_CHECKING:
    from vfiomig.protocol.history import Record

MILLISECOND = 1_000_000  # ns
SEEN, RESET = step("read_device_state", "source"), step("reset", "source")
WORK, STOPPED = step("work", "source", 1), step("enter", "source", STOP_AND_COPY)


class Looked(DeviceUnderTest):
    """A device that counts how often it was looked at."""

    looks = 0

    def __init__(self, driver: Bare) -> None:
        super().__init__("source", driver, self.note, lambda *_: None)

    def note(self, _: Record) -> None:
        self.looks += 1


# -- what is known ---------------------------------------------------------------------


def test_a_device_that_stands_still_is_not_seen_to_tick() -> None:
    device = Looked(Framed())
    assert not Ticking().is_seen(device, device.snapshot())


@pytest.mark.parametrize("resolution", [1, MILLISECOND, 10 * MILLISECOND])
def test_a_clock_is_seen_up_to_a_tick_of_10_ms(resolution: int) -> None:
    device = Looked(small(Ticks, RESOLUTION=resolution)())
    assert Ticking().is_seen(device, device.snapshot())


def test_a_stopped_clock_does_not_tick() -> None:
    driver = Ticks()
    driver.write_device_state(STOP_AND_COPY)
    device = Looked(driver)
    assert not Ticking().is_seen(device, device.snapshot())


def test_a_change_is_enough_and_nobody_waits_for_another() -> None:
    device = Looked(Framed())
    assert Ticking().is_seen(device, "what it was before")
    assert device.looks == 1


def test_what_ticks_is_looked_for_in_one_device_of_a_driver() -> None:
    ticking = Ticking()
    ticks, other = Looked(Ticks()), Looked(Ticks())
    assert ticking.is_seen(ticks, ticks.snapshot())
    assert ticking.is_seen(other, None)
    assert other.looks == 0


def test_what_stood_still_once_is_looked_at_and_not_waited_for() -> None:
    ticking = Ticking()
    first, second = Looked(Framed()), Looked(Framed())
    assert not ticking.is_seen(first, first.snapshot())
    before, looks = second.snapshot(), second.looks
    assert not ticking.is_seen(second, before)
    assert second.looks == looks + 1
    second.work(1)
    assert ticking.is_seen(second, before)


# -- who is not accused ----------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        (SEEN, WORK, RESET, WORK, RESET),
        (SEEN, STOPPED, RESET),
        (SEEN, step("reopen", "source"), step("reopen", "source")),
    ],
    ids=["running", "stopped", "closed"],
)
def test_a_clock_that_stood_still_in_fresh_devices_alone_is_not_accused(
    steps: tuple[Step, ...],
) -> None:
    assert origins_broken(TicksOnceUsed, *steps) == set()


@pytest.mark.parametrize("resolution", [1, MILLISECOND])
def test_a_clock_that_runs_on_behind_a_migration_is_not_accused(
    resolution: int,
) -> None:
    ticks = small(Ticks, RESOLUTION=resolution)
    assert origins_broken(ticks, *scripts()[0], SEEN) == set()


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [MILLISECOND // 10, MILLISECOND])
def test_a_clock_that_ticks_rarely_is_accused_in_no_script(resolution: int) -> None:
    bench = bench_for(small(Ticks, RESOLUTION=resolution))
    assert {rule for steps in scripts() for rule in bench.hold(steps).broken} == set()
