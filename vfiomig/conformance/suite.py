"""The suite: every rule that can be judged, against one driver.

Effort is counted in conversations, never in seconds: the same seed gives the same
findings.  Conversations are held in a worker; when one dies, another goes on behind
the conversation that killed it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.catalogue import Rule, bound_checks, load_catalogue
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, token_of
from vfiomig.conformance.finding import Finding, RuleResult, Verdict, verdict_on
from vfiomig.conformance.holding import (
    Bench,
    Generated,
    Held,
    Job,
    Report,
    Scripted,
    Shorten,
    Shortened,
)
from vfiomig.conformance.worker import WorkerDied, WorkerEndedError, work
from vfiomig.protocol.bench import BenchAccess, bench_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.conformance.ruling import Broken
    from vfiomig.host.device_ops import TrappedDriver

    Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is tried: generated conversations, accesses and bytes of data in all.

    Behind the last two, conversations go on, but are kept short.
    """

    conversations: int
    accesses: int
    data: int


EFFORTS: Final = {
    "quick": Effort(conversations=20, accesses=150_000, data=512 << 20),
    "normal": Effort(conversations=200, accesses=1_000_000, data=2 << 30),
    "thorough": Effort(conversations=2000, accesses=20_000_000, data=16 << 30),
}

_BLOCK: Final = 10  # generated conversations in a job
_SCRIPTS_BLOCK: Final = 20
_DEATHS_LIMIT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A driver that died: the access, the error, its line, and the conversation."""

    access: str
    error: str
    where: str
    steps: Steps
    printed: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the suite found: a result for each rule, and the deaths."""

    results: tuple[RuleResult, ...]
    deaths: tuple[Death, ...]
    conversations: int
    accesses: int
    data: int
    is_interrupted: bool = False

    @property
    def findings(self) -> list[Finding]:
        """The findings of rules that fail the suite, in the order of the catalogue."""
        return [
            result.finding
            for result in self.results
            if result.verdict is Verdict.BROKEN and result.finding is not None
        ]

    @property
    def verdict(self) -> str:
        """``held``, ``broken`` or ``died``, as `--json` has it."""
        if self.findings:
            return "broken"
        return "died" if self.deaths else "held"


@dataclass(slots=True)
class Progress:
    """How far the suite is; shown while it runs."""

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
    prefix: str = "",
    watch: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Judge a driver by all rules that begin with ``prefix``.

    ``watch`` is called after each conversation.  An interrupt ends it early, with what
    was found so far.
    """
    catalogue = load_catalogue()
    chosen = [r for r in catalogue if r.id.startswith(prefix) or r.origin == prefix]
    members = _members_of(make_driver)
    suite = _Suite(make_driver, chosen, effort, watch)
    interrupted = False
    try:
        suite.hold(_jobs(effort, seed))
    except KeyboardInterrupt:
        interrupted = True
    try:
        suite.shorten()
    except KeyboardInterrupt:
        interrupted = True
    return suite.outcome(members, interrupted=interrupted)


def _jobs(effort: Effort, seed: int) -> list[Job]:
    total = len(scripts())
    jobs: list[Job] = [
        Scripted(first, min(first + _SCRIPTS_BLOCK, total))
        for first in range(0, total, _SCRIPTS_BLOCK)
    ]
    blocks = -(-effort.conversations // _BLOCK)
    jobs += [Generated(seed * 1_000_003 + number, _BLOCK) for number in range(blocks)]
    return jobs


def _members_of(make_driver: Callable[[], TrappedDriver]) -> BenchAccess:
    driver = make_driver()
    try:
        return bench_of(driver)
    finally:
        driver.close()


class _Suite:
    def __init__(
        self,
        make_driver: Callable[[], TrappedDriver],
        rules: Sequence[Rule],
        effort: Effort,
        watch: Callable[[Progress], None],
    ) -> None:
        self._rules = rules
        self._watch = watch
        own = [r for r in rules if r.party == "vendor driver"]
        self._bench = Bench(
            make_driver=make_driver,
            checks=bound_checks(own),
            rule_ids={r.origin: r.id for r in own},
            bytes_left=effort.data,
            accesses_left=effort.accesses,
        )
        planned = len(scripts()) + effort.conversations
        self.progress = Progress(planned)
        self._shortened: dict[str, Shortened] = {}

    # -- holding -----------------------------------------------------------------------

    def hold(self, jobs: list[Job]) -> None:
        """Do all jobs, with a new worker behind each that died."""
        while jobs:
            done = 0
            try:
                for number, report in work(self._bench, jobs):
                    done = number + (report is None)
                    if isinstance(report, Held):
                        self._take(report)
            except WorkerEndedError as end:
                self._bury(end.died)
                if len(self.progress.deaths) >= _DEATHS_LIMIT:
                    return
                jobs = self._rest(jobs[done:])
            else:
                return

    def _rest(self, jobs: list[Job]) -> list[Job]:
        """Return what is left behind the conversation that killed the worker."""
        first, *others = jobs
        if isinstance(first, Scripted):
            killed = self.progress.deaths[-1].steps
            for number in range(first.first, first.end):
                if scripts()[number][: len(killed)] == killed:
                    return [Scripted(number + 1, first.end), *others]
        return others

    def _take(self, held: Held) -> None:
        progress = self.progress
        progress.conversations += 1
        progress.accesses += held.accesses
        progress.data += held.moved
        for rule, count in held.reached.items():
            progress.reached[rule] = progress.reached.get(rule, 0) + count
        for rule, broken in held.broken.items():
            progress.broken.setdefault(rule, (held.steps, broken))
        if held.died is not None:
            death = held.died
            told = {(each.error, each.where) for each in progress.deaths}
            if (death.error, death.where) not in told:
                progress.deaths.append(
                    Death(
                        access=death.access,
                        error=death.error,
                        where=death.where,
                        steps=held.steps,
                        token=token_of("died", held.steps),
                    )
                )
        self._watch(progress)

    def _bury(self, died: WorkerDied) -> None:
        self.progress.deaths.append(
            Death(
                access=died.access,
                error=died.how,
                where="",
                steps=died.steps,
                printed=died.printed,
                token=token_of("died", died.steps),
            )
        )
        self._watch(self.progress)

    # -- shortening --------------------------------------------------------------------

    def shorten(self) -> None:
        """Make the conversation of each finding short, and see that it comes again."""
        left = {rule: steps for rule, (steps, _) in self.progress.broken.items()}
        while left:
            self.progress.shortening = len(left)
            self._watch(self.progress)
            jobs: list[Job] = [Shorten(rule, steps) for rule, steps in left.items()]
            names = list(left)
            number = 0
            try:
                for number, report in work(self._bench, jobs):
                    self._keep(report)
                    left.pop(names[number], None)
            except WorkerEndedError:
                # Shortening met what kills it: the finding stays as long as it was.
                name = next(iter(left))
                steps = left.pop(name)
                self._shortened[name] = Shortened(rule=name, steps=steps)
        self.progress.shortening = 0

    def _keep(self, report: Report | None) -> None:
        if isinstance(report, Shortened):
            self._shortened[report.rule] = report

    # -- the outcome -------------------------------------------------------------------

    def outcome(self, members: BenchAccess, *, interrupted: bool) -> Outcome:
        """Return what was found."""
        progress = self.progress
        return Outcome(
            results=tuple(self._result(rule, members) for rule in self._rules),
            deaths=tuple(progress.deaths),
            conversations=progress.conversations,
            accesses=progress.accesses,
            data=progress.data,
            is_interrupted=interrupted,
        )

    def _result(self, rule: Rule, members: BenchAccess) -> RuleResult:
        reached = self.progress.reached.get(rule.id, 0)
        if rule.party == "user application":
            reason = "it is the user application's"
        elif rule.untestable and not reached:
            reason = rule.untestable
        else:
            reason = "" if reached else _missing(rule, members)
        if reason:
            return RuleResult(rule=rule, verdict=Verdict.NOT_APPLICABLE, reason=reason)
        if rule.id not in self.progress.broken:
            verdict = verdict_on(rule, reached=reached, finding=None)
            return RuleResult(rule=rule, verdict=verdict, reached=reached)
        return self._broken_result(rule, reached)

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
            token=token_of(rule.id, steps),
            steps=steps,
        )
        verdict = verdict_on(rule, reached=reached, finding=finding)
        return RuleResult(rule=rule, verdict=verdict, reached=reached, finding=finding)


def _missing(rule: Rule, members: BenchAccess) -> str:
    """Say which member of the bench a rule needs that the driver does not have."""
    if not rule.bench:
        return ""
    if members.snapshot is None:
        return "the driver has no snapshot()"
    return ""
