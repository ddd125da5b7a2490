"""A migration while it runs: one picture on a terminal, drawn anew at most at 10 Hz.

Rule 1: whoever migrates may call this for every buffer: a call that draws nothing
takes a few assignments and one look at the clock.

Rule 2: times and rates are virtual, as everything else in a report; only how often
the picture is drawn goes by the real clock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from rich.table import Table
from rich.text import Text

from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.picture import Picture
from vfiomig.frontends.report.units import bytes_text, rate_text, time_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console

_SECOND: Final = 10**9


class LiveView:
    """Shows round, pending bytes, rate, device states and the time left.

    A context manager; it takes the picture away when it ends. On a console that is no
    terminal it does nothing.
    """

    def __init__(
        self, console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shown = Picture(console, clock)
        self._round = 0
        self._pending = 0
        self._sent = 0
        self._now = 0
        # Where the round began, to tell its rate.
        self._sent_before = 0
        self._began_at = 0
        self._states: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def round_began(self, number: int, pending_bytes: int) -> None:
        """Take note that a round of pre-copy began, with so many bytes pending."""
        self._round, self._pending = number, pending_bytes
        self._sent_before, self._began_at = self._sent, self._now
        self._draw_if_due()

    def sent(self, stream_bytes: int, now: int) -> None:
        """Take note of the bytes of the stream sent in all, at this virtual time."""
        self._sent, self._now = stream_bytes, now
        self._draw_if_due()

    def state_changed(self, party: str, device: str, state: str, now: int) -> None:
        """Take note that a device reached a device_state, at this virtual time."""
        self._states.setdefault(device, {})[party] = state
        self._now = max(self._now, now)
        self._draw_if_due()

    def ended(self) -> None:
        """Show how it ended, however short the last picture has stood."""
        self._shown.draw(self._picture, at_once=True)

    def _draw_if_due(self) -> None:
        self._shown.draw(self._picture)

    def _picture(self) -> Table:
        picture = Table.grid()
        picture.add_row(Text(self._progress(), no_wrap=True, overflow="ellipsis"))
        picture.add_row(self._states_table())
        return picture

    def _progress(self) -> str:
        """Return the line about round, pending bytes, rate and time left."""
        sent = self._sent - self._sent_before
        took = self._now - self._began_at
        left = max(0, self._pending - sent)
        parts = [
            f"round {self._round}" if self._round else "setting up",
            f"{bytes_text(left)} pending",
        ]
        if sent > 0 and took > 0:
            parts.append(rate_text(sent * _SECOND // took))
            parts.append(f"{time_text(left * took // sent)} left")
        return "   ".join([*parts, f"at {time_text(self._now)} of virtual time"])

    def _states_table(self) -> Table:
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for heading in ("device", "source", "destination"):
            table.add_column(heading)
        for device, states in self._states.items():
            cells = (states.get(party, "-") for party in ("source", "destination"))
            table.add_row(Text(plain(device)), *(Text(plain(cell)) for cell in cells))
        return table
