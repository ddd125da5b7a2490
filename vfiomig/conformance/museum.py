"""The museum's exhibits on trial: who is found, by which rule.

Rule 1: an exhibit is judged first, as anybody's code would be; what it says of itself
is read only behind that.  Nothing that judges imports this file.

Rule 2: exhibits travel between processes as the text of their targets.
"""

from __future__ import annotations

import importlib
import time
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final, cast

from vfiomig.client.mutants import every_client
from vfiomig.conformance.catalogue import Rule, load_catalogue
from vfiomig.conformance.driving import judge_user_application
from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.finding import Death, Outcome, Verdict
from vfiomig.conformance.suite import run_suite
from vfiomig.protocol.history import Access
from vfiomig.vendor.mutants import every_mutant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from vfiomig.conformance.catalogue import PartyName
    from vfiomig.conformance.driving import UserApplication
    from vfiomig.host.device_ops import TrappedDriver

_LONGEST_DEATH: Final = 200  # characters that are kept of what killed a driver


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A mutant: ``target`` is ``package.module:NAME``, ``violates`` rule ids."""

    target: str
    party: PartyName
    violates: frozenset[str]

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.target.rpartition(":")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of an exhibit.

    ``broken`` has, for each rule that was found broken, the accesses of the shortest
    conversation; None where it was too long to be kept.  That of a user application
    is its own, and is not shortened.  ``died`` says what killed a driver, in a line.
    """

    exhibit: Exhibit
    broken: dict[str, int | None]
    died: str
    seconds: float
    is_interrupted: bool = False

    @property
    def found_by(self) -> tuple[str, ...]:
        """Its own rules among those that were found broken, sorted."""
        return tuple(sorted(self.exhibit.violates & self.broken.keys()))

    @property
    def others(self) -> int:
        """How many other rules were found broken."""
        return len(self.broken) - len(self.found_by)

    @property
    def is_found(self) -> bool:
        """Whether a rule that it says it breaks was found broken."""
        return bool(self.found_by)

    @property
    def accesses(self) -> int | None:
        """Accesses of the shortest conversation that breaks a rule of its own."""
        known = [self.broken[rule] for rule in self.found_by]
        return min((count for count in known if count is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The museum as a whole.

    ``median`` is of the vendor drivers' shortest conversations, in accesses;
    ``unbroken`` are the rules that an exhibit could break and none says it does.
    """

    found: int
    missed: int
    died: int
    median: float | None
    unbroken: tuple[str, ...]


# -- what there is ---------------------------------------------------------------------


def every_exhibit() -> list[Exhibit]:
    """Return all mutants: the vendor drivers, and behind them the user applications."""
    return [
        *(_exhibit(each, "vendor driver") for each in every_mutant().items()),
        *(_exhibit(each, "user application") for each in every_client().items()),
    ]


def exhibits_named(name: str) -> list[Exhibit]:
    """Return those that a name means, first of these that means any.

    A target or the name of a class; the id or origin of a rule that is violated; the
    party; what ids of violated rules, or names of classes, begin with.
    """
    exhibits = every_exhibit()
    rules = {rule.id for rule in load_catalogue() if rule.origin == name.upper()}
    rules.add(name)
    ways: list[Callable[[Exhibit], object]] = [
        lambda each: name in (each.target, each.name),
        lambda each: rules & each.violates,
        lambda each: name == each.party,
        lambda each: name and any(rule.startswith(name) for rule in each.violates),
        lambda each: name and each.name.startswith(name),
    ]
    for way in ways:
        if found := [each for each in exhibits if way(each)]:
            return found
    return []


def breakable_rules() -> list[Rule]:
    """Return the rules that a mutant can break, and be found by.

    Those of the vendor driver above MAY that can be tested, and those of the user
    application that a check decides.
    """
    return [
        rule
        for rule in load_catalogue()
        if rule.level != "MAY"
        and not rule.untestable
        and (rule.party == "vendor driver" or rule.check)
    ]


def unbroken_rules(exhibits: Iterable[Exhibit]) -> tuple[str, ...]:
    """Return the breakable rules that none of the exhibits says it breaks."""
    broken = frozenset().union(*(each.violates for each in exhibits))
    return tuple(rule.id for rule in breakable_rules() if rule.id not in broken)


def _exhibit(entry: tuple[str, type], party: PartyName) -> Exhibit:
    target, mutant = entry
    return Exhibit(
        target=target,
        party=party,
        violates=mutant.__dict__["violates"],
    )


# -- the trial -------------------------------------------------------------------------


def try_exhibit(exhibit: Exhibit, *, effort: str, seed: int) -> Tried:
    """Judge one exhibit; an interrupt ends it early, and is told of."""
    module, _, name = exhibit.target.partition(":")
    make = getattr(importlib.import_module(module), name)
    begun = time.monotonic()
    if exhibit.party == "user application":
        driven = judge_user_application(cast("Callable[[], UserApplication]", make))
        broken: dict[str, int | None] = dict(driven.broken)
        return _tried(exhibit, broken, "; ".join(driven.raised), begun)
    outcome = run_suite(
        cast("Callable[[], TrappedDriver]", make), effort=EFFORTS[effort], seed=seed
    )
    died = _one_line(outcome.deaths[0]) if outcome.deaths else ""
    return _tried(
        exhibit,
        _broken_in(outcome),
        died,
        begun,
        is_interrupted=outcome.is_interrupted,
    )


def try_all(
    exhibits: Sequence[Exhibit],
    *,
    effort: str,
    seed: int = 1,
    executor: Executor | None = None,
) -> Iterator[Tried]:
    """Judge all of them, here or on an executor; yield each when it is done.

    Raises:
        KeyboardInterrupt: what was yielded until then is all that is done.
    """
    attempt = partial(try_exhibit, effort=effort, seed=seed)
    tried_one_by_one: Iterator[Tried] = map(attempt, exhibits)
    if executor is not None:
        ahead = [executor.submit(attempt, each) for each in exhibits]
        tried_one_by_one = (done.result() for done in as_completed(ahead))
    for tried in tried_one_by_one:
        if tried.is_interrupted:
            raise KeyboardInterrupt
        yield tried


def totals_of(tried: Sequence[Tried]) -> Totals:
    """Sum up a run; ``unbroken`` is about the whole museum, whatever was run."""
    counts = [
        each.accesses
        for each in tried
        if each.exhibit.party == "vendor driver" and each.accesses is not None
    ]
    found = sum(each.is_found for each in tried)
    return Totals(
        found=found,
        missed=len(tried) - found,
        died=sum(bool(each.died) for each in tried),
        median=median(counts) if counts else None,
        unbroken=unbroken_rules(every_exhibit()),
    )


def _tried(
    exhibit: Exhibit,
    broken: dict[str, int | None],
    died: str,
    begun: float,
    *,
    is_interrupted: bool = False,
) -> Tried:
    return Tried(
        exhibit=exhibit,
        broken=broken,
        died=died,
        seconds=time.monotonic() - begun,
        is_interrupted=is_interrupted,
    )


def _broken_in(outcome: Outcome) -> dict[str, int | None]:
    broken: dict[str, int | None] = {}
    for result in outcome.results:
        if result.finding is None or result.verdict not in _BROKEN:
            continue
        accesses = sum(isinstance(one, Access) for one in result.finding.history)
        broken[result.rule.id] = accesses or None
    return broken


# An observation is what breaking a rule comes to that does not fail the suite.
_BROKEN: Final = (Verdict.BROKEN, Verdict.OBSERVED)


def _one_line(death: Death) -> str:
    where = f" at {death.access}" if death.access else ""
    return " ".join(f"{death.error}{where}".split())[:_LONGEST_DEATH]
