"""Making a conversation short: fewer steps, then simpler ones, as long as it breaks.

It is bounded in conversations held, not in time, and knows no chance: the same
finding becomes the same conversation.  What counts is the accesses up to where the
rule breaks, and then the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.steps import Step, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Steps = tuple[Step, ...]
    # The accesses up to where the rule breaks; None where it does not.
    Cost = Callable[[Steps], int | None]

TRIES_LIMIT: Final = 400

# Simpler arguments for a step of that name, behind the role; the simplest first.
_SIMPLER: Final[dict[str, tuple[tuple[str | int, ...], ...]]] = {
    "work": ((1,), (2,)),
    "drain": (("whole",),),
    "load": (("whole",),),
    "read_data": (("whole",),),
}
_STRETCHES: Final = (1, 2, 4, 16)  # buffers that may do in place of more


def minimise(steps: Steps, cost: Cost, *, tries: int = TRIES_LIMIT) -> Steps:
    """Return the shortest conversation found that still breaks the rule.

    ``cost`` is asked at most ``tries`` times, for ``steps`` itself first.
    """
    search = _Search(cost, tries)
    if not search.takes(steps):
        return steps
    before = None
    while search.steps != before and search.left:
        before = search.steps
        search.remove()
        search.simplify()
    return search.steps


class _Search:
    def __init__(self, cost: Cost, tries: int) -> None:
        self._cost = cost
        self._tried: set[Steps] = set()
        self._best: tuple[int, int] | None = None
        self.left = tries
        self.steps: Steps = ()

    def takes(self, steps: Steps) -> bool:
        """Take a conversation in place of the one in hand, where it costs no more."""
        if not self.left or steps in self._tried:
            return False
        self.left -= 1
        self._tried.add(steps)
        accesses = self._cost(steps)
        if accesses is None:
            return False
        worth = (accesses, len(steps))
        if self._best is not None and worth > self._best:
            return False
        self._best, self.steps = worth, steps
        return True

    def remove(self) -> None:
        """Take away the end first, then stretches of half the size each time."""
        size = max(1, len(self.steps) // 2)
        while size:
            at = len(self.steps) - size
            while at >= 0 and len(self.steps) > 1:
                self.takes(self.steps[:at] + self.steps[at + size :])
                at = min(at - 1 if size == 1 else at - size, len(self.steps) - size)
            size //= 2

    def simplify(self) -> None:
        """Let each step be a simpler one, or the accesses that it is made of."""
        at = 0
        while at < len(self.steps):
            for simpler in _simpler(self.steps[at]):
                if self.takes((*self.steps[:at], *simpler, *self.steps[at + 1 :])):
                    break
            at += 1


def _simpler(each: Step) -> Iterator[Steps]:
    if not each.arguments:
        return  # keep_short, which is about no device
    name, (role, *rest) = each.name, each.arguments
    for arguments in _SIMPLER.get(name, ()):
        if tuple(rest) == arguments:
            break  # those behind it are no simpler
        yield (Step(name, (role, *arguments)),)
    match name, rest:
        case "enter", [state, *_]:
            yield (step("request", role, state),)
        case "drain", _:
            for buffers in _STRETCHES:
                yield (step("iterate", role, buffers, "whole"),)
        case "load_damaged", _:  # it may be no matter of the damage
            yield (step("load", role, "whole"),)
        case "iterate", [int(buffers), *how]:
            if how not in ([], ["whole"]):
                yield (step("iterate", role, buffers, "whole"),)
            for fewer in _STRETCHES:
                if fewer < buffers:
                    yield (step("iterate", role, fewer, *how),)
            if buffers <= _STRETCHES[1]:
                yield (*_buffer(role, *how) * buffers, step("read_pending_bytes", role))
        case _:
            return


def _buffer(role: str | int, how: str | int = "whole") -> Steps:
    return (
        step("read_pending_bytes", role),
        step("read_data_offset", role),
        step("read_data_size", role),
        step("read_data", role, how),
    )
