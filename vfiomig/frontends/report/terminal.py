"""A run on a terminal, or in a file that somebody reads: the summary at its end.

Rule 1: the last line is the verdict, and it is never wrapped.

Rule 2: what comes from outside is printed as it is, never as markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.parameters import command_of
from vfiomig.frontends.report.parts import (
    HART_HEADINGS,
    hart_rows,
    machine_figures,
    pre_copy_words,
    rounds_words,
    stop_and_copy_words,
)
from vfiomig.frontends.report.units import bytes_text, time_text
from vfiomig.frontends.report.verdict import (
    Tone,
    device_words,
    downtime_words,
    outcome_words,
    overall_verdict,
)
from vfiomig.frontends.run_report import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from vfiomig.frontends.run_report import Digests, RunReport
    from vfiomig.migration.metrics import Round

_STYLES: Final = {
    Tone.GOOD: "bold green",
    Tone.CAUTION: "bold yellow",
    Tone.BAD: "bold red",
}
_DEVICE_STYLES: Final = {
    Verdict.VERIFIED: "green",
    Verdict.NOTHING_TO_MOVE: "green",
    Verdict.UNVERIFIED: "yellow",
    Verdict.DIFFERS: "red",
    Verdict.DID_NOT_ARRIVE: "red",
}
# Of a long pre-copy the first rounds and the last; --json and --html have them all.
_FIRST, _LAST = 10, 5
_DIGEST_LENGTH: Final = 8
_LABEL: Final = len("stop-and-copy") + 2
_DIGESTS_OF_A_MOVE: Final = {
    "source_at_start": "source\nat start",
    "source_at_stop": "source\nat stop",
    "destination_before": "dest.\nbefore",
    "destination_after": "dest.\nafter",
}
# What tells whether the source was harmed; with the others no line holds it.
_DIGESTS_OF_A_FAILURE: Final = {
    "source_at_start": "source\nat start",
    "source_at_stop": "source\nat stop",
    "source_before_failure": "source\nat failure",
    "source_after_failure": "source\nafter it",
}


def print_summary(report: RunReport, console: Console) -> None:
    """Print the summary of a run, the verdict last."""
    verdict = overall_verdict(report)
    _line(console, _title(report), "bold")
    _line(console, "")
    if report.metrics.rounds:
        _table(console, _rounds_table(report.metrics.rounds))
    for what, figure in _figures(report):
        _line(console, f"{what:<{_LABEL}}{figure}")
    _line(console, "")
    _table(console, _devices_table(report))
    if report.harts:
        _table(console, _harts_table(report))
        for hart, *_, befell in hart_rows(report):
            if befell:
                _line(console, f"hart {hart}: {befell}")
    if report.xen is not None:
        for befell in report.xen.befell:
            _line(console, plain(befell))
    for note in report.notes:
        _line(console, f"note: {plain(note)}")
    if not report.ok:
        _line(console, f"reproduce with: {command_of(report.scenario)}")
    _line(console, verdict.text, _STYLES[verdict.tone])


def _title(report: RunReport) -> str:
    scenario = report.scenario
    how = f"seed {scenario.seed}, {scenario.conduct}, {scenario.transport}"
    return f"{plain(scenario.name)}: {outcome_words(report.outcome)} ({how})"


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)


def _table(console: Console, table: Table) -> None:
    console.print(table)
    _line(console, "")


def _new_table() -> Table:
    # Two spaces at least between columns: words of neighbours never make a phrase.
    return Table(box=None, header_style="dim", padding=(0, 2, 0, 0))


def _rounds_table(rounds: list[Round]) -> Table:
    table = _new_table()
    for heading in ("round", "began at", "took", "pending", "sent", "polls"):
        table.add_column(heading, justify="right", no_wrap=True)
    hidden = len(rounds) - _FIRST - _LAST
    first = rounds if hidden <= 1 else rounds[:_FIRST]
    last = [] if hidden <= 1 else rounds[-_LAST:]
    for one in first:
        table.add_row(*_round_cells(one))
    if last:
        table.add_row("...", f"({hidden} more)")
    for one in last:
        table.add_row(*_round_cells(one))
    return table


def _round_cells(one: Round) -> Iterator[str]:
    yield str(one.number)
    yield time_text(one.began_at)
    ended = one.ended_at >= one.began_at and one.ended_at > 0
    yield time_text(one.ended_at - one.began_at) if ended else "-"
    yield bytes_text(one.pending_bytes)
    yield bytes_text(one.sent_bytes)
    yield str(one.polls)


def _figures(report: RunReport) -> Iterator[tuple[str, str]]:
    metrics = report.metrics
    total, parts = pre_copy_words(report)
    yield "pre-copy", _with_parts(f"{total} in {rounds_words(metrics)}", parts)
    yield "stop-and-copy", _with_parts(*stop_and_copy_words(report))
    for what, figure, beside in machine_figures(report):
        yield what, f"{figure}, {beside}" if beside else figure
    yield "stream", f"{bytes_text(metrics.stream_bytes)}, framing included"
    downtime, beside = downtime_words(metrics, report.scenario.limits.downtime)
    yield "downtime", f"{downtime} ({beside})"
    if metrics.ended_at is not None:
        yield "ended", f"at {time_text(metrics.ended_at)} of virtual time"


def _with_parts(total: str, parts: str) -> str:
    return f"{total} ({parts})" if parts else total


def _devices_table(report: RunReport) -> Table:
    headings = _digest_headings(report)
    table = _new_table()
    table.add_column("device", overflow="fold")
    table.add_column("is", no_wrap=True)
    for heading in headings.values():
        table.add_column(heading, no_wrap=True)
    for device in report.devices:
        verdict = Text(device_words(device.verdict), _DEVICE_STYLES[device.verdict])
        digests = (_short(device.digests, name) for name in headings)
        table.add_row(Text(plain(device.name)), verdict, *digests)
    return table


def _harts_table(report: RunReport) -> Table:
    table = _new_table()
    *headings, _ = HART_HEADINGS  # what befell it may be long: a line of its own
    for heading in headings:
        is_count = heading in ("in U", "in S")
        table.add_column(heading, justify="right" if is_count else "left", no_wrap=True)
    for *cells, _ in hart_rows(report):
        table.add_row(*cells)
    return table


def _digest_headings(report: RunReport) -> dict[str, str]:
    """Return the columns that some device has a digest for."""
    digests = [device.digests for device in report.devices]
    failed = any(one.source_after_failure for one in digests)
    headings = _DIGESTS_OF_A_FAILURE if failed else _DIGESTS_OF_A_MOVE
    return {
        name: heading
        for name, heading in headings.items()
        if any(getattr(one, name) for one in digests)
    }


def _short(digests: Digests, name: str) -> str:
    digest: str | None = getattr(digests, name)
    return digest[:_DIGEST_LENGTH] if digest else "-"
