"""Holding the conversations that go one step on from known ones.

Each is held from a fresh driver.  Batches are values, and so are their answers: they
may be sent to any process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.exploration.freezing import BYTES_LIMIT, Freezer
from vfiomig.conformance.exploration.remembering import (
    WatchedJudge,
    digest_of_bench,
    digests_of_checks,
    number_buffers,
)
from vfiomig.conformance.exploration.vocabulary import ROLE
from vfiomig.conformance.holding import Bench, Held, Scripted, Shorten
from vfiomig.conformance.shortening import Shortened, Shortener
from vfiomig.conformance.worker import WorkerDied, WorkerEndedError, work
from vfiomig.protocol.errors import DriverDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.exploration.looking_on import Event
    from vfiomig.conformance.holding import Job, Report
    from vfiomig.conformance.judge import Bound
    from vfiomig.conformance.ruling import Broken
    from vfiomig.conformance.shortening import Sought
    from vfiomig.host.device_ops import TrappedDriver

    Steps = tuple[Step, ...]

_FDS: Final = Path("/proc/self/fd")
_MEMFD: Final = "/memfd:"
_BYTES: Final = 1 << 30
DEATHS_LIMIT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a conversation has come to.

    ``key`` stands for driver, user application and position; ``memories`` for what
    each check remembers together with it.  ``opaque`` says what of the driver is not
    in the key.
    """

    state: int | None
    key: bytes
    memories: Mapping[str, bytes]
    opaque: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival(Held):
    """One conversation, held to its end; ``before`` is where its last step began.

    ``step_accesses`` counts the accesses of the last step, 0 where it had no occasion;
    ``events`` are what was recorded of it.
    """

    before: Place | None = None
    place: Place | None = None
    step_accesses: int = 0
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBatch:
    """What became of a batch, in its order; None where the driver ended the process."""

    arrivals: tuple[Arrival | None, ...]
    deaths: tuple[tuple[Steps, WorkerDied], ...] = ()


def hold_batch(
    make_driver: Callable[[], TrappedDriver],
    checks: list[Bound],
    rule_ids: Mapping[str, str],
    walks: tuple[Steps, ...],
    *,
    is_thorough: bool = False,
) -> HeldBatch:
    """Hold each conversation in a worker; go on behind one that ends it.

    Where it ``is_thorough`` what the checks remember is told as well.
    """
    arrivals: list[Arrival | None] = []
    deaths: list[tuple[Steps, WorkerDied]] = []
    while len(arrivals) < len(walks):
        bench = ExploringBench(
            make_driver=make_driver,
            checks=checks,
            rule_ids=rule_ids,
            bytes_left=_BYTES,
            walks=walks,
            is_thorough=is_thorough,
        )
        first = len(arrivals)
        job = Scripted(first, len(walks))
        try:
            for _, report in work(bench, [job]):
                if isinstance(report, Arrival):
                    arrivals.append(report)
        except WorkerEndedError as end:
            deaths.append((walks[len(arrivals)], end.died))
            arrivals.append(None)
            if len(deaths) >= DEATHS_LIMIT:
                break
    return HeldBatch(arrivals=tuple(arrivals), deaths=tuple(deaths))


def explain_all(
    make_driver: Callable[[], TrappedDriver],
    checks: list[Bound],
    rule_ids: Mapping[str, str],
    found: Iterable[tuple[Sought, Steps]],
) -> dict[str, Shortened]:
    """Hold the conversation of each finding once more, and see where it breaks."""
    bench = ExploringBench(
        make_driver=make_driver,
        checks=checks,
        rule_ids=rule_ids,
        bytes_left=_BYTES,
        walks=(),
    )
    jobs: list[Job] = [Shorten(sought, steps) for sought, steps in found]
    explained: dict[str, Shortened] = {}
    with contextlib.suppress(WorkerEndedError):  # what was found stays as it is
        for _, report in work(bench, jobs) if jobs else ():
            if isinstance(report, Shortened):
                explained[report.sought.rule] = report
    return explained


@dataclass(slots=True, kw_only=True)
class ExploringBench(Bench):
    """Holds conversations of a list, and tells where each has come to."""

    walks: tuple[Steps, ...]
    is_thorough: bool = False

    def perform(self, job: Job) -> Iterator[Report]:
        """Hold a stretch of the list, or explain what is short already."""
        if isinstance(job, Shorten):
            yield self._once_more(job)
            return
        assert isinstance(job, Scripted)
        for steps in self.walks[job.first : job.end]:
            yield _Walker(self, steps).arrive()

    def _once_more(self, job: Shorten) -> Shortened:
        try:
            return Shortener(self, job.sought).explain(job.steps)
        except DriverDiedError:
            return Shortened(
                sought=job.sought, rule=job.sought.rule, steps=job.steps, is_flaky=True
            )


class _Walker:
    """One conversation, from a fresh driver to its last step."""

    def __init__(self, bench: ExploringBench, steps: Steps) -> None:
        self._bench = bench
        self._steps = steps
        self._files = _open_files()  # before there is a driver
        self._threads = threading.active_count()
        self._records = self._broken = self._accesses = 0  # before the last step
        self._events: tuple[Event, ...] = ()
        self._judge = WatchedJudge(bench.checks)
        self._conversation = Conversation(
            bench.make_driver,
            (),
            rule_ids=bench.rule_ids,
            begin=bench.begin,
        )
        self._conversation._devices._judge = self._judge

    def arrive(self) -> Arrival:
        """Take all steps; tell what the last one came to."""
        conversation = self._conversation
        before = place = None
        died: DriverDiedError | None = None
        try:
            conversation._session(ROLE)
            for each in self._steps[:-1]:
                self._take(each)
            if self._steps:
                before = self._place(is_end=False)
                self._records = len(conversation.records)
                self._broken = len(conversation.broken)
                conversation.kept.clear()
                self._judge.events.clear()
                self._take(self._steps[-1])
            place = self._place(is_end=True)
        except DriverDiedError as death:
            died = death
        self._accesses = len(conversation.records)
        self._events = tuple(self._judge.events)
        try:
            conversation.close()
        except DriverDiedError as death:
            died = died or death
        self._bench.ended()
        return self._arrival((before, place), died)

    def _take(self, each: Step) -> None:
        self._bench.told(each)
        self._conversation.perform([each])
        for session in self._conversation._devices._sessions.values():
            number_buffers(self._judge.position(session.device.name))

    def _arrival(
        self, places: tuple[Place | None, Place | None], died: DriverDiedError | None
    ) -> Arrival:
        broken: dict[str, Broken] = {}
        for rule, ruling, _ in self._conversation.broken[self._broken :]:
            broken.setdefault(rule, ruling)
        return Arrival(
            steps=self._steps,
            reached=frozenset(self._conversation.kept | broken.keys()),
            broken=broken,
            accesses=self._accesses,
            moved=self._conversation.moved,
            died=died,
            before=places[0],
            place=places[1],
            step_accesses=self._accesses - self._records,
            events=self._events,
        )

    def _place(self, *, is_end: bool) -> Place:
        session = self._conversation._session(ROLE)
        freezer = Freezer()
        freezer.add(session.device._fd._driver)
        self._add_held(freezer)
        driver = freezer.frozen()
        bench = digest_of_bench(self._conversation, session)
        key = _digest(driver.digest, bench)
        memories: Mapping[str, bytes] = {}
        if is_end and self._bench.is_thorough:
            memories = digests_of_checks(self._judge, session.device.name)
        return Place(
            state=session.state, key=key, memories=memories, opaque=driver.opaque
        )

    def _add_held(self, freezer: Freezer) -> None:
        """Take what the driver holds outside of its object: files and threads."""
        if threading.active_count() > self._threads:
            freezer.hide("it runs a thread")
        for name in sorted(_open_files() - self._files):
            try:
                what = str((_FDS / name).readlink())
            except OSError:
                continue  # it was the listing's own
            if not what.startswith(_MEMFD):
                freezer.hide(f"it holds a file, {what}")
            elif os.fstat(int(name)).st_size > BYTES_LIMIT:
                freezer.hide("it has more than 1 MiB of memory")
            else:
                freezer.add(os.pread(int(name), BYTES_LIMIT, 0))


def _digest(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()


def _open_files() -> frozenset[str]:
    return frozenset(os.listdir(_FDS))  # noqa: PTH208 -- names, not paths
