"""Checks of v1/data-offset: where a buffer is, and when that may be asked.

Rule 1: the driver owes a good answer only when it is asked in its turn: in SAVING after
pending_bytes was not 0, in RESUMING at any time; and no more once an access failed.

Rule 2: only within one iteration of saving does data_offset stand still.

The two rules of v1/pending-bytes that are decided by when the user application reads
data_offset have their checks here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.data_accesses import starts_in_area
from vfiomig.conformance.moment import Watch, during
from vfiomig.conformance.position import SAVING, SESSIONS, WITH_BUFFER
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, Witness, witness
from vfiomig.protocol.v1.registers import REGISTERS_SIZE
from vfiomig.protocol.v1.states import DeviceState, state_name

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.position import Buffer, Position
    from vfiomig.conformance.ruling import Remembering, Ruling

# The least page size: what is no multiple of it is aligned on no machine.
_PAGE: Final = 4096

_STATE_CHANGES: Final = (kinds.WRITE_DEVICE_STATE, kinds.RESET)


def _is_in_turn(position: Position) -> bool:
    """Tell whether the driver owes a good data_offset now."""
    if position.has_failed:
        return False
    return position.is_resuming or (position.is_saving and bool(position.pending))


def _offset_of(buffer: Buffer | None) -> Witness:
    assert buffer is not None
    return Witness(buffer.index, f"read data_offset -> {buffer.offset:#x}")


def _broken(expected: str, actual: str, at: tuple[Witness, ...], *why: str) -> Broken:
    return Broken(expected=expected, actual=actual, witnesses=at, because=why)


def read_only() -> Remembering:
    """No read of data_offset gives what was written to it.

    Premise: data_offset was read before with another value, and no driver comes to the
    written value by itself: in SAVING the buffer is still the same and was asked for in
    its turn, in RESUMING the value lies outside of the data section (V1-OFF-01).
    """
    before: Moment | None = None
    written: Moment | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or before or written else ASLEEP)
        ruling = None
        position = moment.position
        has_session = position.is_saving or position.is_resuming
        if moment.kind in _STATE_CHANGES or not has_session:
            before = written = None
        elif moment.kind is kinds.WRITE_DATA_OFFSET:
            written = moment
        elif moment.ok:
            if before is not None and written is not None:
                ruling = _not_set(before, written, moment)
            before, written = moment, None


def _not_set(before: Moment, written: Moment, after: Moment) -> Ruling | None:
    if written.value is None or written.value == before.value:
        return None
    position = after.position
    is_owed = position.buffer is not None and bool(position.pending)
    if position.is_resuming:  # where each read may name another place
        is_owed = not REGISTERS_SIZE <= written.value < written.region.size
    if not is_owed or after.value != written.value:
        return HELD if is_owed else None
    return _broken(
        f"data_offset does not become {written.value:#x}",
        f"data_offset = {after.value:#x}",
        (witness(before), witness(written), witness(after)),
        f"however, C reads what B wrote, {written.value:#x}",
    )


def behind_the_registers(moment: Moment) -> Ruling | None:
    """No data_offset lies in the registers.

    Premise: it is read in its turn (V1-OFF-03).
    """
    if moment.value is None or not _is_in_turn(moment.position):
        return None
    if moment.value >= REGISTERS_SIZE:
        return HELD
    return _broken(
        f"data_offset >= {REGISTERS_SIZE:#x}",
        f"data_offset = {moment.value:#x}",
        (witness(moment),),
        f"however, A has data_offset = {moment.value:#x}",
    )


def returns_when_data_is_there(moment: Moment) -> Ruling | None:
    """Every byte of the buffer can be read once data_offset was.

    Premise: there is a current buffer that was asked for in its turn, the read lies
    inside of it and of the region, and no fault is armed (V1-OFF-04).
    """
    position, buffer = moment.position, moment.position.buffer
    if buffer is None or not _is_in_turn(position) or position.armed:
        return None
    if moment.unseen or moment.died or not moment.size or buffer.size is None:
        return None
    end = min(buffer.offset + buffer.size, moment.region.size)
    if not buffer.offset <= moment.offset <= end - moment.size:
        return None
    if moment.moved:  # a read may be short
        return HELD
    return _broken(
        f"the bytes of the buffer at {buffer.offset:#x} can be read",
        moment.text,
        (_offset_of(buffer), witness(moment)),
        f"the buffer of A has data_size = {buffer.size:#x}, and B is a read in it",
        f"however, B is {moment.text}",
    )


def stable_within_iteration() -> Remembering:
    """Two reads of data_offset in one iteration give the same value.

    Premise: the first was in its turn, no fault is armed, and since then neither
    pending_bytes was read nor device_state written (V1-OFF-05).
    """
    first: Moment | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or first else ASLEEP)
        ruling = None
        position = moment.position
        is_owed = _is_in_turn(position) and not position.armed
        if moment.kind is not kinds.READ_DATA_OFFSET or not is_owed or moment.died:
            first = None
        elif position.buffer is None:
            first = moment if moment.ok else None
        elif first is not None:
            ruling = HELD
            if not moment.ok or moment.value != first.value:
                ruling = _broken(
                    f"data_offset = {first.value:#x}",
                    moment.text,
                    (witness(first), witness(moment)),
                    "no read of pending_bytes lies between A and B",
                    f"however, B is {moment.text}",
                )


def inside_the_region(moment: Moment) -> Ruling | None:
    """No buffer begins or ends outside the migration region.

    Premise: data_offset is read in its turn; data_size while there is a current buffer
    that was (V1-OFF-07).
    """
    position, buffer = moment.position, moment.position.buffer
    if moment.value is None or not _is_in_turn(position):
        return None
    what, end, limit = "data_offset", moment.value, moment.region.size - 1
    if moment.kind is kinds.READ_DATA_SIZE:
        if buffer is None:
            return None
        what, end, limit = "data_offset + data_size", buffer.offset + end, limit + 1
    if end <= limit:
        return HELD
    begins = (_offset_of(buffer),) if moment.kind is kinds.READ_DATA_SIZE else ()
    return _broken(
        f"{what} <= {limit:#x}",
        f"{what} = {end:#x}",
        (*begins, witness(moment)),
        f"the region has {moment.region.size:#x} bytes",
        f"however, {what} = {end:#x}",
    )


def page_aligned_where_mapped(moment: Moment) -> Ruling | None:
    """In an area that can be mapped a buffer begins on a page.

    Premise: the first byte of the buffer lies in such an area; in SAVING data_size says
    that there is a first byte.  Both were read in their turn (V1-OFF-08).
    """
    position, buffer = moment.position, moment.position.buffer
    offset = moment.value
    if moment.kind is kinds.READ_DATA_SIZE:
        offset = buffer.offset if buffer is not None and moment.value else None
    if offset is None or not (_is_in_turn(position) and starts_in_area(moment, offset)):
        return None
    if not offset % _PAGE:
        return HELD
    return _broken(
        f"data_offset is a multiple of {_PAGE:#x}",
        f"data_offset = {offset:#x}",
        (witness(moment) if position.is_resuming else _offset_of(buffer),),
        "the buffer begins in an area that can be mapped",
        f"however, A has data_offset = {offset:#x}",
    )


def says_where_to_write() -> Remembering:
    """In RESUMING data_offset can be read.

    Premise: nothing was given to the driver in this session yet, which it might refuse
    with an error at the next access; none failed, and no fault is armed (V1-OFF-09).
    """
    given: int | None = None  # the session in which something was
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        position = moment.position
        if position.has_failed or position.armed:
            continue
        if moment.kind is not kinds.READ_DATA_OFFSET:
            given = position.session
        elif position.session != given and not moment.died:
            ruling = HELD
            if not moment.ok:
                ruling = _broken(
                    "read data_offset succeeds",
                    moment.text,
                    (witness(moment),),
                    "the device is in RESUMING, and was given nothing yet",
                    f"however, A is {moment.text}",
                )


def undefined_outside_sessions(moment: Moment) -> Ruling | None:
    """Whatever a read outside SAVING and RESUMING gives, the driver survives it.

    Premise: the device is known to be in STOP or RUNNING (V1-OFF-10).
    """
    if not moment.died:
        return HELD
    state = state_name(moment.position.state or 0)
    return _broken(
        "a value or an errno",
        "the driver died",
        (witness(moment),),
        f"however, in {state} the driver does not survive A",
    )


def read_only_while_bytes_are_pending() -> Remembering:
    """No buffer is asked for before pending_bytes was seen not to be 0.

    Premise: the device is saving, there is no current buffer, and no access failed.
    What was pending in pre-copy may still be taken for pending in stop-and-copy
    (V1-OFF-11).
    """
    session: int | None = None  # in which bytes were pending when last asked
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        position = moment.position
        if moment.kind is kinds.READ_PENDING_BYTES:
            session = position.session if moment.value else None
        elif position.buffer is None and not position.has_failed:
            ruling = HELD
            if position.session != session:
                ruling = _broken(
                    "data_offset is read when pending_bytes was not 0",
                    moment.text,
                    (witness(moment),),
                    "however, before A pending_bytes was 0, or was not read",
                )


def read_before_data_size() -> Remembering:
    """In SAVING data_offset comes first, then data_size.

    Premise: the device is saving and no access failed in this session (V1-OFF-12).
    """
    session: int | None = None  # in which data_offset was read, pending_bytes not since
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        position = moment.position
        if moment.kind is kinds.READ_DATA_OFFSET:
            session = position.session
        elif moment.kind is kinds.READ_PENDING_BYTES:
            session = None
        elif position.session == session:
            ruling = HELD
        elif not position.has_failed:
            ruling = _broken(
                "data_offset is read before data_size",
                moment.text,
                (witness(moment),),
                "A asks for the size of a buffer",
                "however, data_offset was not read since pending_bytes was",
            )


def zero_means_no_iteration(moment: Moment) -> Ruling | None:
    """No access to a buffer follows a read of 0.

    Premise: the device is saving, and pending_bytes was 0 when it was last read in
    this device_state (V1-PEND-03).
    """
    if moment.position.pending != 0:
        return None
    if moment.kind in (kinds.READ_PENDING_BYTES, *_STATE_CHANGES):
        return HELD
    return _broken(
        "no access to a buffer while pending_bytes is 0",
        moment.text,
        (witness(moment),),
        "pending_bytes was 0 when it was last read",
        f"however, A is {moment.text}",
    )


def read_between_buffers() -> Remembering:
    """Between one buffer and the next pending_bytes is read.

    Premise: the buffer was consumed and no access failed.  Registers and data may be
    read again, each by itself; a whole iteration over again, data_offset, data_size
    and all of the data, is the next one without its step (f) (V1-PEND-05).
    """
    again: Moment | None = None
    size = reached = 0
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or again else ASLEEP)
        ruling = None
        buffer = moment.position.buffer
        if buffer is None or not buffer.size or not buffer.is_consumed:
            again = None
        elif moment.kind is kinds.READ_PENDING_BYTES:
            ruling, again = HELD, None
        elif moment.kind in _STATE_CHANGES or moment.position.has_failed:
            again = None
        elif moment.kind is kinds.READ_DATA_OFFSET and again is None:
            again, size, reached = moment, 0, moment.value or 0
        elif moment.kind is kinds.READ_DATA_SIZE:
            size = moment.value or 0
        elif again and moment.kind is kinds.READ_DATA and moment.offset <= reached:
            count = moment.size if moment.unseen else moment.moved
            reached = max(reached, moment.offset + count)
            if size and reached >= (again.value or 0) + size:
                ruling = _went_on(buffer, again, moment)
                again = None


def _went_on(buffer: Buffer, again: Moment, last: Moment) -> Broken:
    return _broken(
        "a read of pending_bytes before the next buffer",
        "the next buffer was read without one",
        (_offset_of(buffer), witness(again), witness(last)),
        "the buffer of A was consumed before B",
        "B begins another iteration, and C ends it",
        "however, no read of pending_bytes lies between A and C",
    )


_OFFSET: Final = (kinds.READ_DATA_OFFSET,)
_SIZE: Final = (kinds.READ_DATA_SIZE,)
_PENDING: Final = (kinds.READ_PENDING_BYTES, *_OFFSET)
_STABLE: Final = (*_PENDING, *_STATE_CHANGES)
_ITERATION: Final = (*_PENDING, *_SIZE, kinds.READ_DATA, *_STATE_CHANGES)
_SIZED: Final = during(SAVING, *_SIZE, ok=True)
_WRITES: Final = (kinds.WRITE_DATA, kinds.WRITE_DATA_SIZE)
_RESUMING: Final = (DeviceState.RESUMING,)
_OUTSIDE_SESSIONS: Final = (DeviceState.STOP, DeviceState.RUNNING)

CHECKS: Final = {
    read_only: Watch(
        kinds=(*_OFFSET, kinds.WRITE_DATA_OFFSET, *_STATE_CHANGES),
        woken_by=during(SESSIONS, *_OFFSET),
    ),
    behind_the_registers: during(SESSIONS, *_OFFSET, ok=True),
    returns_when_data_is_there: during(SAVING, kinds.READ_DATA),
    stable_within_iteration: Watch(kinds=_STABLE, woken_by=during(SAVING, *_OFFSET)),
    inside_the_region: (*during(SESSIONS, *_OFFSET, ok=True), *_SIZED),
    page_aligned_where_mapped: (*during(_RESUMING, *_OFFSET, ok=True), *_SIZED),
    says_where_to_write: during(_RESUMING, *_OFFSET, *_WRITES),
    undefined_outside_sessions: during(_OUTSIDE_SESSIONS, *_OFFSET),
    read_only_while_bytes_are_pending: during(SAVING, *_PENDING),
    read_before_data_size: during(SAVING, *_PENDING, *_SIZE),
    zero_means_no_iteration: during(SAVING, *_ITERATION),
    read_between_buffers: Watch(
        kinds=_ITERATION, woken_by=during(WITH_BUFFER, *_PENDING)
    ),
}
