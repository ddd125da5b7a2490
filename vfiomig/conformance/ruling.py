"""What a check says of one moment: the rule was kept, or it was broken, and why."""

from __future__ import annotations

import enum
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment


class Held(enum.Enum):
    """The premise came true, and the rule was kept."""

    HELD = "held"


HELD: Final = Held.HELD


class Witness(msgspec.Struct, eq=False):
    """A moment that an argument stands on: its number in the history, and its text.

    The text is made when it is asked for: checks name many moments, and few are told.
    """

    index: int
    said: str | Moment

    @property
    def text(self) -> str:
        """What was asked, and what came of it."""
        return self.said if isinstance(self.said, str) else self.said.text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Witness):
            return NotImplemented
        return (self.index, self.text) == (other.index, other.text)

    def __hash__(self) -> int:
        return hash(self.index)

    def __repr__(self) -> str:
        return f"Witness({self.index}, {self.text!r})"

    def __reduce__(self) -> tuple[type[Witness], tuple[int, str]]:
        """Cross to another process as text: a moment belongs to its judge."""
        return Witness, (self.index, self.text)


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


class Rest(enum.Enum):
    """A check that remembers nothing, and waits for a moment that wakes it."""

    ASLEEP = "asleep"


ASLEEP: Final = Rest.ASLEEP

# None: the premise did not come true.
Ruling: TypeAlias = Broken | Held
Remembering: TypeAlias = Generator[Ruling | Rest | None, "Moment", None]


def witness(moment: Moment) -> Witness:
    """Name a moment in an argument."""
    return Witness(moment.index, moment)
