"""The summary, word for word; nothing from outside changes its shape."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tests.unit.frontends.report.sample_runs import device, failed, hostile, moved
from vfiomig.frontends.report.terminal import print_summary
from vfiomig.frontends.run_report import RunReport, Verdict
from vfiomig.migration.metrics import Round

MOVED = """\
a tight link: completed (seed 1, qemu-7.2, memory)

round  began at    took  pending    sent  polls
    1      1 ms  500 ms   64 MiB  64 MiB     65
    2    501 ms   63 ms    8 MiB   9 MiB      9

pre-copy       73 MiB in 2 rounds
stop-and-copy  2 MiB
stream         75.5 MiB, framing included
downtime       20 ms (expected 18 ms, limit 20 ms)
ended          at 585 ms of virtual time

                  source    source    dest.     dest.
device  is        at start  at stop   before    after
gpu0    verified  aaaaaaaa  55555555  bbbbbbbb  55555555
port    verified  aaaaaaaa  55555555  bbbbbbbb  55555555

state verified
"""

FAILED = """\
a tight link: failed (seed 1, qemu-7.2, memory)

round  began at    took  pending    sent  polls
    1      1 ms  500 ms   64 MiB  64 MiB     65
    2    501 ms   63 ms    8 MiB   9 MiB      9

pre-copy       73 MiB in 2 rounds
stop-and-copy  2 MiB
stream         75.5 MiB, framing included
downtime       none (the destination never ran, expected 18 ms, limit 20 ms)
ended          at 574 ms of virtual time

                        source    source    source      source
device  is              at start  at stop   at failure  after it
gpu0    did not arrive  aaaaaaaa  55555555  55555555    55555555
port    did not arrive  aaaaaaaa  55555555  55555555    55555555

note: the driver was slow
reproduce with: vfiomig migrate scenarios/tight.toml
failed: the link was cut at byte 70000000; the source runs on unharmed
"""

STATELESS = """\
a tight link: completed (seed 1, qemu-7.2, memory)

pre-copy       0 B in 0 rounds
stop-and-copy  2 MiB
stream         75.5 MiB, framing included
downtime       20 ms (expected 18 ms, limit 20 ms)
ended          at 585 ms of virtual time

device  is
port    unverified

unverified: port has no snapshot()
"""


def printed(report: RunReport, *, width: int = 80) -> str:
    """Return what a file would hold, less the spaces that end its lines."""
    file = io.StringIO()
    print_summary(report, Console(file=file, width=width))
    return re.sub(r" +$", "", file.getvalue(), flags=re.MULTILINE)


def test_a_run_that_completed() -> None:
    assert printed(moved()) == MOVED


def test_a_run_that_failed() -> None:
    report = failed()
    report.notes = ["the driver was slow"]
    assert printed(report) == FAILED


def test_a_run_without_rounds_or_snapshots() -> None:
    report = moved(device("port", Verdict.UNVERIFIED))
    report.metrics.rounds.clear()
    report.metrics.precopy_device_bytes = 0
    assert printed(report) == STATELESS


def test_of_many_rounds_the_first_and_the_last_are_shown() -> None:
    report = moved()
    report.metrics.rounds = [
        Round(number=n, began_at=n, ended_at=n + 1, pending_bytes=1)
        for n in range(1, 201)
    ]
    numbers = re.findall(r"^ +(\d+|\.\.\.) ", printed(report), re.MULTILINE)
    assert numbers == [*map(str, range(1, 11)), "...", *map(str, range(196, 201))]
    assert "(185 more)" in printed(report)


@pytest.mark.parametrize("count", [15, 16])
def test_no_single_round_is_left_out(count: int) -> None:
    report = moved()
    report.metrics.rounds *= count // 2
    assert "more)" not in printed(report)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_last_line_is_the_whole_verdict(width: int) -> None:
    assert printed(moved(), width=width).endswith("\nstate verified\n")
    end = "\nfailed: the link was cut at byte 70000000; the source runs on unharmed\n"
    assert printed(failed(), width=width).endswith(end)


@pytest.mark.parametrize(
    "text",
    [
        "state verified",
        "[bold]x[/bold] [/]",
        ":bomb:",
        "a\nb\x1b[31m",
        "\udcff",
        "state",
    ],
)
@pytest.mark.parametrize("width", [40, 300])
def test_words_from_outside_are_printed_as_they_are(text: str, width: int) -> None:
    output = printed(hostile(text), width=width)
    assert "state verified" not in output
    assert output.replace("\n", "").isprintable()
    if width == 300 and text.isprintable() and text != "state verified":
        assert f"{text}: died" in output
        assert f"note: {text}\n" in output


@pytest.mark.parametrize("is_terminal", [True, False])
def test_colours_are_for_terminals(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = io.StringIO()
    print_summary(moved(), Console(file=file, force_terminal=is_terminal))
    assert ("\x1b[1;32mstate verified\x1b[0m" in file.getvalue()) == is_terminal
    assert ("\x1b" in file.getvalue()) == is_terminal
