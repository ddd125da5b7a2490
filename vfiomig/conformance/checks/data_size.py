"""Checks of data_size: the length of the current buffer, in both directions.

Rule 1: while SAVING the driver owes something only for a buffer that was asked for in
sequence: pending_bytes read more than 0, then data_offset was read.  It owes nothing
more in a session in which an access failed or was odd.

Rule 2: what may have gone through a mapping was not seen, so bytes of a sparse mmap
area are never missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.data_accesses import (
    all_moved,
    buffer_in_sequence,
    is_mappable,
    is_refused,
    lies_in,
)
from vfiomig.conformance.moment import EVERY_KIND, Watch, during, failing
from vfiomig.conformance.position import SAVING
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, Witness, witness
from vfiomig.protocol.v1.registers import REGISTERS_SIZE
from vfiomig.protocol.v1.saving import EMPTY_BUFFERS_LIMIT
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.position import Buffer
    from vfiomig.conformance.ruling import Remembering, Ruling

# -- saving ----------------------------------------------------------------------------


def is_the_buffers_length() -> Remembering:
    """All of the current buffer can be read, to the end that data_size gives it.

    Premise: the buffer was asked for in sequence, no fault is armed, and the read is
    trapped; it is of the whole buffer, or as wide as another one that this buffer took:
    a width that is refused anywhere is V1-SAVE-04's matter (V1-SIZE-01).
    """
    taken: tuple[int, int] | None = None  # buffer, width of its last good read
    short_end: int | None = None  # where a read that was short came to
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        buffer = _buffer_of_trapped_read(moment)
        if buffer is None or buffer.size is None or not moment.size:
            continue
        is_last = moment.offset + moment.size == buffer.offset + buffer.size
        is_rest, short_end = moment.offset == short_end, None
        if 0 < moment.moved < moment.size:
            short_end = moment.offset + moment.moved
        if moment.ok:
            taken = (buffer.index, moment.size)
            ruling = HELD if is_last else None
        elif is_last and is_refused(moment):
            is_whole = moment.size == buffer.size
            if is_whole or is_rest or taken == (buffer.index, moment.size):
                ruling = _shorter_than_it_said(buffer, moment)


def _buffer_of_trapped_read(moment: Moment) -> Buffer | None:
    if moment.unseen or moment.position.armed:
        return None
    if not moment.ok and is_mappable(moment):
        return None  # V1-MMAP-05 it is that asks for it
    buffer = buffer_in_sequence(moment)
    return buffer if buffer is not None and lies_in(buffer, moment) else None


def _shorter_than_it_said(buffer: Buffer, moment: Moment) -> Ruling:
    return Broken(
        expected=f"{moment.size} bytes",
        actual=moment.text.rpartition("-> ")[2],
        witnesses=(_size_of(buffer), witness(moment)),
        because=(
            f"the current buffer begins at {buffer.offset:#x}, and by A it has "
            f"{buffer.size:#x} bytes;",
            "B reads to that end and no further;",
            f"however, B fails: {moment.text}.",
        ),
    )


def _size_of(buffer: Buffer) -> Witness:
    """Name the read of data_size that gave a buffer its size."""
    assert buffer.size is not None and buffer.size_index is not None  # noqa: PT018
    return Witness(buffer.size_index, f"read data_size -> {buffer.size:#x}")


def stable_within_iteration() -> Remembering:
    """All reads of data_size in one iteration return the same size.

    Premise: the buffer was asked for in sequence, and since the first read nobody
    wrote to data_size, the data section or device_state (V1-SIZE-02).
    """
    first: tuple[int, int, Witness] | None = None  # buffer, size, where
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or first else ASLEEP)
        ruling = None
        if moment.kind is not kinds.READ_DATA_SIZE:
            first = None
            continue
        buffer = buffer_in_sequence(moment)
        if buffer is None or moment.value is None:
            continue
        if buffer.size is None:
            first = (buffer.index, moment.value, witness(moment))
        elif first is not None and first[0] == buffer.index:
            ruling = _same_size(first[1], first[2], moment)


def _same_size(size: int, first: Witness, moment: Moment) -> Ruling:
    if moment.value == size:
        return HELD
    return Broken(
        expected=f"data_size = {size:#x}",
        actual=f"data_size = {moment.value:#x}",
        witnesses=(first, witness(moment)),
        because=(
            "no read of pending_bytes lies between A and B;",
            f"however, B has data_size = {moment.value:#x}: a contradiction.",
        ),
    )


def makes_progress() -> Remembering:
    """Of 16 buffers one after another, one is not empty.

    Premise: each was asked for in sequence, in one and the same device_state, with
    pending_bytes more than 0, and its data_size was read (V1-SIZE-03, AMB-06).
    """
    empty, last = 0, (-1, -1, -1)  # session, state, number of the buffer
    first: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        buffer = buffer_in_sequence(moment)
        if buffer is None or buffer.size is not None or moment.value is None:
            continue
        position = moment.position
        assert position.state is not None
        here = (position.session, position.state, buffer.number)
        if moment.value:
            empty, ruling = 0, HELD
        else:
            goes_on = here == (*last[:2], last[2] + 1)
            empty = empty + 1 if empty and goes_on else 1
            first = witness(moment) if empty == 1 else first
            if empty >= EMPTY_BUFFERS_LIMIT and first is not None:
                ruling = _no_progress(first, empty, moment)
        last = here


def _no_progress(first: Witness, empty: int, moment: Moment) -> Ruling:
    pending = moment.position.pending
    return Broken(
        expected=f"a buffer with data among {EMPTY_BUFFERS_LIMIT}",
        actual=f"{empty} buffers with data_size = 0x0",
        witnesses=(first, witness(moment)),
        because=(
            f"A and B are the first and the last of {empty} buffers one after another;",
            f"pending_bytes was more than 0 before each, {pending:#x} before B;",
            "however, all of them are empty: the stream gets nowhere.",
        ),
    )


def not_written_while_saving() -> Remembering:
    """Nothing comes of a write to data_size while SAVING.

    Premise: data_size of this very buffer was read before the write, and nothing else
    that could have changed it lies between.  An errno is as good as silence
    (V1-SIZE-04, AMB-16).
    """
    known: tuple[int, int, Witness] | None = None  # buffer, size, where
    wrote: Witness | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or known else ASLEEP)
        ruling = None
        kind = moment.kind
        buffer = moment.position.buffer if moment.position.is_saving else None
        if kind is kinds.WRITE_DATA_SIZE:
            is_of_known = known and buffer and known[0] == buffer.index
            if not is_of_known or moment.died:
                known = wrote = None
            else:
                wrote = witness(moment)
        elif not moment.ok or kind is not kinds.READ_DATA_SIZE:
            known = wrote = None
        elif moment.value is not None:
            if known and wrote and buffer and known[0] == buffer.index:
                ruling = _not_changed(known[1], known[2], wrote, moment)
            elif (buffer := buffer_in_sequence(moment)) is not None:
                known, wrote = (buffer.index, moment.value, witness(moment)), None


_HARMLESS: Final = (
    kinds.READ_DEVICE_STATE,
    kinds.READ_RESERVED,
    kinds.READ_DATA_OFFSET,
    kinds.READ_DATA,
    kinds.MMAP,
    kinds.WORK,
    kinds.SNAPSHOT,
)


def _not_changed(size: int, known: Witness, wrote: Witness, moment: Moment) -> Ruling:
    if moment.value == size:
        return HELD
    return Broken(
        expected=f"data_size = {size:#x}",
        actual=f"data_size = {moment.value:#x}",
        witnesses=(known, wrote, witness(moment)),
        because=(
            "A and C read the size of the same buffer;",
            "B writes data_size while SAVING, where it is the driver's to say;",
            f"however, C has data_size = {moment.value:#x}: B had an effect.",
        ),
    )


# -- resuming --------------------------------------------------------------------------


def tells_what_was_written() -> Remembering:
    """Just as many bytes were written as the data_size that is written says.

    Premise: data_offset was read for this buffer, once or with the same answer, no
    access failed in this session, and the bytes are such as cannot be mapped
    (V1-SIZE-05).
    """
    has_moved = False  # data_offset changed in the midst of a buffer
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or has_moved else ASLEEP)
        ruling = None
        position = moment.position
        if not position.is_resuming:
            has_moved = False
        elif moment.kind is kinds.READ_DATA_OFFSET:
            is_other = moment.value != position.load_offset
            has_moved = bool(position.load_written) and (has_moved or is_other)
        else:
            if not has_moved and not position.has_failed:
                ruling = _announcement(moment)
            has_moved = False


def _announcement(moment: Moment) -> Ruling | None:
    offset, size = moment.position.load_offset, moment.value
    written = moment.position.load_written
    if offset is None or size is None:
        return None
    end = offset + size
    if not all_moved(moment, written, offset, size):
        last = max((start + length for start, length in written), default=offset)
        return _announced(moment, f"but {max(0, last - offset):#x} bytes at most")
    for start, length in written:
        beyond = max(start, end)
        more = start + length - beyond
        if start >= offset and more > 0 and not all_moved(moment, [], beyond, more):
            return _announced(moment, f"but bytes up to {start + length:#x}")
    return HELD


def _announced(moment: Moment, what: str) -> Ruling:
    offset, size = moment.position.load_offset, moment.value
    return Broken(
        expected="data_size = the number of bytes written",
        actual=f"data_size = {size:#x}",
        witnesses=(witness(moment),),
        because=(
            f"data_offset is {offset:#x}, so A says that the {size:#x} bytes from "
            "there on were written, and no others;",
            f"however, not these were, {what}.",
        ),
    )


def refused_if_impossible(moment: Moment) -> Ruling | None:
    """Any data_size that reaches behind the end of the migration region fails.

    Premise: device_state is RESUMING, and no access failed in this session.  Where
    data_offset was not read for this buffer, it is at least that of the data section
    (V1-SIZE-08).
    """
    position = moment.position
    if position.has_failed or moment.value is None:
        return None
    offset = position.load_offset
    start = offset if offset is not None else REGISTERS_SIZE
    room = moment.region.size - start
    if moment.value <= room:
        return None
    if not moment.ok and not moment.died:
        return HELD
    what = "the driver died of it" if moment.died else "succeeds"
    return Broken(
        expected="an errno, such as EINVAL",
        actual="the driver died" if moment.died else "success",
        witnesses=(witness(moment),),
        because=(
            f"from {start:#x}, where data begins at the earliest, the migration region "
            f"has room for {max(0, room):#x} bytes;",
            f"however, A says that {moment.value:#x} bytes were written, and {what}.",
        ),
    )


def readable_while_resuming(moment: Moment) -> Ruling | None:
    """No read of data_size while RESUMING brings the driver down.

    Premise: device_state is RESUMING.  Value and errno are as they may (V1-SIZE-09).
    """
    if not moment.died:
        return HELD
    return Broken(
        expected="any value, or an errno",
        actual="the driver died",
        witnesses=(witness(moment),),
        because=(
            "the device is RESUMING, and a read of data_size may return anything;",
            "however, A brought the driver down.",
        ),
    )


_SIZE: Final = (kinds.READ_DATA_SIZE,)
_CHANGES: Final = (kinds.WRITE_DATA_SIZE, kinds.WRITE_DATA, kinds.WRITE_DEVICE_STATE)
_GIVEN: Final = (kinds.READ_DATA_OFFSET, kinds.WRITE_DATA_SIZE)
_RESUMING: Final = (DeviceState.RESUMING,)

CHECKS: Final = {
    is_the_buffers_length: during(SAVING, kinds.READ_DATA),
    stable_within_iteration: Watch(
        kinds=(*_SIZE, *_CHANGES), woken_by=during(SAVING, *_SIZE)
    ),
    makes_progress: during(SAVING, *_SIZE),
    not_written_while_saving: Watch(
        kinds=(
            *(kind for kind in EVERY_KIND if kind not in _HARMLESS),
            *failing(*_HARMLESS),
        ),
        woken_by=during(SAVING, *_SIZE),
    ),
    tells_what_was_written: Watch(kinds=_GIVEN, woken_by=during(_RESUMING, *_GIVEN)),
    refused_if_impossible: during(_RESUMING, kinds.WRITE_DATA_SIZE),
    readable_while_resuming: during(_RESUMING, *_SIZE),
}
