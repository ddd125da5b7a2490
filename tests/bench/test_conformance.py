"""The suite on the reference driver: against Hypothesis, itself, and other drivers.

Only generated conversations are compared with Hypothesis: scripts have no counterpart
there.  Everything is held in this process, without workers, but for whole efforts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import seed
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from tests.bench.figures import best_of, show, timed
from vfiomig.conformance.campaign import Plan
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.conversation.machine import settings_for
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.holding import Bench, Generated, Held
from vfiomig.conformance.museum import Tried, exhibits_named, totals_of, try_all
from vfiomig.conformance.processes import processes
from vfiomig.conformance.suite import run_suite
from vfiomig.conformance.target import load_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.judge import Bound

    Steps = tuple[Step, ...]

CONVERSATIONS: Final = 20
SEED: Final = 1
UNLIMITED: Final = 1 << 40
BATCH: Final = 10  # conversations

# One of each section of the catalogue that a driver can break, and one more of saving.
MUTANTS: Final = (
    "OffsetWanders",
    "ShrinkingBuffer",
    "InvalidStatesAccepted",
    "GrowingRegion",
    "ResetKeepsTheContent",
    "NeverDrained",
    "MappableRegisters",
    "AnyBytesAreAStream",
    "ReadsOnce",
    "MappingIsElsewhere",
    "FailsButMoves",
    "BufferLostAtStop",
)


def bench() -> Bench:
    """Return a bench on the reference driver with all checks."""
    rules = tuple(each.id for each in load_catalogue())
    plan = Plan(rules=rules, accesses=UNLIMITED, data=UNLIMITED)
    return plan.bench(load_target("reference").make_driver)


# -- against Hypothesis ----------------------------------------------------------------


class Empty(RuleBasedStateMachine):
    """A machine that does nothing, step by step."""

    steps = 0

    @rule()
    def nothing(self) -> None:
        Empty.steps += 1


def take_empty_steps() -> None:
    """Take steps as `conversation.machine.converse` does, settings and all."""
    run_state_machine_as_test(
        seed(SEED)(Empty),
        settings=settings_for(CONVERSATIONS),
    )


def generate() -> list[Held]:
    reports = bench().perform(Generated(SEED, CONVERSATIONS))
    return [each for each in reports if isinstance(each, Held)]


def test_checking_the_reference_driver() -> None:
    held = generate()
    empty, whole = best_of(
        lambda: timed(take_empty_steps), lambda: timed(generate), runs=5
    )
    accesses = sum(each.accesses for each in held)
    Empty.steps = 0
    take_empty_steps()
    # A step of Hypothesis is one rule; most rules are many accesses.
    print(f"\n{Empty.steps} stateful steps, {accesses} accesses")
    per_access = (whole / accesses) / (empty / Empty.steps)
    show("checking the reference driver", whole / empty, 3, "as many empty steps")
    print(f"(one judged access: {per_access:.2f} times one empty step)")


# -- judging against conversing --------------------------------------------------------


def test_the_cost_of_judging() -> None:
    """The same conversations, the scripts among them, with all checks and with none.

    Where a conversation stands is followed in both: whoever converses has to know.
    The best of each batch counts: a short one is less often disturbed than a long one.
    """
    conversations = [each.steps for each in generate()]
    conversations += scripts()[::5]
    judged, plain = bench(), bench()

    def hold_all(
        on: Bench, batch: list[Steps], checks: list[Bound] | None
    ) -> Callable[[], float]:
        def hold() -> None:
            for steps in batch:
                on.hold(steps, checks)

        return lambda: timed(hold)

    conversing = both = 0.0
    for first in range(0, len(conversations), BATCH):
        batch = conversations[first : first + BATCH]
        without, with_all = best_of(
            hold_all(plain, batch, []), hold_all(judged, batch, None)
        )
        conversing += without
        both += with_all
    show("judging", both / conversing - 1, 0.5, "conversing")


# -- whole efforts ---------------------------------------------------------------------


@cache
def seconds_of(target: str, effort: str) -> float:
    """Return the seconds that a whole effort takes, workers included."""
    make_driver = load_target(target).make_driver
    return timed(lambda: run_suite(make_driver, effort=EFFORTS[effort], seed=SEED))


@pytest.mark.parametrize(("effort", "aim"), [("quick", 3), ("normal", 20)])
def test_a_large_state(effort: str, aim: int) -> None:
    """Normal is the issue's figure; quick is what one can wait for."""
    small = seconds_of("reference", effort)
    large = seconds_of("accelerator,memory=64M", effort)
    beside = "the reference driver"
    show(f"64 MiB of state at {effort} effort", large / small, 3, beside)
    print(
        f"({effort} effort on the reference driver: {small:.1f} s, about {aim} aimed)"
    )


# -- the museum ------------------------------------------------------------------------


def test_the_shortest_conversations() -> None:
    exhibits = [each for name in MUTANTS for each in exhibits_named(name)]
    assert len(exhibits) == len(MUTANTS)
    with processes(2) as executor:
        trials = try_all(exhibits, effort="quick", seed=SEED, executor=executor)
        tried: list[Tried] = list(trials)
    totals = totals_of(tried)
    assert totals.median is not None
    print(f"\n{totals.found} of {len(tried)} mutants found at quick effort")
    show("the median shortest conversation", totals.median, 8, "an access")
