"""``vfiomig judge``: a recorded history, whoever made it."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfiomig.conformance.explain import explain, text_of
from vfiomig.conformance.finding import Verdict, verdict_of
from vfiomig.conformance.judge import UnknownDeviceError
from vfiomig.conformance.judging import (
    HISTORY_LENGTH,
    HistoryJudge,
    read_history,
)
from vfiomig.frontends.commands.rules import rules_named
from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, NOT_AS_EXPECTED
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.report.rules_as_json import result_as_dict
from vfiomig.frontends.report.writing import writing_whole
from vfiomig.protocol.history import HistoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.explain import Argument
    from vfiomig.conformance.finding import Finding, RuleResult
    from vfiomig.conformance.judging import DeathSeen, History

_SCHEMA: Final = 1
_STDIN: Final = "-"
_BEGINS_PLAIN: Final = (b"#", b"r", b"w")  # a comment, read, write
_COLUMNS: Final = (
    Verdict.HELD,
    Verdict.BROKEN,
    Verdict.OBSERVED,
    Verdict.NOT_REACHED,
    Verdict.NOT_APPLICABLE,
)
_STYLES: Final = {"held": "bold green", "broken": "bold red", "died": "bold red"}
_PARTIES: Final = ("vendor driver", "user application")


@click.command()
@click.argument("history")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Write the verdict on every rule as JSON.",
)
@click.option(
    "--rule",
    "prefix",
    metavar="PREFIX",
    help="Judge by these rules only: an id, or what several begin with.",
)
def judge(history: str, json_file: Path | None, prefix: str | None) -> int:
    """Judge both parties of a recorded HISTORY, and explain each broken rule.

    HISTORY is a file as `vfiomig migrate --history` writes it, or the plain TSV of
    another recorder (access, offset, size, value); - reads standard input. Exit code 1
    if a rule is broken that fails a driver or a user application, or a driver died.

    \b
    vfiomig migrate --history accesses.jsonl
    vfiomig judge accesses.jsonl
    vfiomig judge accesses.jsonl --rule v1/data-size --json verdicts.json
    """  # noqa: D301 -- click wants the character
    rules = None if prefix is None else rules_named(prefix)
    with contextlib.ExitStack() as files:
        # Opened first: that it cannot be written is known before the work is done.
        write = files.enter_context(writing_whole(json_file)) if json_file else None
        file = files.enter_context(_opened(history))
        judged = _judged(history, file, rules)
        if write is not None:
            write(_as_json(judged))
    return _told(judged, Console(highlight=False))


def judge_file(name: str, file: BinaryIO, console: Console) -> int:
    """Judge a history that is open, print the verdict, and return the exit code."""
    return _told(_judged(name, file, None), console)


def _told(judged: _Judged, console: Console) -> int:
    _print(judged, console)
    if judged.is_interrupted:
        return INTERRUPTED
    return DONE if judged.verdict == "held" else NOT_AS_EXPECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A history as the user named it, what it holds, and what became of each rule."""

    name: str
    history: History
    accesses: int
    results: list[RuleResult]
    death: DeathSeen | None
    is_interrupted: bool

    @property
    def verdict(self) -> str:
        """``held``, ``broken`` or ``died``, as the suite's report has it."""
        return verdict_of(self.results, has_died=self.death is not None)

    @property
    def findings(self) -> Iterator[Finding]:
        """What is broken or observed, in the order of the catalogue."""
        return (r.finding for r in self.results if r.finding is not None)


def _judged(name: str, file: BinaryIO, rules: list[Rule] | None) -> _Judged:
    is_interrupted = False
    try:
        history = read_history(file)
        judge = HistoryJudge(history.header, rules, is_plain=history.is_plain)
        try:
            for record in history.records:
                judge.see(record)
        except KeyboardInterrupt:
            is_interrupted = True
    except (HistoryError, UnknownDeviceError) as error:
        message = f"{plain(_shown(name))}: {plain(str(error))}"
        raise HistoryError(message) from error
    return _Judged(
        name=name,
        history=history,
        accesses=judge.accesses,
        results=judge.results(),
        death=judge.death,
        is_interrupted=is_interrupted,
    )


# -- the input -------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Open a history; one that must be read twice and cannot be is copied first."""
    with contextlib.ExitStack() as files:
        file = _standard_input() if name == _STDIN else _file(Path(name))
        if name != _STDIN:
            files.enter_context(file)
        # JSON lines are read once, as they come, and so is what is no history.
        if not file.seekable() and file.peek(1)[:1] in _BEGINS_PLAIN:
            copy = files.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy
        else:
            yield file


def _standard_input() -> BufferedReader:
    if sys.stdin is None:  # it was closed before we began
        message = "standard input is closed"
        raise click.UsageError(message)
    return cast("BufferedReader", sys.stdin.buffer)


def _file(path: Path) -> BufferedReader:
    """Open a file; a pipe that nobody writes is at its end, not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:  # a NUL in it
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    os.set_blocking(descriptor, True)
    try:
        return os.fdopen(descriptor, "rb")
    except OSError as error:  # a folder
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _shown(name: str) -> str:
    return "standard input" if name == _STDIN else name


# -- for people ------------------------------------------------------------------------


def _print(judged: _Judged, console: Console) -> None:
    """Print the findings, the counts, and the verdict last."""
    for finding in judged.findings:
        headline, *lines = str(_argument(judged, finding)).split("\n")
        _line(console, headline, "bold red" if finding.rule.fails else "bold yellow")
        for line in lines:
            _line(console, line)
        _line(console, "")
    if judged.death is not None:
        access = text_of(judged.death.access)
        _line(console, f"{judged.death.access.device}: the driver died at {access}")
        _line(console, "")
    console.print(_counts_table(judged.results))
    _line(console, "")
    for unknown in judged.history.unknown:
        _line(console, f"note: {unknown}")
    _line(console, _last_line(judged), _STYLES[judged.verdict])


def _argument(judged: _Judged, finding: Finding) -> Argument:
    command = "vfiomig judge -" if judged.name == _STDIN else _command(judged.name)
    return explain(
        finding,
        reproduce=f"{command} --rule {finding.rule.id}",
        is_tail=len(finding.history) == HISTORY_LENGTH,
    )


def _command(name: str) -> str:
    # A name that begins with a dash would be taken for an option.
    name = f"./{name}" if name.startswith("-") else name
    return f"vfiomig judge {shlex.quote(name)}"


def _counts_table(results: list[RuleResult]) -> Table:
    counts = Counter((result.rule.party, result.verdict) for result in results)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("rules of the")
    for verdict in _COLUMNS:
        table.add_column(verdict.value, justify="right", no_wrap=True)
    for party in _PARTIES:
        cells = (str(counts[party, verdict]) for verdict in _COLUMNS)
        table.add_row(party, *cells)
    return table


def _last_line(judged: _Judged) -> str:
    what = f"{_counted(judged.accesses, 'access', 'accesses')}"
    begun = "interrupted: " if judged.is_interrupted else ""
    if judged.verdict == "died":
        return f"{begun}died: no rule is broken in {what}, but the driver died"
    parties = Counter(
        result.rule.party
        for result in judged.results
        if result.verdict is Verdict.BROKEN
    )
    if parties:
        blamed = (
            f"{_counted(parties[party], 'rule', 'rules')} by the {party}"
            for party in _PARTIES
            if parties[party]
        )
        return f"{begun}broken: {', '.join(blamed)}, in {what}"
    held = sum(result.verdict is Verdict.HELD for result in judged.results)
    if not held:
        return f"{begun}held: but no rule was reached in {what}"
    return f"{begun}held: {_counted(held, 'rule', 'rules')}, in {what}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(plain(text), style=style), soft_wrap=True)


# -- for programs ----------------------------------------------------------------------


def _as_json(judged: _Judged) -> bytes:
    """Return all verdicts as indented JSON; keys are only ever added."""
    header = judged.history.header
    facts = {
        "schema": _SCHEMA,
        "history": plain(judged.name),
        "recorded_by": header.recorded_by,
        "protocol": header.protocol,
        "accesses": judged.accesses,
        "unknown": list(judged.history.unknown),
        "interrupted": judged.is_interrupted,
        "verdict": judged.verdict,
        "died": _death_as_dict(judged.death),
        "rules": [
            result_as_dict(
                result, _argument(judged, result.finding) if result.finding else None
            )
            for result in judged.results
        ],
    }
    return msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"


def _death_as_dict(death: DeathSeen | None) -> dict[str, object] | None:
    if death is None:
        return None
    return {
        "access": msgspec.to_builtins(death.access),
        "error": "",
        "where": "",
        "history": msgspec.to_builtins(death.history),
        "token": "",
    }
