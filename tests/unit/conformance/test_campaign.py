"""Jobs go on behind deaths, without the accesses that were deadly twice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.unit.conformance.small_drivers import Bare, Framed, bench_for, small
from vfiomig.conformance.campaign import Campaign, Plan, in_turn
from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import read_token, step, token_of
from vfiomig.conformance.effort import Effort
from vfiomig.conformance.finding import Verdict
from vfiomig.conformance.holding import KEEP_SHORT, Generated, Held, Job, Scripted
from vfiomig.conformance.processes import processes
from vfiomig.conformance.shortening import DIED
from vfiomig.conformance.suite import run_suite, run_suite_on
from vfiomig.conformance.target import TargetStartError, load_target
from vfiomig.conformance.worker import WorkerDied
from vfiomig.protocol.history import Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.finding import Outcome

FEW = Effort(conversations=0, accesses=100_000, data=64 << 20)
SOME = Effort(conversations=40, accesses=100_000, data=64 << 20)
AT_DATA_SIZE = "read of 8 bytes at 0x18"


def leave(*_: object) -> NoReturn:
    os._exit(7)


def loop_for_ever(*_: object) -> NoReturn:
    while True:
        pass


def done(make_driver: Callable[[], Bare], *jobs: Job) -> list[Held | WorkerDied]:
    campaign = Campaign(bench_for(make_driver))
    reports = [report for job in jobs for report in campaign.do(job)]
    return [each for each in reports if isinstance(each, Held | WorkerDied)]


def test_a_campaign_is_as_patient_as_it_is_told() -> None:
    campaign = Campaign(bench_for(small(data_size=loop_for_ever)), patience=0.3)
    (report,) = campaign.do(Scripted(0, 1))
    assert isinstance(report, WorkerDied)
    assert report.how == "it did not answer within 0.3 seconds"


# -- jobs ------------------------------------------------------------------------------


def test_a_job_goes_on_behind_the_conversation_that_killed_its_worker() -> None:
    first, second, *others = done(small(data_size=leave), Scripted(0, 5))
    assert isinstance(first, WorkerDied)
    assert isinstance(second, WorkerDied)
    assert second.steps[:1] == scripts()[1][:1]
    assert [type(each) for each in others] == [Held] * 3


def test_an_access_that_killed_two_workers_is_not_made_again() -> None:
    campaign = Campaign(bench_for(small(data_size=leave)))
    list(campaign.do(Scripted(0, 1)))
    assert campaign.deadly == frozenset()
    list(campaign.do(Scripted(1, 2)))
    assert campaign.deadly == {AT_DATA_SIZE}
    (report,) = campaign.do(Scripted(2, 3))
    assert isinstance(report, Held)
    assert report.died is None


def test_a_conversation_ends_where_the_deadly_access_would_be() -> None:
    reports = done(small(data_size=leave), Scripted(0, 3))
    last = reports[-1]
    assert isinstance(last, Held)
    assert last.steps == scripts()[2][: len(last.steps)]
    assert last.steps[-1].name == "drain"


def test_a_death_that_took_the_worker_has_a_history_and_breaks_its_rule() -> None:
    def die_of_5(driver: Bare, value: int) -> None:
        if value == 5:
            leave()
        Bare.write_device_state(driver, value)

    asked = step("enter", "source", 5)
    number = next(n for n, steps in enumerate(scripts()) if asked in steps)
    (died,) = done(small(write_device_state=die_of_5), Scripted(number, number + 1))
    assert isinstance(died, WorkerDied)
    *before, last = [each for each in died.history if isinstance(each, Access)]
    assert before
    assert not any(each.died for each in before)
    assert (last.access, last.offset, last.value, last.died) == (
        "write",
        0,
        "0x5",
        True,
    )
    assert set(died.fatal) == {"v1/device-state/invalid-values-refused"}
    assert died.broken == {}


def test_what_was_ruled_before_the_deadly_access_stands() -> None:
    driver = small(data_size=leave, reserved=lambda _: 1, device_state=lambda _: 5)
    last = done(driver, Scripted(0, 3))[-1]
    assert isinstance(last, Held)
    assert "v1/device-state/no-invalid-state-reported" in last.broken


def test_a_job_that_dies_of_everything_is_given_up() -> None:
    reports = done(small(snapshot=leave, read=leave, close=leave), Scripted(0, 9))
    assert 1 <= sum(isinstance(each, WorkerDied) for each in reports) <= 4


def test_generated_conversations_that_kill_are_a_death() -> None:
    campaign = Campaign(bench_for(small(device_state=leave)))
    (report,) = campaign.do(Generated(seed=1, conversations=2))
    assert isinstance(report, WorkerDied)
    assert report.access == "read of 4 bytes at 0x0"
    assert report.steps


def test_jobs_are_done_in_their_order() -> None:
    plan = Plan(rules=(), accesses=1000, data=1000)
    jobs = [Scripted(2, 3), Scripted(0, 2)]
    assert [number for number, _ in in_turn(Framed, plan, jobs)] == [0, 1, 1]


def test_only_rules_of_the_vendor_driver_are_bound() -> None:
    rules = load_catalogue()
    plan = Plan(rules=tuple(rule.id for rule in rules), accesses=1, data=1)
    party = {rule.id: rule.party for rule in rules}
    assert {party[each.rule] for each in plan.bench(Framed).checks} == {"vendor driver"}


# -- the budget ------------------------------------------------------------------------


@pytest.mark.parametrize(("accesses", "data"), [(0, 1 << 30), (1 << 30, 0)])
def test_behind_the_budget_a_conversation_begins_with_keep_short(
    accesses: int, data: int
) -> None:
    bench = Plan(rules=(), accesses=accesses, data=data).bench(Framed)
    held = bench.hold(scripts()[0])
    assert held.steps == (KEEP_SHORT, *scripts()[0])


def test_within_the_budget_none_is_kept_short() -> None:
    bench = Plan(rules=(), accesses=1000, data=1 << 30).bench(Framed)
    assert bench.hold(scripts()[0]).steps == scripts()[0]


@pytest.mark.parametrize(("accesses", "data"), [(10, 1 << 30), (1 << 30, 1)])
def test_where_the_budget_ends_a_conversation_is_kept_short(
    accesses: int, data: int
) -> None:
    script = max(scripts()[:24], key=len)
    bench = Plan(rules=(), accesses=accesses, data=data).bench(Framed)
    steps = bench.hold(script).steps
    at = steps.index(KEEP_SHORT)
    assert at > 0
    assert (*steps[:at], *steps[at + 1 :]) == script
    assert bench.hold(script).steps[0] == KEEP_SHORT


def test_the_token_of_a_short_conversation_plays_the_same() -> None:
    held = bench_for(Framed, data=0).hold(scripts()[0])
    _, steps = read_token(token_of(DIED, held.steps))
    again = bench_for(Framed).hold(steps)
    assert (again.accesses, again.moved) == (held.accesses, held.moved)
    assert (again.steps, again.reached) == (held.steps, held.reached)


class Large(Bare):
    """It has more state than a short conversation moves."""

    def power_on(self) -> None:
        super().power_on()
        self.memory = bytes(2000)


def test_a_short_conversation_moves_less() -> None:
    whole = bench_for(Large).hold(scripts()[0])
    short = bench_for(Large, data=0).hold(scripts()[0])
    assert short.moved < whole.moved


# -- the suite -------------------------------------------------------------------------


def raise_at_once() -> Bare:
    raise RuntimeError("no hardware")


def test_a_factory_that_raises_does_not_start() -> None:
    line = raise_at_once.__code__.co_firstlineno + 1
    with pytest.raises(TargetStartError, match=rf"test_campaign\.py:{line}: Runtime"):
        run_suite(raise_at_once, effort=FEW)


def test_a_factory_that_exits_does_not_start() -> None:
    with pytest.raises(TargetStartError, match="ended the process with status 7"):
        run_suite(leave, effort=FEW)


@pytest.mark.slow
def test_a_factory_that_hangs_does_not_start() -> None:
    with pytest.raises(TargetStartError, match="did not answer within 8 seconds"):
        run_suite(loop_for_ever, effort=FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (leave, "it ended the process with status 7"),
        (loop_for_ever, "it did not answer within 8 seconds"),
    ],
)
def test_other_rules_are_judged_all_the_same(
    fault: Callable[..., NoReturn], error: str
) -> None:
    outcome = run_suite(small(data_size=fault, reserved=lambda _: 1), effort=FEW)
    assert outcome.deaths[0].error == error
    assert {each.access for each in outcome.deaths} == {AT_DATA_SIZE}
    assert outcome.conversations > 400
    broken = [r.rule.id for r in outcome.results if r.verdict is Verdict.BROKEN]
    assert "v1/register-access/reserved-reads-zero" in broken
    for death in outcome.deaths:
        assert read_token(death.token) == (DIED, death.steps)


def facts(outcome: Outcome) -> list[object]:
    findings = [(f.rule.id, f.broken, f.token) for f in outcome.findings]
    deaths = [(d.access, d.error, d.token) for d in outcome.deaths]
    verdicts = [(r.rule.id, r.verdict, r.reached) for r in outcome.results]
    return [findings, deaths, verdicts, outcome.accesses, outcome.data]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Lossy", "Dies", "Leaves"])
def test_the_same_seed_finds_the_same_in_one_process_and_in_two(name: str) -> None:
    target = f"tests.unit.conformance.small_drivers:{name}"
    alone = run_suite(load_target(target).make_driver, effort=SOME, seed=7)
    with processes(2) as pool:
        assert pool is not None
        together = run_suite_on(target, pool, effort=SOME, seed=7)
    assert facts(alone) == facts(together)
    assert alone.verdict != "held"
