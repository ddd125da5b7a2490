"""The suite: every rule that can be judged, against one driver."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from vfiomig.conformance.campaign import Plan, in_turn, spread
from vfiomig.conformance.catalogue import Rule, driver_rules, load_catalogue
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, token_of
from vfiomig.conformance.effort import EFFORTS, Effort, planned
from vfiomig.conformance.finding import (
    Death,
    Finding,
    Outcome,
    RuleResult,
    Verdict,
    verdict_on,
)
from vfiomig.conformance.holding import (
    Held,
    Job,
    Look,
    Members,
    NotStarted,
    Shorten,
)
from vfiomig.conformance.shortening import DIED, Shortened, Sought
from vfiomig.conformance.target import TargetStartError
from vfiomig.conformance.worker import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from vfiomig.conformance.campaign import Done, Servers
    from vfiomig.conformance.ruling import Broken
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.history import Record

    Steps = tuple[Step, ...]
    DoJobs: TypeAlias = Callable[[Sequence[Job]], Iterator[Done]]


_OUTCOMES_LIMIT: Final = 6  # of those that are made short: they have few roots
_DEATHS_LIMIT: Final = 8  # workers that a driver may take with it


@dataclass(slots=True)
class Progress:
    """How far the suite is; shown while it runs.

    ``reached`` counts, for each rule, the conversations in which it was ruled on.
    """

    planned: int
    conversations: int = 0
    accesses: int = 0
    data: int = 0
    reached: dict[str, int] = field(default_factory=dict)
    broken: dict[str, tuple[Steps, Broken]] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)
    shortening: int = 0


def run_suite(
    make_driver: Callable[[], TrappedDriver],
    *,
    effort: Effort = EFFORTS["normal"],
    seed: int = 1,
    rules: Sequence[Rule] | None = None,
    watch: Callable[[Progress], None] = lambda _: None,
    servers: Servers | None = None,
) -> Outcome:
    """Judge a driver by the rules given, all of the catalogue by default.

    ``watch`` is called after each conversation.  An interrupt ends it early, with what
    was found so far.  ``servers`` are where drivers live that are not in this process.

    Raises:
        TargetStartError: the first driver could not be made.
    """
    plan, jobs = planned(effort, range(seed, seed + 1), rules)
    suite = _Suite(
        plan, rules, watch, lambda jobs: in_turn(make_driver, plan, jobs, servers)
    )
    return suite.run(jobs, effort.conversations)


def run_suite_on(
    target: str,
    executor: Executor,
    *,
    effort: Effort = EFFORTS["normal"],
    seed: int = 1,
    seeds: int = 1,
    rules: Sequence[Rule] | None = None,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Do what `run_suite` does on an executor, which is sent the target's name.

    With so many ``seeds`` from ``seed`` on, each generates as many conversations, on as
    large a budget, as it would alone; the scripts, which know no seed, are held once.
    """
    plan, jobs = planned(effort, range(seed, seed + seeds), rules)
    suite = _Suite(
        plan, rules, watch, lambda jobs: spread(executor, target, plan, jobs)
    )
    return suite.run(jobs, seeds * effort.conversations)


class _Suite:
    def __init__(
        self,
        plan: Plan,
        rules: Sequence[Rule] | None,
        watch: Callable[[Progress], None],
        do_jobs: DoJobs,
    ) -> None:
        self._rules = load_catalogue() if rules is None else tuple(rules)
        self._watch = watch
        self._do_jobs = do_jobs
        self._members = Members()
        self._ended = 0  # workers that the driver took with it
        self._shortened: dict[str, Shortened] = {}
        self._consequences: dict[str, str] = {}  # rule, the one that is to blame
        self.progress = Progress(0)

    def run(self, jobs: list[Job], generated: int) -> Outcome:
        """Hold all conversations, make those of findings short, and sum up."""
        self.progress.planned = len(scripts()) + generated
        self._look()
        is_interrupted = False
        try:
            self._hold(jobs)
        except KeyboardInterrupt:
            is_interrupted = True
        try:
            self._shorten()
        except KeyboardInterrupt:
            is_interrupted = True
        return self._outcome(is_interrupted=is_interrupted)

    # -- holding -----------------------------------------------------------------------

    def _look(self) -> None:
        """See which members of the bench the driver has, and that it starts."""
        for _, report in self._do_jobs([Look()]):
            match report:
                case Members():
                    self._members = report
                case NotStarted():
                    raise TargetStartError(str(report))
                case WorkerDied():
                    message = f"the driver did not start: {report.how}"
                    raise TargetStartError(message)

    def _hold(self, jobs: list[Job]) -> None:
        for _, report in self._do_jobs(jobs):
            if isinstance(report, Held):
                self._take(report)
            elif isinstance(report, WorkerDied):
                self._ended += 1
                self._bury(report)
            if self._ended >= _DEATHS_LIMIT or self._is_decided():
                return

    def _is_decided(self) -> bool:
        """Tell whether nothing is left to be found out."""
        own = driver_rules(self._rules)
        return all(rule.id in self.progress.broken for rule in own)

    def _take(self, held: Held) -> None:
        progress = self.progress
        progress.conversations += 1
        progress.accesses += held.accesses
        progress.data += held.moved
        for rule in held.reached:
            progress.reached[rule] = progress.reached.get(rule, 0) + 1
        for rule, broken in held.broken.items():
            known = progress.broken.get(rule)
            if known is None or (known[1].is_outcome and not broken.is_outcome):
                progress.broken[rule] = (held.steps, broken)
        if held.died is not None:
            died = held.died
            self._mourn(died.access, died.error, died.where, held.steps)
            self._ended += died.error.startswith("MemoryError")
        self._watch(progress)

    def _bury(self, died: WorkerDied) -> None:
        self._mourn(died.access, died.how, "", died.steps, died.printed, died.history)
        for rule, broken in (died.broken | died.fatal).items():
            self.progress.reached.setdefault(rule, 1)
            self.progress.broken.setdefault(rule, (died.steps, broken))
        for rule, broken in died.fatal.items():
            # To make that short would take a worker and its patience at each try.
            self._shortened.setdefault(
                rule,
                Shortened(
                    sought=Sought(rule=rule),
                    rule=rule,
                    steps=died.steps,
                    broken=broken,
                    history=died.history,
                ),
            )
        self._watch(self.progress)

    def _mourn(
        self,
        access: str,
        error: str,
        where: str,
        steps: Steps,
        printed: str = "",
        history: tuple[Record, ...] = (),
    ) -> None:
        # Patience wears thin, so one hang may have two texts.
        what = error.partition(" within ")[0]
        for each in self.progress.deaths:
            is_same = each.error.startswith(what) and each.where == where
            if each.access == access and is_same:
                return
        self.progress.deaths.append(
            Death(
                access=access,
                error=error,
                where=where,
                steps=steps,
                printed=printed,
                token=token_of(DIED, steps),
                history=history,
            )
        )

    # -- shortening --------------------------------------------------------------------

    def _shorten(self) -> None:
        """Make the conversation of each finding short, and see that it comes again.

        One that kills its worker meanwhile stays as long as it was.
        """
        jobs = self._to_shorten()
        for number, report in self._do_jobs(jobs):
            self.progress.shortening = len(jobs) - number
            self._watch(self.progress)
            if isinstance(report, Shortened):
                self._keep(report)
        self.progress.shortening = 0
        self._separate_consequences()

    def _to_shorten(self) -> list[Shorten]:
        jobs: list[Shorten] = []
        outcomes: list[Shorten] = []
        for rule, (steps, broken) in self.progress.broken.items():
            if rule in self._shortened:
                continue
            sought = Sought(rule=rule, is_outcome=broken.is_outcome)
            (outcomes if broken.is_outcome else jobs).append(Shorten(sought, steps))
        outcomes.sort(key=lambda job: len(job.steps))
        jobs += outcomes[:_OUTCOMES_LIMIT]
        for death in self.progress.deaths:
            # It raised, and its worker lived on.
            if death.where and not death.error.startswith("MemoryError"):
                sought = Sought(rule=DIED, error=death.error)
                jobs.append(Shorten(sought, death.steps))
        return jobs

    def _keep(self, report: Shortened) -> None:
        sought = report.sought
        if sought.error:
            self._shorten_death(report)
        elif report.is_flaky or not sought.is_outcome:
            self._shortened[sought.rule] = report
        elif report.broken is not None:
            known = self._shortened.get(report.rule)
            if known is None or len(report.history) < len(known.history):
                self._shortened[report.rule] = report

    def _shorten_death(self, report: Shortened) -> None:
        if report.is_flaky:
            return
        deaths = self.progress.deaths
        for number, death in enumerate(deaths):
            if death.error == report.sought.error and death.where:
                deaths[number] = dataclasses.replace(
                    death,
                    steps=report.steps,
                    history=report.history,
                    token=token_of(DIED, report.steps),
                )

    def _separate_consequences(self) -> None:
        """Blame for outcomes only those rules that their shortest conversations name.

        A device that loses its state does so whatever else is special about a
        conversation.
        """
        roots = [
            report
            for report in self._shortened.values()
            if report.sought.is_outcome and not report.is_flaky
        ]
        if not roots:
            return
        names = [report.rule for report in roots]
        for rule, (_, broken) in list(self.progress.broken.items()):
            known = self._shortened.get(rule)
            if broken.is_outcome and rule not in names and known is None:
                del self.progress.broken[rule]
                self._consequences[rule] = names[0]
        for report in roots:
            if report.broken is not None and report.rule not in self.progress.broken:
                self.progress.broken[report.rule] = (report.steps, report.broken)

    # -- the outcome -------------------------------------------------------------------

    def _outcome(self, *, is_interrupted: bool) -> Outcome:
        progress = self.progress
        return Outcome(
            results=tuple(self._result(rule) for rule in self._rules),
            deaths=tuple(progress.deaths),
            conversations=progress.conversations,
            accesses=progress.accesses,
            data=progress.data,
            is_interrupted=is_interrupted,
        )

    def _result(self, rule: Rule) -> RuleResult:
        reached = self.progress.reached.get(rule.id, 0)
        if rule.id in self._consequences:
            reason = f"it cannot be told while {self._consequences[rule.id]} is broken"
            verdict = Verdict.NOT_REACHED
            return RuleResult(rule=rule, verdict=verdict, reason=reason)
        reason = "" if reached else self._why_not(rule)
        if reason:
            return RuleResult(rule=rule, verdict=Verdict.NOT_APPLICABLE, reason=reason)
        if rule.id not in self.progress.broken:
            verdict = verdict_on(rule, reached=reached, finding=None)
            return RuleResult(rule=rule, verdict=verdict, reached=reached)
        return self._broken_result(rule, reached)

    def _why_not(self, rule: Rule) -> str:
        """Say why a rule that was not reached does not apply; empty if it does."""
        if rule.party == "user application":
            return "it is the user application's"
        if rule.untestable:
            return rule.untestable
        missing = [each for each in rule.needed if not getattr(self._members, each)]
        if missing:
            return f"the driver has no {' and no '.join(f'{m}()' for m in missing)}"
        if rule.level == "MAY":
            return "the driver made no use of what this rule permits"
        return ""

    def _broken_result(self, rule: Rule, reached: int) -> RuleResult:
        shortened = self._shortened.get(rule.id)
        if shortened is not None and shortened.is_flaky:
            reason = "the conversation did not break it again"
            return RuleResult(
                rule=rule, verdict=Verdict.FLAKY, reason=reason, reached=reached
            )
        steps, broken = self.progress.broken[rule.id]
        if shortened is not None:
            steps, broken = shortened.steps, shortened.broken or broken
        finding = Finding(
            rule=rule,
            broken=broken,
            device="",
            history=shortened.history if shortened else (),
            where=shortened.where if shortened else "",
            printed=shortened.printed if shortened else "",
            token=token_of(rule.id, steps),
            steps=steps,
        )
        verdict = verdict_on(rule, reached=reached, finding=finding)
        return RuleResult(rule=rule, verdict=verdict, reached=reached, finding=finding)
