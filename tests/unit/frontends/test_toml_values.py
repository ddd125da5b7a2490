"""One key's value at a time: what it may be, and what is said of what it may not."""

from __future__ import annotations

import datetime
import errno
import re

import pytest

from vfiomig.frontends.toml_values import (
    HIGHEST,
    Parser,
    duration,
    errno_code,
    one_of,
    shown,
    size,
    text,
    whole,
)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("64K", 64 * 1024),
        ("16M", 16 * 1024**2),
        ("1G", 1024**3),
        ("2T", 2 * 1024**4),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_a_size_is_a_number_or_has_a_unit(value: object, count: int) -> None:
    assert size(0)(value) == count


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("100us", 100_000),
        ("300ms", 300_000_000),
        ("1.5s", 1_500_000_000),
        ("0.000000001s", 1),
    ],
)
def test_a_time_has_a_unit(value: object, nanoseconds: int) -> None:
    assert duration(value) == nanoseconds


@pytest.mark.parametrize(
    ("value", "code"),
    [("EIO", 5), (5, 5), ("EWOULDBLOCK", errno.EAGAIN), ("ENOTSUP", 95)],
)
def test_an_errno_is_a_name_or_a_number(value: object, code: int) -> None:
    assert errno_code(value) == code


@pytest.mark.parametrize(
    ("parse", "value", "reason"),
    [
        (whole(0), "fast", 'must be a whole number, not "fast"'),
        (whole(0), True, "must be a whole number, not true"),
        (whole(0), 1.0, "must be a whole number, not 1.0"),
        (whole(0), float("nan"), "must be a whole number, not nan"),
        (whole(0), -1, "must be at least 0, not -1"),
        (whole(0, 7), 8, "must be at most 7, not 8"),
        (whole(0), 2**63, "must be at most 2^63 - 1, not 9223372036854775808"),
        # tomllib reads a hexadecimal number of any length; str() would refuse it.
        pytest.param(
            whole(0), 10**5000, "not a number of more than 30 digits", id="huge"
        ),
        (size(1), 0, "must be at least 1, not 0"),
        (size(1), "0K", 'must be at least 1, not "0K"'),
        (size(0), "8388608T", 'must be at most 2^63 - 1, not "8388608T"'),
        (size(0), "16MB", 'must be a size such as "16M" or 4096, not "16MB"'),
        (size(0), "٣", 'must be a size such as "16M" or 4096, not "٣"'),
        (size(0), "9" * 5000, "must be a size"),
        (size(0), False, "must be a size"),
        (duration, 100, 'must be a time such as "100us" or "1.5s", not 100'),
        (duration, "100", "must be a time"),
        (duration, "-1s", "must be a time"),
        (duration, "nans", "must be a time"),
        (duration, "1.5ns", 'must be whole nanoseconds, not "1.5ns"'),
        (duration, "9999999999s", "must be at most 2^63 - 1"),
        (one_of("fail", "go"), "fial", 'must be one of "fail", "go", not "fial"; did'),
        (one_of("fail"), ["fail"], 'must be one of "fail", not a list'),
        (errno_code, "ENOSP", 'not "ENOSP"; did you mean "ENOSPC"?'),
        (errno_code, 0, "must be an errno"),
        (errno_code, 100_000, "must be an errno"),
        (errno_code, True, "must be an errno"),
        (errno_code, 5.0, "must be an errno"),
        (errno_code, {"a": 1}, "not a table"),
        (text("a+", "some a"), "b", 'must be some a, not "b"'),
        (text("a+", "some a"), "a\n", r'must be some a, not "a\n"'),
        (text("a+", "some a"), 1, "must be some a, not 1"),
    ],
)
def test_any_other_value_is_refused(parse: Parser, value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(value)


@pytest.mark.parametrize("limit", [0, HIGHEST])
def test_bounds_are_included(limit: int) -> None:
    assert whole(0)(limit) == limit


def test_a_value_is_shown_short_and_on_one_line() -> None:
    assert shown("x\n" * 1000).startswith('"x\\nx\\n')
    assert len(shown("x" * 1000)) < 70
    assert shown(datetime.date(2026, 1, 2)) == "2026-01-02"
    assert shown(datetime.time(7, 32)) == "07:32:00"
