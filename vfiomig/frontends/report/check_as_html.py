"""A run of the suite as one self-contained page: nothing from elsewhere."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

import vfiomig
from vfiomig.conformance.finding import Verdict
from vfiomig.conformance.library import lines_of_death
from vfiomig.conformance.snippet import snippet_of
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.check_terminal import verdict_line
from vfiomig.frontends.report.page import page_of
from vfiomig.frontends.report.sequence import sequence_of
from vfiomig.frontends.report.units import bytes_text

if TYPE_CHECKING:
    from vfiomig.conformance.finding import Finding, RuleResult
    from vfiomig.frontends.check_report import CheckReport


def check_as_html(report: CheckReport) -> bytes:
    """Return the page, in UTF-8."""
    return page_of("check.html.j2", _facts(report))


def _facts(report: CheckReport) -> dict[str, object]:
    outcome = report.outcome
    counts = Counter(result.verdict for result in report.results)
    return {
        "target": plain(report.target),
        "verdict": report.verdict,
        "line": plain(verdict_line(report)),
        "tone": "good" if report.ok else "bad",
        "stale": report.stale,
        "counts": [(each.value, counts[each]) for each in Verdict if counts[each]],
        "sections": [
            (section, [_row(result) for result in results])
            for section, results in groupby(
                report.results, key=lambda result: result.rule.section
            )
        ],
        "findings": [
            _finding(report, result.finding, result)
            for result in report.results
            if result.finding is not None
        ],
        "deaths": [
            "\n".join(map(plain, lines_of_death(death, target=report.target)))
            for death in report.deaths
        ],
        "run": (
            f"seed {report.seed}, effort {report.effort}, "
            f"{outcome.conversations} conversations, {outcome.accesses} accesses, "
            f"{bytes_text(outcome.data)} of data"
        ),
        "version": vfiomig.__version__,
    }


def _row(result: RuleResult) -> dict[str, object]:
    rule = result.rule
    return {
        "id": rule.id,
        "level": rule.level,
        "title": rule.title,
        "verdict": result.verdict.value,
        "reason": plain(result.reason),
        "is_linked": result.finding is not None,
    }


def _finding(
    report: CheckReport, finding: Finding, result: RuleResult
) -> dict[str, object]:
    argument = report.argument(finding)
    lines = str(argument).split("\n")
    return {
        "id": finding.rule.id,
        "verdict": result.verdict.value,
        "text": "\n".join(map(plain, lines)),
        "sequence": sequence_of(finding),
        "snippet": snippet_of(report.target, finding.history),
    }
