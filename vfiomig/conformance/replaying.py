"""The steps of a replay token, taken once more with fresh devices.

A token comes from outside: `read_replay` refuses one whose steps no conversation has,
so that what ends a replay is the driver's doing.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.catalogue import (
    bound_checks,
    driver_rules,
    ids_by_origin,
    load_catalogue,
    rule_named,
)
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.damage import DAMAGES, REARRANGEMENTS
from vfiomig.conformance.conversation.moving import IMPOSSIBLE_SIZES, UNUSUAL, WAYS
from vfiomig.conformance.conversation.steps import Step, TokenError, read_token
from vfiomig.conformance.holding import Bench, Held, Job, Report, Scripted
from vfiomig.conformance.shortening import DIED, Shortened, Shortener, Sought
from vfiomig.conformance.worker import work
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.v1.registers import Register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.conformance.catalogue import Rule
    from vfiomig.conformance.ruling import Broken
    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.history import Record

    Steps = tuple[Step, ...]

_BUDGET: Final = 512 << 20  # bytes of data
_NO_STEPS: Final = frozenset({"perform", "close"})
_HIGHEST: Final = {"state": 0xFFFF_FFFF, "offset": 1 << 40, "size": 4096, "code": 4095}
_HIGHEST_ELSE: Final = (1 << 64) - 1
_HOW: Final[dict[str, tuple[str, ...]]] = {
    "load": (*WAYS, *UNUSUAL),
    "load_damaged": DAMAGES + REARRANGEMENTS,
    "announce": IMPOSSIBLE_SIZES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed(Held):
    """One step that was taken, ``steps[0]``, and what was recorded meanwhile."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a token holds; ``rule`` is None where the driver is to die."""

    rule: Rule | None
    steps: Steps


def read_replay(token: str) -> Replay:
    """Return what a token asks for.

    Raises:
        TokenError: it is none, or it names a rule or a step that there is not.
    """
    try:
        name, steps = read_token(token.strip())
    except RecursionError:
        raise TokenError("a token that is nested too deeply") from None
    rule = None if name == DIED else rule_named(name)
    if name != DIED and rule is None:
        message = f"the token is about a rule that there is not: {name[:80]!r}"
        raise TokenError(message)
    for each in steps:
        _require_step(each)
    return Replay(rule=rule, steps=steps)


def replay(
    make_driver: Callable[[], TrappedDriver], what: Replay, *, is_alone: bool = False
) -> Iterator[Replayed | Shortened]:
    """Take the steps in a worker; yield each, and the finding if there is one again.

    Where a device ``is_alone``, there is one at a time.

    Raises:
        WorkerEndedError: the driver hung, or ended the process.
    """
    bench = _ReplayBench(
        make_driver=make_driver,
        checks=bound_checks(r for r in load_catalogue() if r == what.rule),
        rule_ids=rule_ids(),
        bytes_left=_BUDGET,
        is_alone=is_alone,
        replay=what,
    )
    for _, report in work(bench, [Scripted(0, len(what.steps))]):
        if isinstance(report, Replayed | Shortened):
            yield report


def rule_ids() -> dict[str, str]:
    """Return the ids of the vendor driver's rules by their origins."""
    return ids_by_origin(driver_rules(load_catalogue()))


@dataclass(slots=True, kw_only=True)
class _ReplayBench(Bench):
    """Holds one conversation, and reports each step of it."""

    replay: Replay

    def perform(self, _: Job) -> Iterator[Report]:
        conversation = self.open()
        rule = self.replay.rule
        for each in self.replay.steps:
            self.told(each)
            taken = _taken(conversation, each, partial(conversation.perform, [each]))
            yield taken
            if taken.died is not None or (rule and rule.id in taken.broken):
                break
        else:
            taken = _taken(conversation, Step("close"), conversation.close)
            yield taken
        if rule is not None and rule.id in taken.broken:
            try:
                sought = Sought(
                    rule=rule.id, is_outcome=taken.broken[rule.id].is_outcome
                )
                yield Shortener(self, sought).explain(self.replay.steps)
            except DriverDiedError:
                return  # not this time: what was seen above is the finding


def _taken(
    conversation: Conversation, each: Step, perform: Callable[[], None]
) -> Replayed:
    records, known = len(conversation.records), len(conversation.broken)
    moved = conversation.moved
    died: DriverDiedError | None = None
    try:
        perform()
    except DriverDiedError as death:
        died = death
    broken: dict[str, Broken] = {}
    for rule, ruling, _ in conversation.broken[known:]:
        broken.setdefault(rule, ruling)
    new = tuple(conversation.records[records:])
    return Replayed(
        steps=(each,),
        reached=frozenset(broken),
        broken=broken,
        accesses=len(new),
        moved=conversation.moved - moved,
        died=died,
        records=new,
    )


def _require_step(each: Step) -> None:
    problem = _problem_of(each)
    if problem:
        message = f"the token has a step that no conversation has: {problem}"
        raise TokenError(message)


def _problem_of(each: Step) -> str:
    if not isinstance(each.name, str):
        return repr(each.name)[:80]
    method = inspect.getattr_static(Conversation, each.name, None)
    is_step = inspect.isfunction(method) and each.name not in _NO_STEPS
    if each.name.startswith("_") or not is_step:
        return each.name[:80]
    try:
        bound = inspect.signature(method).bind(None, *each.arguments)
    except TypeError as error:
        return f"{each.name}: {error}"
    for name, parameter in list(bound.signature.parameters.items())[1:]:
        if name not in bound.arguments:
            continue
        value = bound.arguments[name]
        is_fit = _is_fit(name, str(parameter.annotation), value)
        if not is_fit or (name == "how" and value not in _HOW.get(each.name, WAYS)):
            return f"{each.name}: {name} = {value!r}"[:120]
    return ""


def _is_fit(name: str, annotation: str, value: object) -> bool:
    if name == "register":
        return value in {str(register.value) for register in Register}
    if annotation == "int":
        highest = _HIGHEST.get(name, _HIGHEST_ELSE)
        return type(value) is int and 0 <= value <= highest
    return isinstance(value, str)
