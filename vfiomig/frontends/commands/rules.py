"""``vfiomig rules``: the catalogue, or one rule in full."""

from __future__ import annotations

import difflib
import importlib
import inspect
import textwrap
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec
from rich.console import Console
from rich.text import Text

from vfiomig.conformance.catalogue import load_catalogue, load_profiles
from vfiomig.frontends.exit_codes import DONE
from vfiomig.frontends.plain_text import quoted
from vfiomig.frontends.report.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.conformance.catalogue import Rule

_SCHEMA: Final = 1
_WIDTH: Final = 88
_CHECKS: Final = "vfiomig.conformance.checks"

# How a rule is decided, in a word of the table and in the words of the counts.
_DECIDED: Final = {
    "check": "by a check of the history",
    "bench": "by comparing what the suite's own conversations came to",
    "untestable": "not testable",
}


def rules_named(name: str) -> list[Rule]:
    """Return the rule with an id or origin, else all whose id begins with ``name``.

    Raises:
        click.UsageError: there is none; the message has the nearest name.
    """
    catalogue = load_catalogue()
    exact = [r for r in catalogue if name == r.id or name.upper() == r.origin.upper()]
    found = exact or [r for r in catalogue if name and r.id.startswith(name)]
    if not found:
        message = f"there is no rule {quoted(name)}{_nearest(name, catalogue)}"
        raise click.UsageError(message)
    return found


def _nearest(name: str, catalogue: Iterable[Rule]) -> str:
    known: dict[str, str] = {}
    for rule in catalogue:
        # A rule may be asked for by the end of its id as well.
        for each in (rule.origin, rule.section, rule.id.rpartition("/")[2], rule.id):
            known.setdefault(each.lower(), rule.section if each == rule.section else "")
            known[each.lower()] = known[each.lower()] or (
                rule.origin if each == rule.origin else rule.id
            )
    near = difflib.get_close_matches(name[:80].lower(), known, n=1)
    return f", did you mean {known[near[0]]}?" if near else ""


@click.command()
@click.argument("name", required=False, metavar="[ID]")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Write the rules as JSON.",
)
def rules(name: str | None, json_file: Path | None) -> int:
    """Show the rules that drivers and user applications are judged by.

    ID is that of one rule (or its origin, V1-SIZE-02), which is shown in full, or what
    several begin with. Without it all are listed.

    \b
    vfiomig rules
    vfiomig rules v1/data-size
    vfiomig rules V1-SIZE-02
    """  # noqa: D301 -- click wants the character
    found = list(load_catalogue()) if name is None else rules_named(name)
    if json_file is not None:
        write_whole(json_file, _as_json(found))
    console = Console(highlight=False)
    if name is not None and len(found) == 1:
        _print_in_full(found[0], console)
    else:
        _print_table(found, console)
    return DONE


def _decided(rule: Rule) -> str:
    if rule.check:
        return "check"
    return "bench" if rule.bench else "untestable"


# -- the table -------------------------------------------------------------------------


def _print_table(found: list[Rule], console: Console) -> None:
    id_width = max(len(rule.id) for rule in found)
    party_width = max(len(rule.party) for rule in found)
    for section, members in groupby(found, key=lambda rule: rule.section):
        in_section = list(members)
        _line(console, f"{section} ({len(in_section)})", "bold")
        for rule in in_section:
            row = (
                f"  {rule.id:<{id_width}}  {rule.level:<10}  "
                f"{rule.party:<{party_width}}  {_decided(rule)}"
            )
            _line(console, row)
        _line(console, "")
    for line in _counts(found):
        _line(console, line)


def _counts(found: list[Rule]) -> list[str]:
    decided: Counter[str] = Counter(_decided(rule) for rule in found)
    parties: Counter[str] = Counter(rule.party for rule in found)
    levels: Counter[str] = Counter(rule.level for rule in found)
    number = "1 rule" if len(found) == 1 else f"{len(found)} rules"
    return [
        f"{number}: " + _joined(parties, {name: f"of the {name}" for name in parties}),
        "levels: " + _joined(levels, {name: name for name in levels}),
        "decided: " + _joined(decided, _DECIDED),
    ]


def _joined(counts: Counter[str], words: dict[str, str]) -> str:
    return ", ".join(f"{counts[name]} {words[name]}" for name in words if counts[name])


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)


# -- one rule --------------------------------------------------------------------------


def _print_in_full(rule: Rule, console: Console) -> None:
    _line(console, f"{rule.id}   {rule.origin}   {rule.level}   {rule.party}", "bold")
    _paragraph(console, rule.title, "  ")
    _line(console, "")
    _paragraph(console, f'"{" ".join(rule.sentence.split())}"', "  ")
    _paragraph(console, f"-- {' '.join(rule.source.split())}", "     ")
    _line(console, "")
    if rule.check:
        _line(console, f"  Check: {rule.check}")
        for paragraph in _docstring(rule).split("\n\n"):
            _paragraph(console, paragraph, "    ")
    elif rule.bench:
        _paragraph(console, f"Compared by the suite: {rule.bench}", "  ")
    else:
        _paragraph(console, f"Not testable: {rule.untestable}", "  ")
    if not rule.fails:
        _line(console, "  Broken, it is an observation: it fails no driver.")
    _print_what_is_lost(rule, console)


def _print_what_is_lost(rule: Rule, console: Console) -> None:
    taken = ", ".join(rule.takes_away) or "nothing that others rely on"
    _line(console, f"  Takes away: {taken}")
    for name in rule.takes_away:
        profile = load_profiles()[name]
        _paragraph(console, f"{profile.title}: {profile.lost}", "    ")


def _docstring(rule: Rule) -> str:
    module, _, function = rule.check.partition(":")
    found = getattr(importlib.import_module(f"{_CHECKS}.{module}"), function)
    return inspect.getdoc(found) or ""


def _paragraph(console: Console, text: str, indent: str) -> None:
    text = " ".join(text.split())
    for line in textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    ):
        _line(console, line)


# -- JSON ------------------------------------------------------------------------------


def _as_json(found: list[Rule]) -> bytes:
    facts = {"schema": _SCHEMA, "rules": [_as_dict(rule) for rule in found]}
    return msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"


def _as_dict(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "origin": rule.origin,
        "section": rule.section,
        "level": rule.level,
        "party": rule.party,
        "title": rule.title,
        "sentence": " ".join(rule.sentence.split()),
        "source": " ".join(rule.source.split()),
        "decided": _decided(rule),
        "check": rule.check,
        "reason": rule.bench or rule.untestable,
        "fails": rule.fails,
        "takes_away": list(rule.takes_away),
    }
