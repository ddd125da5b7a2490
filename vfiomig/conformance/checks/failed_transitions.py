"""Transitions that fail: what is returned, and what state is left.

Rule 1: what a failed write left behind is judged by the next read of device_state.  A
reset, an odd write or a death in between, and there is nothing to judge.

Rule 2: an armed fault excuses ERROR, but no third state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.checks.transitions import is_healthy, target_of
from vfiomig.conformance.moment import Watch, failing
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, Witness, witness
from vfiomig.protocol.v1.states import (
    ArcClass,
    DeviceState,
    arc_between,
    named_state,
    state_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.ruling import Remembering, Ruling

_NEVER_ASKED_FOR: Final = (ArcClass.INV, ArcClass.ERRW)
_UNDRAWN: Final = (ArcClass.EXP, ArcClass.OPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """A write to device_state that failed: from where, to where, and in what health."""

    write: Witness
    before: int
    target: int
    was_healthy: bool
    was_armed: bool

    @property
    def arc_class(self) -> ArcClass:
        """The class of the arc that was refused."""
        return arc_between(self.before, self.target).arc_class

    @property
    def is_between_valid_states(self) -> bool:
        """Whether both ends are states that a user application may ask for."""
        ends = (named_state(self.before), named_state(self.target))
        return None not in ends and DeviceState.ERROR not in ends


class _Refusals:
    """Follows device_state, and tells which failed write a read shows the outcome of.

    Of several in a row it is the last one, with the state before the first.
    """

    def __init__(self) -> None:
        self.last: _Refusal | None = None

    def settled_by(self, moment: Moment) -> _Refusal | None:
        """Return the failed write that a moment settles."""
        kind = moment.kind
        if kind is kinds.WRITE_DEVICE_STATE:
            self.last = self._refusal(moment)
        elif kind is not kinds.READ_DEVICE_STATE:
            self.last = None
        elif moment.ok and moment.value is not None:
            settled, self.last = self.last, None
            return settled
        return None

    def _refusal(self, moment: Moment) -> _Refusal | None:
        target, position = target_of(moment), moment.position
        before = position.state
        if before is None and self.last is not None:
            before = self.last.before
        is_refused = moment.errno and not moment.died
        if not is_refused or target is None or before is None:
            return None
        return _Refusal(
            write=witness(moment),
            before=before,
            target=target,
            was_healthy=is_healthy(position),
            was_armed=bool(position.armed),
        )


def _settled(
    judge: Callable[[_Refusal, int, Moment], Ruling | None],
) -> Remembering:
    """Let ``judge`` see each failed write with the state that was read after it."""
    refusals = _Refusals()
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or refusals.last else ASLEEP)
        ruling = None
        refusal = refusals.settled_by(moment)
        state = target_of(moment)
        if refusal is not None and state is not None:
            ruling = judge(refusal, state, moment)


def _left_behind(
    refusal: _Refusal, moment: Moment, expected: str, however: str
) -> Broken:
    """Tell that a failed write left a state that it should not have."""
    actual = f"device_state = {state_name(moment.value or 0)}"
    return Broken(
        expected=expected,
        actual=actual,
        witnesses=(refusal.write, witness(moment)),
        because=(
            f"device_state was {state_name(refusal.before)} before A, and A failed",
            "no reset and no other write to device_state lies between A and B",
            f"however, B has {actual}: {however}",
        ),
    )


def success_is_returned() -> Remembering:
    """No write fails whose target is reached.

    Premise: the target is valid and another state than before, and device_state is
    read next (V1-TRANS-01).
    """
    yield from _settled(_success_returned)


def _success_returned(refusal: _Refusal, state: int, moment: Moment) -> Ruling | None:
    if not refusal.is_between_valid_states or refusal.target == refusal.before:
        return None
    if state != refusal.target:
        return HELD
    return _left_behind(
        refusal, moment, "A succeeds", "the transition took place all the same"
    )


def failure_is_an_errno() -> Remembering:
    """Every write that does not succeed fails with an errno; none is short.

    Premise: device_state is written as a whole, and the driver lives.  A write that
    succeeded and after which the old state, or ERROR, is read did not (V1-TRANS-02).
    """
    written: Witness | None = None
    before, target = 0, 0
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or written else ASLEEP)
        ruling = None
        state = target_of(moment)
        if moment.kind is kinds.WRITE_DEVICE_STATE:
            ruling = _told(moment)
            written = None
            if moment.ok and state is not None and moment.position.state is not None:
                written, before, target = witness(moment), moment.position.state, state
        elif moment.kind is not kinds.READ_DEVICE_STATE:
            written = None
        elif moment.ok and state is not None and written is not None:
            if state != target and state in (before, DeviceState.ERROR):
                ruling = _untold(written, target, moment)
            written = None


def _told(moment: Moment) -> Ruling | None:
    if moment.ok or moment.died:
        return None
    if moment.errno:
        return HELD
    return Broken(
        expected=f"{moment.size} bytes written, or an errno",
        actual=f"{moment.moved} bytes written",
        witnesses=(witness(moment),),
        because=(
            "A writes device_state at its native width",
            f"however, A took {moment.moved} of {moment.size} bytes and has no errno",
        ),
    )


def _untold(written: Witness, target: int, moment: Moment) -> Broken:
    state = state_name(moment.value or 0)
    return Broken(
        expected=f"A fails, or device_state = {state_name(target)}",
        actual=f"A succeeds, and device_state = {state}",
        witnesses=(written, witness(moment)),
        because=(
            f"A succeeds, so that the device is in {state_name(target)}",
            "no reset and no other write to device_state lies between A and B",
            f"however, B has device_state = {state}: the transition had failed",
        ),
    )


def previous_state_or_error() -> Remembering:
    """After a failed write device_state reads as before, or as ERROR.

    Premise: the state before was known, and device_state is read next (V1-TRANS-03).
    """
    yield from _settled(_previous_or_error)


def _previous_or_error(refusal: _Refusal, state: int, moment: Moment) -> Ruling | None:
    if state in (refusal.before, DeviceState.ERROR):
        return HELD
    expected = f"device_state = {state_name(refusal.before)} or ERROR"
    return _left_behind(refusal, moment, expected, "neither the one nor the other")


def read_again_after_failure() -> Remembering:
    """device_state is read again before it is written, or a buffer asked for or given.

    Premise: a write to it failed (V1-TRANS-04).
    """
    failed: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or failed else ASLEEP)
        ruling = None
        kind = moment.kind
        if failed is not None:
            if kind is kinds.READ_DEVICE_STATE:
                ruling = HELD
            elif kind not in (kinds.RESET, kinds.CLOSE):
                ruling = _went_on(failed, moment)
        is_failed = kind is kinds.WRITE_DEVICE_STATE and moment.errno
        failed = witness(moment) if is_failed and not moment.died else None


def _went_on(failed: Witness, moment: Moment) -> Broken:
    return Broken(
        expected="read device_state",
        actual=moment.text,
        witnesses=(failed, witness(moment)),
        because=(
            "A failed, so that device_state may be as before or ERROR",
            "device_state is not read between A and B",
            "however, B goes on as if it were known",
        ),
    )


def error_is_the_last_resort() -> Remembering:
    """ERROR does not come of a request that asked nothing of the device.

    Premise: the device was healthy in a valid state, and the request was one for an
    invalid state or for ERROR, which leaves the old state well in reach (V1-TRANS-05).
    """
    yield from _settled(_last_resort)


def _last_resort(refusal: _Refusal, state: int, moment: Moment) -> Ruling | None:
    if refusal.arc_class not in _NEVER_ASKED_FOR or not refusal.was_healthy:
        return None
    if state != DeviceState.ERROR:
        return HELD
    expected = f"device_state = {state_name(refusal.before)}"
    return _left_behind(refusal, moment, expected, "the old state could have been kept")


def several_bits_unwound() -> Remembering:
    """No state in between is left by a change of several bits that fails.

    Premise: both states are valid, and device_state is read next (V1-TRANS-22).
    """
    yield from _settled(_unwound)


def _unwound(refusal: _Refusal, state: int, moment: Moment) -> Ruling | None:
    changed = refusal.before ^ refusal.target
    # The target itself is no state in between: V1-TRANS-01 and V1-TRANS-03 judge it.
    if not refusal.is_between_valid_states or changed.bit_count() < 2:
        return None
    if state in (refusal.before, refusal.target, DeviceState.ERROR):
        return HELD if state != refusal.target else None
    expected = f"device_state = {state_name(refusal.before)} or ERROR"
    return _left_behind(refusal, moment, expected, "the change was left half done")


def undrawn_arc_refused_cleanly() -> Remembering:
    """Undrawn arcs, when refused, leave device_state as it was.

    Premise: the device was healthy.  Out of RESUMING it may be ERROR, for what was
    loaded may be damaged (V1-TRANS-24).
    """
    yield from _settled(_refused_cleanly)


def _refused_cleanly(refusal: _Refusal, state: int, moment: Moment) -> Ruling | None:
    if refusal.arc_class not in _UNDRAWN or not refusal.was_healthy:
        return None
    is_excused = refusal.before == DeviceState.RESUMING and state == DeviceState.ERROR
    if state == refusal.before or is_excused:
        return HELD
    expected = f"device_state = {state_name(refusal.before)}"
    return _left_behind(
        refusal, moment, expected, "a driver may refuse an arc, no more"
    )


_STATE: Final = (
    kinds.READ_DEVICE_STATE,
    kinds.WRITE_DEVICE_STATE,
    kinds.WRITE_ODD,
    kinds.RESET,
    kinds.CLOSE,
)
_REFUSED: Final = failing(kinds.WRITE_DEVICE_STATE)
_SETTLED: Final = Watch(kinds=_STATE, woken_by=_REFUSED)
_GOING_ON: Final = (
    kinds.READ_DEVICE_STATE,
    kinds.WRITE_DEVICE_STATE,
    kinds.RESET,
    kinds.CLOSE,
    kinds.READ_DATA_OFFSET,
    kinds.WRITE_DATA_SIZE,
)

CHECKS: Final = {
    success_is_returned: _SETTLED,
    failure_is_an_errno: Watch(kinds=_STATE, woken_by=(kinds.WRITE_DEVICE_STATE,)),
    previous_state_or_error: _SETTLED,
    read_again_after_failure: Watch(kinds=_GOING_ON, woken_by=_REFUSED),
    error_is_the_last_resort: _SETTLED,
    several_bits_unwound: _SETTLED,
    undrawn_arc_refused_cleanly: _SETTLED,
}
