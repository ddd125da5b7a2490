"""The suite while it runs: one line on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.text import Text

from vfiomig.frontends.report.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console

    from vfiomig.conformance.suite import Progress


class CheckView:
    """Shows how far the suite is, and how long it will yet take.

    A context manager; it takes the picture away when it ends.
    """

    def __init__(
        self, console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._picture = Picture(console, clock)
        self._clock = clock
        self._began_at = clock()

    def __enter__(self) -> Self:
        self._picture.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._picture.__exit__(kind, error, trace)

    def watch(self, progress: Progress) -> None:
        """Take note of one more conversation."""
        took = self._clock() - self._began_at
        self._picture.draw(
            lambda: Text(
                progress_line(progress, took), no_wrap=True, overflow="ellipsis"
            ),
            at_once=bool(progress.shortening),
        )


def progress_line(progress: Progress, took: float) -> str:
    """Return how far the suite is, ``took`` seconds after it began."""
    held, planned = progress.conversations, progress.planned
    parts = [
        f"{held} of {planned} conversations",
        f"{len(progress.reached)} rules reached",
        f"{len(progress.broken)} findings",
    ]
    if progress.deaths:
        parts.append(f"{len(progress.deaths)} deaths")
    if progress.shortening:
        parts.append(f"shortening {progress.shortening}")
    elif held:
        left = took / held * max(0, planned - held)
        parts.append(f"about {left:.0f} s left")
    return "   ".join(parts)
