"""What became of a stream that was loaded: the facts that its reports are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vfiomig.frontends.plain_text import CLAIM, listed, plain
from vfiomig.frontends.run_report import Verdict
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from vfiomig.frontends.run_report import DeviceReport


@dataclass(slots=True, kw_only=True)
class LoadedDevice:
    """One device: the section that was its own, and what it took of it.

    ``device_state`` is the one that it was left in; ``changed_config`` counts bytes of
    its configuration space that are others than before.
    """

    report: DeviceReport
    idstr: str
    buffers: int = 0
    size: int = 0
    changed_config: int = 0
    device_state: str = ""


@dataclass(slots=True, kw_only=True)
class LoadedRam:
    """What of RAM was loaded: pages as they came, and what the guest still lacks.

    ``left_out`` are blocks of the stream, each with the reason; ``report`` is
    ``None`` where nothing was loaded.
    """

    report: DeviceReport | None = None
    pages: int = 0
    encoded: int = 0
    missing: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class IncomingReport:
    """One stream, loaded or not.

    ``reason`` is one line on why the outcome is not "completed"; ``is_unreadable``
    says that it is the stream's fault, not a device's.  ``passed_over`` counts the
    sections that were not loaded by name.  ``expected_from`` is the report that the
    digests were compared with.
    """

    file: str
    size: int
    scenario: str
    machine_type: str | None = None
    outcome: Outcome = Outcome.COMPLETED
    reason: str = ""
    is_unreadable: bool = False
    devices: list[LoadedDevice] = field(default_factory=list)
    ram: LoadedRam = field(default_factory=LoadedRam)
    passed_over: dict[str, int] = field(default_factory=dict)
    commands: list[int] = field(default_factory=list)
    expected_from: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def reports(self) -> list[DeviceReport]:
        """All that has digests: the devices, and RAM."""
        ram = [] if self.ram.report is None else [self.ram.report]
        return [each.report for each in self.devices] + ram

    @property
    def ok(self) -> bool:
        """Whether all that could be loaded was, and nothing is known to differ."""
        differs = any(each.verdict is Verdict.DIFFERS for each in self.reports)
        return self.outcome is Outcome.COMPLETED and not differs


def verdict_of(report: IncomingReport) -> str:
    """Say in one line what is known; the claim is earned by comparison alone."""
    if report.outcome is not Outcome.COMPLETED:
        return f"{report.outcome.value}: {plain(report.reason)}"
    by_verdict = {
        verdict: [plain(e.name) for e in report.reports if e.verdict is verdict]
        for verdict in Verdict
    }
    if differing := by_verdict[Verdict.DIFFERS]:
        return f"state differs: {listed(differing)}"
    if unknown := by_verdict[Verdict.UNVERIFIED]:
        return f"loaded, unverified: {listed(unknown)}"
    if by_verdict[Verdict.VERIFIED]:
        return CLAIM
    return Verdict.NOTHING_TO_MOVE.value
