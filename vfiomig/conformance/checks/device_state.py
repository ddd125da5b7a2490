"""Checks of what the device_state register says (specs/v1/device_state.toml).

What it promises of the device behind it is judged in `stopped_device`.

Rule 1: only what was seen is believed.  An access that is not at a register's width
and place may do anything (V1-ACC-01), so behind one nothing is owed here until the
next successful write of device_state or reset.

Rule 2: a device that went to ERROR behind an access that failed is judged by the
transition rules (V1-TRANS-06), not by these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.moment import Watch, during, failing, succeeding
from vfiomig.conformance.position import SAVING
from vfiomig.conformance.ruling import (
    ASLEEP,
    HELD,
    Broken,
    Remembering,
    Ruling,
    witness,
)
from vfiomig.protocol.v1.states import (
    DEFAULT_STATE,
    ArcClass,
    DeviceState,
    arc_between,
)
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment

_INVALID: Final = (0b101, 0b111)
_VALID: Final = frozenset(DeviceState) - {DeviceState.ERROR}
_RESERVED_BITS: Final = 0xFFFFFFFF & ~VFIO_DEVICE_STATE_MASK

# All that reads device_state, or may move it.
_STATE_KINDS: Final = (
    kinds.READ_DEVICE_STATE,
    kinds.WRITE_DEVICE_STATE,
    kinds.READ_ODD,
    kinds.WRITE_ODD,
    kinds.RESET,
    kinds.CLOSE,
)


def running_on_open() -> Remembering:
    """device_state reads 0x1 after the device was opened.

    Premise: it is the first successful read, and nothing was written to device_state,
    nothing oddly accessed, and the device not reset before it (V1-STATE-01).
    """
    ruling: Ruling | None = None
    is_settled = False
    while True:
        moment = yield (ruling if ruling or not is_settled else ASLEEP)
        ruling = None
        if moment.kind is not kinds.READ_DEVICE_STATE:
            is_settled = moment.kind is not kinds.OPEN
        elif moment.value is not None and not is_settled:
            is_settled = True
            ruling = HELD
            if moment.value != DEFAULT_STATE:
                nothing = "nothing before A, since the device was opened, could move it"
                ruling = _reads_wrong("0x1", (moment,), nothing)


def no_invalid_state_reported() -> Remembering:
    """device_state never reads 101b or 111b.

    Premise: there was no odd write into device_state since the last good one or reset,
    the result of which would be undefined (V1-STATE-09).
    """
    ruling: Ruling | None = None
    is_undefined = False
    while True:
        moment = yield (ruling if ruling or is_undefined else ASLEEP)
        ruling = None
        if moment.kind is kinds.WRITE_ODD:
            is_undefined = True
        elif moment.kind in (kinds.WRITE_DEVICE_STATE, kinds.RESET):
            is_undefined = is_undefined and not moment.ok
        elif moment.kind is kinds.READ_DEVICE_STATE and not is_undefined:
            state = _state_of(moment)
            if state in _INVALID:
                ruling = _reads_wrong("a state, or 110b", (moment,))
            elif state is not None:
                ruling = HELD


def invalid_values_refused() -> Remembering:
    """101b and 111b are refused when written, and device_state reads as before.

    Premise: for the second half, the state before was known and valid, no fault was
    armed on device_state, and nothing but the read came behind it (V1-STATE-10).
    """
    yield from _refusal(*_INVALID)


def error_not_for_the_asking() -> Remembering:
    """110b is refused when written, and device_state reads as before.

    Premise: as that of `invalid_values_refused` (V1-STATE-11).
    """
    yield from _refusal(DeviceState.ERROR)


def _refusal(*values: int) -> Remembering:
    ruling: Ruling | None = None
    refused: Moment | None = None
    stood: int | None = None
    while True:
        moment = yield (ruling if ruling or refused else ASLEEP)
        ruling = None
        if moment.kind is kinds.READ_DEVICE_STATE:
            state = _state_of(moment)
            if refused is not None and state is not None:
                why = f"A failed, and the device was in {_bits(stood)} before it"
                ruling = HELD
                if state != stood:
                    ruling = _reads_wrong(_bits(stood), (refused, moment), why)
                refused = None
        else:
            refused = None
            if moment.kind is kinds.WRITE_DEVICE_STATE and _state_of(moment) in values:
                ruling = _refused(moment)
                stood = moment.position.state
                if stood in _VALID and "device_state" not in moment.position.armed:
                    refused = moment if moment.errno else None


def _refused(moment: Moment) -> Ruling | None:
    if moment.errno:
        return HELD
    if not moment.ok and not moment.died:
        return None
    value = _bits(_state_of(moment))
    return Broken(
        expected="an errno, such as EINVAL",
        actual="the driver died" if moment.died else "success",
        witnesses=(witness(moment),),
        because=(
            f"{value} is no state that a user application can ask for",
            f"however, {'the driver died of A' if moment.died else 'A succeeded'}",
        ),
    )


def reserved_bits_preserved() -> Remembering:
    """Bits 3 to 31 are written as they were last read.

    Premise: none where device_state was never read, because that write is no
    read-modify-write; behind a reset or a failed read, that it was read anew
    (V1-STATE-12).
    """
    ruling: Ruling | None = None
    last: Moment | None = None
    was_tried = False
    while True:
        moment = yield ruling
        ruling = None
        if moment.kind is kinds.READ_DEVICE_STATE:
            was_tried = True
            last = moment if moment.value is not None else None
        elif moment.kind is kinds.WRITE_DEVICE_STATE:
            if last is not None or not was_tried:
                ruling = _preserved(last, moment)
        else:
            last = None


def _preserved(last: Moment | None, written: Moment) -> Ruling | None:
    if written.value is None:
        return None
    if last is None or last.value is None:
        return Broken(
            expected="a read of device_state before it is written",
            actual="it was never read",
            witnesses=(witness(written),),
            because=("however, no read of device_state lies before A",),
        )
    kept, bits = last.value & _RESERVED_BITS, written.value & _RESERVED_BITS
    if bits == kept:
        return HELD
    return Broken(
        expected=f"bits 3 to 31 = {kept:#x}",
        actual=f"bits 3 to 31 = {bits:#x}",
        witnesses=(witness(last), witness(written)),
        because=(
            "A is the last read of device_state before B",
            f"however, B has {bits:#x} where A has {kept:#x}",
        ),
    )


def reserved_bits_accepted_back(moment: Moment) -> Ruling | None:
    """Bits 3 to 31, echoed as they were read, do not make a write fail.

    Premise: the arc must succeed (REQ; RESUMING to RUNNING may fail for its data), no
    fault is armed, and no access of the session failed.  A failure says something
    only where there were reserved bits to echo (V1-STATE-13).
    """
    position = moment.position
    if position.raw_state is None or position.state is None or moment.value is None:
        return None
    echoed = position.raw_state & _RESERVED_BITS
    if moment.value & _RESERVED_BITS != echoed:
        return None
    arc = arc_between(position.state, moment.value)
    if arc.arc_class is not ArcClass.REQ or arc.source == DeviceState.RESUMING:
        return None
    if moment.ok:
        return HELD
    if not echoed or not moment.errno or position.armed or position.has_failed:
        return None
    return Broken(
        expected="success",
        actual="an errno",
        witnesses=(witness(moment),),
        because=(
            f"device_state was last read as {position.raw_state:#x}",
            f"A echoes its bits 3 to 31, {echoed:#x}, and asks for a drawn transition",
            "however, A failed",
        ),
    )


def reads_as_written() -> Remembering:
    """Behind a successful write the first read has the state that was written.

    Premise: it was a valid state, and there was no odd access and no reset between
    them (V1-STATE-14).
    """
    ruling: Ruling | None = None
    written: Moment | None = None
    while True:
        moment = yield (ruling if ruling or written else ASLEEP)
        ruling = None
        if moment.kind is not kinds.READ_DEVICE_STATE:
            written = _transition(moment)
        elif written is not None and moment.value is not None:
            if not _failed_into_error(moment):
                ruling = HELD
                if (wanted := _state_of(written)) != _state_of(moment):
                    why = "A succeeded, and no other write or reset lies before B"
                    ruling = _reads_wrong(_bits(wanted), (written, moment), why)
            written = None


def moves_only_when_asked() -> Remembering:
    """Two reads of device_state have the same state.

    Premise: no write to it, no odd access and no reset lies between them
    (V1-STATE-15).
    """
    ruling: Ruling | None = None
    last: Moment | None = None
    while True:
        moment = yield (ruling if ruling or last else ASLEEP)
        ruling = None
        if moment.kind is not kinds.READ_DEVICE_STATE:
            last = None
        elif moment.value is not None:
            if last is not None and not _failed_into_error(moment):
                ruling = HELD
                if (stood := _state_of(last)) != _state_of(moment):
                    why = "no write to device_state and no reset lies between A and B"
                    ruling = _reads_wrong(_bits(stood), (last, moment), why)
            last = moment


def complete_when_the_write_returns() -> Remembering:
    """device_state does not come to what was written only after a while.

    Premise: the write succeeded, and between it and the read that has the new state
    there was no other write, no odd access and no reset (V1-STATE-16).
    """
    ruling: Ruling | None = None
    written: Moment | None = None
    early: Moment | None = None
    while True:
        moment = yield (ruling if ruling or written else ASLEEP)
        ruling = None
        if moment.kind is not kinds.READ_DEVICE_STATE:
            written, early = _transition(moment), None
        elif written is not None and moment.value is not None:
            if _state_of(written) != _state_of(moment):
                early = early or moment
            else:
                ruling = HELD if early is None else _late(written, early, moment)
                written = None


def _late(written: Moment, early: Moment, late: Moment) -> Broken:
    wanted, found = _bits(_state_of(written)), _bits(_state_of(early))
    return Broken(
        expected=f"device_state = {wanted} at once",
        actual=f"device_state = {found}, and {wanted} only later",
        witnesses=(witness(written), witness(early), witness(late)),
        because=(
            "A succeeded, and no other write or reset lies between A and C",
            "C shows that the transition was made",
            f"however, B still has device_state = {found}",
        ),
    )


def error_is_110b() -> Remembering:
    """Behind a failed write, ERROR reads 110b, and not another value with RESUMING.

    Premise: the state before the write was known, it failed with an errno, and there
    was no odd access and no reset behind it (V1-STATE-17).
    """
    ruling: Ruling | None = None
    failed: Moment | None = None
    while True:
        moment = yield (ruling if ruling or failed else ASLEEP)
        ruling = None
        if moment.kind is kinds.WRITE_DEVICE_STATE:
            is_judged = moment.errno and moment.position.state in _VALID
            failed = moment if is_judged else None
        elif moment.kind is not kinds.READ_DEVICE_STATE:
            failed = None
        elif failed is not None and moment.value is not None:
            state = _state_of(moment)
            if state == DeviceState.ERROR:
                ruling = HELD
            elif state in _INVALID:
                why = "A failed, so device_state is as it was, or ERROR"
                ruling = _reads_wrong("110b", (failed, moment), why)
            failed = None


def _transition(moment: Moment) -> Moment | None:
    """Return a successful write of a valid state."""
    if moment.kind is not kinds.WRITE_DEVICE_STATE or not moment.ok:
        return None
    return moment if _state_of(moment) in _VALID else None


def _failed_into_error(moment: Moment) -> bool:
    return _state_of(moment) == DeviceState.ERROR and moment.position.has_failed


def _state_of(moment: Moment) -> int | None:
    return None if moment.value is None else moment.value & VFIO_DEVICE_STATE_MASK


def _bits(state: int | None) -> str:
    return "?" if state is None else f"{state:03b}b"


def _reads_wrong(expected: str, moments: tuple[Moment, ...], *why: str) -> Broken:
    """Blame the last of the moments, a read of device_state."""
    read = moments[-1]
    name = "AB"[len(moments) - 1]
    value = f"{read.value:#x} ({_bits(_state_of(read))})"
    return Broken(
        expected=f"device_state = {expected}",
        actual=f"device_state = {value}",
        witnesses=tuple(witness(moment) for moment in moments),
        because=(*why, f"however, {name} has device_state = {value}"),
    )


_READ: Final = (kinds.READ_DEVICE_STATE,)
_WRITE: Final = (kinds.WRITE_DEVICE_STATE,)
_REFUSED: Final = Watch(kinds=_STATE_KINDS, woken_by=_WRITE)
_WRITTEN: Final = Watch(kinds=_STATE_KINDS, woken_by=succeeding(*_WRITE))

CHECKS: Final = {
    running_on_open: Watch(kinds=_STATE_KINDS, woken_by=(kinds.OPEN,)),
    no_invalid_state_reported: Watch(
        kinds=_STATE_KINDS, woken_by=(*_READ, kinds.WRITE_ODD)
    ),
    invalid_values_refused: _REFUSED,
    error_not_for_the_asking: _REFUSED,
    reserved_bits_preserved: _STATE_KINDS,
    # No other state has an arc that must succeed, whatever was loaded.
    reserved_bits_accepted_back: during((DeviceState.RUNNING, *SAVING), *_WRITE),
    reads_as_written: _WRITTEN,
    moves_only_when_asked: Watch(kinds=_STATE_KINDS, woken_by=_READ),
    complete_when_the_write_returns: _WRITTEN,
    error_is_110b: Watch(kinds=_STATE_KINDS, woken_by=failing(*_WRITE)),
}
