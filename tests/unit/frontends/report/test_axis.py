"""Ticks are even, few, and told apart by their labels."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.frontends.report.axis import byte_ticks, time_ticks

MS = 10**6


@pytest.mark.parametrize(
    ("begin", "end", "origin", "labels"),
    [
        (
            0,
            300_000,
            0,
            ["0", "50 us", "100 us", "150 us", "200 us", "250 us", "300 us"],
        ),
        (0, 800 * MS, 0, [f"{n}00 ms" if n else "0" for n in range(9)]),
        (0, 1200 * MS, 0, ["0", *(f"{n / 10:.1f} s" for n in range(2, 13, 2))]),
        (1190 * MS, 1210 * MS, 1200 * MS, ["-10 ms", "-5 ms", "0", "5 ms", "10 ms"]),
        (0, 1, 0, ["0", "1 ns"]),
    ],
)
def test_times_are_labelled_in_one_unit(
    begin: int, end: int, origin: int, labels: list[str]
) -> None:
    assert [tick.label for tick in time_ticks(begin, end, origin=origin)] == labels


@given(st.integers(0, 10**20), st.integers(1, 10**20), st.floats(0, 1))
def test_time_ticks_are_inside_even_and_differ(
    begin: int, length: int, part: float
) -> None:
    end, origin = begin + length, begin + int(length * part)
    ticks = time_ticks(begin, min(end, 2 * 10**20), origin=min(origin, end))
    values = [tick.value for tick in ticks]
    assert all(begin <= value <= end for value in values)
    assert len({b - a for a, b in itertools.pairwise(values)}) <= 1
    assert 1 <= len(ticks) <= 10
    assert len({tick.label for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (1, ["0", "1 B"]),
        (1000, ["0", "500 B", "1000 B"]),
        (64 << 20, ["0", "20 MiB", "40 MiB", "60 MiB", "80 MiB"]),
    ],
)
def test_bytes_are_labelled_in_one_unit(highest: int, labels: list[str]) -> None:
    assert [tick.label for tick in byte_ticks(highest)] == labels


@given(st.integers(1, 1 << 64))
def test_byte_ticks_reach_the_highest_and_hardly_further(highest: int) -> None:
    ticks = byte_ticks(highest)
    assert ticks[0].value == 0
    assert ticks[-2].value < highest <= ticks[-1].value
    assert len(ticks) <= 6
