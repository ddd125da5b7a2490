"""What a check says of one moment: the rule was kept, or it was broken, and why."""

from __future__ import annotations

import enum
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment


class Held(enum.Enum):
    """The premise came true, and the rule was kept."""

    HELD = "held"


HELD: Final = Held.HELD


@dataclass(frozen=True, slots=True)
class Witness:
    """A moment that an argument stands on: its number in the history, and its text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The rule was broken.

    ``because`` are the sentences of the argument; the last one is the contradiction.
    ``witnesses`` are the moments that it names A, B, C in their order.  Where it
    ``is_outcome``, a whole migration came to something else than it had to, and the
    rule is the likeliest of several to blame.
    """

    expected: str
    actual: str
    witnesses: tuple[Witness, ...]
    because: tuple[str, ...]
    is_outcome: bool = False


# None: the premise did not come true.
Ruling: TypeAlias = Broken | Held
Remembering: TypeAlias = Generator[Ruling | None, "Moment", None]


def witness(moment: Moment) -> Witness:
    """Name a moment in an argument."""
    return Witness(moment.index, moment.text)
