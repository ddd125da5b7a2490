"""How much of a driver was seen, and what may be said of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.exploration.vocabulary import NOT_TRIED
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfiomig.conformance.conversation.steps import Step
    from vfiomig.conformance.exploration.holding_many import Place

    Steps = tuple[Step, ...]

_KEY: Final = (
    "device_state",
    "the position of the protocol",
    "what the user application knows: the last answers, and the stream",
)
_CHECKS: Final = "what each check remembers"
_WHOLE: Final = "the whole driver object"
_PARTS: Final = "what can be compared of the driver object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What was explored.

    ``arcs`` counts the conversations that were held, each one step on from a place;
    ``covered`` and ``not_covered`` are pairs of a device_state and a step.  ``reasons``
    say why it is not proved; there is none where it is.  ``depth`` is the number of
    steps up to which every conversation was held.
    """

    states: int
    arcs: int
    depth: int
    key: tuple[str, ...]
    covered: tuple[tuple[str, str], ...]
    not_covered: tuple[tuple[str, str], ...]
    not_tried: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    @property
    def is_proved(self) -> bool:
        """Whether every conversation of these steps ends at a place that was seen."""
        return not self.reasons

    @property
    def verdict(self) -> str:
        """``proved``, or ``bounded``: as `--json` has it."""
        return "proved" if self.is_proved else "bounded"

    def as_dict(self) -> dict[str, object]:
        """Return what ``coverage`` of `--json` has more, when exploring."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "depth": self.depth,
            "states": self.states,
            "arcs": self.arcs,
            "key": list(self.key),
            "covered": [list(pair) for pair in self.covered],
            "not_covered": [list(pair) for pair in self.not_covered],
            "not_tried": list(self.not_tried),
        }


@dataclass(slots=True)
class Seen:
    """What was seen so far."""

    is_thorough: bool = False
    arcs: int = 0
    limits: list[str] = field(default_factory=list)
    _covered: set[tuple[int | None, Step]] = field(default_factory=set)
    _opaque: list[str] = field(default_factory=list)
    _strayed: Steps | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the key had all of the driver so far, and its answers came again."""
        return not self._opaque and self._strayed is None

    def stopped(self, why: str) -> None:
        """Note a limit that ended it."""
        if why not in self.limits:
            self.limits.append(why)

    def state(self, place: Place) -> None:
        """Note a place."""
        if place.opaque and place.opaque not in self._opaque:
            self._opaque.append(place.opaque)

    def arc(self, state: int | None, each: Step) -> None:
        """Note a step that was taken in a device_state."""
        self._covered.add((state, each))

    def strayed(self, steps: Steps) -> None:
        """Note that a conversation, held again, came to another place."""
        self._strayed = self._strayed or steps

    def coverage(
        self, vocabulary: tuple[Step, ...], *, states: int, depth: int
    ) -> Coverage:
        """Return what may be said."""
        possible = [(int(state), each) for state in DeviceState for each in vocabulary]
        reasons = [*self._opaque]
        if self._strayed is not None:
            again = ", ".join(map(str, self._strayed)) or "no step at all"
            reasons.append(f"the same conversation came to another place: {again}")
        reasons += self.limits
        whole = _PARTS if self._opaque else _WHOLE
        return Coverage(
            states=states,
            arcs=self.arcs,
            depth=depth,
            key=(whole, *_KEY, _CHECKS) if self.is_thorough else (whole, *_KEY),
            covered=_named(pair for pair in possible if pair in self._covered),
            not_covered=_named(pair for pair in possible if pair not in self._covered),
            not_tried=NOT_TRIED,
            reasons=tuple(reasons),
        )


def _named(pairs: Iterable[tuple[int, Step]]) -> tuple[tuple[str, str], ...]:
    return tuple((DeviceState(state).name, shown(each)) for state, each in pairs)


def shown(each: Step) -> str:
    """Return a step without the role, which is always the same."""
    return f"{each.name}({', '.join(map(repr, each.arguments[1:]))})"
