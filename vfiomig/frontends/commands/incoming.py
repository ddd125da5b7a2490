"""``vfiomig migrate --incoming``: a stream that was saved, loaded."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console

from vfiomig.frontends.exit_codes import DONE, MISUSE, NOT_AS_EXPECTED
from vfiomig.frontends.incoming_expectations import read_expectations
from vfiomig.frontends.incoming_run import load_incoming
from vfiomig.frontends.report.incoming_as_json import incoming_as_json
from vfiomig.frontends.report.incoming_terminal import print_incoming
from vfiomig.frontends.report.writing import writing_whole

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.frontends.scenario import Scenario


def migrate_incoming(
    scenario: Scenario,
    file: Path,
    *,
    expect: Path | None,
    json_file: Path | None,
    history_file: Path | None,
) -> int:
    """Load a stream and print what came of it; return the exit code.

    Raises:
        OSError, VfiomigError: as `load_incoming` and `read_expectations`.
    """
    expected = read_expectations(expect) if expect is not None else None
    with contextlib.ExitStack() as outputs:
        history, as_figures = (
            outputs.enter_context(writing_whole(path)) if path is not None else None
            for path in (history_file, json_file)
        )
        report = load_incoming(scenario, file, expected=expected, history=history)
        report.expected_from = str(expect) if expect is not None else None
        if as_figures is not None:
            as_figures(incoming_as_json(report))
    print_incoming(report, Console(highlight=False))
    if report.is_unreadable:
        return MISUSE
    return DONE if report.ok else NOT_AS_EXPECTED
