"""What an exploration found, by rule: the first is the shortest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vfiomig.conformance.conversation.steps import token_of
from vfiomig.conformance.finding import Death, Finding, RuleResult, Verdict, verdict_on
from vfiomig.conformance.shortening import Sought

if TYPE_CHECKING:
    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.exploration.holding_many import Arrival
    from vfiomig.conformance.exploration.looking_on import LookedOn
    from vfiomig.conformance.ruling import Broken
    from vfiomig.conformance.shortening import Shortened
    from vfiomig.conformance.worker import WorkerDied

    Steps = tuple[Step, ...]


@dataclass(slots=True)
class Found:
    """What was found so far; ``accesses`` and bytes of ``data`` are what it took."""

    broken: dict[str, tuple[Steps, Broken]] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)
    accesses: int = 0
    data: int = 0

    def take(self, arrival: Arrival) -> None:
        """Take what was ruled at the last step of a conversation that was held."""
        self.accesses += arrival.accesses
        self.data += arrival.moved
        for rule in arrival.reached:
            self.reached[rule] = self.reached.get(rule, 0) + 1
        for rule, broken in arrival.broken.items():
            self._keep(rule, arrival.steps, broken)
        if arrival.died is not None:
            died = arrival.died
            self._die(
                Death(
                    access=died.access,
                    error=died.error,
                    where=died.where,
                    steps=arrival.steps,
                    token=token_of("died", arrival.steps),
                )
            )

    def bury(self, steps: Steps, died: WorkerDied) -> None:
        """Take a conversation that ended its process."""
        self._die(
            Death(
                access=died.access,
                error=died.how,
                where="",
                steps=steps,
                printed=died.printed,
                token=token_of("died", steps),
            )
        )

    def rule_on(self, steps: Steps, seen: LookedOn) -> None:
        """Take what was ruled at the last step of one that was put together."""
        for rule in seen.kept | {rule for rule, _ in seen.broken}:
            self.reached[rule] = self.reached.get(rule, 0) + 1
        for rule, broken in seen.broken:
            self._keep(rule, steps, broken)

    def _keep(self, rule: str, steps: Steps, broken: Broken) -> None:
        """Keep the first of a rule; of all outcomes the first, with its rule."""
        if broken.is_outcome and any(b.is_outcome for _, b in self.broken.values()):
            return
        self.broken.setdefault(rule, (steps, broken))

    def sought(self) -> list[tuple[Sought, Steps]]:
        """Return what to look for once more, each in its shortest conversation."""
        return [
            (Sought(rule=rule, is_outcome=broken.is_outcome), steps)
            for rule, (steps, broken) in self.broken.items()
        ]

    def _die(self, death: Death) -> None:
        told = {(each.error, each.where) for each in self.deaths}
        if (death.error, death.where) not in told:
            self.deaths.append(death)

    def result(self, rule: Rule, shortened: dict[str, Shortened]) -> RuleResult:
        """Return what became of a rule; ``shortened`` are findings held once more."""
        reached = self.reached.get(rule.id, 0)
        if rule.untestable and not reached:
            verdict, reason = Verdict.NOT_APPLICABLE, rule.untestable
            return RuleResult(rule=rule, verdict=verdict, reason=reason)
        if rule.id not in self.broken:
            verdict = verdict_on(rule, reached=reached, finding=None)
            return RuleResult(rule=rule, verdict=verdict, reached=reached)
        steps, broken = self.broken[rule.id]
        again = shortened.get(rule.id)
        if again is not None and again.is_flaky:
            reason = "the conversation did not break it again"
            return RuleResult(
                rule=rule, verdict=Verdict.FLAKY, reason=reason, reached=reached
            )
        finding = Finding(
            rule=rule,
            broken=(again.broken if again else None) or broken,
            device="",
            history=again.history if again else (),
            where=again.where if again else "",
            token=token_of(rule.id, steps),
            steps=steps,
        )
        verdict = verdict_on(rule, reached=reached, finding=finding)
        return RuleResult(rule=rule, verdict=verdict, reached=reached, finding=finding)
