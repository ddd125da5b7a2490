"""Verdicts on rules as JSON, for programs, by the names of the design.

Keys are only ever added.  All but ``environment`` is the same for the same run.
"""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, Final

import msgspec

import vfiomig
from vfiomig.conformance.snippet import snippet_of
from vfiomig.frontends.plain_text import plain

if TYPE_CHECKING:
    from vfiomig.conformance.explain import Argument
    from vfiomig.conformance.finding import Death, Finding, RuleResult
    from vfiomig.frontends.check_report import CheckReport

_SCHEMA: Final = 1
_SIZED: Final = re.compile(r"(\w+) of (\d+) bytes at (0x[0-9a-f]+)")


def check_as_json(report: CheckReport) -> bytes:
    """Return a run of the suite as indented JSON, ending in a line end."""
    outcome = report.outcome
    deaths = [_death_as_dict(report, death) for death in report.deaths]
    facts = {
        "schema": _SCHEMA,
        "target": plain(report.target),
        "protocol": "v1",
        "seed": report.seed,
        "effort": report.effort,
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "vfiomig": vfiomig.__version__,
        },
        "verdict": report.verdict,
        "interrupted": outcome.is_interrupted,
        "stale": list(report.stale),
        "died": deaths[0] if deaths else None,
        "deaths": deaths,
        "rules": [
            result_as_dict(
                result,
                report.argument(result.finding) if result.finding else None,
                target=report.target,
            )
            for result in report.results
        ],
        "coverage": {
            "conversations": outcome.conversations,
            "accesses": outcome.accesses,
            "bytes": outcome.data,
            "reached": sum(result.reached > 0 for result in report.results),
            **(report.coverage.as_dict() if report.coverage else {}),
        },
    }
    return msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"


def result_as_dict(
    result: RuleResult, argument: Argument | None, *, target: str = ""
) -> dict[str, object]:
    """Return the verdict on one rule; ``argument`` is that of its finding.

    Without a ``target`` there is no driver that a program could ask again.
    """
    rule, finding = result.rule, result.finding
    return {
        "id": rule.id,
        "origin": rule.origin,
        "level": rule.level,
        "party": rule.party,
        "verdict": result.verdict.value,
        "reason": plain(result.reason),
        "conversations": result.reached,
        "finding": _finding_as_dict(finding, argument, target)
        if finding is not None and argument is not None
        else None,
    }


def _finding_as_dict(
    finding: Finding, argument: Argument, target: str
) -> dict[str, object]:
    return {
        "device": finding.device,
        "let": list(argument.let),
        "then": list(argument.then),
        "expected": finding.broken.expected,
        "actual": finding.broken.actual,
        "rules_out": [*argument.rules_out, *argument.with_it],
        "where": finding.where,
        "printed": "\n".join(map(plain, argument.printed)),
        "history": msgspec.to_builtins(finding.history),
        "snippet": snippet_of(target, finding.history) if target else "",
        "token": finding.token,
        "reproduce": plain(argument.reproduce),
    }


def _death_as_dict(report: CheckReport, death: Death) -> dict[str, object]:
    access: dict[str, object] = {"text": plain(death.access)}
    if found := _SIZED.search(death.access):
        name, size, offset = found.groups()
        access |= {"access": name, "offset": int(offset, 16), "size": int(size)}
    return {
        "access": access,
        "error": plain(death.error),
        "where": death.where,
        "history": msgspec.to_builtins(death.history),
        "steps": [str(each) for each in death.steps],
        "printed": [plain(line) for line in death.printed.splitlines()],
        "token": death.token,
        "reproduce": plain(report.replay_command(death.token)),
    }
