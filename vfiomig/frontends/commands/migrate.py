"""``vfiomig migrate``: one simulated live migration."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, NOT_AS_EXPECTED
from vfiomig.frontends.report.as_html import as_html
from vfiomig.frontends.report.as_json import as_json
from vfiomig.frontends.report.live import LiveView
from vfiomig.frontends.report.terminal import print_summary
from vfiomig.frontends.report.writing import write_whole, writing_whole
from vfiomig.frontends.scenario import builtin_scenario, load_scenario, with_targets
from vfiomig.frontends.simulation import Sinks, simulate
from vfiomig.migration.metrics import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.frontends.run_report import RunReport
    from vfiomig.frontends.scenario import Scenario

_OUTPUT = click.Path(path_type=Path)


@click.command()
@click.argument("scenario", required=False, type=click.Path(path_type=Path))
@click.option(
    "--device",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="Migrate this device instead of the scenario's; may be repeated.",
)
@click.option("--json", "json_file", type=_OUTPUT, help="Write all figures as JSON.")
@click.option("--html", "html_file", type=_OUTPUT, help="Write a page with a timeline.")
@click.option(
    "--history",
    "history_file",
    type=_OUTPUT,
    help="Write every access of both sides, as JSON lines.",
)
@click.option(
    "--stream",
    "stream_file",
    type=_OUTPUT,
    help="Write the stream as the destination got it.",
)
def migrate(
    scenario: Path | None,
    targets: tuple[str, ...],
    json_file: Path | None,
    html_file: Path | None,
    history_file: Path | None,
    stream_file: Path | None,
) -> int:
    r"""Migrate devices live from a source to a destination, in virtual time.

    SCENARIO is a TOML file: devices, workload, link, limits, faults, and the outcome
    that it expects. Without one, an accelerator that keeps working and a serial port
    migrate.

    Every byte really moves; seconds do not pass. "state verified" is said only if the
    destination's snapshot equals the source's at its stop.

    \b
    vfiomig migrate
    vfiomig migrate --device driver.py:MyDriver
    vfiomig migrate slow-link.toml --html timeline.html
    """
    what = load_scenario(scenario) if scenario is not None else builtin_scenario()
    what = with_targets(what, targets)
    report = _run(what, history_file, stream_file)
    print_summary(report, Console(highlight=False))
    if json_file is not None:
        write_whole(json_file, as_json(report))
    if html_file is not None:
        write_whole(html_file, as_html(report))
    if report.outcome is Outcome.INTERRUPTED:
        return INTERRUPTED
    return DONE if report.ok else NOT_AS_EXPECTED


def _run(
    scenario: Scenario, history_file: Path | None, stream_file: Path | None
) -> RunReport:
    """Simulate with the outputs open, so that one that cannot be is known first."""
    with contextlib.ExitStack() as outputs:

        def opened(path: Path | None) -> Callable[[bytes | memoryview], None] | None:
            if path is None:
                return None
            return outputs.enter_context(writing_whole(path))

        sinks = Sinks(
            history=opened(history_file),
            stream=opened(stream_file),
            view=outputs.enter_context(LiveView(Console(stderr=True))),
        )
        return simulate(scenario, sinks)
