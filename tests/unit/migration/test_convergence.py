"""When pre-copy has gone far enough."""

from __future__ import annotations

import pytest

from vfiomig.migration.clock import SECOND, LinkModel
from vfiomig.migration.convergence import (
    DEFAULT_DOWNTIME_LIMIT,
    DEFAULT_ROUNDS_LIMIT,
    Decision,
    DowntimeEstimate,
    Limits,
    Look,
)

MS = 10**6
LINK = LinkModel(bandwidth=10**9, latency=5 * MS)  # a byte a nanosecond


def look(
    *,
    now: int = 0,
    pending: int = 1,
    expected: int = 0,
    begun: int = 1,
    ended: int | None = None,
) -> Look:
    return Look(
        now=now,
        pending=pending,
        expected=expected,
        rounds_begun=begun,
        rounds_ended=begun if ended is None else ended,
    )


# -- the estimate ---------------------------------------------------------------------


def test_the_downtime_is_the_link_and_the_latency() -> None:
    assert DowntimeEstimate(link=LINK).of(3 * MS) == 3 * MS + 5 * MS


def test_what_the_destination_needs_to_take_the_data_counts() -> None:
    slow = DowntimeEstimate(link=LINK, load_bandwidth=10**8)
    assert slow.of(3 * MS) == 3 * MS + 5 * MS + 30 * MS


def test_nothing_pending_still_takes_the_latency() -> None:
    assert DowntimeEstimate(link=LINK, load_bandwidth=1).of(0) == 5 * MS


# -- the decision ---------------------------------------------------------------------


def test_the_limit_is_qemus() -> None:
    assert Limits().downtime == DEFAULT_DOWNTIME_LIMIT == 300 * MS
    assert Limits().rounds == DEFAULT_ROUNDS_LIMIT
    assert SECOND == 1000 * MS


def test_nothing_pending_goes_over_at_once() -> None:
    limits = Limits(downtime=0, rounds=1)
    for seen in (look(pending=0, begun=0), look(pending=0, expected=10**12, begun=9)):
        assert limits.decide(seen) is Decision.SWITCH_OVER


def test_anything_pending_is_iterated_once_however_little_it_is() -> None:
    # QEMU's bandwidth is 0 until it has measured one.
    assert Limits().decide(look(begun=0)) is Decision.ITERATE


@pytest.mark.parametrize(
    ("expected", "decision"),
    [
        (0, Decision.SWITCH_OVER),
        (300 * MS, Decision.SWITCH_OVER),
        (300 * MS + 1, Decision.ITERATE),
    ],
)
def test_it_goes_over_within_the_downtime_limit(
    expected: int, decision: Decision
) -> None:
    assert Limits().decide(look(expected=expected)) is decision


def test_it_goes_over_in_the_middle_of_a_round() -> None:
    assert Limits().decide(look(begun=1, ended=0)) is Decision.SWITCH_OVER


@pytest.mark.parametrize(
    ("switches_anyway", "decision"),
    [(False, Decision.GIVE_UP), (True, Decision.SWITCH_OVER)],
)
def test_after_the_last_round_it_gives_up_or_goes_over_all_the_same(
    switches_anyway: bool, decision: Decision
) -> None:
    limits = Limits(downtime=1, rounds=3, switches_anyway=switches_anyway)
    unfinished = look(expected=2, begun=3, ended=2)
    assert limits.decide(unfinished) is Decision.ITERATE
    assert limits.decide(look(expected=2, begun=3)) is decision
    assert limits.decide(look(expected=1, begun=3)) is Decision.SWITCH_OVER


def test_a_person_who_gives_up_comes_first() -> None:
    limits = Limits(cancel_at=100)
    assert limits.decide(look(now=99, pending=0)) is Decision.SWITCH_OVER
    assert limits.decide(look(now=100, pending=0)) is Decision.CANCEL
    assert limits.decide(look(now=101, expected=0)) is Decision.CANCEL
    assert Limits(cancel_at=0).decide(look(begun=0)) is Decision.CANCEL
