"""Every conversation of a small driver: breadth first, up to a fixed point or a limit.

A conversation that comes to a place where another has been before is not gone on with.
Two places are one where the key is equal: the driver's whole object, where the protocol
stands, and what the user application knows, its last answers among it.  A thorough
exploration goes on for each check, too, that remembers something new.  The first
conversation that breaks a rule is the shortest that does.

Rule 1: "proved" is said only where no place is left to go on from, every part of the
driver is in the key, and every conversation came again to where it had been.

Rule 2: what is held is cut into batches of one size, and their answers are taken in
order: the result is the same whatever executor holds them.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.conformance.catalogue import (
    bound_checks,
    driver_rules,
    ids_by_origin,
    load_catalogue,
)
from vfiomig.conformance.exploration.coverage import Coverage, Seen
from vfiomig.conformance.exploration.findings import Found
from vfiomig.conformance.exploration.holding_many import (
    DEATHS_LIMIT,
    Arrival,
    HeldBatch,
    explain_all,
    hold_batch,
)
from vfiomig.conformance.exploration.looking_on import look_on
from vfiomig.conformance.exploration.vocabulary import VOCABULARY
from vfiomig.conformance.finding import Outcome
from vfiomig.conformance.target import load_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.exploration.looking_on import Event
    from vfiomig.conformance.shortening import Shortened
    from vfiomig.host.device_ops import TrappedDriver

    Steps = tuple[Step, ...]
    HoldBatch = Callable[[tuple[Steps, ...]], HeldBatch]

DEPTH: Final = 40  # steps of a conversation
STATES_LIMIT: Final = 2000

_BATCH: Final = 64  # conversations that one worker holds
_AHEAD: Final = 4  # batches that an executor is given at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What was found: as the suite tells it, and how much of the driver was seen."""

    outcome: Outcome
    coverage: Coverage


@dataclass(slots=True)
class ExplorationProgress:
    """How far the explorer is; shown while it runs."""

    depth: int = 0
    states: int = 0
    arcs: int = 0
    waiting: int = 0
    findings: int = 0
    deaths: int = 0


def explore(
    make_driver: Callable[[], TrappedDriver],
    *,
    rules: Sequence[Rule] | None = None,
    depth: int = DEPTH,
    states_limit: int = STATES_LIMIT,
    vocabulary: tuple[Step, ...] = VOCABULARY,
    is_thorough: bool = False,
    executor: Executor | None = None,
    watch: Callable[[ExplorationProgress], None] = lambda _: None,
) -> Exploration:
    """Explore a driver that is given as a function; a process cannot be sent one.

    ``depth`` counts steps, ``states_limit`` places from which to go on; where it
    ``is_thorough``, what each check remembers is in the key as well.  An interrupt ends
    it early, with what was found so far.
    """
    chosen = driver_rules(load_catalogue() if rules is None else rules)
    checks = bound_checks(chosen)
    rule_ids = ids_by_origin(chosen)
    hold = partial(hold_batch, make_driver, checks, rule_ids, is_thorough=is_thorough)
    explorer = _Explorer(
        chosen, vocabulary, Limits(depth, states_limit, is_thorough), watch
    )
    explorer.run(hold, executor)
    shortened = explain_all(make_driver, checks, rule_ids, explorer.found.sought())
    return explorer.exploration(shortened)


def explore_target(
    text: str,
    *,
    rules: Sequence[Rule] | None = None,
    depth: int = DEPTH,
    states_limit: int = STATES_LIMIT,
    vocabulary: tuple[Step, ...] = VOCABULARY,
    is_thorough: bool = False,
    executor: Executor | None = None,
    watch: Callable[[ExplorationProgress], None] = lambda _: None,
) -> Exploration:
    """Explore what a TARGET names; an executor is sent its text: it may have processes.

    Raises:
        TargetError, TargetStartError: as `load_target` does.
    """
    make_driver = load_target(text).make_driver
    chosen = driver_rules(load_catalogue() if rules is None else rules)
    checks = bound_checks(chosen)
    rule_ids = ids_by_origin(chosen)
    explorer = _Explorer(
        chosen, vocabulary, Limits(depth, states_limit, is_thorough), watch
    )
    names = tuple(rule.id for rule in chosen)
    explorer.run(partial(_hold_target, text, names, is_thorough), executor)
    shortened = explain_all(make_driver, checks, rule_ids, explorer.found.sought())
    return explorer.exploration(shortened)


def _hold_target(
    text: str,
    names: tuple[str, ...],
    is_thorough: bool,  # noqa: FBT001 -- a partial has it
    walks: tuple[Steps, ...],
) -> HeldBatch:
    """Hold a batch in whatever process this is."""
    return _holder_of(text, names, is_thorough=is_thorough)(walks)


@cache
def _holder_of(text: str, names: tuple[str, ...], *, is_thorough: bool) -> HoldBatch:
    rules = [rule for rule in load_catalogue() if rule.id in names]
    rule_ids = ids_by_origin(rules)
    return partial(
        hold_batch,
        load_target(text).make_driver,
        bound_checks(rules),
        rule_ids,
        is_thorough=is_thorough,
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """A conversation to go on from, with the events of each step.

    ``rules`` are those whose checks remember something new of a place that is not;
    None where the place itself is new, and the conversation has to be held.
    """

    steps: Steps
    key: bytes
    state: int | None
    events: tuple[tuple[Event, ...], ...]
    rules: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Arc:
    """A step from a place: what was recorded, and the place that it leads to."""

    events: tuple[Event, ...]
    key: bytes
    state: int | None


class Limits(NamedTuple):
    """How far to go: steps, places, and whether for what the checks remember."""

    depth: int
    states: int
    is_thorough: bool


class _Explorer:
    def __init__(
        self,
        rules: tuple[Rule, ...],
        vocabulary: tuple[Step, ...],
        limits: Limits,
        watch: Callable[[ExplorationProgress], None],
    ) -> None:
        self._rules = rules
        self._checks = bound_checks(rules)
        self._arcs: dict[tuple[bytes, Step], _Arc] = {}
        self._vocabulary = vocabulary
        self._depth, self._states_limit, is_thorough = limits
        self._watch = watch
        self._progress = ExplorationProgress()
        self._keys: set[bytes] = set()
        self._pairs: set[tuple[bytes, str, bytes]] = set()
        self.found = Found()
        self._seen = Seen(is_thorough)
        self._worker_deaths = 0
        self._whole_depth = 0
        self._is_interrupted = False

    # -- going on ----------------------------------------------------------------------

    def run(self, hold: HoldBatch, executor: Executor | None) -> None:
        """Go on until there is nowhere to go, or a limit is met."""
        try:
            self._run(hold, executor)
        except KeyboardInterrupt:
            self._is_interrupted = True
            self._seen.stopped("it was interrupted")

    def _run(self, hold: HoldBatch, executor: Executor | None) -> None:
        frontier = self._root(hold)
        while frontier and not self._is_stopped():
            if self._whole_depth >= self._depth:
                self._seen.stopped(f"conversations end after {self._depth} steps")
                return
            frontier = self._level(frontier, hold, executor)
            if not self._is_stopped():
                self._whole_depth += 1

    def _is_stopped(self) -> bool:
        return bool(self._seen.limits)

    def _root(self, hold: HoldBatch) -> list[_Node]:
        held = hold(((),))
        for steps, died in held.deaths:
            self.found.bury(steps, died)
        arrival = held.arrivals[0]
        if arrival is None or arrival.place is None:
            if arrival is not None:
                self.found.take(arrival)
            self._seen.stopped("the driver did not live to its first access")
            return []
        self.found.take(arrival)
        place = arrival.place
        self._seen.state(place)
        root = _Node((), place.key, place.state, (arrival.events,))
        return self._gone_on(root, place.memories)

    def _level(
        self, frontier: list[_Node], hold: HoldBatch, executor: Executor | None
    ) -> list[_Node]:
        """Take every step from every node; return the new nodes."""
        following: list[_Node] = []
        is_whole = self._seen.is_whole
        new = [node for node in frontier if node.rules is None or not is_whole]
        for tasks, held in _held(self._tasks(new), hold, executor):
            for steps, died in held.deaths:
                self.found.bury(steps, died)
            self._worker_deaths += len(held.deaths)
            for (node, each), arrival in zip(tasks, held.arrivals, strict=False):
                following += self._arrive(node, each, arrival)
            self._tell(len(frontier))
            if self._worker_deaths >= DEATHS_LIMIT:
                self._seen.stopped(f"it ended its process {DEATHS_LIMIT} times")
            if len(self._keys) > self._states_limit:
                self._seen.stopped(f"there are more than {self._states_limit} states")
            if self._is_stopped():
                return []
        for node in frontier:
            if node.rules is not None and is_whole:
                following += self._look_on(node)
                self._tell(len(frontier))
        return following

    def _tell(self, waiting: int) -> None:
        progress = self._progress
        progress.depth, progress.waiting = self._whole_depth + 1, waiting
        progress.states, progress.arcs = len(self._keys), self._seen.arcs
        progress.findings = len(self.found.broken)
        progress.deaths = len(self.found.deaths)
        self._watch(progress)

    def _tasks(self, nodes: list[_Node]) -> Iterator[tuple[_Node, Step]]:
        for node in nodes:
            for each in self._vocabulary:
                yield node, each

    def _arrive(self, node: _Node, each: Step, arrival: Arrival | None) -> list[_Node]:
        """Follow a conversation that was held."""
        self._seen.arcs += 1
        if arrival is None:
            self._seen.arc(node.state, each)
            return []
        self.found.take(arrival)
        if arrival.before is not None and arrival.before.key != node.key:
            self._seen.strayed(arrival.steps[:-1])
        if arrival.step_accesses:
            self._seen.arc(node.state, each)
        place = arrival.place
        if place is None:
            return []
        self._arcs[node.key, each] = _Arc(arrival.events, place.key, place.state)
        self._seen.state(place)
        events = (*node.events, arrival.events)
        there = _Node(arrival.steps, place.key, place.state, events)
        return self._gone_on(there, place.memories)

    def _look_on(self, node: _Node) -> list[_Node]:
        """Take every step from a place that is known, for the checks that are new."""
        following: list[_Node] = []
        checks = [check for check in self._checks if check.rule in (node.rules or ())]
        for each in self._vocabulary:
            arc = self._arcs.get((node.key, each))
            if arc is None:
                continue  # the driver died of it
            steps, events = (*node.steps, each), (*node.events, arc.events)
            seen = look_on(checks, events)
            self.found.rule_on(steps, seen)
            there = _Node(steps, arc.key, arc.state, events)
            following += self._gone_on(there, seen.memories)
        return following

    def _gone_on(self, there: _Node, memories: Mapping[str, bytes]) -> list[_Node]:
        """Return the node from which to go on, if anything about it is new."""
        pairs = {(there.key, rule, kept) for rule, kept in memories.items()}
        new = pairs - self._pairs
        self._pairs |= new
        if there.key not in self._keys:
            self._keys.add(there.key)
            return [there]
        rules = frozenset(rule for _, rule, _ in new)
        return [replace(there, rules=rules)] if rules else []

    # -- what was found ----------------------------------------------------------------

    def exploration(self, shortened: dict[str, Shortened]) -> Exploration:
        """Return what was found."""
        found = self.found
        outcome = Outcome(
            results=tuple(found.result(rule, shortened) for rule in self._rules),
            deaths=tuple(found.deaths),
            conversations=self._seen.arcs,
            accesses=found.accesses,
            data=found.data,
            is_interrupted=self._is_interrupted,
        )
        coverage = self._seen.coverage(
            self._vocabulary, states=len(self._keys), depth=self._whole_depth
        )
        return Exploration(outcome=outcome, coverage=coverage)


def _held(
    tasks: Iterable[tuple[_Node, Step]], hold: HoldBatch, executor: Executor | None
) -> Iterator[tuple[tuple[tuple[_Node, Step], ...], HeldBatch]]:
    """Yield each batch of tasks with its answer, in their order."""
    left = iter(tasks)
    batches = iter(lambda: tuple(itertools.islice(left, _BATCH)), ())
    if executor is None:
        for batch in batches:
            yield batch, hold(_walks(batch))
        return
    begun: deque[tuple[tuple[tuple[_Node, Step], ...], Future[HeldBatch]]] = deque()
    try:
        for batch in batches:
            begun.append((batch, executor.submit(hold, _walks(batch))))
            if len(begun) >= _AHEAD:
                first, future = begun.popleft()
                yield first, future.result()
        while begun:
            first, future = begun.popleft()
            yield first, future.result()
    finally:
        for _, future in begun:
            future.cancel()


def _walks(batch: tuple[tuple[_Node, Step], ...]) -> tuple[Steps, ...]:
    return tuple((*node.steps, each) for node, each in batch)
