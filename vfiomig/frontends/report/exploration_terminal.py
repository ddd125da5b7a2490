"""What was explored, on a terminal: states, arcs, what was not covered, the verdict.

Rule 1: the last line says "proved" or how far it is bounded, and it is never wrapped.

Rule 2: what comes from outside is printed as it is, never as markup.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from rich.text import Text

from vfiomig.frontends.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from vfiomig.conformance.exploration.coverage import Coverage
    from vfiomig.conformance.exploring import ExplorationProgress

_WIDTH: Final = 88


def print_coverage(coverage: Coverage, console: Console) -> None:
    """Print how much was seen, and what may be said of the rest."""
    for line in coverage_lines(coverage):
        console.print(Text(plain(line)), soft_wrap=True)
    style = "bold green" if coverage.is_proved else "bold yellow"
    line = plain(coverage_line(coverage))
    console.print(Text(line, style=style), soft_wrap=True)


def coverage_line(coverage: Coverage) -> str:
    """Return in one line what may be said."""
    if coverage.is_proved:
        return "proved: any conversation of these steps ends at a place that was seen"
    return f"bounded to depth {coverage.depth}: of longer ones not all were held"


def coverage_lines(coverage: Coverage) -> Iterator[str]:
    """Yield states and arcs, the key, and what was not covered."""
    yield f"explored: {coverage.states} states, {coverage.arcs} arcs"
    yield from _wrapped(f"key: {'; '.join(coverage.key)}")
    if coverage.not_covered:
        total = len(coverage.covered) + len(coverage.not_covered)
        yield f"not covered: {len(coverage.not_covered)} of {total} steps by state"
        by_state: dict[str, list[str]] = {}
        for state, each in coverage.not_covered:
            by_state.setdefault(state, []).append(each)
        covered = {state for state, _ in coverage.covered}
        for state, steps in by_state.items():
            what = ", ".join(steps) if state in covered else "it was never there"
            yield from _wrapped(f"  {state}: {what}")
    yield from _wrapped(f"not tried: {'; '.join(coverage.not_tried)}")
    for reason in coverage.reasons:
        yield from _wrapped(f"not proved: {reason}")


def exploration_line(progress: ExplorationProgress) -> str:
    """Return how far the explorer is."""
    parts = [
        f"depth {progress.depth}",
        f"{progress.states} states",
        f"{progress.arcs} arcs",
        f"{progress.waiting} to go on from",
        f"{progress.findings} findings",
    ]
    if progress.deaths:
        parts.append(f"{progress.deaths} deaths")
    return "   ".join(parts)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
