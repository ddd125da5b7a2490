"""What checks say of a conversation that was not held, but is known from its parts.

Where the key is the same, the same step gets the same answers.  So a conversation that
comes to a known place in another way need not be held to its end: a check that
remembers something else of the way there is given the records of the known one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from vfiomig.conformance.exploration.remembering import (
    Opened,
    WatchedJudge,
    digests_of_checks,
    number_buffers,
    role_of,
)
from vfiomig.conformance.exploration.vocabulary import ROLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vfiomig.conformance.judge import Bound
    from vfiomig.conformance.ruling import Broken
    from vfiomig.protocol.history import Record

Event: TypeAlias = "Record | Opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedOn:
    """What checks ruled at the last step, and what they remember behind it."""

    kept: frozenset[str]
    broken: tuple[tuple[str, Broken], ...]
    memories: Mapping[str, bytes]


def look_on(checks: Iterable[Bound], steps: Iterable[tuple[Event, ...]]) -> LookedOn:
    """Give the events of each step to fresh checks.

    A device that is opened is the one of its role from then on, and is called as the
    conversation would have called it.
    """
    judge = WatchedJudge(checks)
    names: dict[str, str] = {}
    opened = 0
    broken: list[tuple[str, Broken]] = []
    for events in steps:
        broken = []
        judge.kept.clear()
        for event in events:
            if isinstance(event, Opened):
                opened += 1
                name = event.role if opened == 1 else f"{event.role}-{opened}"
                names[event.role] = name
                broken += judge.open(name, event.region)
                continue
            name = names[role_of(event.device)]
            known = event
            if known.device != name:
                known = msgspec.structs.replace(event, device=name)
            broken += judge.see(known)
        number_buffers(judge.position(names[ROLE]))
    return LookedOn(
        kept=frozenset(judge.kept),
        broken=tuple(broken),
        memories=digests_of_checks(judge, names[ROLE]),
    )
