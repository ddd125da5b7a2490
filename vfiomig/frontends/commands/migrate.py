"""``vfiomig migrate``: one simulated live migration."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click
from rich.console import Console

from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, NOT_AS_EXPECTED
from vfiomig.frontends.report.as_html import as_html
from vfiomig.frontends.report.as_json import as_json
from vfiomig.frontends.report.live import LiveView
from vfiomig.frontends.report.terminal import print_summary
from vfiomig.frontends.report.writing import writing_whole
from vfiomig.frontends.run_sinks import Sinks
from vfiomig.frontends.scenario import (
    builtin_scenario,
    load_scenario,
    with_destinations,
    with_targets,
)
from vfiomig.frontends.simulation import simulate
from vfiomig.migration.metrics import Outcome

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
@click.option(
    "--destination",
    "destinations",
    multiple=True,
    metavar="TARGET",
    help="What the device is at the destination, if it is another target; the first "
    "is the first device's.",
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
    destinations: tuple[str, ...],
    json_file: Path | None,
    html_file: Path | None,
    history_file: Path | None,
    stream_file: Path | None,
) -> int:
    """Migrate devices live from a source to a destination, in virtual time.

    SCENARIO is a TOML file: devices, workload, link, limits, faults, and the outcome
    that it expects. Without one, an accelerator that keeps working and a serial port
    migrate.

    Every byte really moves; seconds do not pass. "state verified" is said only if the
    destination's snapshot equals the source's at its stop.

    \b
    vfiomig migrate
    vfiomig migrate --device driver.py:MyDriver
    vfiomig migrate slow-link.toml --html timeline.html
    vfiomig migrate --device vfio-user:/run/a.sock --destination vfio-user:/run/b.sock
    """  # noqa: D301 -- click wants the character
    what = load_scenario(scenario) if scenario is not None else builtin_scenario()
    what = with_destinations(with_targets(what, targets), destinations)
    with contextlib.ExitStack() as outputs:
        # All are opened first: that one cannot be written is known before the run.
        history, stream, as_a_page, as_figures = (
            outputs.enter_context(writing_whole(path)) if path is not None else None
            for path in (history_file, stream_file, html_file, json_file)
        )
        view = outputs.enter_context(LiveView(Console(stderr=True)))
        report = simulate(what, Sinks(history=history, stream=stream, view=view))
        if as_a_page is not None:
            as_a_page(as_html(report))
        if as_figures is not None:
            as_figures(as_json(report))
    print_summary(report, Console(highlight=False))
    if report.outcome is Outcome.INTERRUPTED:
        return INTERRUPTED
    return DONE if report.ok else NOT_AS_EXPECTED
