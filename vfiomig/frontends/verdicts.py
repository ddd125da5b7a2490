"""What the snapshots of a run prove.

The phrase `Verdict.VERIFIED` is earned in one way only: the destination's snapshot,
taken within the write that enters RUNNING, equals the source's on entering STOP, and
differs from what the destination had before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.frontends.run_report import Verdict
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from vfiomig.frontends.run_report import DeviceReport, RunReport


def judge_devices(devices: list[DeviceReport], outcome: Outcome) -> None:
    """Give each device its verdict."""
    for device in devices:
        device.verdict, device.reason = _judged(device, outcome)


def run_is_ok(report: RunReport) -> bool:
    """Tell whether a run ended as its scenario expects, with nothing lost."""
    if report.outcome is not report.scenario.expected or report.flip_unnoticed:
        return False
    if report.outcome is Outcome.COMPLETED:
        return all(d.verdict is not Verdict.DIFFERS for d in report.devices)
    if report.outcome is Outcome.DIED:
        return True
    if any(device.verdict is Verdict.DIFFERS for device in report.devices):
        return False  # a guest that runs on has lost something
    return not report.lost and all(map(is_unharmed, report.devices))


def is_unharmed(device: DeviceReport) -> bool:
    """Tell whether a source that was stopped goes on with the state that it had.

    One that was not stopped may have changed by itself in between: a driver's clock
    may tick while it runs.
    """
    digests = device.digests
    return digests.source_at_stop in (None, digests.source_after_failure)


def has_changed(device: DeviceReport) -> bool:
    """Tell whether the state before a failure is another than the one after it."""
    before, after = (
        device.digests.source_before_failure,
        device.digests.source_after_failure,
    )
    return None not in (before, after) and before != after


def _judged(device: DeviceReport, outcome: Outcome) -> tuple[Verdict, str]:
    digests = device.digests
    if outcome is not Outcome.COMPLETED:
        return Verdict.DID_NOT_ARRIVE, ""
    if digests.destination_after is None or digests.source_at_stop is None:
        return Verdict.UNVERIFIED, f"{device.name} has no snapshot()"
    if digests.destination_after != digests.source_at_stop:
        return Verdict.DIFFERS, "the destination's snapshot is not the source's"
    if digests.destination_after == digests.destination_before:
        return Verdict.NOTHING_TO_MOVE, "the destination had that state before"
    return Verdict.VERIFIED, ""
