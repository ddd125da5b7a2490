"""The suite as a function, for test runners and scripts (style R10).

It needs no runner and prints nothing: what it found is in the exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.explain import explain
from vfiomig.conformance.suite import run_suite
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.conformance.finding import Death, Finding
    from vfiomig.host.device_ops import TrappedDriver

EffortName = Literal["quick", "normal", "thorough"]


class NonConformingError(VfiomigError, AssertionError):
    """A driver broke rules, or died in a conversation.

    It is an AssertionError, too: to a test runner that is a failure, not an error.

    ``findings`` are the broken rules, ``deaths`` the conversations that it did not
    live through; ``str()`` is the argument for each of them, as plain text.
    """

    def __init__(
        self, findings: tuple[Finding, ...], deaths: tuple[Death, ...]
    ) -> None:
        super().__init__(findings, deaths)
        self.findings = findings
        self.deaths = deaths

    def __str__(self) -> str:
        """Return the arguments, with an empty line between two."""
        arguments = [str(explain(finding)) for finding in self.findings]
        arguments += ["\n".join(lines_of_death(death)) for death in self.deaths]
        return "\n\n".join(arguments)


def check_vendor_driver(
    make_driver: Callable[[], TrappedDriver],
    *,
    effort: EffortName = "normal",
    seed: int = 1,
) -> None:
    """Look for conversations in which a driver breaks a rule.

    ``make_driver`` returns a fresh driver in its default state, each time another.
    The same seed and effort have the same conversations.

    Raises:
        NonConformingError: it broke a rule that fails the suite, or it died.
        ValueError: there is no such effort.
    """
    if effort not in EFFORTS:
        message = f"effort is one of {', '.join(EFFORTS)}, not {effort!r}"
        raise ValueError(message)
    outcome = run_suite(make_driver, effort=EFFORTS[effort], seed=seed)
    if outcome.is_interrupted:
        raise KeyboardInterrupt
    if outcome.verdict != "held":
        raise NonConformingError(tuple(outcome.findings), outcome.deaths)


def lines_of_death(
    death: Death, *, target: str = "TARGET", steps: int = 8
) -> Iterator[str]:
    """Yield what is known of a death: access, error, line, last steps, output."""
    yield f"the driver died at {death.access or 'its start'}"
    yield f"     Error: {death.error}"
    if death.where:
        yield f"     Where: {death.where}"
    if death.steps:
        last = ", ".join(map(str, death.steps[-steps:]))
        label = "Last steps" if len(death.steps) > steps else "Conversation"
        yield f"  {label}: {last}"
    printed = death.printed.strip()
    if printed:
        yield "  It printed:"
        yield from (f"    {line}" for line in printed.splitlines())
    if death.token:
        yield f"  Reproduce with: vfiomig replay {death.token} {target}"
