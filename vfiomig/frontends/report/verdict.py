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
from vfiomig.frontends.report.units import time_text
from vfiomig.frontends.run_report import Verdict
from vfiomig.frontends.verdicts import has_changed, is_unharmed
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.run_report import DeviceReport, RunReport
    from vfiomig.migration.metrics import Metrics

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
    Outcome.INTERRUPTED: "interrupted",
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


def downtime_words(metrics: Metrics, limit: int) -> tuple[str, str]:
    """Return the downtime, and what to say beside it: why none, expected, limit."""
    downtime, expected, beside = metrics.downtime, metrics.expected_downtime, []
    if downtime is None:
        stopped = metrics.stopped_at is not None
        why = "the destination never ran" if stopped else "the source never stopped"
        beside.append(why)
    if expected is not None:
        beside.append(f"expected {time_text(expected)}")
    beside.append(f"limit {time_text(limit)}")
    if downtime is not None and downtime > limit:
        beside.append("exceeded")
    return "none" if downtime is None else time_text(downtime), ", ".join(beside)


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
    if report.metrics.ended_at is None:
        return "the migration never began"
    if report.metrics.resumed_at is not None:
        return "by then the destination ran"
    if report.lost:
        return f"the source does not run on: {plain(listed(report.lost))}"
    unknown = [d.name for d in report.devices if d.digests.source_after_failure is None]
    harmed = [
        device.name
        for device in report.devices
        if device.name not in unknown and not is_unharmed(device)
    ]
    if harmed:
        return f"the source runs on, but its state changed: {plain(listed(harmed))}"
    if wrong := [d for d in report.devices if d.verdict is Verdict.DIFFERS]:
        return f"the source runs on, but not unharmed: {_with_reasons(wrong)}"
    # One that never stopped may have changed by itself: said, but no proof of harm.
    if changed := [d.name for d in report.devices if has_changed(d)]:
        names = plain(listed(changed))
        return f"the source runs on, and its state changed while it ran: {names}"
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
        what = f"{death.error} at {death.access} ({death.where})"
        reason = f"{death.party}, {death.device}: {what}"
    else:
        reason = report.reason or "no reason was given"
    if report.outcome is Outcome.INTERRUPTED:
        # Both sides were left where they stood: nobody brought the source back.
        return f"{text}: {plain(reason)}"
    return f"{text}: {plain(reason)}; {source_condition(report)}"


def _unexpected(report: RunReport) -> str:
    if (expected := report.scenario.expected) is not report.outcome:
        return f"{report.outcome.value}, but {expected.value} was expected"
    if report.flip_unnoticed:
        return "completed, but a flipped bit of the stream went unnoticed"
    return "" if report.ok else "completed, but not as it should"


def _doubts(devices: list[DeviceReport]) -> Iterator[str]:
    """Say what keeps the claim back, the worst first."""
    for verdict in _NOT_ARRIVED:
        if found := [device for device in devices if device.verdict is verdict]:
            yield f"{_DEVICE_WORDS[verdict]}: {_with_reasons(found)}"
    if found := [d for d in devices if d.verdict is Verdict.UNVERIFIED]:
        why = [device.reason or f"{device.name} has no snapshot()" for device in found]
        yield f"unverified: {plain(listed(why))}"
    if not devices:
        yield "unverified: there was no device"


def _with_reasons(devices: list[DeviceReport]) -> str:
    return listed(
        [
            plain(f"{device.name} ({device.reason})" if device.reason else device.name)
            for device in devices
        ]
    )
