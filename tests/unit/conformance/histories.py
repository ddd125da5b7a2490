"""Histories by hand: a line of text is a record."""

from __future__ import annotations

import errno
import importlib
import shlex
from typing import TYPE_CHECKING

from vfiomig.conformance.judge import Bound, Judge
from vfiomig.conformance.ruling import HELD, Broken
from vfiomig.protocol.history import Access, BenchEvent, Record, RegionShape
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register

if TYPE_CHECKING:
    from vfiomig.conformance.ruling import Ruling

_REGISTERS = {register.value: register for register in Register}


def record(line: str) -> Record:
    """Make a record of a line such as ``destination: write device_state 4``."""
    device = "source"
    if ": " in line:
        device, _, line = line.partition(": ")
    line, _, outcome = line.partition(" -> ")
    words = shlex.split(line)
    if words[0] == "work":
        return BenchEvent(device, "work", amount=int(words[1]))
    if words[0] == "snapshot":
        return BenchEvent(device, "snapshot", digest=words[1])
    if words[0] == "fail":
        return BenchEvent(device, "fail", on=words[1], errno=int(words[2]))
    died = outcome == "died"
    code = getattr(errno, outcome) if outcome.startswith("E") else 0
    moved = int(outcome.split()[0]) if outcome.endswith("bytes") else None
    if words[0] in ("reset", "close"):
        return Access(device, words[0], errno=code, died=died)  # type: ignore[arg-type]
    unseen = words[0] == "unseen"
    kind, place, *rest = words[unseen:]
    register = _REGISTERS.get(place)
    offset = register.offset if register else int(place, 0)
    size = register.width if register else int(rest.pop(0), 0)
    if kind == "write":
        value = hex(int(rest[0], 0)) if register else "".join(rest)
    else:
        value = "" if code or died or moved is not None else outcome
        if value and not register and offset >= REGISTERS_SIZE:
            value = value.removeprefix("0x")
    return Access(
        device,
        kind,  # type: ignore[arg-type]
        offset,
        size,
        value,
        code,
        unseen,
        moved,
        died,
    )


def all_broken(
    check: str, *lines: str, areas: tuple[tuple[int, int], ...] = ()
) -> list[Broken]:
    """Return every ruling that says that the rule is broken."""
    found = rulings(check, *lines, areas=areas)
    return [each for each in found if isinstance(each, Broken)]


def rulings(
    check: str,
    *lines: str,
    size: int = 0x3000,
    areas: tuple[tuple[int, int], ...] = (),
) -> list[Ruling]:
    """Return what a check says of a history."""
    module, _, name = check.partition(":")
    checks = importlib.import_module(f"vfiomig.conformance.checks.{module}")
    function = next(each for each in checks.CHECKS if each.__name__ == name)
    bound = Bound(
        rule=check,
        function=function,
        kinds=checks.CHECKS[function],
        is_across=function in getattr(checks, "ACROSS", ()),
    )
    records = [record(line) for line in lines]
    shape = RegionShape(size=size, areas=areas)
    devices = dict.fromkeys([each.device for each in records] or ["source"], shape)
    judge = Judge([bound], devices)
    found = _rulings(judge, judge.opened)
    for each in records:
        found += _rulings(judge, judge.see(each))
    return found


def _rulings(judge: Judge, broken: list[tuple[str, Broken]]) -> list[Ruling]:
    """Return what a single check said, and forget that it was kept."""
    held: list[Ruling] = [HELD] if judge.kept else []
    judge.kept.clear()
    return held + [ruling for _, ruling in broken]
