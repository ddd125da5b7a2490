"""Holding conversations: jobs in, reports out; nothing here knows of processes.

A job is a stretch of scripts, a block of generated conversations, or a conversation
to be made short.  Each conversation has fresh devices and fresh checks.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from vfiomig.conformance.appetite import Appetite
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.device import opened
from vfiomig.conformance.conversation.scripts import scripts
from vfiomig.conformance.conversation.steps import Step, step
from vfiomig.conformance.conversation.ticking import Ticking
from vfiomig.conformance.deadly import DeadlyAccessError, avoiding, words_of
from vfiomig.conformance.shortening import Shortened, Shortener, Sought
from vfiomig.conformance.target import TargetStartError
from vfiomig.conformance.user_code import defining_line, raising_line
from vfiomig.protocol.errors import DriverDiedError, DriverLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vfiomig.conformance.conversation.device import Begin
    from vfiomig.conformance.judge import Bound
    from vfiomig.conformance.ruling import Broken
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.history import Record

    Steps = tuple[Step, ...]


_STATE_OF_A_JOB: Final = 768 << 20  # bytes, about 4 conversations with 64 MiB of state

# How a conversation begins for which the budget has nothing left.
KEEP_SHORT: Final = step("keep_short")


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
    """Make a conversation as short as can be that shows what is sought."""

    sought: Sought
    steps: Steps


@dataclass(frozen=True, slots=True)
class Look:
    """Make one driver, and see what it offers a bench."""


@dataclass(frozen=True, slots=True)
class Autopsy:
    """Hold a conversation again that ended its worker, up to its deadly access.

    That is the ``number``-th, and not made: it counts as one of which the driver died,
    by ``error``.
    """

    steps: Steps
    number: int
    error: str


Job: TypeAlias = Scripted | Generated | Shorten | Look | Autopsy


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One conversation: what was ruled on, what broke first of each rule, who died."""

    steps: Steps
    reached: frozenset[str]
    broken: dict[str, Broken]
    accesses: int
    moved: int
    died: DriverDiedError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Autopsied:
    """What led to a death; ``fatal`` rules are broken by it, ``broken`` were before."""

    history: tuple[Record, ...]
    broken: dict[str, Broken]
    fatal: dict[str, Broken]


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Which members of the bench a driver has."""

    work: bool = False
    snapshot: bool = False
    fail: bool = False


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Why there is no driver; ``where`` is ``file:line``, empty if ``why`` tells it."""

    why: str
    where: str = ""

    def __str__(self) -> str:
        """Return both in one line, the place first."""
        return f"{self.where}: {self.why}" if self.where else self.why


Report: TypeAlias = Held | Shortened | Members | NotStarted | Autopsied


@dataclass(slots=True, kw_only=True)
class Bench:
    """What conversations are held with; accesses that are ``deadly`` end them.

    ``bytes_left`` and ``accesses_left`` are its budget: behind it conversations are
    kept short.  ``state_left`` are bytes of state that devices may be opened with:
    behind it a job is over, for with a large state that alone takes long.  Where a
    device ``is_alone``, there is one at a time.  ``printed`` returns what the driver
    has printed since it was asked.  ``lost`` is told of a driver that is gone with what
    held it, and need not return.
    """

    make_driver: Callable[[], TrappedDriver]
    checks: list[Bound]
    rule_ids: Mapping[str, str]
    bytes_left: int
    accesses_left: int = 1 << 30
    state_left: int = _STATE_OF_A_JOB
    state_size: int = 0
    deadly: frozenset[str] = frozenset()
    is_alone: bool = False
    ticking: Ticking = field(default_factory=Ticking)
    appetite: Appetite = field(default_factory=Appetite)
    begin: Begin = field(default=lambda *_: None)
    told: Callable[[Step], None] = field(default=lambda _: None)
    ended: Callable[[], None] = field(default=lambda: None)
    printed: Callable[[], str] = field(default=lambda: "")
    lost: Callable[[DriverLostError], None] = field(default=lambda _: None)

    def perform(self, job: Job) -> Iterator[Report]:
        """Do a job; yield each report as soon as there is one."""
        match job:
            case Scripted(first, end):
                for steps in scripts()[first:end]:
                    yield self.hold(steps)
                    if self.appetite.is_told or self.state_left <= 0:
                        return  # it would only go on
            case Generated():
                yield from self._generate(job)
            case Look():
                yield self._look()
            case Shorten():
                yield Shortener(self, job.sought).shorten(job.steps)
            case Autopsy():
                yield from self._examine(job)

    def hold(self, steps: Steps, checks: list[Bound] | None = None) -> Held:
        """Hold one conversation from its steps."""
        holder = _Holder(self, checks)
        for each in steps:
            holder.perform(each)
        return holder.end()

    def open(self, checks: list[Bound] | None = None) -> Conversation:
        """Begin a conversation with fresh devices."""
        return Conversation(
            self.make_driver,
            self.checks if checks is None else checks,
            rule_ids=self.rule_ids,
            begin=avoiding(self.deadly, self.begin),
            ticking=self.ticking,
            is_alone=self.is_alone,
        )

    def mourn(self, death: DriverDiedError) -> DriverDiedError:
        """Tell of a death whoever must know; return it."""
        if isinstance(death, DriverLostError):
            self.lost(death)
        return death

    def _generate(self, job: Generated) -> Iterator[Report]:
        # Not at the top: hypothesis takes a moment, and not every job needs it.
        from vfiomig.conformance.conversation.machine import converse

        done: list[Held] = []

        class Collecting(_Holder):
            def finish(self) -> None:
                held = self.end()
                if held.steps:
                    done.append(held)

        def begin() -> Collecting:
            holder = Collecting(self, None)
            holder.is_over = self.state_left <= 0
            return holder

        converse(
            begin,
            conversations=job.conversations,
            seed_number=job.seed,
        )
        yield from done

    def _examine(self, job: Autopsy) -> Iterator[Autopsied]:
        """Take a conversation up to its death; nothing where it does not come there."""
        again, number = self.begin, 0

        def begin(access: str, offset: int, size: int) -> None:
            nonlocal number
            number += 1
            if number == job.number:
                raise DriverDiedError(words_of(access, offset, size), "", job.error)
            again(access, offset, size)

        conversation = replace(self, begin=begin).open()
        try:
            conversation.perform(job.steps)
            conversation.close()
        except DriverDiedError:
            last = len(conversation.records)
            rulings = conversation.broken
            yield Autopsied(
                history=tuple(conversation.records),
                broken={rule: ruling for rule, ruling, at in rulings if at < last},
                fatal={rule: ruling for rule, ruling, at in rulings if at == last},
            )

    def _look(self) -> Members | NotStarted:
        try:
            device = opened(self.make_driver, "", lambda _: None, self.begin)
        except DriverDiedError as death:
            return self._not_started(death)
        bench = device.bench
        with contextlib.suppress(DriverDiedError):
            device.close()  # what is to be said of it is said in conversations
        return Members(
            work=bench.work is not None,
            snapshot=bench.snapshot is not None,
            fail=bench.fail is not None,
        )

    def _not_started(self, death: DriverDiedError) -> NotStarted:
        cause = death.__cause__
        if isinstance(death, DriverLostError):
            return NotStarted(death.error, death.where)
        if isinstance(cause, TargetStartError):
            return NotStarted(str(cause))  # it begins with the place
        where = raising_line(cause, None) if cause is not None else None
        where = where or defining_line(self.make_driver) or death.where
        return NotStarted(death.error, where)

    def account(self, conversation: Conversation) -> None:
        """Count what a conversation cost."""
        self.bytes_left -= conversation.moved
        self.accesses_left -= len(conversation.records)
        opened, state_size = conversation.measured
        self.state_size = max(self.state_size, state_size)
        self.state_left -= opened * self.state_size


class _Holder:
    """One conversation as it goes on, step by step."""

    def __init__(self, bench: Bench, checks: list[Bound] | None) -> None:
        self._bench = bench
        self._complaint = bench.appetite.complaint()
        self._conversation = bench.open(checks)
        self._steps: list[Step] = []
        self.died: DriverDiedError | None = None
        self.is_over = False
        self._is_short = False

    def perform(self, each: Step) -> None:
        """Perform a step, unless it is over; keep short what the budget has not."""
        if not self._is_short and self._is_spent():
            self._is_short = True
            self._perform(KEEP_SHORT)
        self._perform(each)

    def _is_spent(self) -> bool:
        bench, so_far = self._bench, self._conversation
        return bench.bytes_left <= so_far.moved or bench.accesses_left <= len(
            so_far.records
        )

    def _perform(self, each: Step) -> None:
        if self.is_over:
            return
        self._steps.append(each)
        self._bench.told(each)
        try:
            self._conversation.perform([each])
        except DriverDiedError as death:
            self.died = self._bench.mourn(death)
            self.is_over = True
        except DeadlyAccessError:
            self.is_over = True

    def end(self) -> Held:
        try:
            self._conversation.close()
        except DriverDiedError as death:
            self.died = self.died or self._bench.mourn(death)
        except DeadlyAccessError:
            pass
        if self._complaint and self.died is None:
            self.died = DriverDiedError("close", "", self._complaint)
        broken: dict[str, Broken] = {}
        for rule, ruling, _ in self._conversation.broken:
            _put(broken, rule, ruling)
        self._bench.ended()
        self._bench.account(self._conversation)
        return Held(
            steps=tuple(self._steps),
            reached=frozenset(self._conversation.kept | broken.keys()),
            broken=broken,
            accesses=len(self._conversation.records),
            moved=self._conversation.moved,
            died=self.died,
        )


def _put(broken: dict[str, Broken], rule: str, ruling: Broken) -> None:
    """Keep the first, but rather one that a sequence of accesses shows."""
    known = broken.get(rule)
    if known is None or (known.is_outcome and not ruling.is_outcome):
        broken[rule] = ruling
