"""``vfiomig replay``: one finding again, from the token that a report printed."""

from __future__ import annotations

import dataclasses
import pdb
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.explain import explain, text_of
from vfiomig.conformance.finding import Death, Finding
from vfiomig.conformance.library import lines_of_death
from vfiomig.conformance.replaying import (
    Replay,
    Replayed,
    read_replay,
    rule_ids,
)
from vfiomig.conformance.replaying import (
    replay as replayed,
)
from vfiomig.conformance.shortening import Shortened
from vfiomig.conformance.target import load_target
from vfiomig.conformance.vfio_user.target import with_server
from vfiomig.conformance.worker import WorkerEndedError
from vfiomig.frontends.commands.check import short_place
from vfiomig.frontends.exit_codes import DONE, NOT_AS_EXPECTED
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.check_terminal import print_argument, print_death
from vfiomig.frontends.server_options import server_options

if TYPE_CHECKING:
    from pathlib import Path

    from vfiomig.conformance.ruling import Broken
    from vfiomig.conformance.target import Target
    from vfiomig.protocol.history import Record


@click.command()
@click.argument("token")
@click.argument("target")
@click.option(
    "--pdb",
    "is_debugging",
    is_flag=True,
    help="Stop in the debugger before the step that breaks the rule.",
)
@server_options
def replay(
    *,
    token: str,
    target: str,
    is_debugging: bool,
    server: str | None,
    bench_file: Path | None,
) -> int:
    """Hold the conversation of a TOKEN with TARGET again, step by step.

    A report prints the TOKEN with each finding. Exit code 1 if the rule breaks again,
    or the driver dies again.

    \b
    vfiomig replay eNqLNlSy... driver.py:MyDriver
    vfiomig replay eNqLNlSy... driver.py:MyDriver --pdb
    """  # noqa: D301 -- click wants the character
    what = read_replay(token)
    driver = load_target(with_server(target, server=server, bench=bench_file))
    driver.make_driver().close()  # one that does not start is said to be so
    console = Console(highlight=False)
    seen = _hold(driver, what, console)
    if is_debugging and (seen.broken is not None or seen.death is not None):
        _debug(driver, what, seen)
    if seen.death is not None:
        _print_death(seen.death, driver, token, console)
    if what.rule is None:
        if seen.death is None:
            _line(console, "the driver did not die this time", "bold green")
        return DONE if seen.death is None else NOT_AS_EXPECTED
    if seen.broken is not None:
        finding = _finding(what, seen, token)
        reproduce = f"vfiomig replay {token} {shlex.quote(driver.text)}"
        argument = explain(finding, reproduce=reproduce)
        print_argument(argument, console, "bold red")
        return NOT_AS_EXPECTED
    if seen.death is not None:
        return NOT_AS_EXPECTED
    _line(console, f"{what.rule.id} was not broken this time", "bold green")
    return DONE


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What a replay came to; ``taken`` counts the steps before the last one."""

    records: list[Record] = dataclasses.field(default_factory=list)
    taken: int = -1
    broken: Broken | None = None
    explained: Shortened | None = None
    death: Death | None = None


def _hold(driver: Target, what: Replay, console: Console) -> _Seen:
    """Take the steps, print each with its accesses, and return what was seen."""
    seen = _Seen()
    try:
        is_alone = driver.servers is not None and driver.servers.is_alone
        for report in replayed(driver.make_driver, what, is_alone=is_alone):
            if isinstance(report, Shortened):
                seen.explained = None if report.is_flaky else report
            else:
                _take(report, what, seen, console)
    except WorkerEndedError as end:
        died = end.died
        seen.taken = max(0, len(died.steps) - 1)
        for each in died.steps[-1:]:
            _line(console, str(each), "bold")
            _line(console, f"  {died.access} -> never returned")
        if seen.broken is None:  # else it had its say already
            seen.death = Death(
                access=died.access,
                error=died.how,
                where="",
                steps=died.steps,
                printed=died.printed,
            )
    _line(console, "")
    return seen


def _take(report: Replayed, what: Replay, seen: _Seen, console: Console) -> None:
    seen.taken += 1
    _line(console, str(report.steps[0]), "bold")
    for number, record in enumerate(report.records, len(seen.records) + 1):
        _line(console, f"  #{number}  {record.device}: {text_of(record)}")
    seen.records += report.records
    if what.rule is not None:
        seen.broken = seen.broken or report.broken.get(what.rule.id)
    if report.died is not None:
        seen.death = Death(
            access=report.died.access,
            error=report.died.error,
            where=short_place(report.died.where),
            steps=what.steps[: seen.taken + 1],
        )


def _finding(what: Replay, seen: _Seen, token: str) -> Finding:
    if what.rule is None or seen.broken is None:
        message = "only a rule that is broken has a finding"
        raise ValueError(message)
    again = seen.explained
    return Finding(
        rule=what.rule,
        broken=again.broken if again and again.broken else seen.broken,
        device="",
        history=again.history if again else tuple(seen.records),
        where=short_place(again.where) if again else "",
        token=token,
        steps=what.steps,
    )


def _print_death(death: Death, driver: Target, token: str, console: Console) -> None:
    death = dataclasses.replace(death, token=token)
    target = shlex.quote(driver.text)
    print_death(lines_of_death(death, target=target), console)


def _debug(driver: Target, what: Replay, seen: _Seen) -> None:
    """Hold the conversation here, and stop before the step that was the last one."""
    conversation = Conversation(driver.make_driver, (), rule_ids=rule_ids())
    conversation.perform(what.steps[: seen.taken])
    debugger = pdb.Pdb(nosigint=True)  # an interrupt ends us, as everywhere
    where = seen.explained.where if seen.explained else ""
    file, _, line = where.rpartition(":")
    if file:
        print(f"`continue` stops in the driver at {short_place(where)}")
        debugger.set_break(file, int(line))
    rest = what.steps[seen.taken : seen.taken + 1]
    if rest:
        debugger.runcall(conversation.perform, rest)
    else:
        debugger.runcall(conversation.close)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(plain(text), style=style), soft_wrap=True)
