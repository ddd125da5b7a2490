"""Doing jobs in workers: one after another here, or spread over an executor.

Rule 1: each job has a worker of its own, and another one behind each that died, so
that what one job found is the same wherever and beside whatever it was done.

Rule 2: an access that killed two workers is not made again: a conversation ends where
it would be.  All else is judged.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from vfiomig.conformance.catalogue import bound_checks, load_catalogue
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.holding import KEEP_SHORT, Bench, Job, Report, Scripted
from vfiomig.conformance.target import load_target
from vfiomig.conformance.worker import (
    PATIENCE,
    PATIENCE_NO_MORE,
    WorkerDied,
    WorkerEndedError,
    work,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from vfiomig.conformance.catalogue import Rule
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
        own = [r for r in load_catalogue() if r.id in chosen and _is_own(r)]
        return Bench(
            make_driver=make_driver,
            checks=bound_checks(own),
            rule_ids={rule.origin: rule.id for rule in own},
            bytes_left=self.data,
            accesses_left=self.accesses,
        )


def _is_own(rule: Rule) -> bool:
    return rule.party == "vendor driver"


class Campaign:
    """Does jobs on one driver, and knows by which accesses it died."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._deaths: Counter[str] = Counter()

    @property
    def deadly(self) -> frozenset[str]:
        """The accesses that are not made again."""
        counts = self._deaths.items()
        return frozenset(each for each, n in counts if n >= _DEATHS_TO_AVOID)

    def do(self, job: Job) -> Iterator[Report | WorkerDied]:
        """Do one job; yield each report, and how a worker ended that did not."""
        left: Job | None = job
        for _ in range(_DEATHS_OF_A_JOB):
            if left is None:
                return
            bench = dataclasses.replace(self._bench, deadly=self.deadly)
            patience = PATIENCE_NO_MORE if self._deaths else PATIENCE
            try:
                for _, report in work(bench, [left], patience=patience):
                    if report is not None:
                        yield report
            except WorkerEndedError as end:
                self._deaths[end.died.access] += 1
                yield end.died
                left = _rest(left, end.died)
            else:
                return


def _rest(job: Job, died: WorkerDied) -> Job | None:
    """Return what is left of a job behind the conversation that killed the worker."""
    if isinstance(job, Scripted):
        steps = tuple(each for each in died.steps if each != KEEP_SHORT)
        for number in range(job.first, job.end - 1):
            if scripts()[number][: len(steps)] == steps:
                return Scripted(number + 1, job.end)
    return None


def in_turn(
    make_driver: Callable[[], TrappedDriver], plan: Plan, jobs: Sequence[Job]
) -> Iterator[Done]:
    """Do jobs here, one after the other."""
    campaign = Campaign(plan.bench(make_driver))
    for number, job in enumerate(jobs):
        for report in campaign.do(job):
            yield number, report


def spread(
    executor: Executor, target: str, plan: Plan, jobs: Sequence[Job]
) -> Iterator[Done]:
    """Do jobs on an executor, which is told the target's name; yield in their order."""
    futures = [executor.submit(_do_elsewhere, target, plan, job) for job in jobs]
    try:
        for number, future in enumerate(futures):
            for report in future.result():
                yield number, report
    finally:
        for future in futures:
            future.cancel()


def _do_elsewhere(target: str, plan: Plan, job: Job) -> list[Report | WorkerDied]:
    return list(Campaign(plan.bench(load_target(target).make_driver)).do(job))
