"""A baseline: the deviations that are known, each with its reason, as TOML.

It waives what is broken and known; it never hides what is new, and it does not rot: an
entry whose rule holds fails the run.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Final

import msgspec

from vfiomig.conformance.catalogue import load_catalogue
from vfiomig.conformance.finding import Verdict
from vfiomig.frontends.plain_text import plain
from vfiomig.frontends.toml_file import read_toml
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vfiomig.conformance.finding import RuleResult

_TO_BE_WRITTEN: Final = "TODO"


class BaselineError(VfiomigError):
    """A baseline that cannot be read; one line that names the file and the entry."""


class _Deviation(msgspec.Struct, forbid_unknown_fields=True):
    rule: str
    reason: str


class _Baseline(msgspec.Struct, forbid_unknown_fields=True):
    deviation: tuple[_Deviation, ...] = ()


def read_baseline(path: Path) -> dict[str, str]:
    """Return the reasons by the ids of the rules.

    Raises:
        BaselineError: it is no baseline, or an entry names a rule that there is not.
        OSError: it cannot be read.
    """
    try:
        baseline = msgspec.convert(read_toml(path), _Baseline)
    except ValueError as error:
        message = f"{plain(str(path))}: {plain(str(error))}"
        raise BaselineError(message) from None
    reasons: dict[str, str] = {}
    known = {rule.id for rule in load_catalogue()}
    for number, entry in enumerate(baseline.deviation):
        place = f"{plain(str(path))}: deviation[{number}]"
        if entry.rule not in known:
            raise BaselineError(f"{place}: there is no rule {plain(entry.rule[:80])}")
        if entry.rule in reasons:
            raise BaselineError(f"{place}: {entry.rule} stands there twice")
        reasons[entry.rule] = entry.reason
    return reasons


def waived(
    results: Iterable[RuleResult], reasons: Mapping[str, str]
) -> tuple[RuleResult, ...]:
    """Return the results with what is broken and known as waived."""
    return tuple(
        dataclasses.replace(
            result, verdict=Verdict.WAIVED, reason=reasons[result.rule.id]
        )
        if result.verdict is Verdict.BROKEN and result.rule.id in reasons
        else result
        for result in results
    )


def stale_entries(
    results: Iterable[RuleResult], reasons: Mapping[str, str], path: Path
) -> tuple[str, ...]:
    """Return a line for each entry whose rule held."""
    return tuple(
        f"{plain(str(path))}: {result.rule.id} holds: take its entry out"
        for result in results
        if result.verdict is Verdict.HELD and result.rule.id in reasons
    )


def as_baseline(results: Iterable[RuleResult]) -> bytes:
    """Return the baseline that waives what is broken; known reasons are kept."""
    entries = []
    for result in results:
        if result.verdict in (Verdict.BROKEN, Verdict.WAIVED):
            is_known = result.verdict is Verdict.WAIVED
            reason = plain(result.reason) if is_known else _TO_BE_WRITTEN
            text = json.dumps(reason, ensure_ascii=False)
            entries.append(
                f'[[deviation]]\nrule = "{result.rule.id}"\nreason = {text}\n'
            )
    return "\n".join(entries).encode()
