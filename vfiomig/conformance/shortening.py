"""Making the conversation of a finding short, and seeing that it comes again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.minimise import minimise
from vfiomig.conformance.deadly import DeadlyAccessError
from vfiomig.conformance.driver_lines import DriverLines
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.history import Access

if TYPE_CHECKING:
    from vfiomig.conformance.conversation.conversation import Conversation
    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.holding import Bench
    from vfiomig.conformance.ruling import Broken
    from vfiomig.protocol.history import Record

    Steps = tuple[Step, ...]

DIED: Final = "died"  # stands in the place of a rule where the driver died
_CONFIRMATIONS: Final = 3

# Making one conversation short may cost so much.
_ACCESSES: Final = 60_000
_BYTES: Final = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What a conversation shows: a rule that breaks, an outcome, or a death.

    An outcome may be any rule's: which one is known at the shortest conversation.
    """

    rule: str
    is_outcome: bool = False
    error: str = ""

    def is_seen_in(self, rule: str, broken: Broken) -> bool:
        """Tell whether this ruling is it."""
        if self.is_outcome or broken.is_outcome:
            return self.is_outcome and broken.is_outcome
        return rule == self.rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortened:
    """The shortest conversation of a finding; ``is_flaky`` if it did not come again.

    ``rule`` is what was ``sought``, or of an outcome the rule to blame in the end.
    """

    sought: Sought
    rule: str
    steps: Steps
    broken: Broken | None = None
    history: tuple[Record, ...] = ()
    where: str = ""
    printed: str = ""
    is_flaky: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """It was there: by which rule, and at which record."""

    rule: str
    at: int
    broken: Broken | None = None


class Shortener:
    """Finds the shortest conversation in which one driver shows what is sought."""

    def __init__(self, bench: Bench, sought: Sought) -> None:
        self._bench = bench
        self._sought = sought
        self._checks = [check for check in bench.checks if check.rule == sought.rule]
        bench.accesses_left, bench.bytes_left = _ACCESSES, _BYTES

    def shorten(self, steps: Steps) -> Shortened:
        """Return the shortest one found, explained; flaky if it never came again."""
        if all(self._cost(steps) is None for _ in range(_CONFIRMATIONS)):
            return self._flaky(steps)
        return self.explain(minimise(steps, self._cost))

    def explain(self, steps: Steps) -> Shortened:
        """Hold a conversation once more, and watch the driver's lines."""
        conversation = self._bench.open(self._checks)
        lines = DriverLines(conversation.records)
        self._bench.printed()
        with lines:
            seen = self._until_seen(conversation, steps)
        if seen is None:
            return self._flaky(steps)
        return Shortened(
            sought=self._sought,
            rule=seen.rule,
            steps=steps,
            broken=seen.broken,
            history=tuple(conversation.records[: seen.at]),
            where=lines.at(seen.at),
            printed=self._bench.printed(),
        )

    def _flaky(self, steps: Steps) -> Shortened:
        sought = self._sought
        return Shortened(sought=sought, rule=sought.rule, steps=steps, is_flaky=True)

    def _cost(self, steps: Steps) -> int | None:
        """Return the accesses up to where it shows; None where it does not."""
        if self._bench.accesses_left <= 0:
            return None
        conversation = self._bench.open(self._checks)
        seen = self._until_seen(conversation, steps)
        self._bench.account(conversation)
        if seen is None:
            return None
        records = conversation.records[: seen.at]
        return sum(isinstance(each, Access) for each in records)

    def _until_seen(self, conversation: Conversation, steps: Steps) -> _Seen | None:
        death = ""
        try:
            for each in steps:
                self._bench.told(each)
                conversation.perform([each])
                if self._seen(conversation, "") is not None:
                    break
        except DriverDiedError as died:
            death = self._bench.mourn(died).error
        except DeadlyAccessError:
            pass  # what was ruled until then stands
        try:
            conversation.close()
        except DriverDiedError as died:
            death = death or self._bench.mourn(died).error
        except DeadlyAccessError:
            pass
        self._bench.ended()
        return self._seen(conversation, death)

    def _seen(self, conversation: Conversation, death: str) -> _Seen | None:
        sought = self._sought
        if sought.error:
            at = len(conversation.records)
            return _Seen(rule=DIED, at=at) if death == sought.error else None
        for rule, broken, at in conversation.broken:
            if sought.is_seen_in(rule, broken):
                return _Seen(rule=rule, at=at, broken=broken)
        return None
