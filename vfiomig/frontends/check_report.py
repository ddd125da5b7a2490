"""What one run of the suite came to: the facts that every report of it is made from."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfiomig.conformance.explain import explain
from vfiomig.conformance.finding import Verdict, verdict_of
from vfiomig.conformance.vfio_user.target import is_vfio_user

if TYPE_CHECKING:
    from vfiomig.conformance.explain import Argument
    from vfiomig.conformance.exploration.coverage import Coverage
    from vfiomig.conformance.finding import Death, Finding, Outcome, RuleResult


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """One run of the suite on one target, after its baseline was applied.

    ``stale`` are baseline entries, as lines, whose rule held; ``coverage`` is what the
    explorer saw, where it ran.
    """

    target: str
    seed: int
    effort: str
    outcome: Outcome
    results: tuple[RuleResult, ...]
    stale: tuple[str, ...] = ()
    coverage: Coverage | None = None

    @property
    def deaths(self) -> tuple[Death, ...]:
        """Conversations that the driver did not live through."""
        return self.outcome.deaths

    @property
    def is_over_a_socket(self) -> bool:
        """Whether the driver is a server's, of which only its replies are seen."""
        return is_vfio_user(self.target)

    @property
    def unseen(self) -> list[RuleResult]:
        """The rules that do not apply because the driver has nothing for a bench."""
        return [
            result
            for result in self.results
            if result.verdict is Verdict.NOT_APPLICABLE
            and result.rule.party == "vendor driver"
            and result.rule.needed
        ]

    @property
    def verdict(self) -> str:
        """``held``, ``broken`` or ``died``: what `--json` says."""
        return verdict_of(self.results, has_died=bool(self.deaths))

    @property
    def ok(self) -> bool:
        """Whether the run may pass: all held, and no entry of the baseline is stale."""
        return self.verdict == "held" and not self.stale

    def argument(self, finding: Finding) -> Argument:
        """Lay a finding out, with the command that shows it again."""
        return explain(finding, reproduce=self.replay_command(finding.token))

    def replay_command(self, token: str) -> str:
        """Return the command that replays a token on this target."""
        return f"vfiomig replay {token} {shlex.quote(self.target)}" if token else ""
