"""Bytes and virtual times as a person reads them: four digits and a unit."""

from __future__ import annotations

from typing import Final

TIME_UNITS: Final = (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))
BYTE_UNITS: Final = (
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
)
_DIGITS: Final = 4


def time_text(nanoseconds: int) -> str:
    """Return ``12.34 ms``: the largest unit of which it is at least one."""
    return _in_units(nanoseconds, TIME_UNITS, nothing="0 s")


def bytes_text(count: int) -> str:
    """Return ``64 MiB``; units are powers of 1024."""
    return _in_units(count, BYTE_UNITS, nothing="0 B")


def rate_text(bytes_per_second: int) -> str:
    """Return ``128 MiB/s``."""
    return f"{bytes_text(bytes_per_second)}/s"


def unit_of(value: int, units: tuple[tuple[str, int], ...]) -> tuple[str, int]:
    """Return the largest unit that is not larger than ``value``, else the smallest."""
    return next((unit for unit in units if unit[1] <= abs(value)), units[-1])


def _in_units(value: int, units: tuple[tuple[str, int], ...], *, nothing: str) -> str:
    if value == 0:
        return nothing
    name, unit = unit_of(value, units)
    decimals = max(0, _DIGITS - len(str(abs(value) // unit)))
    number = f"{value / unit:.{decimals}f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {name}"
