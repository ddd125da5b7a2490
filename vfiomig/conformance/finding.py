"""What the suite says in the end: a verdict for each rule, and a finding where broken.

A finding is facts only; how it reads is `explain`'s, how it looks the frontends'.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.ruling import Broken
    from vfiomig.protocol.history import Record


class Verdict(enum.Enum):
    """What became of a rule.

    ``OBSERVED`` is a broken one that does not fail the suite, ``WAIVED`` one that a
    baseline knows, ``FLAKY`` one whose finding did not happen again, ``NOT_REACHED``
    one whose premise never came true.
    """

    HELD = "held"
    BROKEN = "broken"
    OBSERVED = "observed"
    WAIVED = "waived"
    FLAKY = "flaky"
    NOT_REACHED = "not-reached"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A broken rule, and the conversation in which it was.

    ``history`` ends with the violating moment and is the shortest that was found;
    ``steps`` are what the bench did; ``where`` is the driver's own line that answered,
    ``printed`` what it wrote meanwhile, ``token`` what `vfiomig replay` takes.
    """

    rule: Rule
    broken: Broken
    device: str
    history: tuple[Record, ...] = ()
    where: str = ""
    printed: str = ""
    token: str = ""
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """What became of a rule; ``reached`` counts the conversations that ruled on it."""

    rule: Rule
    verdict: Verdict
    reason: str = ""
    reached: int = 0
    finding: Finding | None = None


def verdict_of(results: Iterable[RuleResult], *, has_died: bool) -> str:
    """Return the verdict on a driver: ``died``, ``broken`` or ``held``, the worst."""
    if has_died:
        return "died"
    is_broken = any(result.verdict is Verdict.BROKEN for result in results)
    return "broken" if is_broken else "held"


def verdict_on(rule: Rule, *, reached: int, finding: Finding | None) -> Verdict:
    """Return the verdict on a rule that could be judged."""
    if finding is not None:
        return Verdict.BROKEN if rule.fails else Verdict.OBSERVED
    return Verdict.HELD if reached else Verdict.NOT_REACHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A driver that died: the access, the error, its line, and the conversation."""

    access: str
    error: str
    where: str
    steps: tuple[Step, ...]
    printed: str = ""
    token: str = ""
    history: tuple[Record, ...] = ()


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
        return verdict_of(self.results, has_died=bool(self.deaths))
