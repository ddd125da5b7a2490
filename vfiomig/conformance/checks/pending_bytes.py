"""Checks of v1/pending-bytes: what the register tells, and what reading it does.

Rule 1: only a read of data_offset queues a buffer, and only the read of pending_bytes
after it gives that buffer back.  Every check here counts from there.

Rule 2: pending_bytes is an estimate, and some drivers know only 0 and 1.  So no check
does arithmetic with it.

Rule 3: data that may have gone through a mapping counts as read.

Two rules of the section are decided by when the user application reads data_offset;
their checks are in `data_offset`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.data_accesses import meets_area
from vfiomig.conformance.moment import EVERY_KIND, Watch, during, outside
from vfiomig.conformance.position import SAVING
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, witness
from vfiomig.protocol.v1.states import DeviceState, state_name
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.position import Buffer
    from vfiomig.conformance.ruling import Remembering, Ruling

# What gives a stopped driver no reason to answer differently at the next read.
_WITHOUT_EFFECT: Final = (
    kinds.READ_DEVICE_STATE,
    kinds.READ_RESERVED,
    kinds.MMAP,
    kinds.WORK,
    kinds.SNAPSHOT,
)

# So many separate ranges of a buffer, and `Position` may have forgotten one.
_MANY_RANGES: Final = 64

_STOP_AND_COPY: Final = DeviceState.STOP_AND_COPY  # compared at every read
_STATE_CHANGES: Final = (kinds.WRITE_DEVICE_STATE, kinds.RESET)
_OUTSIDE_SAVING: Final = (DeviceState.STOP, DeviceState.RUNNING, DeviceState.RESUMING)


class _StoppedReads:
    """The reads of pending_bytes while the device stays in stop-and-copy."""

    def __init__(self) -> None:
        self.last: Moment | None = None

    def before(self, moment: Moment) -> Moment | None:
        """Return the read before this one; whatever else is given is of effect."""
        last, self.last = self.last, None
        is_stopped = moment.position.state == _STOP_AND_COPY
        if moment.kind is not kinds.READ_PENDING_BYTES or not is_stopped:
            return None
        self.last = moment if moment.ok else None
        return last if moment.ok else None


def _broken(
    expected: str, actual: str, moments: tuple[Moment, ...], *because: str
) -> Broken:
    return Broken(
        expected=expected,
        actual=actual,
        witnesses=tuple(map(witness, moments)),
        because=because,
    )


def _may_be_unseen(moment: Moment, buffer: Buffer) -> bool:
    """Tell whether a byte of the buffer may have been read where nobody saw it."""
    if len(buffer.read) >= _MANY_RANGES:
        return True
    if not moment.position.mapped:
        return False
    end = moment.region.size if buffer.size is None else buffer.offset + buffer.size
    return meets_area(moment, buffer.offset, end)


def _is_given_up(moment: Moment) -> bool:
    """Tell whether a read of pending_bytes comes before the buffer was consumed."""
    buffer = moment.position.buffer
    if buffer is None or buffer.is_consumed:
        return False
    return not _may_be_unseen(moment, buffer)


def read_only() -> Remembering:
    """No read of pending_bytes gives what was written to it.

    Premise: stop-and-copy, pending_bytes was read just before, and the value written
    is larger, so that no new estimate comes to it by itself (V1-PEND-01).
    """
    reads = _StoppedReads()
    written: Moment | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or reads.last or written else ASLEEP)
        ruling = None
        if moment.kind is kinds.WRITE_PENDING_BYTES:
            written = moment
            continue
        before = reads.before(moment)
        if moment.kind is not kinds.READ_PENDING_BYTES:
            continue
        if before is not None and written is not None:
            ruling = _not_set(before, written, moment)
        written = None


def _not_set(before: Moment, written: Moment, after: Moment) -> Ruling | None:
    if before.index > written.index or (written.value or 0) <= (before.value or 0):
        return None
    if after.value != written.value:
        return HELD
    return _broken(
        f"pending_bytes does not become {written.value:#x}",
        f"pending_bytes = {after.value:#x}",
        (before, written, after),
        "the device is stopped, and no buffer is taken between A and C",
        "B writes a register that is read only",
        f"however, C reads what B wrote, {written.value:#x}",
    )


def any_number_of_reads_works() -> Remembering:
    """More than one read of pending_bytes does not stop the sequence from working.

    Premise: the device is saving, nothing failed or is to fail, the user application
    keeps to the sequence, and in this iteration pending_bytes was read a second time
    before data_offset (V1-PEND-06).
    """
    reads: tuple[Moment, ...] = ()  # at most two, the first and the last
    spoiled: int | None = None  # the session in which the sequence was not kept
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or reads else ASLEEP)
        ruling = None
        position = moment.position
        is_healthy = not position.has_failed and not position.armed
        if not position.is_saving or not is_healthy or moment.kind in _STATE_CHANGES:
            reads = ()
        elif position.session == spoiled or _is_out_of_turn(moment):
            reads, spoiled = (), position.session
        elif not moment.ok:
            # The second read itself may be the one that fails.
            is_read = moment.kind is kinds.READ_PENDING_BYTES
            is_second = is_read and reads and position.buffer is None
            if not moment.died and (len(reads) == 2 or is_second):
                ruling = _does_not_work(reads, moment)
        elif moment.kind is kinds.READ_PENDING_BYTES:
            if position.buffer is not None:
                ruling = HELD if len(reads) == 2 else None
                reads = ()
            reads = (*reads[:1], moment)


def _is_out_of_turn(moment: Moment) -> bool:
    """Tell whether the user application left the sequence of saving."""
    position, kind = moment.position, moment.kind
    if kind is kinds.READ_DATA_OFFSET:
        return position.buffer is None and not position.pending
    if kind is kinds.READ_DATA_SIZE:
        return position.buffer is None
    if kind is kinds.READ_PENDING_BYTES:
        return _is_given_up(moment)
    return True  # writes of data or data_size


def _does_not_work(reads: tuple[Moment, ...], moment: Moment) -> Broken:
    return _broken(
        f"{moment.kind.value} succeeds",
        moment.text,
        (*reads, moment),
        "the user application keeps to the sequence",
        "pending_bytes may be read any number of times before data_offset",
        f"however, {'ABC'[len(reads)]} is {moment.text}",
    )


def zero_in_stop_and_copy_is_the_end() -> Remembering:
    """Nothing is pending any more once stop-and-copy said so.

    Premise: pending_bytes read 0 in stop-and-copy; since then the user application
    did nothing that could begin anything, no access failed in this session, and no
    buffer was given back before it was consumed (V1-PEND-11).
    """
    reads = _StoppedReads()
    is_spoiled = False
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or reads.last or is_spoiled else ASLEEP)
        ruling = None
        zero = reads.before(moment)
        if moment.position.state != _STOP_AND_COPY:
            is_spoiled = False
        elif moment.kind is kinds.READ_PENDING_BYTES:
            is_spoiled |= moment.position.has_failed or _is_given_up(moment)
            if zero is not None and zero.value == 0 and not is_spoiled:
                ruling = _same(zero, moment, "A reads that the stream has ended")


def _same(first: Moment, moment: Moment, why: str) -> Ruling:
    if moment.value == first.value:
        return HELD
    return _broken(
        f"pending_bytes = {first.value:#x}",
        f"pending_bytes = {moment.value:#x}",
        (first, moment),
        why,
        "the device stays in stop-and-copy, and no buffer is taken between A and B",
        f"however, B has pending_bytes = {moment.value:#x}",
    )


def iterated_until_zero() -> Remembering:
    """Only after stop-and-copy said 0 does a migration complete.

    Premise: no access to the source failed; it was left in STOP, which may be giving
    up, and its counterpart, which took buffers, runs: so it was completion.  Devices
    are counterparts by name, source and destination (V1-PEND-12).
    """
    left: dict[str, Moment] = {}
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        position = moment.position
        if not moment.ok or moment.value is None:
            if moment.ok:  # a reset
                left.pop(moment.device, None)
            continue
        target = moment.value & VFIO_DEVICE_STATE_MASK
        if target != DeviceState.STOP:
            left.pop(moment.device, None)  # it goes on: that was giving up
            if position.is_resuming and position.loaded:
                source = moment.device.replace("destination", "source", 1)
                early = left.pop(source, None)
                if target == DeviceState.RUNNING and early is not None:
                    ruling = _completed(early, moment)
        elif position.state == DeviceState.STOP_AND_COPY:
            ruling = HELD if position.drained else None
            if not position.drained and not position.has_failed:
                left[moment.device] = moment


def _completed(early: Moment, runs: Moment) -> Broken:
    return _broken(
        "pending_bytes was read as 0 before stop-and-copy was left",
        "it was not, and the migration completed",
        (early, runs),
        f"A takes {early.device} from stop-and-copy to STOP",
        f"B lets {runs.device} run, so A was no giving up",
        "however, pending_bytes had not been read as 0 in stop-and-copy before A",
    )


def stable_while_stopped() -> Remembering:
    """Two reads of a stopped device give the same value.

    Premise: stop-and-copy, no access failed, and nothing lies between the two reads
    that could change what is pending (V1-PEND-14).
    """
    reads = _StoppedReads()
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or reads.last else ASLEEP)
        ruling = None
        first = reads.before(moment)
        if first is not None and not moment.position.has_failed:
            ruling = _same(first, moment, "A reads what a stopped device has to give")


def read_after_consumption() -> Remembering:
    """Before pending_bytes is read, the buffer has been consumed.

    Premise: the device is saving and no access failed; the missing bytes cannot have
    gone through a mapping; and reads of data are seen at all in this history, before
    or after (V1-PEND-15).
    """
    offset: Moment | None = None
    is_sized = is_data_seen = False
    suspected: Ruling | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        if moment.kind is kinds.READ_DATA:
            is_data_seen = True
            ruling, suspected = suspected, None
        elif moment.kind is kinds.READ_DATA_OFFSET:
            offset = moment if moment.position.buffer is None else offset
        elif moment.kind is kinds.READ_DATA_SIZE:
            is_sized = True
        else:
            if moment.kind is kinds.READ_PENDING_BYTES and offset is not None:
                ruling = _consumed(offset, moment, is_sized=is_sized)
            if ruling is not HELD and is_sized and not is_data_seen:
                ruling, suspected = None, suspected or ruling
            offset, is_sized = None, False


def _consumed(offset: Moment, moment: Moment, *, is_sized: bool) -> Ruling | None:
    position, buffer = moment.position, moment.position.buffer
    if not (moment.ok and position.is_saving and buffer) or position.has_failed:
        return None
    if buffer.is_consumed:
        return HELD
    # A size that was read too early is another rule's matter (V1-OFF-12).
    if not _is_given_up(moment) or (buffer.size is None and is_sized):
        return None
    what = "its size" if buffer.size is None else f"all of its {buffer.size:#x} bytes"
    return _broken(
        f"the user application reads {what} before pending_bytes",
        "it reads pending_bytes before",
        (offset, moment),
        "A makes a buffer available",
        f"the user application has not read {what}",
        "however, B says that the buffer was consumed",
    )


def undefined_outside_saving(moment: Moment) -> Ruling | None:
    """Whatever a read outside SAVING gives, the driver survives it.

    Premise: the device is known to be in STOP, RUNNING or RESUMING (V1-PEND-16).
    """
    if not moment.died:
        return HELD
    state = moment.position.state
    assert state is not None
    return _broken(
        "a value or an errno",
        "the driver died",
        (moment,),
        f"the device is in {state_name(state)}, where pending_bytes is undefined",
        "however, the driver does not survive A",
    )


def no_condition_of_stopping(moment: Moment) -> Ruling | None:
    """Pre-copy is left for stop-and-copy while bytes are pending.

    Premise: pending_bytes was not 0 when it was last read; no access failed in this
    session and no fault is armed; reserved bits are written as they were read
    (V1-PEND-17).
    """
    position = moment.position
    if not position.pending or moment.died:
        return None
    reserved = (position.raw_state or 0) & ~VFIO_DEVICE_STATE_MASK
    is_asked = moment.value == DeviceState.STOP_AND_COPY | reserved
    if not is_asked or position.has_failed or position.armed:
        return None
    if moment.ok:
        return HELD
    return _broken(
        f"{moment.kind.value} succeeds, whatever is pending",
        moment.text,
        (moment,),
        f"pending_bytes was {position.pending:#x} when it was last read",
        "A asks for stop-and-copy, and need not wait for 0",
        f"however, A is {moment.text}",
    )


_READ: Final = (kinds.READ_PENDING_BYTES,)
_REGISTERS: Final = (*_READ, kinds.READ_DATA_OFFSET, kinds.READ_DATA_SIZE)
_ITERATION: Final = (*_REGISTERS, kinds.READ_DATA)
_IN_TURN: Final = (*_REGISTERS, kinds.WRITE_DATA_SIZE, kinds.WRITE_DATA)
_STOPPED: Final = (_STOP_AND_COPY,)
_READ_STOPPED: Final = during(_STOPPED, *_READ)
_OF_EFFECT: Final = (
    *(kind for kind in EVERY_KIND if kind not in _WITHOUT_EFFECT),
    *outside(_STOPPED, *_WITHOUT_EFFECT),
)
_READ_AND_WATCHED: Final = Watch(kinds=_OF_EFFECT, woken_by=_READ_STOPPED)

CHECKS: Final = {
    read_only: _READ_AND_WATCHED,
    any_number_of_reads_works: Watch(
        kinds=(*_IN_TURN, *_STATE_CHANGES),
        woken_by=during(SAVING, *_IN_TURN),
    ),
    zero_in_stop_and_copy_is_the_end: _READ_AND_WATCHED,
    iterated_until_zero: _STATE_CHANGES,
    stable_while_stopped: _READ_AND_WATCHED,
    read_after_consumption: (*_ITERATION, *_STATE_CHANGES),
    undefined_outside_saving: during(_OUTSIDE_SAVING, *_READ),
    no_condition_of_stopping: during((DeviceState.PRE_COPY,), kinds.WRITE_DEVICE_STATE),
}
ACROSS: Final = frozenset({iterated_until_zero})
