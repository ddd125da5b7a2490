"""The minimiser: never a costlier conversation, always the same, in so many tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vfiomig.conformance.conversation.minimise import TRIES_LIMIT, minimise
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, step

Steps = tuple[Step, ...]

PRICES = {"enter": 2, "request": 1, "drain": 40, "iterate": 9, "load": 5, "work": 0}

KEPT_SHORT = step("keep_short")
SCRIPTS = st.sampled_from(scripts()).map(lambda steps: steps[:25])
WITH_A_BUDGET_SPENT = SCRIPTS.map(lambda steps: (KEPT_SHORT, *steps))
CONVERSATIONS = st.one_of(SCRIPTS, WITH_A_BUDGET_SPENT)


def price(steps: Steps) -> int:
    """Return what steps cost: a price for each name."""
    return sum(PRICES.get(each.name, 1) for each in steps)


class Cost:
    """A conversation breaks a rule where it has these names, in this order."""

    def __init__(self, *needed: str) -> None:
        self.needed = needed
        self.asked: list[Steps] = []

    def __call__(self, steps: Steps) -> int | None:
        self.asked.append(steps)
        names = iter(each.name for each in steps)
        return price(steps) if all(name in names for name in self.needed) else None


@st.composite
def sought(draw: st.DrawFn) -> tuple[Steps, tuple[str, ...]]:
    """Draw a conversation, and the names in it that break a rule."""
    steps = draw(CONVERSATIONS)
    places = draw(st.sets(st.integers(0, len(steps) - 1), max_size=3))
    return steps, tuple(steps[place].name for place in sorted(places))


@given(sought())
def test_what_it_returns_costs_no_more_and_still_breaks(
    found: tuple[Steps, tuple[str, ...]],
) -> None:
    steps, needed = found
    short = minimise(steps, Cost(*needed))
    cost = Cost(*needed)(short)
    assert cost is not None
    assert cost <= price(steps)


@given(sought())
def test_it_knows_no_chance(found: tuple[Steps, tuple[str, ...]]) -> None:
    steps, needed = found
    first, second = Cost(*needed), Cost(*needed)
    assert minimise(steps, first) == minimise(steps, second)
    assert first.asked == second.asked


@given(sought(), st.integers(1, 60))
def test_it_asks_so_often_at_most_and_nothing_twice(
    found: tuple[Steps, tuple[str, ...]], tries: int
) -> None:
    steps, needed = found
    cost = Cost(*needed)
    short = minimise(steps, cost, tries=tries)
    assert len(cost.asked) <= tries
    assert len(set(cost.asked)) == len(cost.asked)
    assert cost.asked[0] == steps
    assert short in cost.asked


@given(CONVERSATIONS)
def test_what_never_comes_again_stays_as_it_is(steps: Steps) -> None:
    cost = Cost("no such step")
    assert minimise(steps, cost) == steps
    assert cost.asked == [steps]


def test_the_limit_is_in_conversations() -> None:
    cost = Cost("reset")
    steps = (step("snapshot", "source"),) * 300 + (step("reset", "source"),)
    minimise(steps, cost)
    assert len(cost.asked) <= TRIES_LIMIT


def test_what_is_not_needed_goes() -> None:
    steps = (
        step("work", "source", 40),
        step("enter", "source", 2),
        step("drain", "source"),
        step("reset", "source"),
        step("snapshot", "source"),
    )
    assert minimise(steps, Cost("reset")) == (step("reset", "source"),)


def test_a_stretch_becomes_the_accesses_that_it_is_made_of() -> None:
    cost = Cost("read_data_size")

    def whole_or_part(steps: Steps) -> int | None:
        """A drain reads data_size, too."""
        names = {each.name for each in steps}
        return price(steps) if names & {"drain", "iterate", "read_data_size"} else None

    assert cost((step("drain", "source"),)) is None
    short = minimise((step("drain", "source", "odd"),), whole_or_part)
    assert short == (step("read_data_size", "source"),)


def test_arguments_become_the_simplest() -> None:
    short = minimise((step("work", "source", 40),), Cost("work"))
    assert short == (step("work", "source", 1),)
    short = minimise((step("load", "third", "sevens"),), Cost("load"))
    assert short == (step("load", "third", "whole"),)


def test_a_simpler_step_that_breaks_nothing_is_not_taken() -> None:
    def only_odd(steps: Steps) -> int | None:
        return 1 if any("odd" in each.arguments for each in steps) else None

    steps = (step("read_data", "source", "odd"),)
    assert minimise(steps, only_odd) == steps


def test_a_conversation_of_one_step_without_arguments_has_nothing_simpler() -> None:
    assert minimise((Step("keep_short"),), Cost("keep_short")) == (KEPT_SHORT,)
