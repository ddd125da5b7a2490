"""``vfiomig migrate --what-if``: forecasts instead of a migration."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click
from rich.console import Console

from vfiomig.frontends.exit_codes import DONE
from vfiomig.frontends.report.what_if_as_html import what_if_as_html
from vfiomig.frontends.report.what_if_as_json import what_if_as_json
from vfiomig.frontends.report.what_if_terminal import print_what_if
from vfiomig.frontends.report.writing import writing_whole
from vfiomig.frontends.what_if import what_if
from vfiomig.frontends.what_if_axes import SweepError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vfiomig.frontends.scenario import Scenario


def forecast_all(
    scenario: Scenario,
    sweeps: Sequence[str],
    *,
    json_file: Path | None,
    html_file: Path | None,
) -> int:
    """Forecast, print and write; return the exit code: a forecast never fails.

    Raises:
        click.UsageError: a sweep cannot be made.
        VfiomigError, OSError: as `what_if`, and for a file that cannot be written.
    """
    with contextlib.ExitStack() as outputs:
        as_a_page, as_figures = (
            outputs.enter_context(writing_whole(path)) if path is not None else None
            for path in (html_file, json_file)
        )
        try:
            report = what_if(scenario, sweeps)
        except SweepError as error:
            raise click.UsageError(str(error)) from None
        if as_a_page is not None:
            as_a_page(what_if_as_html(report))
        if as_figures is not None:
            as_figures(what_if_as_json(report))
    print_what_if(report, Console(highlight=False))
    return DONE
