"""A picture on a terminal that is drawn anew while something runs, and then taken away.

On a console that is no terminal it is never drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console, RenderableType

_INTERVAL: Final = 0.1  # seconds between two pictures


class Picture:
    """A context manager that draws at most at 10 Hz."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
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

    def draw(
        self, what: Callable[[], RenderableType], *, at_once: bool = False
    ) -> None:
        """Draw what is made for it, unless the last picture was drawn just now."""
        if self._live is None:
            return
        now = self._clock()
        if at_once or now - self._drawn_at >= _INTERVAL:
            self._drawn_at = now
            self._live.update(what(), refresh=True)
