"""auto-converge, by figures reckoned by hand from migration/ram.c of QEMU 7.2."""

from __future__ import annotations

from vfiomig.migration.parameters import Parameters
from vfiomig.migration.throttle import AutoConverge

SECOND = 1_000_000_000
MOMENT = SECOND + 1  # later than this after the last look it looks again


class Watched:
    """An `AutoConverge`, and what it asked for."""

    def __init__(self, **parameters: object) -> None:
        known = Parameters(auto_converge=True, **parameters)  # type: ignore[arg-type]
        self.asked: list[int] = []
        self.converge = AutoConverge(known, self.asked.append)
        self._now = self._sent = 0
        self.converge.look(now=0, dirty_bytes=0, sent_bytes=0)

    def period(self, dirty: int, sent: int, length: int = MOMENT) -> None:
        """Let a period pass in which so many bytes became dirty and were sent."""
        self._now += length
        self._sent += sent
        self.converge.look(now=self._now, dirty_bytes=dirty, sent_bytes=self._sent)


def test_the_guest_is_slowed_down_in_the_second_bad_period() -> None:
    watched = Watched()
    watched.period(51, 100)
    assert watched.asked == []
    watched.period(51, 100)
    assert watched.asked == [20]
    watched.period(51, 100)
    assert watched.asked == [20]  # the count begins anew
    watched.period(51, 100)
    assert watched.asked == [20, 30]


def test_exactly_the_threshold_is_not_too_much() -> None:
    watched = Watched()
    for _ in range(5):
        watched.period(50, 100)  # 50 percent of 100
    assert watched.asked == []


def test_a_good_period_between_two_bad_ones_forgets_nothing() -> None:
    watched = Watched()
    watched.period(51, 100)
    watched.period(0, 100)
    watched.period(51, 100)
    assert watched.asked == [20]


def test_the_trigger_is_a_parameter() -> None:
    watched = Watched(throttle_trigger_threshold=80)
    for dirty in (80, 80, 81, 81):
        watched.period(dirty, 100)
    assert watched.asked == [20]


def test_it_looks_at_most_once_a_second_and_adds_up_until_then() -> None:
    watched = Watched()
    for _ in range(2):
        watched.period(30, 50, SECOND // 2)
        watched.period(30, 50, SECOND // 2)  # a second, and not more: it waits on
        watched.period(30, 50, 1)  # 90 of 150: more than half
    assert watched.asked == [20]


def test_it_goes_up_to_the_most_and_no_further() -> None:
    watched = Watched(
        cpu_throttle_initial=40, cpu_throttle_increment=25, max_cpu_throttle=80
    )
    for _ in range(10):
        watched.period(100, 100)
    assert watched.asked == [40, 65, 80, 80, 80]


def test_tailslow_takes_no_more_than_would_just_do() -> None:
    watched = Watched(cpu_throttle_tailslow=True)
    watched.period(100, 100)
    watched.period(100, 100)
    # 80 percent are left; 50 of 100 bytes may be dirty: 40 would do, the step is 10.
    watched.period(100, 100)
    watched.period(100, 100)
    # 70 are left; 95 of 100 may: 66.5 would do, which C cuts to 66: a step of 4.
    watched.period(100, 190)
    watched.period(100, 190)
    assert watched.asked == [20, 30, 34]


def test_without_the_capability_nothing_is_asked_for() -> None:
    asked: list[int] = []
    converge = AutoConverge(Parameters(), asked.append)
    for second in range(10):
        converge.look(now=second * MOMENT, dirty_bytes=1 << 30, sent_bytes=0)
    assert asked == []
