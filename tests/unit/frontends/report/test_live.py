"""The live view: on a terminal, and seldom enough not to cost."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from vfiomig.frontends.report.live import LiveView

if TYPE_CHECKING:
    from vfiomig.frontends.run_sinks import View

MIB = 1 << 20
MS = 10**6


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


class Terminal:
    """A console on a terminal that remembers, and a clock that stands still."""

    def __init__(self, *, is_terminal: bool = True) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=is_terminal, width=90)
        self.now = 0.0
        self.looks = 0

    def clock(self) -> float:
        self.looks += 1
        return self.now

    @property
    def pictures(self) -> list[str]:
        """Return the first lines of what was drawn, without what moves the cursor."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", self.file.getvalue())
        return re.findall(r"(?:setting up|round \d+).*", plain)


def migrate_a_little(view: View) -> None:
    view.state_changed("source", "gpu0", "PRE_COPY", 0)
    view.round_began(1, 64 * MIB)
    view.sent(16 * MIB, 125 * MS)


def test_round_pending_rate_and_time_left_are_shown() -> None:
    terminal = Terminal()
    with LiveView(terminal.console, clock=terminal.clock) as view:
        migrate_a_little(view)
        view.ended()
    assert terminal.pictures[-1] == (
        "round 1   48 MiB pending   128 MiB/s   375 ms left   at 125 ms of virtual time"
    )


def test_the_states_of_both_sides_are_shown() -> None:
    terminal = Terminal()
    with LiveView(terminal.console, clock=terminal.clock) as view:
        migrate_a_little(view)
        view.state_changed("destination", "gpu0", "RESUMING", 126 * MS)
        view.ended()
    assert re.search(r"gpu0 +PRE_COPY +RESUMING", terminal.file.getvalue())


def test_the_rate_is_that_of_the_round() -> None:
    terminal = Terminal()
    with LiveView(terminal.console, clock=terminal.clock) as view:
        migrate_a_little(view)
        view.round_began(2, 8 * MIB)
        view.sent(20 * MIB, 625 * MS)
        view.ended()
    assert "round 2   4 MiB pending   8 MiB/s   500 ms left" in terminal.pictures[-1]


def test_pictures_are_a_tenth_of_a_second_apart() -> None:
    terminal = Terminal()
    with LiveView(terminal.console, clock=terminal.clock) as view:
        migrate_a_little(view)
        drawn = len(terminal.pictures)
        for _ in range(1000):
            terminal.now += 0.001
            view.sent(1, 1)
        assert 9 <= len(terminal.pictures) - drawn <= 10


def test_the_view_is_gone_when_it_ends() -> None:
    terminal = Terminal()
    with LiveView(terminal.console, clock=terminal.clock) as view:
        migrate_a_little(view)
    assert terminal.file.getvalue().endswith("\x1b[1A\x1b[2K")


def test_an_error_passes_and_the_cursor_comes_back() -> None:
    terminal = Terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        LiveView(terminal.console, clock=terminal.clock),
    ):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in terminal.file.getvalue()


def test_what_is_no_terminal_gets_nothing() -> None:
    terminal = Terminal(is_terminal=False)
    with LiveView(terminal.console, clock=terminal.clock) as view:
        migrate_a_little(view)
        view.ended()
    assert terminal.file.getvalue() == ""
    assert terminal.looks == 0  # nor did it cost anything


def test_a_dumb_terminal_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    with LiveView(terminal.console, clock=terminal.clock) as view:
        migrate_a_little(view)
        view.ended()
    assert terminal.file.getvalue() == ""
    assert terminal.looks == 0  # nor did it cost anything


def test_names_from_outside_are_text() -> None:
    terminal = Terminal()
    with LiveView(terminal.console, clock=terminal.clock) as view:
        view.state_changed("source", "[red]x\x07", "[bold]", 0)
        view.ended()
    assert r"[red]x\x07" in terminal.file.getvalue()
    assert "\x07" not in terminal.file.getvalue()
