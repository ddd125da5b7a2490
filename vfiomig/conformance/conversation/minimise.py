"""Making a conversation short: fewer steps, then simpler ones, as long as it breaks.

It is bounded in conversations held, not in time, and knows no chance: the same
finding becomes the same conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    Steps = tuple[Step, ...]

TRIES_LIMIT: Final = 300

# A simpler step that may stand for another: by name, arguments behind the role.
_SIMPLER: Final[dict[str, tuple[tuple[str | int, ...], ...]]] = {
    "work": ((1,),),
    "drain": (("whole",),),
    "load": (("whole",),),
    "read_data": (("whole",),),
    "iterate": ((1, "whole"), (2, "whole")),
}


def minimise(
    steps: Steps, still_breaks: Callable[[Steps], bool], *, tries: int = TRIES_LIMIT
) -> Steps:
    """Return the shortest conversation found that ``still_breaks``.

    It is asked at most ``tries`` times.  ``steps`` itself is known to break.
    """
    search = _Search(still_breaks, tries)
    before = None
    while steps != before and search.left:
        before = steps
        steps = search.remove(steps)
        steps = search.simplify(steps)
    return steps


class _Search:
    def __init__(self, still_breaks: Callable[[Steps], bool], tries: int) -> None:
        self._still_breaks = still_breaks
        self.left = tries

    def _breaks(self, steps: Steps) -> bool:
        if not self.left:
            return False
        self.left -= 1
        return self._still_breaks(steps)

    def remove(self, steps: Steps) -> Steps:
        """Take away the end first, then stretches of half the size each time."""
        size = max(1, len(steps) // 2)
        while True:
            at = len(steps) - size
            while at >= 0 and len(steps) > 1:
                shorter = steps[:at] + steps[at + size :]
                if self._breaks(shorter):
                    steps = shorter
                at -= size if size > 1 else 1
                at = min(at, len(steps) - size)
            if size == 1:
                return steps
            size //= 2

    def simplify(self, steps: Steps) -> Steps:
        """Let each step be a simpler one of its name."""
        for at in range(len(steps)):
            name, arguments = steps[at]
            for simpler in _SIMPLER.get(name, ()):
                other = Step(name, (arguments[0], *simpler))
                if other == steps[at]:
                    break
                changed = (*steps[:at], other, *steps[at + 1 :])
                if self._breaks(changed):
                    steps = changed
                    break
        return steps
