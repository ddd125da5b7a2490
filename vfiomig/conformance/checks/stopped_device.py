"""Checks of what device_state promises of the device behind it, by its snapshots.

They decide rules of specs/v1/device_state.toml.

Rule 1: snapshots are compared within one stop only, and in RESUMING only where nobody
gave the device anything between them: what it takes in there is its own to apply.

Rule 2: an access that failed, or was not at a register's width and place, may have
left anything behind: nothing is compared across it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.moment import EVERY_KIND, Watch, during, failing, outside
from vfiomig.conformance.ruling import (
    ASLEEP,
    HELD,
    Broken,
    Remembering,
    Ruling,
    witness,
)
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.position import Position

_STOP_AND_COPY: Final = DeviceState.STOP_AND_COPY  # compared at every access
_RESUMING: Final = DeviceState.RESUMING
_RUNNING: Final = (DeviceState.RUNNING, DeviceState.PRE_COPY)
_STOPPED: Final = (DeviceState.STOP, DeviceState.STOP_AND_COPY)
_BENCH: Final = (kinds.WORK, kinds.SNAPSHOT, kinds.FAIL)
_READS: Final = (
    kinds.READ_DEVICE_STATE,
    kinds.READ_RESERVED,
    kinds.READ_PENDING_BYTES,
    kinds.READ_DATA_OFFSET,
    kinds.READ_DATA_SIZE,
    kinds.READ_DATA,
    kinds.MMAP,
)


def stopped_when_the_write_returns() -> Remembering:
    """Once the write that clears RUNNING returned, guest traffic changes nothing.

    Premise: the device ran, the write succeeded, and between it and the two snapshots
    there is no access at all: what stops the device later is too late (V1-STATE-04).
    """
    ruling: Ruling | None = None
    stop: Moment | None = None
    first: Moment | None = None
    while True:
        moment = yield (ruling if ruling or stop else ASLEEP)
        ruling = None
        if moment.kind is kinds.WRITE_DEVICE_STATE:
            stop, first = (moment if _clears_running(moment) else None), None
        elif moment.kind not in _BENCH:
            stop = first = None
        elif stop is not None and moment.kind is kinds.SNAPSHOT and moment.digest:
            if first is None:
                first = moment
            else:
                why = (
                    f"the write of {stop.value:#x} at #{stop.index} returned before A",
                    "no access lies between it and B",
                )
                ruling = _same_state(first, moment, why)


def _clears_running(moment: Moment) -> bool:
    if not moment.ok or moment.value is None or not moment.position.is_running:
        return False
    return _may_compare(moment.value & VFIO_DEVICE_STATE_MASK, moment.position)


def no_progress_while_stopped() -> Remembering:
    """Two snapshots within one stop are equal.

    Premise: between them device_state was known to be STOP or STOP_AND_COPY, every
    access succeeded, and none but device_state was written; in RESUMING, there was no
    access between them at all (V1-STATE-05).
    """
    ruling: Ruling | None = None
    first: Moment | None = None
    while True:
        moment = yield (ruling if ruling or first else ASLEEP)
        ruling = None
        if moment.kind is not kinds.SNAPSHOT:
            if not _keeps_the_stop(moment):
                first = None
        elif not moment.digest or not _may_compare(
            moment.position.state, moment.position
        ):
            first = None
        elif first is None:
            first = moment
        else:
            why = ("the device was stopped from A to B",)
            ruling = _same_state(first, moment, why)


def _may_compare(state: int | None, position: Position) -> bool:
    """Tell whether a device in ``state`` is stopped, and nothing can reach it unseen.

    What a user application writes through a mapping in RESUMING may be the device.
    """
    return state in _STOPPED or (state == _RESUMING and not position.mapped)


def _keeps_the_stop(moment: Moment) -> bool:
    """Tell whether a moment that may end a stop leaves the device in one."""
    if not moment.ok or moment.position.state not in _STOPPED:
        return False
    return moment.kind is kinds.WRITE_DEVICE_STATE and _state_of(moment) in _STOPPED


def saving_hands_out_state() -> Remembering:
    """Something is handed out of a device that is not as it was when opened.

    Premise: a snapshot from before anything was done to the device differs from one
    in this stop-and-copy, where pending_bytes came to 0 and no access of the session
    failed (V1-STATE-07).
    """
    ruling: Ruling | None = None
    opened: Moment | None = None
    stopped: Moment | None = None
    is_untouched = True
    while True:
        moment = yield (ruling if ruling or is_untouched or stopped else ASLEEP)
        ruling = None
        in_stop_and_copy = moment.position.state == _STOP_AND_COPY
        if moment.kind is kinds.SNAPSHOT:
            if is_untouched:
                opened = moment
            stopped = moment if in_stop_and_copy else None
            if moment.position.drained:
                ruling = _handed_out(opened, stopped, moment)
        elif moment.kind is kinds.READ_PENDING_BYTES:
            if in_stop_and_copy and moment.value == 0:
                ruling = _handed_out(opened, stopped, moment)
        elif moment.kind is not kinds.OPEN:
            is_untouched = False
            if moment.kind is not kinds.WORK:
                stopped = None


def _handed_out(
    opened: Moment | None, stopped: Moment | None, end: Moment
) -> Ruling | None:
    if opened is None or stopped is None or end.position.has_failed:
        return None
    if "" in (opened.digest, stopped.digest) or opened.digest == stopped.digest:
        return None
    if end.position.buffers:
        return HELD
    return Broken(
        expected="a buffer, because the device is not as it was when opened",
        actual="pending_bytes = 0x0 in stop-and-copy, and no buffer was handed out",
        witnesses=(witness(opened), witness(stopped)),
        because=(
            "A is from before anything was done to the device, and B differs from it",
            f"however, by #{end.index} saving has ended without a single buffer",
        ),
    )


def quiesced_in_error() -> Remembering:
    """Two snapshots in ERROR are equal.

    Premise: device_state was read as ERROR before the first of them, and between them
    nothing was accessed but device_state, which still reads ERROR (V1-STATE-18).
    """
    ruling: Ruling | None = None
    first: Moment | None = None
    while True:
        moment = yield (ruling if ruling or first else ASLEEP)
        ruling = None
        if moment.kind is kinds.SNAPSHOT:
            if not moment.digest or not moment.position.in_error:
                first = None
            elif first is None:
                first = moment
            else:
                why = ("device_state was ERROR, so bit 0 clear, from A to B",)
                ruling = _same_state(first, moment, why)
        elif moment.kind is kinds.READ_DEVICE_STATE:
            if _state_of(moment) != DeviceState.ERROR:
                first = None
        elif moment.kind not in _BENCH:
            first = None


def _same_state(first: Moment, second: Moment, why: tuple[str, ...]) -> Ruling:
    if first.digest == second.digest:
        return HELD
    return Broken(
        expected=f"snapshot = {first.digest}",
        actual=f"snapshot = {second.digest}",
        witnesses=(witness(first), witness(second)),
        because=(*why, "however, B is another snapshot than A"),
    )


def _state_of(moment: Moment) -> int | None:
    return None if moment.value is None else moment.value & VFIO_DEVICE_STATE_MASK


_SAVING_KINDS: Final = (
    kinds.SNAPSHOT,
    kinds.WORK,
    kinds.READ_PENDING_BYTES,
    kinds.WRITE_DEVICE_STATE,
    kinds.WRITE_RESERVED,
    kinds.WRITE_PENDING_BYTES,
    kinds.WRITE_DATA_OFFSET,
    kinds.WRITE_DATA_SIZE,
    kinds.WRITE_ODD,
    kinds.WRITE_DATA,
    kinds.RESET,
    kinds.CLOSE,
)

# All but what says nothing against a stop.
_MAY_END_A_STOP: Final = (
    kinds.SNAPSHOT,
    *(kind for kind in EVERY_KIND if kind not in (*_BENCH, *_READS)),
    *failing(*_READS),
    *outside(_STOPPED, *_READS),
)

CHECKS: Final = {
    stopped_when_the_write_returns: Watch(
        kinds=EVERY_KIND,
        woken_by=during(_RUNNING, kinds.WRITE_DEVICE_STATE, ok=True),
    ),
    no_progress_while_stopped: Watch(
        kinds=_MAY_END_A_STOP,
        woken_by=during((*_STOPPED, DeviceState.RESUMING), kinds.SNAPSHOT),
    ),
    saving_hands_out_state: Watch(
        kinds=_SAVING_KINDS,
        woken_by=(
            kinds.OPEN,
            *during((DeviceState.STOP_AND_COPY,), kinds.SNAPSHOT),
        ),
    ),
    quiesced_in_error: Watch(
        kinds=EVERY_KIND, woken_by=during((DeviceState.ERROR,), kinds.SNAPSHOT)
    ),
}
