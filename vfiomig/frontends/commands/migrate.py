"""``vfiomig migrate``: one simulated live migration."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click
from rich.console import Console

from vfiomig.frontends.commands.incoming import migrate_incoming
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
from vfiomig.frontends.what_if_command import forecast_all
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
@click.option(
    "--incoming",
    "incoming_file",
    type=_OUTPUT,
    help="Load the stream in this file, of a QEMU or of --stream, and do no more.",
)
@click.option(
    "--expect",
    "expected_file",
    type=_OUTPUT,
    help="With --incoming: what --json of that migration, or of vfiomig qemu, said.",
)
@click.option(
    "--what-if",
    "is_forecast",
    is_flag=True,
    help="Move nothing: say what the migration would do, and if one thing differed.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=LOW..HIGH",
    help="With --what-if: vary this alone, such as bandwidth=64M..10G, dirty-rate, "
    "work or downtime-limit=10ms..2s; :N behind it takes N points. May be repeated.",
)
def migrate(
    scenario: Path | None,
    targets: tuple[str, ...],
    destinations: tuple[str, ...],
    json_file: Path | None,
    html_file: Path | None,
    history_file: Path | None,
    stream_file: Path | None,
    incoming_file: Path | None,
    expected_file: Path | None,
    is_forecast: bool,  # noqa: FBT001 -- click's flag
    sweeps: tuple[str, ...],
) -> int:
    """Migrate devices live from a source to a destination, in virtual time.

    SCENARIO is a TOML file: devices, workload, link, limits, faults, and the outcome
    that it expects. Without one, an accelerator that keeps working and a serial port
    migrate.

    Every byte really moves; seconds do not pass. "state verified" is said only if the
    destination's snapshot equals the source's at its stop.

    With --incoming there is only a destination: the VFIO devices of the stream are
    loaded by the scenario's, at their slots or in order, and RAM by a [machine] of that
    size. The rest is passed over, by name. Without --expect nothing is verified.

    With --what-if nothing moves. The same loop runs in virtual time on expected
    numbers, for the scenario and for others around it: bandwidth, dirty rate and
    downtime limit each from low to high. Drivers are asked beforehand what they do.

    \b
    vfiomig migrate
    vfiomig migrate --device driver.py:MyDriver
    vfiomig migrate slow-link.toml --html timeline.html
    vfiomig migrate --device vfio-user:/run/a.sock --destination vfio-user:/run/b.sock
    vfiomig migrate big-guest.toml --what-if --sweep bandwidth=1G..100G --html F.html
    vfiomig migrate --incoming vm.mig --device serial --expect qemu.json
    """  # noqa: D301 -- click wants the character
    what = load_scenario(scenario) if scenario is not None else builtin_scenario()
    what = with_destinations(with_targets(what, targets), destinations)
    if is_forecast:
        if {history_file, stream_file, incoming_file, expected_file} != {None}:
            message = "--what-if moves nothing: it goes with --sweep, --json and --html"
            raise click.UsageError(message)
        return forecast_all(what, sweeps, json_file=json_file, html_file=html_file)
    if sweeps:
        message = "--sweep is about --what-if"
        raise click.UsageError(message)
    if incoming_file is not None:
        if (stream_file, html_file) != (None, None):
            message = "--stream and --html are about a migration, not about --incoming"
            raise click.UsageError(message)
        return migrate_incoming(
            what,
            incoming_file,
            expect=expected_file,
            json_file=json_file,
            history_file=history_file,
        )
    if expected_file is not None:
        message = "--expect is about --incoming"
        raise click.UsageError(message)
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
