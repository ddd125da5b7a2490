"""The loop of pre-copy, whatever takes part: migration_iteration_run of QEMU.

Every pass asks all handlers what is pending, then walks them in order and lets each
take a turn.  Until 8.2 the first that is not finished ends the pass: devices take
turns one after another, and the last is asked many times before its data_offset is
read; since 9.0 every one has its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.convergence import Decision, Look
from vfiomig.migration.loop_rules import QEMU_7_2, LoopRules
from vfiomig.migration.metrics import Metrics, Outcome, Round
from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.convergence import Limits
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.handler import SaveHandler
    from vfiomig.migration.observer import Guest, Observer
    from vfiomig.migration.pace import Pace

# A round is over at the latest after so many buffers, whatever pending_bytes claimed.
ROUND_LIMIT: Final = 1 << 16


class EndedEarlyError(VfiomigError):
    """The source itself decided to stop: a cancel, or no hope of an end."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


class PreCopy:
    """The handlers of one machine, and the loop over them.

    ``busy_with`` is the name of the handler that had the last word.
    """

    def __init__(
        self,
        handlers: Sequence[SaveHandler],
        *,
        clock: VirtualClock,
        pace: Pace,
        limits: Limits,
        metrics: Metrics,
        guest: Guest,
        observer: Observer,
        rules: LoopRules = QEMU_7_2,
    ) -> None:
        self._handlers = handlers
        self._clock = clock
        self._pace = pace
        self._limits = limits
        self._metrics = metrics
        self._guest = guest
        self._observer = observer
        self._rules = rules
        self.busy_with = ""

    def set_up(self) -> Steps[None]:
        """Let every handler begin."""
        for handler in self._handlers:
            self.busy_with = handler.name
            yield from handler.save_setup()

    def iterate(self) -> Steps[None]:
        """Iterate until what is left can be moved within the downtime limit.

        Raises:
            EndedEarlyError: cancelled, or it does not converge.
            OSError, VfiomigError: a handler failed.
        """
        rounds = self._metrics.rounds
        uncounted = 0  # rounds that ended before anything was measured
        while True:
            self._guest.run_until(self._clock.now)
            pending = self._pending()
            is_round_over = not rounds or _is_over(rounds[-1])
            if is_round_over and not self._pace.has_measured:
                uncounted = len(rounds)
            look = Look(
                now=self._clock.now,
                pending=pending,
                expected=self._pace.expected(pending),
                rounds_begun=len(rounds),
                rounds_ended=len(rounds) - (not is_round_over) - uncounted,
            )
            decision = self._limits.decide(look)
            if decision is not Decision.ITERATE:
                self._leave(decision, look)
                return
            if is_round_over:
                self._begin_round(pending)
            rounds[-1].polls += 1
            yield from self._pass(rounds[-1])
            rounds[-1].ended_at = self._clock.now
            self._pace.wait()

    def complete(self) -> Steps[None]:
        """Let every handler send what is left, then what it sends in one piece."""
        for handler in self._handlers:
            self.busy_with = handler.name
            yield from handler.save_complete_precopy()
        for handler in self._handlers:
            self.busy_with = handler.name
            yield from handler.save_state()

    def _pending(self) -> int:
        threshold = self._pace.threshold
        if self._rules.estimates_first:
            estimate = 0
            for handler in self._handlers:
                self.busy_with = handler.name
                estimate += handler.pending_estimate()
            if estimate >= threshold:
                return estimate
        total = 0
        for handler in self._handlers:
            self.busy_with = handler.name
            total += handler.pending_exact(threshold)
        return total

    def _begin_round(self, pending: int) -> None:
        number = len(self._metrics.rounds) + 1
        now = self._clock.now
        self._metrics.rounds.append(
            Round(number=number, began_at=now, pending_bytes=pending, ended_at=now)
        )
        self._observer.round_began(number, pending)

    def _pass(self, current: Round) -> Steps[None]:
        """Let each handler take a turn, until 8.2 up to the first that had more."""
        each_has_a_turn = self._rules.each_has_a_turn
        are_done = True
        for handler in self._handlers:
            if self._pace.is_exceeded():
                return
            self.busy_with = handler.name
            is_done = yield from handler.save_iterate(current)
            if not (is_done or each_has_a_turn):
                return
            are_done &= is_done
        if are_done:
            current.is_idle = True

    def _leave(self, decision: Decision, look: Look) -> None:
        if decision is Decision.CANCEL:
            raise EndedEarlyError(Outcome.CANCELLED, "cancelled")
        if decision is Decision.GIVE_UP:
            why = (
                f"after {look.rounds_ended} rounds {look.pending} bytes are pending: "
                f"{look.expected / 1e6:.1f} ms of downtime, and the limit is "
                f"{self._limits.downtime / 1e6:.1f} ms"
            )
            raise EndedEarlyError(Outcome.NOT_CONVERGED, why)
        self._metrics.pending_bytes_at_switch_over = look.pending
        self._metrics.expected_downtime = look.expected


def _is_over(current: Round) -> bool:
    """Tell whether a round sent what was pending, or cannot."""
    return (
        current.sent_bytes >= current.pending_bytes
        or current.is_idle
        or current.buffers >= ROUND_LIMIT
    )
