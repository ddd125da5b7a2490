"""QEMU's windows of 100 ms, by figures reckoned by hand (migration.c of 7.2)."""

from __future__ import annotations

import pytest

from vfiomig.migration.clock import LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate
from vfiomig.migration.loop_rules import LOOP_RULES
from vfiomig.migration.metrics import Metrics
from vfiomig.migration.pace import QemuPace, Unpaced
from vfiomig.migration.parameters import Parameters

MS = 1_000_000
FAST = 1 << 40  # bytes a second


class Window:
    """A pace with its clock and the bytes that were sent."""

    def __init__(self, bandwidth: int = FAST, **parameters: object) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics()
        self.pace = QemuPace(
            clock=self.clock,
            metrics=self.metrics,
            link=LinkModel(bandwidth, 0),
            parameters=Parameters(**parameters),  # type: ignore[arg-type]
        )

    def send(self, size: int, takes: int = 0) -> None:
        self.metrics.stream_bytes += size
        self.clock.advance(takes)


def test_a_tenth_of_max_bandwidth_goes_through_a_window() -> None:
    window = Window()  # 128 MiB a second: 13,421,772 bytes in 100 ms
    window.send(13_421_772)
    assert not window.pace.is_exceeded()  # used up: qemu_file_rate_limit asks for more
    window.send(1)
    assert window.pace.is_exceeded()


def test_zero_is_no_limit() -> None:
    window = Window(max_bandwidth=0)
    window.send(1 << 50)
    assert not window.pace.is_exceeded()


def test_who_used_it_up_waits_for_the_end_of_the_window() -> None:
    window = Window(max_bandwidth=10_000_000)
    window.send(1_000_001, takes=40 * MS)
    window.pace.wait()
    assert window.clock.now == 100 * MS
    assert not window.pace.is_exceeded()
    window.send(1_000_000)
    assert not window.pace.is_exceeded()


def test_who_did_not_goes_on_at_once() -> None:
    window = Window(max_bandwidth=10_000_000)
    window.send(900_000, takes=40 * MS)
    window.pace.wait()
    assert window.clock.now == 40 * MS
    assert window.pace.threshold == 0  # the first window is not over
    window.send(100_001)
    assert window.pace.is_exceeded()  # it is the same window


def test_the_threshold_is_the_bandwidth_measured_times_the_downtime_limit() -> None:
    window = Window(downtime_limit=300 * MS)
    window.send(10_000_000, takes=100 * MS)  # 100,000 bytes a ms
    window.pace.wait()
    assert window.pace.threshold == 30_000_000
    assert window.metrics.measured_bandwidth == 100_000_000
    window.send(1_000_000, takes=200 * MS)  # 5,000 bytes a ms, over a long window
    window.pace.wait()
    assert window.pace.threshold == 1_500_000


def test_a_given_bandwidth_counts_instead() -> None:
    window = Window(downtime_limit=100 * MS, avail_switchover_bandwidth=50_000_000)
    window.send(10, takes=100 * MS)
    window.pace.wait()
    assert window.pace.threshold == 5_000_000


def test_room_is_the_rest_of_the_budget() -> None:
    window = Window(max_bandwidth=10_000_000)
    assert window.pace.room() == 1_000_000
    window.send(999_999)
    assert window.pace.room() == 1
    window.send(1000)
    assert window.pace.room() == 1


def test_room_is_no_more_than_50_ms_of_the_link() -> None:
    window = Window(bandwidth=1_000_000, max_bandwidth=1 << 40)
    assert window.pace.room() == 50_000
    assert Window(bandwidth=1, max_bandwidth=0).pace.room() == 1


def test_qemu_goes_over_below_the_threshold_and_since_11_1_at_it() -> None:
    limit = 300 * MS
    for version, at_it in (("7.2", False), ("10.0", False), ("11.1", True)):
        window = Window(downtime_limit=limit, rules=LOOP_RULES[version])
        window.send(10_000_000, takes=100 * MS)
        window.pace.wait()
        expected = window.pace.expected
        assert expected(29_999_999) <= limit
        assert (expected(30_000_000) <= limit) is at_it
        assert expected(30_000_001) > limit


@pytest.mark.parametrize("pending", [1, 1 << 40])
def test_before_the_first_window_is_over_nothing_can_be_moved(pending: int) -> None:
    assert Window().pace.expected(pending) > 1 << 60
    assert Window().pace.expected(0) == 0


def test_devices_alone_have_no_windows() -> None:
    estimate = DowntimeEstimate(link=LinkModel(1_000_000, 5))
    pace = Unpaced(estimate)
    pace.wait()
    assert not pace.is_exceeded()
    assert pace.expected(1000) == 1_000_005
    assert pace.room() > 1 << 60
