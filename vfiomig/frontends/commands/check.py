"""``vfiomig check``: the conformance suite on one driver."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from vfiomig.conformance.effort import EFFORTS
from vfiomig.conformance.exploring import DEPTH
from vfiomig.conformance.processes import cores, processes
from vfiomig.conformance.suite import run_suite, run_suite_on
from vfiomig.conformance.target import TargetError, load_target
from vfiomig.conformance.user_code import shown
from vfiomig.conformance.vfio_user.target import with_server
from vfiomig.frontends.baseline import (
    as_baseline,
    read_baseline,
    stale_entries,
    waived,
)
from vfiomig.frontends.check_report import CheckReport
from vfiomig.frontends.commands.rules import rules_named
from vfiomig.frontends.exhaustive import explored
from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, NOT_AS_EXPECTED
from vfiomig.frontends.report.check_as_html import check_as_html
from vfiomig.frontends.report.check_as_junit import check_as_junit
from vfiomig.frontends.report.check_live import CheckView
from vfiomig.frontends.report.check_terminal import print_check
from vfiomig.frontends.report.exploration_terminal import print_coverage
from vfiomig.frontends.report.rules_as_json import check_as_json
from vfiomig.frontends.report.writing import writing_whole
from vfiomig.frontends.server_options import server_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.effort import Effort
    from vfiomig.conformance.exploration.coverage import Coverage
    from vfiomig.conformance.finding import Outcome, RuleResult
    from vfiomig.conformance.target import Target

_OUTPUT = click.Path(path_type=Path)


@click.command()
@click.argument("target")
@click.option(
    "--rule",
    "prefix",
    metavar="PREFIX",
    help="Judge by these rules only: an id, or what several begin with.",
)
@click.option(
    "--list", "is_list", is_flag=True, help="List the rules to judge by, and end."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Where the generated conversations begin; the same seed, the same findings.",
)
@click.option(
    "--effort",
    type=click.Choice(tuple(EFFORTS)),
    default="normal",
    show_default=True,
    help="How many conversations are held.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1, max=64),
    default=lambda: min(cores(), 16),
    show_default="the number of cores",
    help="Processes that hold conversations; the findings are the same.",
)
@click.option(
    "--exhaustive",
    "is_exhaustive",
    is_flag=True,
    help="Hold every conversation of single accesses instead, the shortest first.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=DEPTH,
    show_default=True,
    help="How many steps such a conversation may have.",
)
@server_options
@click.option("--json", "json_file", type=_OUTPUT, help="Write all verdicts as JSON.")
@click.option("--junit", "junit_file", type=_OUTPUT, help="Write them as JUnit XML.")
@click.option("--html", "html_file", type=_OUTPUT, help="Write a page for people.")
@click.option(
    "--baseline",
    "baseline_file",
    type=_OUTPUT,
    help="Waive the deviations that this TOML file knows.",
)
@click.option(
    "--baseline-write",
    "new_baseline_file",
    type=_OUTPUT,
    help="Write what is broken as such a file.",
)
def check(
    *,
    target: str,
    prefix: str | None,
    is_list: bool,
    seed: int,
    effort: str,
    jobs: int,
    is_exhaustive: bool,
    depth: int,
    server: str | None,
    bench_file: Path | None,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
    baseline_file: Path | None,
    new_baseline_file: Path | None,
) -> int:
    """Converse with the driver that TARGET names, and judge it by every rule.

    Each rule that it breaks is explained by the shortest conversation found. Exit code
    1 if one is broken or the driver died.

    \b
    vfiomig check driver.py:MyDriver
    vfiomig check driver.py:MyDriver --rule v1/data-size --effort thorough
    vfiomig check driver.py:MyDriver --baseline-write known.toml
    vfiomig check driver.py:MyDriver --exhaustive --jobs 2
    vfiomig check vfio-user:/run/device.sock
    vfiomig check vfio-user: --server './my-server --socket {socket}'
    """  # noqa: D301 -- click wants the character
    reasons = {} if baseline_file is None else read_baseline(baseline_file)
    chosen = None if prefix is None else rules_named(prefix)
    what = load_target(with_server(target, server=server, bench=bench_file))
    if is_exhaustive and what.servers is not None:
        message = "--exhaustive needs a driver in Python: a server's state is not seen"
        raise TargetError(message)
    if is_list:
        _print_list(prefix, Console(highlight=False))
        return DONE
    with contextlib.ExitStack() as outputs:
        # All are opened first: that one cannot be written is known before the run.
        as_facts, as_xml, as_page, as_known = (
            outputs.enter_context(writing_whole(path)) if path is not None else None
            for path in (json_file, junit_file, html_file, new_baseline_file)
        )
        coverage: Coverage | None = None
        if is_exhaustive:
            exploration = explored(
                what.text,
                console=Console(stderr=True),
                rules=chosen,
                depth=depth,
                jobs=jobs,
                is_thorough=effort == "thorough",
            )
            outcome, coverage = exploration.outcome, exploration.coverage
        else:
            outcome = _run(what, EFFORTS[effort], seed, chosen, jobs)
        outcome = _with_short_places(outcome)
        results = waived(outcome.results, reasons)
        is_whole = baseline_file is not None and not outcome.is_interrupted
        report = CheckReport(
            target=what.text,
            seed=seed,
            effort=effort,
            outcome=outcome,
            results=results,
            coverage=coverage,
            stale=stale_entries(results, reasons, baseline_file)
            if is_whole and baseline_file is not None
            else (),
        )
        _write(as_facts, lambda: check_as_json(report))
        _write(as_xml, lambda: check_as_junit(report))
        _write(as_page, lambda: check_as_html(report))
        _write(as_known, lambda: as_baseline(results))
    if coverage is not None:
        print_coverage(coverage, Console(highlight=False))
    print_check(report, Console(highlight=False))
    if outcome.is_interrupted:
        return INTERRUPTED
    return DONE if report.ok else NOT_AS_EXPECTED


def _run(
    what: Target, effort: Effort, seed: int, rules: Sequence[Rule] | None, jobs: int
) -> Outcome:
    if what.servers is not None and what.servers.is_alone:
        jobs = 1  # it has one client at a time
    with processes(jobs) as executor, CheckView(Console(stderr=True)) as view:
        if executor is None:
            return run_suite(
                what.make_driver,
                effort=effort,
                seed=seed,
                rules=rules,
                watch=view.watch,
                servers=what.servers,
            )
        return run_suite_on(
            what.text, executor, effort=effort, seed=seed, rules=rules, watch=view.watch
        )


def _print_list(prefix: str | None, console: Console) -> None:
    chosen = rules_named(prefix or "v1/")
    judged = [r for r in chosen if r.party == "vendor driver" and not r.untestable]
    width = max((len(rule.id) for rule in judged), default=0)
    for rule in judged:
        line = f"{rule.id:<{width}}  {rule.level}"
        console.print(Text(line), soft_wrap=True)
    number = "1 rule" if len(judged) == 1 else f"{len(judged)} rules"
    console.print(Text(number), soft_wrap=True)


def _write(
    write: Callable[[bytes | memoryview], None] | None, made: Callable[[], bytes]
) -> None:
    if write is not None:
        write(made())


# -- places ----------------------------------------------------------------------------


def _with_short_places(outcome: Outcome) -> Outcome:
    """Name lines of files as a person in the current folder would."""
    return dataclasses.replace(
        outcome,
        results=tuple(map(_with_short_place, outcome.results)),
        deaths=tuple(
            dataclasses.replace(death, where=short_place(death.where))
            for death in outcome.deaths
        ),
    )


def _with_short_place(result: RuleResult) -> RuleResult:
    if result.finding is None:
        return result
    where = short_place(result.finding.where)
    finding = dataclasses.replace(result.finding, where=where)
    return dataclasses.replace(result, finding=finding)


def short_place(where: str) -> str:
    """Return ``file:line`` with the file as seen from the current folder."""
    file, colon, line = where.rpartition(":")
    return f"{shown(Path(file))}:{line}" if colon and line.isdigit() else where
