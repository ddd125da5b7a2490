"""What a run proves, in words: the only place that says them.

Rule 1: "state verified" is said of a run as a whole, and only when it completed as
its scenario expects, every device's snapshots were compared and equal or the same
from the start, and at least one had something to move.  Of one device it is
``verified``.

Rule 2: what was not compared is said to be so, never left out.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.frontends.plain_text import CLAIM, listed, plain
from vfiomig.frontends.run_report import Verdict
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.run_report import DeviceReport, RunReport

_DEVICE_WORDS: Final = {
    Verdict.VERIFIED: "verified",
    Verdict.NOTHING_TO_MOVE: "nothing to move",
    Verdict.UNVERIFIED: "unverified",
    Verdict.DIFFERS: "state differs",
    Verdict.DID_NOT_ARRIVE: "did not arrive",
}
_NOT_ARRIVED: Final = (Verdict.DIFFERS, Verdict.DID_NOT_ARRIVE)
_OUTCOME_WORDS: Final = {
    Outcome.COMPLETED: "completed",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
    Outcome.NOT_CONVERGED: "did not converge",
    Outcome.DIED: "died",
}


class Tone(enum.Enum):
    """How a verdict is to be taken; a renderer gives it a colour."""

    GOOD = "good"
    CAUTION = "caution"
    BAD = "bad"


class OverallVerdict(NamedTuple):
    """The last line of every report."""

    text: str
    tone: Tone


def device_words(verdict: Verdict) -> str:
    """Name what is known of one device, in the words of a table."""
    return _DEVICE_WORDS[verdict]


def outcome_words(outcome: Outcome) -> str:
    """Name how a run ended, as a sentence does."""
    return _OUTCOME_WORDS[outcome]


def overall_verdict(report: RunReport) -> OverallVerdict:
    """Say in one line what the run proves; see the rules of this file."""
    if report.outcome is not Outcome.COMPLETED:
        tone = Tone.CAUTION if report.ok else Tone.BAD
        return OverallVerdict(_failure(report), tone)
    verdicts = {device.verdict for device in report.devices}
    doubts = "; ".join(_doubts(report.devices))
    if not report.ok or verdicts.intersection(_NOT_ARRIVED):
        why = [_unexpected(report), doubts, plain(report.reason)]
        return OverallVerdict("; ".join(part for part in why if part), Tone.BAD)
    if doubts:
        return OverallVerdict(doubts, Tone.CAUTION)
    if Verdict.VERIFIED in verdicts:
        return OverallVerdict(CLAIM, Tone.GOOD)
    return OverallVerdict(_DEVICE_WORDS[Verdict.NOTHING_TO_MOVE], Tone.GOOD)


def source_condition(report: RunReport) -> str:
    """Say whether the source runs on after a failure, and how that is known."""
    last = {device.name: "RUNNING" for device in report.devices}
    for change in report.metrics.state_changes:
        if change.party == "source":
            last[change.device] = change.device_state
    stuck = [
        f"{name} is in {state}" for name, state in last.items() if state != "RUNNING"
    ]
    if stuck:
        return f"the source does not run on: {plain(listed(stuck))}"
    changed, unknown = [], []
    for device in report.devices:
        before = device.digests.source_before_failure
        after = device.digests.source_after_failure
        if before is None or after is None:
            unknown.append(device.name)
        elif before != after:
            changed.append(device.name)
    if changed:
        return f"the source runs on, but its state changed: {plain(listed(changed))}"
    if unknown:
        compared = f"{plain(listed(unknown))} not compared"
        return f"the source runs on, whether unharmed is not known: {compared}"
    return "the source runs on unharmed"


def _failure(report: RunReport) -> str:
    """Say what failed, why, and what became of the source."""
    expected = report.scenario.expected
    text = outcome_words(report.outcome)
    if expected is report.outcome:
        text += " as expected"
    elif expected is not Outcome.COMPLETED:
        text += f" ({expected.value} was expected)"
    if (death := report.death) is not None:
        what = f"{death.device} at the {death.party}, {death.access}: {death.error}"
        return f"{text}: {plain(f'{what} ({death.where})')}; {source_condition(report)}"
    reason = f": {plain(report.reason)}" if report.reason else ""
    return f"{text}{reason}; {source_condition(report)}"


def _unexpected(report: RunReport) -> str:
    if (expected := report.scenario.expected) is not report.outcome:
        return f"{report.outcome.value}, but {expected.value} was expected"
    return "" if report.ok else "completed, but not as it should"


def _doubts(devices: list[DeviceReport]) -> Iterator[str]:
    """Say what keeps the claim back, the worst first."""
    for verdict in _NOT_ARRIVED:
        if found := [device for device in devices if device.verdict is verdict]:
            yield f"{_DEVICE_WORDS[verdict]}: {_with_reasons(found)}"
    found = [device for device in devices if device.verdict is Verdict.UNVERIFIED]
    silent = [plain(device.name) for device in found if not device.reason]
    if silent:
        have = "has" if len(silent) == 1 else "have"
        yield f"unverified: {listed(silent)} {have} no snapshot()"
    if explained := [device for device in found if device.reason]:
        yield f"unverified: {_with_reasons(explained)}"
    if not devices:
        yield "unverified: there was no device"


def _with_reasons(devices: list[DeviceReport]) -> str:
    return listed(
        [
            plain(f"{device.name} ({device.reason})" if device.reason else device.name)
            for device in devices
        ]
    )
