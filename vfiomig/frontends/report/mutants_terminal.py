"""The museum on a terminal: a row for each exhibit, then the sums.

Rule 1: a row is one line, and it is never wrapped; the last line says how many were
found.

Rule 2: while it runs, one line on a terminal says which of how many is on trial.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.text import Text

from vfiomig.frontends.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import Console

    from vfiomig.conformance.museum import Exhibit, Totals, Tried

_HEADS: Final = ("mutant", "breaks", "found by", "others", "accesses", "seconds")
_BUILT_FOR: Final = {
    "vendor driver": "vendor drivers; accesses of the shortest conversation",
    "user application": "user applications; accesses until it was seen, not shortened",
}


class MuseumView:
    """Shows which exhibit is on trial; a context manager, silent on no terminal."""

    def __init__(self, console: Console, exhibits: Sequence[Exhibit]) -> None:
        self._console = console
        self._left = [each.name for each in exhibits]
        self._number = len(exhibits)
        self._missed = 0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        console = self._console
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
            self._draw()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def done(self, tried: Tried) -> None:
        """Take note of an exhibit whose trial is over."""
        self._left.remove(tried.exhibit.name)
        self._missed += not tried.is_found
        self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            line = Text(self.line(), no_wrap=True, overflow="ellipsis")
            self._live.update(line, refresh=True)

    def line(self) -> str:
        """Return how far the trials are."""
        over = self._number - len(self._left)
        parts = [f"{min(over + 1, self._number)} of {self._number} mutants"]
        if self._missed:
            parts.append(f"{self._missed} missed")
        if self._left:
            parts.append(self._left[0])
        return "   ".join(parts)


def print_museum(
    tried: Sequence[Tried],
    totals: Totals,
    console: Console,
    *,
    number: int,
    is_interrupted: bool = False,
) -> None:
    """Print the matrix, the sums, and the verdict last.

    ``number`` is how many were to be tried.
    """
    for party, members in groupby(tried, key=lambda each: each.exhibit.party):
        _line(console, _BUILT_FOR[party], "bold")
        _print_rows(list(members), console)
        _line(console, "")
    for line in _sums(totals):
        _line(console, line)
    whole = not totals.missed and not is_interrupted
    begun = f"interrupted after {len(tried)} of {number}: " if is_interrupted else ""
    verdict = f"{begun}{totals.found} found, {totals.missed} missed"
    _line(console, verdict, "bold green" if whole else "bold red")


def _print_rows(tried: list[Tried], console: Console) -> None:
    rows = [_HEADS, *map(_cells, tried)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    styles = ["bold", *("" if each.is_found else "red" for each in tried)]
    deaths = ["", *(each.died for each in tried)]
    for row, style, died in zip(rows, styles, deaths, strict=True):
        words = [
            text.ljust(width) for text, width in zip(row[:3], widths, strict=False)
        ]
        counts = [
            text.rjust(width) for text, width in zip(row[3:], widths[3:], strict=True)
        ]
        death = f"  died: {died}" if died else ""
        _line(console, "  ".join(["", *words, *counts]) + death, style)


def _cells(tried: Tried) -> tuple[str, ...]:
    own = ", ".join(sorted(tried.exhibit.violates))
    found = tried.found_by
    if not found:
        by = "missed"
    elif len(found) == len(tried.exhibit.violates):
        by = "it" if len(found) == 1 else "them"
    else:
        by = ", ".join(found)
    accesses = "" if tried.accesses is None else str(tried.accesses)
    return (
        tried.exhibit.name,
        own,
        by,
        str(tried.others),
        accesses,
        f"{tried.seconds:.1f}",
    )


def _sums(totals: Totals) -> list[str]:
    lines = []
    if totals.median is not None:
        words = "median shortest conversation of a vendor driver"
        lines.append(f"{words}: {totals.median:g} accesses")
    if totals.died:
        lines.append(f"died in a conversation: {totals.died}")
    if totals.unbroken:
        lines.append("rules that no mutant breaks:")
        lines += [f"  {rule}" for rule in totals.unbroken]
    return lines


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(plain(text).rstrip(), style=style), soft_wrap=True)
