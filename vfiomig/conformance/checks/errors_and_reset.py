"""Checks of reset, and of what a user application writes to device_state.

Rule 1: what a reset did is judged by the next device_state that is read, and only if
nobody wrote to it in between, in whatever width and with whatever outcome.

Rule 2: a device that never was reset and refuses a reset as an unknown request has
none.  That is another rule's matter (V1-DISC-07), not a reset that does its work badly.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.moment import Watch
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, witness
from vfiomig.protocol.v1.states import DEFAULT_STATE, DeviceState, state_name
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.ruling import Remembering, Ruling, Witness

# What the kernel answers where a device has no reset (ABI-RST-01, ABI-UNK-01), and
# what drivers say who mean the same.
_NO_RESET: Final = (errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP)

_NOT_VALID: Final = (5, DeviceState.ERROR, 7)


def reset_recovers_from_error() -> Remembering:
    """Any reset in ERROR succeeds, and leads to a valid state.

    Premise: device_state was read as ERROR before, and the device has a reset
    (V1-RST-01).
    """
    shown: Witness | None = None  # the last read of ERROR
    reset: Witness | None = None  # a reset in ERROR whose outcome is to be read
    has_reset = False
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or reset else ASLEEP)
        ruling = None
        if moment.kind is kinds.READ_DEVICE_STATE:
            if moment.value is None:
                continue
            if shown is not None and reset is not None:
                ruling = _recovery(shown, reset, moment, moment.value)
            reset = None
            is_error = moment.value & VFIO_DEVICE_STATE_MASK == DeviceState.ERROR
            shown = witness(moment) if is_error else None
        elif moment.kind is kinds.RESET:
            has_reset = has_reset or moment.ok
            reset = None
            if shown is None or not moment.position.in_error:
                continue
            if moment.ok:
                reset = witness(moment)
            elif not _is_excused(moment, has_reset=has_reset):
                ruling = _refused_reset(shown, moment)
        elif moment.kind is kinds.WRITE_ODD:
            if moment.offset < 4:
                reset = None
        else:
            reset = None


def _is_excused(moment: Moment, *, has_reset: bool) -> bool:
    """Tell whether a reset failed for another reason than that it did its work badly.

    EBADF is the answer of a fd that was closed; the driver was not asked.
    """
    is_absent = not has_reset and moment.errno in _NO_RESET
    return moment.died or moment.errno == errno.EBADF or is_absent


def _recovery(
    shown: Witness, reset: Witness, moment: Moment, value: int
) -> Ruling | None:
    if value & VFIO_DEVICE_STATE_MASK not in _NOT_VALID:
        return HELD
    return Broken(
        expected="a valid device_state",
        actual=f"device_state = {value:#x}, {state_name(value)}",
        witnesses=(shown, reset, witness(moment)),
        because=(
            "the device is in ERROR by A, and B resets it;",
            "no write to device_state lies between B and C;",
            f"however, C has device_state = {value:#x}, which is not valid: "
            "a contradiction.",
        ),
    )


def _refused_reset(shown: Witness, moment: Moment) -> Broken:
    return Broken(
        expected="the reset succeeds",
        actual=moment.text,
        witnesses=(shown, witness(moment)),
        because=(
            "the device is in ERROR by A, and only a reset leads out of it;",
            "however, the reset B failed: a contradiction.",
        ),
    )


def reset_enters_running() -> Remembering:
    """After a reset device_state reads RUNNING, whatever it was before.

    Premise: the reset succeeded, and nobody has written to device_state since; or one
    has succeeded before, and the state was valid, with no fault armed (V1-RST-02).
    """
    reset: Witness | None = None
    before: Witness | None = None  # a reset that succeeded
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or reset else ASLEEP)
        ruling = None
        if moment.kind is kinds.READ_DEVICE_STATE:
            if moment.value is not None and reset is not None:
                ruling = _default(reset, moment, moment.value)
                reset = None
        elif moment.kind is kinds.RESET:
            reset = witness(moment) if moment.ok else None
            if reset is None and before is not None:
                ruling = _refused_elsewhere(before, moment)
            before = reset or before
        elif moment.kind is kinds.WRITE_DEVICE_STATE or moment.offset < 4:
            reset = None


def _refused_elsewhere(before: Witness, moment: Moment) -> Ruling | None:
    position = moment.position
    is_valid = position.state is not None and position.state not in _NOT_VALID
    if not is_valid or position.armed or _is_excused(moment, has_reset=True):
        return None
    assert position.state is not None
    return Broken(
        expected="the reset succeeds",
        actual=moment.text,
        witnesses=(before, witness(moment)),
        because=(
            "A is a reset that succeeded;",
            f"B is one in {state_name(position.state)}, and any state is left by it;",
            "however, B failed: a contradiction.",
        ),
    )


def _default(reset: Witness, moment: Moment, value: int) -> Ruling:
    if value & VFIO_DEVICE_STATE_MASK == DEFAULT_STATE:
        return HELD
    return Broken(
        expected="device_state = 0x1, RUNNING",
        actual=f"device_state = {value:#x}, {state_name(value)}",
        witnesses=(reset, witness(moment)),
        because=(
            "a reset sets device_state to its default, RUNNING;",
            "no write to device_state lies between A and B;",
            f"however, B has device_state = {value:#x}: a contradiction.",
        ),
    )


def only_valid_states_written(moment: Moment) -> Ruling | None:
    """Only values that VFIO_DEVICE_STATE_VALID holds for are written.

    Premise: the user application wrote to device_state, whatever came of it
    (V1-USER-04).
    """
    if moment.value is None:
        return None
    if moment.value & VFIO_DEVICE_STATE_MASK not in _NOT_VALID:
        return HELD
    name = state_name(moment.value)
    return Broken(
        expected="a device_state of 0, 1, 2, 3 or 4",
        actual=f"device_state = {moment.value:#x}, {name}",
        witnesses=(witness(moment),),
        because=(
            "the user application may ask for STOP, RUNNING, STOP_AND_COPY, PRE_COPY "
            "and RESUMING;",
            f"however, A asks for {name}: a contradiction.",
        ),
    )


_STATE_KINDS: Final = (
    kinds.READ_DEVICE_STATE,
    kinds.WRITE_DEVICE_STATE,
    kinds.WRITE_ODD,
    kinds.RESET,
)

CHECKS: Final = {
    reset_recovers_from_error: Watch(
        kinds=_STATE_KINDS, woken_by=(kinds.READ_DEVICE_STATE, kinds.RESET)
    ),
    reset_enters_running: Watch(kinds=_STATE_KINDS, woken_by=(kinds.RESET,)),
    only_valid_states_written: (kinds.WRITE_DEVICE_STATE,),
}
