"""Transitions that a driver owes: the arcs that succeed, and what follows from them.

Rule 1: success is demanded only of a device in good health.  With a fault armed, or
after an access of the session failed, a driver may refuse any arc.

Rule 2: what leaves RESUMING is not demanded here at all.  Whether the data that was
loaded is whole is more than a history can tell.

Rule 3: the reserved bits have to be those that the driver reported.  It may refuse
others (V1-STATE-13).

What becomes of a device when a transition fails is in failed_transitions.py, of one in
ERROR in error_state.py, and what a write must not touch is in undisturbed_sessions.py.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.moment import Watch, during, outside
from vfiomig.conformance.position import SAVING
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, Witness, witness
from vfiomig.protocol.v1.states import (
    ARCS,
    ArcClass,
    DeviceState,
    arc_between,
    state_name,
)
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment, Occasions
    from vfiomig.conformance.position import Position
    from vfiomig.conformance.ruling import Remembering, Ruling

# What may be known of a session ends with these.
_RESTARTS: Final = (kinds.RESET, kinds.WRITE_ODD, kinds.CLOSE)
_SAVING_READS: Final = (
    kinds.READ_PENDING_BYTES,
    kinds.READ_DATA_OFFSET,
    kinds.READ_DATA_SIZE,
)


def target_of(moment: Moment) -> int | None:
    """Return the three bits that a write to device_state asks for."""
    value = moment.value
    return None if value is None else value & VFIO_DEVICE_STATE_MASK


def errno_name(moment: Moment) -> str:
    """Name the errno that an access failed with."""
    return errno.errorcode.get(moment.errno, str(moment.errno))


def is_healthy(position: Position) -> bool:
    """Tell whether nothing excuses a failure: no fault is armed, nothing has failed."""
    return not position.armed and not position.has_failed


def keeps_reserved_bits(moment: Moment) -> bool:
    """Tell whether a write echoes the reserved bits that the driver reported last."""
    reported = moment.position.raw_state or 0
    written = moment.value or 0
    return written & ~VFIO_DEVICE_STATE_MASK == reported & ~VFIO_DEVICE_STATE_MASK


def drops_buffer(moment: Moment) -> bool:
    """Tell whether pending_bytes is read before the buffer was (V1-PEND-15).

    The driver need not protect a session from that.
    """
    if moment.kind is not kinds.READ_PENDING_BYTES:
        return False
    buffer = moment.position.buffer
    return buffer is not None and not buffer.is_consumed


def demanded(moment: Moment, source: int, target: int) -> Ruling | None:
    """Judge a write that has to take a healthy device from ``source`` to ``target``."""
    position = moment.position
    if position.state != source or target_of(moment) != target:
        return None
    if moment.ok:
        return HELD
    is_owed = is_healthy(position) and keeps_reserved_bits(moment)
    # A short write is judged by V1-TRANS-02, a death by the suite.
    if not is_owed or not moment.errno or moment.died:
        return None
    return Broken(
        expected="the write succeeds",
        actual=errno_name(moment),
        witnesses=(witness(moment),),
        because=(
            f"device_state is {state_name(source)}, no fault is armed, and nothing"
            " has failed in the session",
            f"however, A fails with {errno_name(moment)}",
        ),
    )


def _offered(moment: Moment, entered: Witness) -> Ruling | None:
    """Judge a read of a saving session's registers that has to succeed."""
    position, kind = moment.position, moment.kind
    is_owed = kind is kinds.READ_PENDING_BYTES
    if kind is kinds.READ_DATA_OFFSET:
        is_owed = position.buffer is None and bool(position.pending)
    elif kind is kinds.READ_DATA_SIZE:
        is_owed = position.buffer is not None
    if not is_owed or not position.is_saving:
        return None
    if moment.ok:
        return HELD
    if not moment.errno or moment.died or not is_healthy(position):
        return None
    return Broken(
        expected="the read succeeds",
        actual=errno_name(moment),
        witnesses=(entered, witness(moment)),
        because=(
            "A began a state in which the device's state is offered",
            f"however, B fails with {errno_name(moment)}, and nothing else has failed",
        ),
    )


def _offers(source: int, target: int, *, is_arc_judged: bool) -> Remembering:
    """Judge the arc, if asked to, and what is read in the state that it leads to."""
    entered: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or entered else ASLEEP)
        ruling = None
        kind = moment.kind
        if kind is kinds.WRITE_DEVICE_STATE:
            if moment.ok and target_of(moment) == moment.position.state:
                continue
            outcome = demanded(moment, source, target)
            entered = witness(moment) if outcome is HELD else None
            ruling = outcome if is_arc_judged else None
        elif entered is None:
            continue
        elif kind in _SAVING_READS and moment.position.state == target:
            is_over = drops_buffer(moment)
            ruling = _offered(moment, entered) if not is_over else None
            entered = None if is_over else entered
        else:
            entered = None


def running_to_stop(moment: Moment) -> Ruling | None:
    """STOP is reached from RUNNING.

    Premise: the device is healthy and RUNNING (V1-TRANS-10).
    """
    return demanded(moment, DeviceState.RUNNING, DeviceState.STOP)


def shutdown_without_stop(moment: Moment) -> Ruling | None:
    """No close fails while the device is RUNNING.

    Premise: the device is healthy and RUNNING when it is closed (V1-TRANS-11).
    """
    if moment.died:
        return None
    if not moment.errno:
        return HELD
    if not is_healthy(moment.position):
        return None
    return Broken(
        expected="the device is closed",
        actual=errno_name(moment),
        witnesses=(witness(moment),),
        because=(
            "device_state is RUNNING, which the user application need not change",
            f"however, A fails with {errno_name(moment)}",
        ),
    )


def running_to_stop_and_copy() -> Remembering:
    """From RUNNING stop-and-copy is reached, and state is offered then.

    Premise: the device is healthy, and no buffer was given up unread (V1-TRANS-12).
    """
    yield from _offers(
        DeviceState.RUNNING, DeviceState.STOP_AND_COPY, is_arc_judged=True
    )


def stop_and_copy_to_stop(moment: Moment) -> Ruling | None:
    """Stop-and-copy to STOP succeeds.

    Premise: the device is healthy and in stop-and-copy (V1-TRANS-13).
    """
    return demanded(moment, DeviceState.STOP_AND_COPY, DeviceState.STOP)


def running_to_pre_copy() -> Remembering:
    """State is offered once RUNNING has become pre-copy.

    Premise: the arc succeeded, the device is healthy, and no buffer was given up
    unread (V1-TRANS-14).
    """
    yield from _offers(DeviceState.RUNNING, DeviceState.PRE_COPY, is_arc_judged=False)


def pre_copy_without_data(moment: Moment) -> Ruling | None:
    """Pre-copy is reached from RUNNING, with data to offer and without.

    Premise: the device is healthy and RUNNING (V1-TRANS-15).
    """
    return demanded(moment, DeviceState.RUNNING, DeviceState.PRE_COPY)


def pre_copy_to_stop_and_copy() -> Remembering:
    """Pre-copy to stop-and-copy succeeds, and state is offered then.

    Premise: the device is healthy, and no buffer was given up unread (V1-TRANS-16).
    """
    yield from _offers(
        DeviceState.PRE_COPY, DeviceState.STOP_AND_COPY, is_arc_judged=True
    )


def no_draining_required(moment: Moment) -> Ruling | None:
    """No drawn arc out of a saving state fails for data that is left.

    Premise: the device is healthy, and it is not so that pending_bytes was read as 0
    after the last buffer (V1-TRANS-17).
    """
    position = moment.position
    if position.pending == 0 and position.buffer is None:
        return None
    if position.state == DeviceState.PRE_COPY:
        return demanded(moment, position.state, DeviceState.STOP_AND_COPY)
    return demanded(moment, DeviceState.STOP_AND_COPY, DeviceState.STOP)


def running_to_resuming(moment: Moment) -> Ruling | None:
    """RESUMING is reached from RUNNING.

    Premise: the device is healthy and RUNNING (V1-TRANS-18).
    """
    return demanded(moment, DeviceState.RUNNING, DeviceState.RESUMING)


def resuming_without_reset() -> Remembering:
    """RESUMING is reached from RUNNING by a device that is not fresh.

    Premise: the device is healthy, and has worked or had a session since it was
    opened or reset (V1-TRANS-20).
    """
    used: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        position = moment.position
        if moment.kind is kinds.RESET:
            used = None
        elif moment.kind is kinds.WORK:
            if moment.amount and position.is_running:
                used = used or witness(moment)
        elif used is not None:
            ruling = _without_reset(moment, used)
        elif moment.ok and (target_of(moment) or 0) & ~DeviceState.RUNNING:
            used = witness(moment)


def _without_reset(moment: Moment, used: Witness) -> Ruling | None:
    ruling = running_to_resuming(moment)
    if not isinstance(ruling, Broken):
        return ruling
    return Broken(
        expected=ruling.expected,
        actual=ruling.actual,
        witnesses=(used, *ruling.witnesses),
        because=(
            "A left its mark on the device, and no reset lies between A and B",
            f"however, B fails with {ruling.actual}",
        ),
    )


def abort_without_reset(moment: Moment) -> Ruling | None:
    """Every arc that an abort or QEMU needs succeeds.

    Premise: the device is healthy, and the arc's class is EXP (V1-TRANS-23).
    """
    source, target = moment.position.state, target_of(moment)
    if source is None or target is None:
        return None
    if arc_between(source, target).arc_class is not ArcClass.EXP:
        return None
    return demanded(moment, source, target)


def normal_save_order() -> Remembering:
    """Before a destination runs on its data, the source has been in stop-and-copy.

    Premise: one history has a "source" and a "destination", the source's save began
    with pre-copy and was not given up, and the destination entered RUNNING with data
    loaded (V1-TRANS-31).
    """
    begun: Witness | None = None
    is_stopped = False
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        if moment.device == "source":
            if moment.kind is not kinds.WRITE_DEVICE_STATE:
                begun = None
            elif moment.ok:
                begun, is_stopped = _save_after(moment, begun, is_stopped=is_stopped)
        elif moment.device == "destination" and _resumes(moment) and begun is not None:
            ruling = HELD if is_stopped else _out_of_order(begun, moment)


def _save_after(
    moment: Moment, begun: Witness | None, *, is_stopped: bool
) -> tuple[Witness | None, bool]:
    """Return the write that began the save, and whether it came to stop-and-copy."""
    match target_of(moment):
        case DeviceState.PRE_COPY | DeviceState.STOP_AND_COPY as target:
            is_final = target == DeviceState.STOP_AND_COPY
            return begun or witness(moment), is_final
        case DeviceState.STOP:
            return begun, is_stopped
        case _:
            return None, False


def _resumes(moment: Moment) -> bool:
    position = moment.position
    is_entry = position.is_resuming and target_of(moment) == DeviceState.RUNNING
    is_write = moment.kind is kinds.WRITE_DEVICE_STATE
    return is_write and moment.ok and is_entry and bool(position.loaded)


def _out_of_order(begun: Witness, moment: Moment) -> Broken:
    return Broken(
        expected="stop-and-copy at the source first",
        actual="the source has not been in stop-and-copy",
        witnesses=(begun, witness(moment)),
        because=(
            "A began a save with pre-copy at the source",
            "no write of stop-and-copy lies between A and B",
            "however, B lets the destination run on what pre-copy gave",
        ),
    )


def _saved_by(source: DeviceState, target: DeviceState) -> Watch:
    """Return what a check of an arc is given, and of the session that it begins."""
    return Watch(
        kinds=(
            kinds.WRITE_DEVICE_STATE,
            *_SAVING_READS,
            *_RESTARTS,
            # It says nothing but that the device has moved by itself.
            *outside((target,), kinds.READ_DEVICE_STATE),
        ),
        woken_by=_written_in(source),
    )


def _written_in(*states: int) -> Occasions:
    return during(states, kinds.WRITE_DEVICE_STATE)


CHECKS: Final = {
    running_to_stop: _written_in(DeviceState.RUNNING),
    shutdown_without_stop: during((DeviceState.RUNNING,), kinds.CLOSE),
    running_to_stop_and_copy: _saved_by(DeviceState.RUNNING, DeviceState.STOP_AND_COPY),
    stop_and_copy_to_stop: _written_in(DeviceState.STOP_AND_COPY),
    running_to_pre_copy: _saved_by(DeviceState.RUNNING, DeviceState.PRE_COPY),
    pre_copy_without_data: _written_in(DeviceState.RUNNING),
    pre_copy_to_stop_and_copy: _saved_by(
        DeviceState.PRE_COPY, DeviceState.STOP_AND_COPY
    ),
    no_draining_required: _written_in(*SAVING),
    running_to_resuming: _written_in(DeviceState.RUNNING),
    resuming_without_reset: (kinds.WRITE_DEVICE_STATE, kinds.WORK, kinds.RESET),
    # The sources of the arcs that an abort or QEMU needs.
    abort_without_reset: _written_in(
        *(arc.source for arc in ARCS if arc.arc_class is ArcClass.EXP)
    ),
    normal_save_order: (kinds.WRITE_DEVICE_STATE, kinds.RESET, kinds.CLOSE),
}
ACROSS: Final = frozenset({normal_save_order})
