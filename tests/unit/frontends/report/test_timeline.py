"""Where things stand in the picture of a run."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.frontends.report.sample_runs import device, failed, moved
from vfiomig.frontends.report.timeline import (
    CHARACTER,
    Lane,
    Timeline,
    switch_over_timeline,
    whole_timeline,
)
from vfiomig.migration.metrics import StateChange

MS = 10**6


def lane(timeline: Timeline, title: str) -> Lane:
    return next(lane for lane in timeline.lanes if lane.title == title)


def test_every_device_has_a_lane_at_each_party() -> None:
    titles = [lane.title for lane in whole_timeline(moved()).lanes]
    assert titles == [
        "",  # of the rounds
        "source gpu0",
        "source port",
        "destination gpu0",
        "destination port",
    ]


def test_a_lane_goes_from_state_to_state_without_a_gap() -> None:
    timeline = whole_timeline(moved())
    segments = lane(timeline, "source gpu0").segments
    states = ["running", "pre_copy", "stop_and_copy", "stop"]
    assert [segment.kind for segment in segments] == states
    assert segments[0].x == timeline.left
    last = segments[-1]
    assert last.x + last.width == pytest.approx(timeline.right, abs=0.1)
    # What is too short to be seen is drawn wider: 1.5 pixels at the least.
    for one, next_one in itertools.pairwise(segments[1:]):
        assert one.x + one.width == pytest.approx(next_one.x, abs=1.5)


def test_a_destination_has_no_state_before_its_first() -> None:
    report = moved()
    report.metrics.state_changes = [
        StateChange(
            at=292 * MS, party="destination", device="gpu0", device_state="RESUMING"
        )
    ]
    timeline = whole_timeline(report)
    (segment,) = lane(timeline, "destination gpu0").segments
    middle = timeline.left + (timeline.right - timeline.left) * 292 / 608.4
    assert segment.x == pytest.approx(middle, abs=0.5)


def test_states_are_drawn_in_the_order_of_their_time() -> None:
    report = moved()
    report.metrics.state_changes.reverse()
    kinds = [one.kind for one in lane(whole_timeline(report), "source gpu0").segments]
    assert kinds == ["running", "pre_copy", "stop_and_copy", "stop"]


def test_a_value_that_is_no_state_has_a_colour_of_its_own() -> None:
    report = moved()
    change = StateChange(at=0, party="source", device="gpu0", device_state="101b")
    report.metrics.state_changes = [change]
    timeline = whole_timeline(report)
    (_, segment) = lane(timeline, "source gpu0").segments
    assert (segment.kind, segment.label) == ("invalid", "101b")
    assert timeline.legend == {"running": "RUNNING", "invalid": "invalid"}


def test_a_label_is_drawn_only_where_it_fits() -> None:
    for report in (moved(), failed()):
        for timeline in (whole_timeline(report), switch_over_timeline(report)):
            assert timeline is not None
            for one in timeline.lanes:
                for segment in one.segments:
                    assert len(segment.label) * CHARACTER <= segment.width
                    assert segment.title


def test_downtime_is_a_band_from_stop_to_resume() -> None:
    timeline = whole_timeline(moved())
    assert timeline.band is not None
    assert timeline.band.label == "downtime 20 ms"
    end = 585 * 26 / 25  # the aftermath is one part in 25
    pixel = (timeline.right - timeline.left) / end
    assert timeline.band.x == pytest.approx(timeline.left + 564 * pixel, abs=0.1)
    assert timeline.band.width == pytest.approx(20 * pixel, abs=0.1)


def test_the_label_of_a_band_stays_inside() -> None:
    timeline = whole_timeline(moved())
    assert timeline.band is not None
    half = len(timeline.band.label) * CHARACTER / 2
    assert timeline.left <= timeline.band.text_x - half
    assert timeline.band.text_x + half <= timeline.width


def test_a_source_that_goes_on_was_stopped_until_then() -> None:
    band = whole_timeline(failed()).band
    assert band is not None
    assert band.label == "stopped for 10 ms"


def test_a_source_that_never_goes_on_is_stopped_for_good() -> None:
    report = failed()
    report.metrics.state_changes.clear()
    band = whole_timeline(report).band
    assert band is not None
    assert band.label == "stopped for good"


def test_a_source_that_never_stopped_has_no_band() -> None:
    report = failed()
    report.metrics.stopped_at = None
    assert whole_timeline(report).band is None
    assert switch_over_timeline(report) is None


def test_the_switch_over_is_drawn_larger_when_it_is_narrow() -> None:
    larger = switch_over_timeline(moved())
    assert larger is not None
    assert larger.band is not None
    assert larger.band.width > (larger.right - larger.left) / 2
    assert "0" in [tick.label for tick in larger.ticks]
    wide = moved()
    wide.metrics.stopped_at = 300 * MS
    assert switch_over_timeline(wide) is None


def test_a_long_name_is_shortened_and_told_in_full() -> None:
    timeline = whole_timeline(moved(device("a-very-long-name-indeed-07")))
    one = lane(timeline, "source a-very-long-name-indeed-07")
    assert one.label == "a-very-lo…indeed-07"
