"""A finding comes again, in its shortest conversation, or it is flaky."""

from __future__ import annotations

import itertools
import mmap
from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.small_drivers import (
    Bare,
    Dies,
    Framed,
    Lossy,
    bench_for,
    small,
)
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, step, token_of
from vfiomig.conformance.effort import Effort
from vfiomig.conformance.finding import Verdict
from vfiomig.conformance.replaying import read_replay, replay
from vfiomig.conformance.shortening import DIED, Shortened, Shortener, Sought
from vfiomig.conformance.suite import run_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEW = Effort(conversations=0, accesses=100_000, data=64 << 20)
INVALID = "v1/device-state/no-invalid-state-reported"
MIGRATED = "v1/transitions/resuming-to-running"
ROUND_TRIP = scripts()[0]
LOOK = step("read_device_state", "source")


def shorten(
    make_driver: Callable[[], Bare], sought: Sought, steps: tuple[Step, ...]
) -> Shortened:
    return Shortener(bench_for(make_driver), sought).shorten(steps)


def invalid(_: Bare) -> int:
    return 5


def test_a_rule_is_shown_by_its_shortest_conversation() -> None:
    short = shorten(small(device_state=invalid), Sought(rule=INVALID), ROUND_TRIP)
    assert not short.is_flaky
    assert (short.rule, short.steps) == (INVALID, (LOOK,)) or len(short.steps) == 1
    assert short.broken is not None
    assert "small_drivers.py" in short.where or "test_shortening.py" in short.where


def test_the_history_ends_where_the_rule_breaks() -> None:
    short = shorten(small(device_state=invalid), Sought(rule=INVALID), ROUND_TRIP)
    last = short.history[-1]
    assert (last.device, getattr(last, "value", "")) == ("source", "0x5")


def test_the_same_finding_becomes_the_same_conversation() -> None:
    sought = Sought(rule=MIGRATED, is_outcome=True)
    shorts = [shorten(Lossy, sought, ROUND_TRIP) for _ in range(2)]
    assert shorts[0] == shorts[1]


def test_an_outcome_is_named_at_its_shortest_conversation() -> None:
    sought = Sought(rule="v1/saving/any", is_outcome=True)
    short = shorten(Lossy, sought, ROUND_TRIP)
    assert short.rule == MIGRATED
    assert len(short.steps) < len(ROUND_TRIP)


def test_a_death_is_sought_by_its_error() -> None:
    short = shorten(Dies, Sought(rule=DIED, error="RuntimeError: no size"), ROUND_TRIP)
    assert not short.is_flaky
    assert [each.name for each in short.steps] == ["read_data_size"] or len(
        short.steps
    ) < len(ROUND_TRIP)


def test_another_death_is_not_it() -> None:
    short = shorten(Dies, Sought(rule=DIED, error="ValueError: no"), ROUND_TRIP)
    assert short.is_flaky
    assert short.steps == ROUND_TRIP


def test_what_a_conforming_driver_shows_is_flaky() -> None:
    assert shorten(Framed, Sought(rule=INVALID), ROUND_TRIP).is_flaky


def test_a_driver_that_breaks_now_and_then_is_found_if_it_does_so_soon() -> None:
    reads = itertools.count()
    sometimes = small(device_state=lambda _: 5 if next(reads) == 20 else 1)
    short = shorten(sometimes, Sought(rule=INVALID), (LOOK,) * 12)
    assert short.is_flaky  # it came again once, and then not


def test_behind_its_budget_nothing_is_held() -> None:
    bench = bench_for(small(device_state=invalid))
    shortener = Shortener(bench, Sought(rule=INVALID))
    bench.accesses_left = 0
    assert shortener.shorten(ROUND_TRIP).is_flaky


def test_a_conversation_that_was_kept_short_can_be_shortened() -> None:
    steps = (step("keep_short"), *ROUND_TRIP)
    short = shorten(Lossy, Sought(rule=MIGRATED, is_outcome=True), steps)
    assert not short.is_flaky


# -- replay ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_driver", "sought"),
    [
        (small(device_state=invalid), Sought(rule=INVALID)),
        (Lossy, Sought(rule=MIGRATED, is_outcome=True)),
    ],
)
def test_the_token_of_a_finding_shows_it_again(
    make_driver: Callable[[], Bare], sought: Sought
) -> None:
    short = shorten(make_driver, sought, ROUND_TRIP)
    what = read_replay(token_of(short.rule, short.steps))
    *_, again = replay(make_driver, what)
    assert isinstance(again, Shortened)
    assert again == short


def test_the_token_of_a_death_shows_it_again() -> None:
    sought = Sought(rule=DIED, error="RuntimeError: no size")
    short = shorten(Dies, sought, ROUND_TRIP)
    *_, last = replay(Dies, read_replay(token_of(DIED, short.steps)))
    assert not isinstance(last, Shortened)
    assert last.died is not None
    assert last.died.error == "RuntimeError: no size"


def test_a_conforming_driver_plays_to_the_end() -> None:
    taken = list(replay(Framed, read_replay(token_of(MIGRATED, ROUND_TRIP))))
    assert [each.steps[0] for each in taken] == [*ROUND_TRIP, Step("close")]


# -- the suite -------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[mmap.mmap]:
    """Memory that all workers see."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        yield memory


@pytest.mark.slow
def test_a_flaky_driver_is_flaky_and_not_broken(shared: mmap.mmap) -> None:
    def wrong_once(driver: Bare) -> int:
        shared[0] = min(shared[0] + 1, 255)
        return 5 if shared[0] == 100 else driver.state

    outcome = run_suite(small(device_state=wrong_once), effort=FEW)
    assert outcome.findings == []
    flaky = [r.rule.id for r in outcome.results if r.verdict is Verdict.FLAKY]
    assert INVALID in flaky
    assert outcome.verdict == "held"


@pytest.mark.slow
def test_an_outcome_is_blamed_once() -> None:
    outcome = run_suite(Lossy, effort=FEW)
    assert [finding.rule.id for finding in outcome.findings] == [MIGRATED]
    consequences = [r for r in outcome.results if MIGRATED in r.reason]
    assert consequences
    for result in consequences:
        assert result.verdict is Verdict.NOT_REACHED
        assert result.reason == f"it cannot be told while {MIGRATED} is broken"
