"""Checks of the sequence of saving, with the letters of linux/vfio.h.

Rule 1: a step is in sequence by the steps before it, and never by time: pending_bytes
may be read as often as anybody likes where no buffer is current.

Rule 2: the user application owes nothing more of the sequence once an access failed,
but that it ends; nor for bytes of a sparse mmap area, which nobody sees it read.

Rule 3: what the driver owes, and what an errno says of it, is as in data_size.py.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.data_accesses import (
    all_moved,
    buffer_in_sequence,
    is_mappable,
    is_refused,
    lies_in,
)
from vfiomig.conformance.moment import Watch, during
from vfiomig.conformance.position import SAVING
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, Witness, witness
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.position import Buffer
    from vfiomig.conformance.ruling import Remembering, Ruling


# No errors of the device: the same access is made again.
_AGAIN: Final = (errno.EAGAIN, errno.EINTR)


# -- the user application --------------------------------------------------------------


def in_sequence(moment: Moment) -> Ruling | None:
    """Each step of saving comes where the sequence has it.

    Premise: device_state is pre-copy or stop-and-copy, and no access failed in this
    session.  data_offset follows a pending_bytes that is not 0, data_size follows
    data_offset, data is read within the buffer, and all of it before pending_bytes
    (V1-SAVE-01).
    """
    position = moment.position
    if position.has_failed or moment.unseen:
        return None
    buffer = position.buffer
    match moment.kind:
        case kinds.READ_DATA_OFFSET:
            if buffer is None and not position.pending:
                return _asked_for_nothing(moment)
        case kinds.READ_DATA_SIZE:
            if buffer is None:
                return _out_of_sequence(
                    moment, "data_offset first (b)", "data_size was read (c)"
                )
        case kinds.READ_DATA:
            return _data_in_sequence(moment, buffer)
        case _:
            return None if buffer is None else _taken_back(moment, buffer)
    return HELD


def _asked_for_nothing(moment: Moment) -> Ruling:
    if moment.position.pending is None:
        return _out_of_sequence(
            moment, "pending_bytes first (a)", "data_offset was read (b)"
        )
    return _out_of_sequence(
        moment, "no buffer while pending_bytes is 0 (a)", "data_offset was read (b)"
    )


def _data_in_sequence(moment: Moment, buffer: Buffer | None) -> Ruling:
    if buffer is None or buffer.size is None:
        return _out_of_sequence(
            moment, "data_offset and data_size first (b, c)", "data was read (d)"
        )
    if lies_in(buffer, moment):
        return HELD
    return _out_of_sequence(
        moment,
        f"data from the buffer, {buffer.size:#x} bytes at {buffer.offset:#x} (d)",
        f"{moment.size:#x} bytes at {moment.offset:#x} were read",
    )


def _taken_back(moment: Moment, buffer: Buffer) -> Ruling:
    """Judge a read of pending_bytes that ends an iteration."""
    if buffer.size is None:
        return _out_of_sequence(
            moment, "data_size and the data first (c, d)", "pending_bytes was read (f)"
        )
    if all_moved(moment, buffer.read, buffer.offset, buffer.size):
        return HELD
    return _out_of_sequence(
        moment,
        f"all {buffer.size:#x} bytes at {buffer.offset:#x} first (d)",
        "pending_bytes was read (f)",
    )


def _out_of_sequence(moment: Moment, expected: str, actual: str) -> Ruling:
    return Broken(
        expected=expected,
        actual=actual,
        witnesses=(witness(moment),),
        because=(
            f"where A stands, the sequence has {expected};",
            f"however, {actual}.",
        ),
    )


def ends_at_an_error() -> Remembering:
    """After an error of the sequence, the user application asks for no more data.

    Premise: an access in sequence failed with an errno that does not ask for it again.
    Reads of pending_bytes alone are no iteration (V1-SAVE-10).
    """
    failed: tuple[int, Witness] | None = None  # session, where
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or failed else ASLEEP)
        ruling = None
        position = moment.position
        if failed is not None and failed[0] != position.session:
            failed = None
        if failed is None:
            if _is_error_of_the_sequence(moment):
                failed = (position.session, witness(moment))
        elif moment.kind in _ITERATING:
            if position.is_saving and not moment.unseen:
                ruling, failed = _goes_on(failed[1], moment), None
        elif _leaves_saving(moment):
            ruling, failed = HELD, None


_ITERATING: Final = (kinds.READ_DATA_OFFSET, kinds.READ_DATA_SIZE, kinds.READ_DATA)


def _is_error_of_the_sequence(moment: Moment) -> bool:
    position, buffer = moment.position, moment.position.buffer
    if not moment.errno or moment.errno in _AGAIN or not position.is_saving:
        return False
    match moment.kind:
        case kinds.READ_PENDING_BYTES:
            return True
        case kinds.READ_DATA_OFFSET:
            return bool(position.pending)
        case kinds.READ_DATA_SIZE:
            return buffer is not None
        case kinds.READ_DATA:
            return buffer is not None and lies_in(buffer, moment)
        case _:
            return False


def _leaves_saving(moment: Moment) -> bool:
    if moment.kind is kinds.WRITE_DEVICE_STATE:
        value = moment.value
        return value is not None and value & VFIO_DEVICE_STATE_MASK not in SAVING
    return moment.kind in (kinds.RESET, kinds.CLOSE)


def _goes_on(failed: Witness, moment: Moment) -> Ruling:
    return Broken(
        expected="an end of saving: another device_state, a reset or close",
        actual=moment.text,
        witnesses=(failed, witness(moment)),
        because=(
            "A fails, which terminates the loop;",
            "device_state has not left SAVING between A and B;",
            "however, B goes on with the sequence.",
        ),
    )


# -- the vendor driver -----------------------------------------------------------------


def same_in_both_states(moment: Moment) -> Ruling | None:
    """Each register of the sequence can be read, in pre-copy and in stop-and-copy.

    Premise: it is read in sequence, no access failed in this session, and no fault is
    armed.  Only a refusal breaks the rule: any other errno is an error of the device,
    which V1-SAVE-09 lets it report (V1-SAVE-02).
    """
    position = moment.position
    if position.has_failed or position.armed:
        return None
    if not position.pending and moment.kind is not kinds.READ_PENDING_BYTES:
        return None
    if moment.kind is kinds.READ_DATA_SIZE and position.buffer is None:
        return None
    if moment.ok:
        return HELD
    if not is_refused(moment):
        return None
    assert position.state is not None
    name = DeviceState(position.state).name
    return Broken(
        expected="a value",
        actual=moment.text.rpartition("-> ")[2],
        witnesses=(witness(moment),),
        because=(
            f"the device is in {name}, and A is the next step of the sequence;",
            f"however, A is refused: {moment.text}.",
        ),
    )


class _Contents:
    """What was seen of one buffer's data: whole accesses, and single bytes.

    Bounded, so that a million reads of one byte cost no memory.
    """

    _ACCESSES: Final = 64
    _BYTES: Final = 4096

    def __init__(self, index: int, first: Moment) -> None:
        self.index = index
        self._accesses: dict[tuple[int, int], tuple[str, Witness]] = {}
        self._bytes: dict[int, tuple[str, Witness]] = {}
        # Most buffers are read once: there is nothing to compare, byte by byte.
        self._first: Moment | None = first

    def compare(self, moment: Moment) -> tuple[Witness, bool] | None:
        """Return an earlier read of the same data, and whether it was the same."""
        first, self._first = self._first, None
        if first is not None:
            self._look(first)
        return self._look(moment)

    def _look(self, moment: Moment) -> tuple[Witness, bool] | None:
        where = (moment.offset, moment.size)
        if (known := self._accesses.get(where)) is not None:
            return known[1], known[0] == moment.data
        if len(self._accesses) < self._ACCESSES:
            self._accesses[where] = (moment.data, witness(moment))
        if len(moment.data) != 2 * moment.size:
            return None
        return self._compare_bytes(moment)

    def _compare_bytes(self, moment: Moment) -> tuple[Witness, bool] | None:
        seen = None
        here = witness(moment)
        for place in range(moment.size):
            byte = moment.data[2 * place : 2 * place + 2]
            known = self._bytes.get(moment.offset + place)
            if known is None:
                if len(self._bytes) < self._BYTES:
                    self._bytes[moment.offset + place] = (byte, here)
            elif known[0] != byte:
                return known[1], False
            else:
                seen = known[1], True
        return seen


def data_stays() -> Remembering:
    """All data of the current buffer reads the same again.

    Premise: the buffer was asked for in sequence, the reads lie within it, and between
    them nobody wrote to data, data_size or device_state (V1-SAVE-03).
    """
    contents: _Contents | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or contents else ASLEEP)
        ruling = None
        if moment.kind is not kinds.READ_DATA:
            contents = None
            continue
        buffer = buffer_in_sequence(moment)
        if buffer is None or not lies_in(buffer, moment):
            continue
        if not moment.ok or moment.unseen or not moment.data:
            continue
        if contents is None or contents.index != buffer.index:
            contents = _Contents(buffer.index, moment)
        elif (seen := contents.compare(moment)) is not None:
            ruling = HELD if seen[1] else _other_data(seen[0], moment)


def _other_data(before: Witness, moment: Moment) -> Ruling:
    return Broken(
        expected="the same data",
        actual=f"other data: {moment.data}",
        witnesses=(before, witness(moment)),
        because=(
            "A and B read the same bytes of the current buffer;",
            "no read of pending_bytes, and no write, lies between them;",
            "however, B has other data.",
        ),
    )


def data_in_any_pieces(moment: Moment) -> Ruling | None:
    """Any piece of the current buffer can be read.

    Premise: the buffer was asked for in sequence, no fault is armed, and the piece is
    trapped and less than the whole.  Only a refusal breaks the rule (V1-SAVE-04).
    """
    buffer = buffer_in_sequence(moment)
    if buffer is None or moment.size == buffer.size or not lies_in(buffer, moment):
        return None
    if moment.unseen or moment.position.armed or is_mappable(moment):
        return None
    if moment.ok:
        return HELD
    if not moment.size or not is_refused(moment):
        return None
    return Broken(
        expected=f"{moment.size} bytes",
        actual=moment.text.rpartition("-> ")[2],
        witnesses=(witness(moment),),
        because=(
            f"the current buffer has {buffer.size:#x} bytes at {buffer.offset:#x}, and "
            "A reads a piece of it;",
            f"however, A is refused: {moment.text}.",
        ),
    )


_FAULT_OF: Final = {
    kinds.READ_PENDING_BYTES: "pending_bytes",
    kinds.READ_DATA_OFFSET: "data_offset",
    kinds.READ_DATA_SIZE: "data_size",
    kinds.READ_DATA: "data",
}


def error_at_the_next_access() -> Remembering:
    """Every access inside of which a fault happens fails with an errno.

    Premise: the bench armed a fault for this access, it is made in sequence, and it is
    trapped: a fault in mapped data shows later (V1-SAVE-09).
    """
    ruling: Ruling | None = None
    is_armed = False
    while True:
        moment = yield (ruling if ruling or is_armed else ASLEEP)
        ruling = None
        is_armed = moment.kind is kinds.FAIL or bool(moment.position.owed)
        if moment.kind is not kinds.FAIL and moment.position.is_saving:
            ruling = _shows_fault(moment)


def _shows_fault(moment: Moment) -> Ruling | None:
    position, name = moment.position, _FAULT_OF[moment.kind]
    if name not in position.owed or moment.died:
        return None
    buffer = buffer_in_sequence(moment)
    match moment.kind:
        case kinds.READ_DATA_OFFSET if not position.pending or buffer is not None:
            return None
        case kinds.READ_DATA_SIZE if buffer is None:
            return None
        case kinds.READ_DATA:
            if buffer is None or not lies_in(buffer, moment) or moment.region.areas:
                return None
    if moment.errno:
        return HELD
    return Broken(
        expected="an errno",
        actual="success",
        witnesses=(witness(moment),),
        because=(
            f"a fault was armed for the next access to {name}, which A is;",
            "however, A succeeds: nobody learns of the error.",
        ),
    )


_STEPS: Final = (kinds.READ_PENDING_BYTES, kinds.READ_DATA_OFFSET, kinds.READ_DATA_SIZE)
_ENDS: Final = (kinds.WRITE_DEVICE_STATE, kinds.RESET, kinds.CLOSE)
_WRITES: Final = (kinds.WRITE_DATA, kinds.WRITE_DATA_SIZE, kinds.WRITE_DEVICE_STATE)
_DATA: Final = (kinds.READ_DATA,)
_SEQUENCE: Final = (*_STEPS, *_DATA)

CHECKS: Final = {
    in_sequence: during(SAVING, *_SEQUENCE),
    same_in_both_states: during(SAVING, *_STEPS),
    data_stays: Watch(kinds=(*_DATA, *_WRITES), woken_by=during(SAVING, *_DATA)),
    data_in_any_pieces: during(SAVING, *_DATA),
    error_at_the_next_access: Watch(kinds=_SEQUENCE, woken_by=(kinds.FAIL,)),
    ends_at_an_error: Watch(
        kinds=(*_SEQUENCE, *_ENDS), woken_by=during(SAVING, *_SEQUENCE, ok=False)
    ),
}
