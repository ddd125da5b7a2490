"""Doing jobs in workers: one after another here, or spread over an executor.

Rule 1: each job has a worker of its own, and another one behind each that died.  It
knows of the deaths in the jobs before it, wherever those were done, so that the same
is found by one process and by many.

Rule 2: an access that killed two workers is not made again: a conversation ends where
it would be.  All else is judged.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from vfiomig.conformance.catalogue import (
    bound_checks,
    driver_rules,
    ids_by_origin,
    load_catalogue,
)
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.holding import (
    KEEP_SHORT,
    Autopsied,
    Autopsy,
    Bench,
    Job,
    Report,
    Scripted,
    Shorten,
)
from vfiomig.conformance.target import load_target
from vfiomig.conformance.vfio_user.neighbours import own_processors
from vfiomig.conformance.worker import (
    PATIENCE,
    PATIENCE_NO_MORE,
    WorkerDied,
    WorkerEndedError,
    work,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from vfiomig.host.device_ops import TrappedDriver

_DEATHS_TO_AVOID: Final = 2
_DEATHS_OF_A_JOB: Final = 4

# What is done with a job: its number, and each report as soon as there is one.
Done: TypeAlias = tuple[int, "Report | WorkerDied"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every job has in common; it may be sent to another process.

    ``rules`` are ids; ``accesses`` and ``data`` are the budget of one job.
    """

    rules: tuple[str, ...]
    accesses: int
    data: int

    def bench(self, make_driver: Callable[[], TrappedDriver]) -> Bench:
        """Return what to hold conversations with."""
        chosen = set(self.rules)
        own = driver_rules(r for r in load_catalogue() if r.id in chosen)
        return Bench(
            make_driver=make_driver,
            checks=bound_checks(own),
            rule_ids=ids_by_origin(own),
            bytes_left=self.data,
            accesses_left=self.accesses,
        )


class Servers(Protocol):
    """Processes that drivers live in, where that is not the worker (see `servers`)."""

    @property
    def is_alone(self) -> bool:
        """Whether there is one driver at a time."""

    def make_ready(self) -> None:
        """Start them; raises TargetStartError."""

    def renew(self) -> None:
        """End them: the next ones had no client before."""

    def obituary(self) -> str:
        """Say how one ended, if one has."""

    def printed(self) -> str:
        """Return what they printed."""


class Campaign:
    """Does jobs on one driver, and knows by which accesses it died.

    A finding is made short, and a death examined, on ``servers`` that are fresh.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        patience: float = PATIENCE,
        deaths: Mapping[str, int] | None = None,
        servers: Servers | None = None,
    ) -> None:
        self._bench = bench
        self._servers = servers
        if servers is not None:
            self._bench = dataclasses.replace(bench, is_alone=servers.is_alone)
        self._patience = patience  # seconds that one access may take
        self._deaths: Counter[str] = Counter(deaths)

    @property
    def deadly(self) -> frozenset[str]:
        """The accesses that are not made again."""
        counts = self._deaths.items()
        return frozenset(each for each, n in counts if n >= _DEATHS_TO_AVOID)

    def do(self, job: Job) -> Iterator[Report | WorkerDied]:
        """Do one job; yield each report, and how a worker ended that did not."""
        with own_processors():
            yield from self._do(job)

    def _do(self, job: Job) -> Iterator[Report | WorkerDied]:
        left: Job | None = job
        if isinstance(job, Shorten):
            self._renew_servers()
        for _ in range(_DEATHS_OF_A_JOB):
            if left is None:
                return
            bench = dataclasses.replace(self._bench, deadly=self.deadly)
            patience = self._patience
            if self._deaths:
                patience = min(patience, PATIENCE_NO_MORE)
            if self._servers is not None:
                self._servers.make_ready()
            try:
                for _, report in work(bench, [left], patience=patience):
                    if report is not None:
                        yield report
            except WorkerEndedError as end:
                self._deaths[end.died.access] += 1
                died = self._with_servers_words(end.died)
                self._renew_servers()
                yield _examined(bench, died)
                left = _rest(left, died)
            else:
                return

    def _renew_servers(self) -> None:
        if self._servers is not None:
            self._servers.renew()
            self._servers.make_ready()

    def _with_servers_words(self, died: WorkerDied) -> WorkerDied:
        """Add what the servers can tell of a death."""
        if self._servers is None:
            return died
        how = self._servers.obituary()
        return dataclasses.replace(
            died,
            how=f"{died.how} ({how})" if how and how not in died.how else died.how,
            printed=died.printed + self._servers.printed(),
        )


def _examined(bench: Bench, died: WorkerDied) -> WorkerDied:
    """Return a death with what led to it, if that can be had again."""
    job = Autopsy(died.steps, died.number, died.how)
    try:
        for _, report in work(bench, [job], patience=PATIENCE_NO_MORE):
            if isinstance(report, Autopsied):
                return dataclasses.replace(
                    died,
                    history=report.history,
                    broken=report.broken,
                    fatal=report.fatal,
                )
    except WorkerEndedError:
        pass  # it dies of another access each time
    return died


def _rest(job: Job, died: WorkerDied) -> Job | None:
    """Return what is left of a job behind the conversation that killed the worker."""
    if isinstance(job, Scripted):
        steps = tuple(each for each in died.steps if each != KEEP_SHORT)
        for number in range(job.first, job.end - 1):
            if scripts()[number][: len(steps)] == steps:
                return Scripted(number + 1, job.end)
    return None


def in_turn(
    make_driver: Callable[[], TrappedDriver],
    plan: Plan,
    jobs: Sequence[Job],
    servers: Servers | None = None,
) -> Iterator[Done]:
    """Do jobs here, one after the other."""
    campaign = Campaign(plan.bench(make_driver), servers=servers)
    for number, job in enumerate(jobs):
        for report in campaign.do(job):
            yield number, report


def spread(
    executor: Executor, target: str, plan: Plan, jobs: Sequence[Job]
) -> Iterator[Done]:
    """Do jobs on an executor, which is told the target's name; yield in their order.

    The first is waited for: what many drivers die of, if they do, they die of there.
    The others begin as if none would die any more.  Behind a death, jobs that have not
    begun are sent anew, with it; one that has died meanwhile itself is done again.
    """
    deaths: Counter[str] = Counter()

    def send(job: Job) -> Future[list[Report | WorkerDied]]:
        return executor.submit(_do_elsewhere, target, plan, job, dict(deaths))

    futures = [send(job) for job in jobs[:1]]
    known = [0] * len(jobs)  # deaths, when a job was sent
    try:
        for number, job in enumerate(jobs):
            if number == 1:
                futures += [send(each) for each in jobs[1:]]
                known[1:] = [deaths.total()] * (len(jobs) - 1)
            reports = futures[number].result()
            if _deaths_in(reports) and known[number] != deaths.total():
                futures[number] = send(job)
                reports = futures[number].result()
            for report in reports:
                yield number, report
            if not _deaths_in(reports):
                continue
            deaths.update(_deaths_in(reports))
            for later in range(number + 1, len(futures)):
                if futures[later].cancel():
                    futures[later] = send(jobs[later])
                    known[later] = deaths.total()
    finally:
        for future in futures:
            future.cancel()


def _deaths_in(reports: Iterable[Report | WorkerDied]) -> list[str]:
    return [each.access for each in reports if isinstance(each, WorkerDied)]


def _do_elsewhere(
    target: str, plan: Plan, job: Job, deaths: dict[str, int]
) -> list[Report | WorkerDied]:
    found = load_target(target)
    bench = plan.bench(found.make_driver)
    return list(Campaign(bench, deaths=deaths, servers=found.servers).do(job))
