"""The suite while it runs: one line on a terminal, drawn anew at most at 10 Hz."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console

    from vfiomig.conformance.suite import Progress

_INTERVAL: Final = 0.1  # seconds between two pictures


class CheckView:
    """Shows how far the suite is, and counts where each rule was reached.

    A context manager; it takes the picture away when it ends.  On a console that is no
    terminal it draws nothing.  ``conversations`` counts, for each rule, those in which
    it was reached.
    """

    def __init__(
        self, console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.conversations: dict[str, int] = {}
        self._reached: dict[str, int] = {}
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._drawn_at = float("-inf")

    def __enter__(self) -> Self:
        console = self._console
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
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

    def watch(self, progress: Progress) -> None:
        """Take note of one more conversation."""
        for rule, count in progress.reached.items():
            if count != self._reached.get(rule):
                self._reached[rule] = count
                self.conversations[rule] = self.conversations.get(rule, 0) + 1
        if self._live is None:
            return
        now = self._clock()
        if progress.shortening or now - self._drawn_at >= _INTERVAL:
            self._drawn_at = now
            line = Text(progress_line(progress), no_wrap=True, overflow="ellipsis")
            self._live.update(line, refresh=True)


def progress_line(progress: Progress) -> str:
    """Return how far the suite is."""
    parts = [
        f"{progress.conversations} of {progress.planned} conversations",
        f"{len(progress.reached)} rules reached",
        f"{len(progress.broken)} findings",
    ]
    if progress.deaths:
        parts.append(f"{len(progress.deaths)} deaths")
    if progress.shortening:
        parts.append(f"shortening {progress.shortening}")
    return "   ".join(parts)
