"""Holding conversations: jobs in, reports out; nothing here knows of processes.

A job is a stretch of scripts, a block of generated conversations, or a conversation
to be made short.  Each conversation has fresh devices and fresh checks.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from vfiomig.conformance.conversation.conversation import BYTES_LIMIT, Conversation
from vfiomig.conformance.conversation.minimise import minimise
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.ruling import Broken
from vfiomig.host import device_fd
from vfiomig.protocol.errors import DriverDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from vfiomig.conformance.conversation.device import Begin
    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.judge import Bound
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.history import Record

    Steps = tuple[Step, ...]

# When the budget of bytes is spent, a conversation may still move so many.
_LEAST_BYTES: Final = 64 << 10
_LEAST_BUFFERS: Final = 64
_CONFIRMATIONS: Final = 3

# Making one conversation short may cost so many accesses.
_SHORTENING: Final = 200_000


@dataclass(frozen=True, slots=True)
class Scripted:
    """Hold the scripts from ``first`` up to, but not including, ``end``."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Generated:
    """Hold so many conversations made from a seed."""

    seed: int
    conversations: int


@dataclass(frozen=True, slots=True)
class Shorten:
    """Make a conversation that breaks a rule, by its id, as short as can be."""

    rule: str
    steps: Steps


Job: TypeAlias = Scripted | Generated | Shorten


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One conversation: what was reached, what broke first of each rule, who died."""

    steps: Steps
    reached: dict[str, int]
    broken: dict[str, Broken]
    accesses: int
    moved: int
    died: DriverDiedError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortened:
    """The shortest conversation of a finding; ``is_flaky`` if it did not come again."""

    rule: str
    steps: Steps
    broken: Broken | None = None
    history: tuple[Record, ...] = ()
    where: str = ""
    is_flaky: bool = False


Report: TypeAlias = Held | Shortened


@dataclass(slots=True, kw_only=True)
class Bench:
    """What conversations are held with.

    ``bytes_left`` and ``accesses_left`` are its budget.
    """

    make_driver: Callable[[], TrappedDriver]
    checks: list[Bound]
    rule_ids: Mapping[str, str]
    bytes_left: int
    accesses_left: int = _SHORTENING
    begin: Begin = field(default=lambda *_: None)
    told: Callable[[Step], None] = field(default=lambda _: None)
    ended: Callable[[], None] = field(default=lambda: None)

    def perform(self, job: Job) -> Iterator[Report]:
        """Do a job; yield each report as soon as there is one."""
        match job:
            case Scripted(first, end):
                for steps in scripts()[first:end]:
                    yield self.hold(steps)
            case Generated():
                yield from self._generate(job)
            case Shorten():
                yield self._shorten(job)

    def hold(self, steps: Steps, checks: list[Bound] | None = None) -> Held:
        """Hold one conversation from its steps."""
        holder = _Holder(self, checks)
        for each in steps:
            if holder.died is None:
                holder.perform(each)
        return holder.end()

    def open(self, checks: list[Bound] | None = None) -> Conversation:
        """Begin a conversation with fresh devices."""
        conversation = Conversation(
            self.make_driver,
            self.checks if checks is None else checks,
            rule_ids=self.rule_ids,
            begin=self.begin,
        )
        conversation.bytes_limit = max(_LEAST_BYTES, min(BYTES_LIMIT, self.bytes_left))
        if self.accesses_left <= 0:
            conversation.buffers_limit = _LEAST_BUFFERS
        return conversation

    def _generate(self, job: Generated) -> Iterator[Report]:
        # Not at the top: hypothesis takes a moment, and not every job needs it.
        from vfiomig.conformance.conversation.machine import converse

        done: list[Held] = []

        class Collecting(_Holder):
            def finish(self) -> None:
                done.append(self.end())

        converse(
            lambda: Collecting(self, None),
            conversations=job.conversations,
            seed_number=job.seed,
        )
        yield from done

    def _shorten(self, job: Shorten) -> Shortened:
        checks = [check for check in self.checks if check.rule == job.rule]

        self.bytes_left, self.accesses_left = BYTES_LIMIT, _SHORTENING

        def still_breaks(steps: Steps) -> bool:
            if self.accesses_left <= 0:
                return False
            return job.rule in self.hold(steps, checks).broken

        if not any(still_breaks(job.steps) for _ in range(_CONFIRMATIONS)):
            return Shortened(rule=job.rule, steps=job.steps, is_flaky=True)
        steps = minimise(job.steps, still_breaks)
        return self._explained(job.rule, steps, checks)

    def _explained(self, rule: str, steps: Steps, checks: list[Bound]) -> Shortened:
        """Hold the shortest conversation once more, and watch the driver's lines."""
        conversation = self.open(checks)
        lines = _Lines(conversation.records)
        found: tuple[Broken, int] | None = None
        with lines:
            for each in steps:
                conversation.perform([each])
                found = _first_broken(conversation, rule)
                if found is not None:
                    break
        conversation.close()
        if found is None:
            return Shortened(rule=rule, steps=steps, is_flaky=True)
        broken, at = found
        history = tuple(conversation.records[:at])
        return Shortened(
            rule=rule,
            steps=steps,
            broken=broken,
            history=history,
            where=lines.at(at),
        )


class _Holder:
    """One conversation as it goes on, step by step."""

    def __init__(self, bench: Bench, checks: list[Bound] | None) -> None:
        self._bench = bench
        self._conversation = bench.open(checks)
        self._steps: list[Step] = []
        self.died: DriverDiedError | None = None

    def perform(self, each: Step) -> None:
        if self.died is not None:
            return
        self._steps.append(each)
        self._bench.told(each)
        try:
            self._conversation.perform([each])
        except DriverDiedError as death:
            self.died = death

    def end(self) -> Held:
        try:
            self._conversation.close()
        except DriverDiedError as death:
            self.died = self.died or death
        reached: dict[str, int] = {}
        broken: dict[str, Broken] = {}
        for rule, ruling, _ in self._conversation.rulings:
            reached[rule] = reached.get(rule, 0) + 1
            if isinstance(ruling, Broken):
                broken.setdefault(rule, ruling)
        self._bench.ended()
        self._bench.bytes_left -= self._conversation.moved
        self._bench.accesses_left -= len(self._conversation.records)
        return Held(
            steps=tuple(self._steps),
            reached=reached,
            broken=broken,
            accesses=len(self._conversation.records),
            moved=self._conversation.moved,
            died=self.died,
        )


def _first_broken(conversation: Conversation, rule: str) -> tuple[Broken, int] | None:
    for name, ruling, at in conversation.rulings:
        if name == rule and isinstance(ruling, Broken):
            return ruling, at
    return None


class _Lines:
    """Which line of the driver answered each access, by the number of its record.

    The driver is whatever the host's device fd calls.
    """

    def __init__(self, records: list[Record]) -> None:
        self._records = records
        self._at: dict[int, str] = {}

    def __enter__(self) -> None:
        sys.setprofile(self._profile)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def at(self, record: int) -> str:
        """Return the line that answered a record, or the last one before it."""
        known = [number for number in self._at if number <= record]
        return self._at[max(known)] if known else ""

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        caller = frame.f_back
        if event != "return" or caller is None:
            return
        own = frame.f_code.co_filename
        if own == _HOST or caller.f_code.co_filename != _HOST:
            return
        self._at[len(self._records) + 1] = f"{own}:{frame.f_lineno}"


_HOST: Final = device_fd.__file__
