"""Where things stand in the picture of the bytes of each round."""

from __future__ import annotations

import pytest

from tests.unit.frontends.report.sample_runs import moved
from vfiomig.frontends.report.bars import BarChart, bar_chart
from vfiomig.frontends.report.timeline import CHARACTER
from vfiomig.migration.metrics import Metrics, Round

MIB = 1 << 20


def chart_of(metrics: Metrics) -> BarChart:
    chart = bar_chart(metrics)
    assert chart is not None
    return chart


def rounds(count: int, sent: int = MIB, pending: int = MIB) -> list[Round]:
    return [
        Round(number=n, began_at=n, pending_bytes=pending, device_bytes=sent)
        for n in range(1, count + 1)
    ]


def test_heights_are_in_proportion() -> None:
    chart = chart_of(moved().metrics)
    first, second, stop = (bar.height for bar in chart.bars)
    assert first / second == pytest.approx(64 / 9, rel=0.01)
    assert stop / second == pytest.approx(2 / 9, rel=0.01)
    assert [bar.kind for bar in chart.bars] == ["round", "round", "stop-and-copy"]
    assert all(bar.y + bar.height == chart.bottom for bar in chart.bars)


def test_what_was_pending_is_a_line_at_its_height() -> None:
    chart = chart_of(moved().metrics)
    first = chart.bars[0]
    assert first.pending_y == first.y  # 64 MiB were pending, and sent
    assert chart.bars[2].pending_y is None


def test_a_claim_beyond_all_measure_leaves_the_bars_to_be_seen() -> None:
    metrics = Metrics(rounds=rounds(3, sent=MIB, pending=2**64 - 1))
    chart = chart_of(metrics)
    assert chart.is_clipped
    assert all(bar.height > 15 for bar in chart.bars)
    assert all(bar.pending_y == chart.top for bar in chart.bars)


def test_where_nothing_was_sent_there_is_no_picture() -> None:
    assert bar_chart(Metrics()) is None
    assert bar_chart(Metrics(rounds=rounds(2, sent=0, pending=0))) is None


@pytest.mark.parametrize("count", [1, 5, 30, 200, 3000])
def test_bars_and_their_numbers_stand_side_by_side(count: int) -> None:
    chart = chart_of(Metrics(rounds=rounds(count), stopped_at=1))
    ends = [bar.x + bar.width for bar in chart.bars]
    assert all(bar.x >= end for end, bar in zip(ends, chart.bars[1:], strict=False))
    assert ends[-1] <= chart.right
    widths = [len(number.label) * CHARACTER for number in chart.numbers]
    places = [number.x for number in chart.numbers]
    assert places
    assert all(
        b - a > width
        for a, b, width in zip(places, places[1:], widths[1:], strict=False)
    )


def test_labels_are_left_out_where_they_would_touch() -> None:
    assert all(bar.label for bar in chart_of(moved().metrics).bars)
    assert not any(bar.label for bar in chart_of(Metrics(rounds=rounds(20))).bars)
