"""A run of the suite on a terminal: each finding explained, then the summary.

Rule 1: the last line is the verdict, and it is never wrapped.

Rule 2: what comes from outside is printed as it is, never as markup.
"""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

from rich.text import Text

from vfiomig.conformance.finding import Verdict
from vfiomig.conformance.library import lines_of_death
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.units import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from vfiomig.conformance.explain import Argument
    from vfiomig.frontends.check_report import CheckReport

_WIDTH: Final = 88
_STYLES: Final = {
    Verdict.BROKEN: "bold red",
    Verdict.OBSERVED: "bold yellow",
    Verdict.WAIVED: "bold yellow",
}
_LABELS: Final = ("Let:", "Then:", "Expected:", "Actual:", "Where:", "Reproduce with:")


def print_check(report: CheckReport, console: Console) -> None:
    """Print findings, deaths, the counts, and the verdict last.

    Over a socket, how many rules cannot be judged stands in front of all.
    """
    if report.is_over_a_socket:
        unseen = _rules(len(report.unseen))
        _line(console, f"over a socket {unseen} cannot be judged")
    for result in report.results:
        if result.finding is None or result.verdict is Verdict.WAIVED:
            continue
        print_argument(
            report.argument(result.finding), console, _STYLES.get(result.verdict, "")
        )
    for death in report.deaths:
        target = shlex.quote(report.target)
        print_death(lines_of_death(death, target=target), console)
    for line in _summary(report):
        _line(console, line)
    for line in report.stale:
        _line(console, f"stale: {line}", "bold red")
    _line(console, verdict_line(report), "bold green" if report.ok else "bold red")


def print_argument(argument: Argument, console: Console, style: str) -> None:
    """Print an argument, and an empty line behind it."""
    headline, *lines = str(argument).split("\n")
    _line(console, headline, style)
    for line in lines:
        text = Text(plain(line))
        text.highlight_words(_LABELS, "bold")
        console.print(text, soft_wrap=True)
    _line(console, "")


def print_death(lines: Iterable[str], console: Console) -> None:
    """Print what is known of a death, and an empty line behind it."""
    headline, *others = lines
    _line(console, headline, "bold red")
    for line in others:
        _line(console, line)
    _line(console, "")


def verdict_line(report: CheckReport) -> str:
    """Return the verdict in one line."""
    counts = Counter(result.verdict for result in report.results)
    begun = "interrupted: " if report.outcome.is_interrupted else ""
    broken = f"broken: {_rules(counts[Verdict.BROKEN])}"
    if report.verdict == "died":
        more = f"; {broken}" if counts[Verdict.BROKEN] else ""
        return f"{begun}died: the driver did not live through every conversation{more}"
    if report.verdict == "broken":
        return f"{begun}{broken}"
    if report.stale:
        return f"{begun}held, but the baseline is stale"
    if not counts[Verdict.HELD]:
        return f"{begun}held: but no rule was reached"
    return f"{begun}held: {_rules(counts[Verdict.HELD])}"


def _summary(report: CheckReport) -> Iterator[str]:
    outcome = report.outcome
    counts = Counter(result.verdict for result in report.results)
    yield ", ".join(f"{counts[each]} {each.value}" for each in Verdict if counts[each])
    yield (
        f"seed {report.seed}, effort {report.effort}: "
        f"{outcome.conversations} conversations, {outcome.accesses} accesses, "
        f"{bytes_text(outcome.data)} of data"
    )
    for verdict in (Verdict.NOT_REACHED, Verdict.FLAKY):
        names = [r.rule.id for r in report.results if r.verdict is verdict]
        if names:
            yield from textwrap.wrap(
                f"{verdict.value}: {', '.join(names)}",
                _WIDTH,
                subsequent_indent="  ",
                break_on_hyphens=False,
                break_long_words=False,
            )
    for result in report.results:
        if result.verdict is Verdict.WAIVED:
            yield f"waived: {result.rule.id}: {result.reason}"


def _rules(number: int) -> str:
    return f"{number} rule" if number == 1 else f"{number} rules"


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(plain(text), style=style), soft_wrap=True)
