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
    from vfiomig.conformance.ruling import Ruling
    from vfiomig.protocol.history import Record

Event: TypeAlias = "Record | Opened"


@dataclass(frozen=True, slots=True)
class LookedOn:
    """What checks ruled at the last step, and what they remember behind it."""

    rulings: tuple[tuple[str, Ruling], ...]
    memories: Mapping[str, bytes]


def look_on(checks: Iterable[Bound], steps: Iterable[tuple[Event, ...]]) -> LookedOn:
    """Give the events of each step to fresh checks.

    A device that is opened is the one of its role from then on, and is called as the
    conversation would have called it.
    """
    judge = WatchedJudge(checks)
    names: dict[str, str] = {}
    opened = 0
    rulings: list[tuple[str, Ruling]] = []
    for events in steps:
        rulings = []
        for event in events:
            if isinstance(event, Opened):
                opened += 1
                name = event.role if opened == 1 else f"{event.role}-{opened}"
                names[event.role] = name
                rulings += judge.open(name, event.region)
                continue
            name = names[role_of(event.device)]
            known = event
            if known.device != name:
                known = msgspec.structs.replace(event, device=name)
            rulings += judge.see(known)
        number_buffers(judge.position(names[ROLE]))
    return LookedOn(tuple(rulings), digests_of_checks(judge, names[ROLE]))
