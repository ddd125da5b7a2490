"""Bytes and times as a person reads them."""

from __future__ import annotations

import pytest

from vfiomig.frontends.report.units import bytes_text, rate_text, time_text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 s"),
        (1, "1 ns"),
        (999, "999 ns"),
        (1_000, "1 us"),
        (12_345, "12.35 us"),
        (300_000_000, "300 ms"),
        (299_960_000, "300 ms"),
        (299_900_000, "299.9 ms"),
        (1_500_000_000, "1.5 s"),
        (34_620_000_000, "34.62 s"),
        (86_400_000_000_000, "86400 s"),
        (-5_000_000, "-5 ms"),
    ],
)
def test_a_time_has_four_digits_and_a_unit(nanoseconds: int, text: str) -> None:
    assert time_text(nanoseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        ((64 << 20) + 4096, "64 MiB"),
        (3 << 40, "3 TiB"),
        (1 << 63, "8388608 TiB"),
    ],
)
def test_bytes_are_in_powers_of_1024(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_a_rate_is_bytes_a_second() -> None:
    assert rate_text(128 << 20) == "128 MiB/s"
