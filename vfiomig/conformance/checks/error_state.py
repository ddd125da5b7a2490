"""ERROR: the way in, and the way out.

Rule 1: ERROR is believed where it was read, not where it was asked for.

Rule 2: a death, a reset that fails or an odd write says nothing of the state that it
leaves, so ERROR behind it is nobody's fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.checks.transitions import target_of
from vfiomig.conformance.moment import Watch
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, Witness, witness
from vfiomig.protocol.v1.states import DeviceState, state_name

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.ruling import Remembering, Ruling

# A look-up in an enum takes long, and this one is compared at every read.
_ERROR: Final = DeviceState.ERROR


def error_only_by_failed_transition() -> Remembering:
    """ERROR is read only behind a failed write to device_state.

    Premise: the state before was known and not ERROR, and no driver died (V1-TRANS-06).
    """
    known: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        if moment.kind is kinds.READ_DEVICE_STATE and not moment.position.has_died:
            ruling = _error_entered(known, moment)
        if moment.ok:
            known = witness(moment)


def _error_entered(known: Witness | None, moment: Moment) -> Ruling | None:
    position = moment.position
    if target_of(moment) != _ERROR or position.in_error:
        return None
    if position.state is None:
        return HELD if position.attempted is not None else None
    if known is None:
        return None
    return Broken(
        expected=f"device_state = {state_name(position.state)}",
        actual="device_state = ERROR",
        witnesses=(known, witness(moment)),
        because=(
            f"since A device_state is {state_name(position.state)}",
            "no write to it fails between A and B",
            "however, B has device_state = ERROR",
        ),
    )


def no_write_leaves_error() -> Remembering:
    """In ERROR a write to device_state fails, and ERROR is read after it.

    Premise: device_state was read as ERROR, and there was no reset since (V1-TRANS-07).
    """
    seen: Witness | None = None
    failed: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or seen or failed else ASLEEP)
        ruling = None
        if moment.kind is kinds.WRITE_DEVICE_STATE:
            if seen is not None and moment.ok:
                ruling = _left_error(seen, moment, "the write fails", "B succeeds")
            is_refused = moment.errno and not moment.died
            failed = witness(moment) if is_refused and seen is not None else None
            seen = seen if is_refused else None
        elif moment.kind is not kinds.READ_DEVICE_STATE:
            seen = failed = None
        elif moment.ok:
            is_error = target_of(moment) == _ERROR
            if failed is not None:
                ruling = HELD if is_error else _recovered(failed, moment)
            seen, failed = witness(moment) if is_error else None, None


def _recovered(failed: Witness, moment: Moment) -> Broken:
    state = state_name(moment.value or 0)
    return _left_error(
        failed, moment, "device_state = ERROR", f"B has device_state = {state}"
    )


def _left_error(first: Witness, moment: Moment, expected: str, however: str) -> Broken:
    return Broken(
        expected=expected,
        actual=however.removeprefix("B has ").removeprefix("B "),
        witnesses=(first, witness(moment)),
        because=(
            "device_state was ERROR at A",
            "no reset lies between A and B",
            f"however, {however}",
        ),
    )


def leave_error_by_reset() -> Remembering:
    """Whoever finds a device in ERROR resets or closes it, and writes no device_state.

    Premise: the user application has read device_state as ERROR (V1-TRANS-08).
    """
    seen: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or seen else ASLEEP)
        ruling = None
        if moment.kind is kinds.READ_DEVICE_STATE:
            if moment.ok:
                is_error = target_of(moment) == _ERROR
                seen = witness(moment) if is_error else None
        elif seen is not None:
            is_write = moment.kind is kinds.WRITE_DEVICE_STATE
            ruling = _wrote_in_error(seen, moment) if is_write else HELD
            seen = None


def _wrote_in_error(seen: Witness, moment: Moment) -> Broken:
    return Broken(
        expected="a reset, or close",
        actual=moment.text,
        witnesses=(seen, witness(moment)),
        because=(
            "A has device_state = ERROR",
            "no reset lies between A and B",
            "however, B writes device_state",
        ),
    )


_READ: Final = (kinds.READ_DEVICE_STATE,)
_SETTLING: Final = (*_READ, kinds.WRITE_DEVICE_STATE, kinds.RESET)
_STATE: Final = (*_SETTLING, kinds.CLOSE)

CHECKS: Final = {
    error_only_by_failed_transition: (kinds.OPEN, *_SETTLING),
    no_write_leaves_error: Watch(kinds=(*_STATE, kinds.WRITE_ODD), woken_by=_READ),
    leave_error_by_reset: Watch(kinds=_STATE, woken_by=_READ),
}
