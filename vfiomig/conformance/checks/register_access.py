"""Checks of the widths and places of register accesses, and of what they leave alone.

Rule 1: what owes to change nothing, and what excuses a refusal, is in `standing`.

Rule 2: a write of half a register is undefined, so what it may have left behind is
judged only by the rule that forbids it to leave anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.moment import Kind, Watch, during
from vfiomig.conformance.position import SAVING, WITH_BUFFER
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, witness
from vfiomig.conformance.standing import (
    ReadBack,
    Refusals,
    Standing,
    is_dead_space,
    register_name,
)
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.ruling import Remembering, Ruling

_STOP_AND_COPY: Final = DeviceState.STOP_AND_COPY  # compared at every access
_STATE: Final = kinds.READ_DEVICE_STATE
_DATA: Final = (kinds.READ_DATA, kinds.WRITE_DATA)
_BUFFER: Final = (kinds.READ_DATA_OFFSET, kinds.READ_DATA_SIZE, kinds.READ_DATA)
_ODD: Final = (kinds.READ_ODD, kinds.WRITE_ODD)
_SPOILS_PENDING: Final = (kinds.READ_DATA, kinds.READ_DATA_SIZE)
_READ_ONLY: Final = (kinds.WRITE_PENDING_BYTES, kinds.WRITE_DATA_OFFSET)
_NATIVE: Final = tuple(
    Kind(f"{access} {register.value}")
    for access in ("read", "write")
    for register in Register
)


def native_width(moment: Moment) -> Ruling | None:
    """Every access of registers has the native width and place.

    Premise: the user application accessed at least one byte of them, whatever came of
    it (V1-ACC-01).
    """
    if moment.kind not in _ODD:
        return HELD
    if not moment.size:
        return None
    return Broken(
        expected="a whole register at its own width",
        actual=moment.text,
        witnesses=(witness(moment),),
        because=(
            "the registers are 4 bytes at 0x0 and 0x4, 8 bytes at 0x8, 0x10 and 0x18;",
            f"however, A is an access of {_place(moment)}: a contradiction.",
        ),
    )


def other_widths_refused(moment: Moment) -> Ruling | None:
    """Any other width or place of a register access fails.

    Premise: the driver saw it and lived, and it was no read of several whole registers
    (V1-ACC-02).
    """
    return None if _has_whole_registers(moment) else _refusal_of(moment)


def many_registers_at_once_refused(moment: Moment) -> Ruling | None:
    """Any read of several whole registers at once fails.

    Premise: the driver saw it and lived (AMB-31).
    """
    return _refusal_of(moment) if _has_whole_registers(moment) else None


def _refusal_of(moment: Moment) -> Ruling | None:
    if moment.died or moment.unseen or not moment.size:
        return None
    if moment.errno:
        return HELD
    return Broken(
        expected="an error, EINVAL by custom",
        actual=f"{moment.text}, without an error",
        witnesses=(witness(moment),),
        because=(
            "the registers are 4 bytes at 0x0 and 0x4, 8 bytes at 0x8, 0x10 and 0x18;",
            f"however, A, of {_place(moment)}, succeeded: a contradiction.",
        ),
    )


def _place(moment: Moment) -> str:
    unit = "byte" if moment.size == 1 else "bytes"
    return f"{moment.size} {unit} at {moment.offset:#x}"


def _has_whole_registers(moment: Moment) -> bool:
    """Tell whether a read has two registers or more, and none of them in part."""
    begin, end = moment.offset, moment.offset + moment.size
    if begin not in _BEGINS or (end not in _ENDS and end <= REGISTERS_SIZE):
        return False
    if moment.kind is not kinds.READ_ODD:
        return False
    return sum(begin <= first and last <= end for first, last in _PLACES) >= 2


_PLACES: Final = tuple((each.offset, each.offset + each.width) for each in Register)
_BEGINS: Final = frozenset(first for first, _ in _PLACES)
_ENDS: Final = frozenset(last for _, last in _PLACES)


def other_widths_change_nothing() -> Remembering:
    """No access at any other width changes state or buffer, or kills the driver.

    Premise: the values were read before it, and are read again before anything that
    may change them (V1-ACC-03).
    """
    standing = Standing(_STATE, kinds.READ_RESERVED, *_BUFFER)
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or standing.held else ASLEEP)
        is_odd = moment.kind in _ODD and moment.size > 0 and not moment.unseen
        ruling = standing.follow(moment, is_suspect=is_odd)
        if is_odd and moment.died:
            why = "an access of a width that no register has owes to change nothing;"
            ruling = _crash(moment, "an error, and the driver lives", why)


def _crash(moment: Moment, expected: str, because: str) -> Broken:
    return Broken(
        expected=expected,
        actual=moment.text,
        witnesses=(witness(moment),),
        because=(because, "however, the driver died of A: a contradiction."),
    )


def whole_or_error(moment: Moment) -> Ruling | None:
    """Every access at the native width moves the whole register, or fails.

    Premise: the driver saw it and lived (V1-ACC-04).
    """
    if moment.unseen or moment.died:
        return None
    if moment.ok or moment.errno:
        return HELD
    return Broken(
        expected=f"{moment.size} bytes, or an error",
        actual=f"{moment.moved} bytes",
        witnesses=(witness(moment),),
        because=(
            f"{register_name(moment.kind)} has {moment.size} bytes;",
            f"however, A moved {moment.moved} bytes, without an error: "
            "a contradiction.",
        ),
    )


def registers_trapped(moment: Moment) -> Ruling | None:
    """No area that may be mapped has a byte of the registers.

    Premise: the device was opened (V1-ACC-05).
    """
    for offset, size in moment.region.areas:
        if offset < REGISTERS_SIZE and size:
            return Broken(
                expected=f"areas from {REGISTERS_SIZE:#x} on",
                actual=f"an area of {size:#x} bytes at {offset:#x}",
                witnesses=(witness(moment),),
                because=(
                    f"the first {REGISTERS_SIZE:#x} bytes of the region are trapped;",
                    f"however, A offers to map {size:#x} bytes at {offset:#x}: "
                    "a contradiction.",
                ),
            )
    return HELD


def device_state_always_readable() -> Remembering:
    """device_state can be read in every state, and reading it leaves the buffer.

    Premise: the driver lived, and had no error of a session to report (V1-ACC-06).
    """
    standing, refusals = Standing(*_BUFFER), Refusals()
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or standing.held else ASLEEP)
        is_read = moment.kind is _STATE
        ruling = standing.follow(moment, is_suspect=is_read)
        if is_read:
            ruling = refusals.judge(moment) or ruling or (HELD if moment.ok else None)


def reserved_reads_zero() -> Remembering:
    """Reserved reads as zero.

    Premise: the driver lived and had no error of a session to report, and the user
    application never wrote parts of the register (V1-ACC-07).
    """
    refusals, is_spoiled = Refusals(), False
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        if moment.kind is kinds.WRITE_ODD:
            is_spoiled = is_spoiled or _touches_reserved(moment)
        elif moment.died:
            why = "reserved reads as zero, whatever was done before;"
            ruling = _crash(moment, "reserved = 0x0", why)
        elif moment.value is None:
            ruling = refusals.judge(moment)
        elif not moment.value:
            ruling = refusals.judge(moment) or HELD
        elif not is_spoiled:
            ruling = Broken(
                expected="reserved = 0x0",
                actual=f"reserved = {moment.value:#x}",
                witnesses=(witness(moment),),
                because=(
                    "reserved reads as zero, whatever was written to it;",
                    f"however, A has reserved = {moment.value:#x}: a contradiction.",
                ),
            )


def _touches_reserved(moment: Moment) -> bool:
    reserved = Register.RESERVED
    end = reserved.offset + reserved.width
    return moment.offset < end and moment.offset + moment.size > reserved.offset


def reserved_writes_ignored() -> Remembering:
    """Any write to the reserved register succeeds and changes none.

    Premise: the driver lived and had no error of a session to report; the other values
    were read before, and are read again before anything that may change them.  The
    register itself must not show what was written to it (V1-ACC-08).
    """
    standing, refusals = Standing(_STATE, *_BUFFER), Refusals()
    written: Moment | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or standing.held or written else ASLEEP)
        is_write = moment.kind is kinds.WRITE_RESERVED
        ruling = standing.follow(moment, is_suspect=is_write)
        if is_write:
            ruling = refusals.judge(moment) or ruling or (HELD if moment.ok else None)
            written = moment if moment.value else None
        elif moment.kind is kinds.READ_RESERVED and moment.value is not None:
            # What it showed before it was written is another rule's matter.
            ruling = _stored(written, moment) if written is not None else None
            written = None if moment.value else written
        elif moment.kind is kinds.WRITE_ODD:
            written = None


def _stored(written: Moment, moment: Moment) -> Ruling | None:
    if not moment.value:
        return HELD
    if moment.value != written.value:
        return None
    return Broken(
        expected="reserved = 0x0",
        actual=f"reserved = {moment.value:#x}",
        witnesses=(witness(written), witness(moment)),
        because=(
            "A writes to reserved, which is ignored;",
            f"however, B has reserved = {moment.value:#x}, which A wrote: "
            "a contradiction.",
        ),
    )


def read_only_registers_stay() -> Remembering:
    """No write to pending_bytes or data_offset changes them, or state or buffer.

    Premise: the values were read before, and are read again before anything that may
    change them.  pending_bytes is held to it only while the device is stopped, and only
    to not taking the very value that was written (V1-ACC-09).
    """
    standing = Standing(_STATE, *_BUFFER)
    spoils = (*_ODD, kinds.WRITE_RESERVED, kinds.WRITE_DATA_SIZE)
    moves = (kinds.WRITE_DEVICE_STATE, kinds.RESET)
    pending = ReadBack("pending_bytes", *spoils, *moves, *_BUFFER)
    offset = ReadBack("data_offset", *spoils, *moves, kinds.READ_PENDING_BYTES)
    ruling: Ruling | None = None
    while True:
        remembers = pending.remembers or offset.remembers or standing.held
        moment = yield (ruling if ruling or remembers else ASLEEP)
        ruling, position = None, moment.position
        if moment.kind in _SPOILS_PENDING and not (pending.remembers or standing.held):
            continue  # nor does it say anything of data_offset
        is_stopped = position.state == _STOP_AND_COPY
        ruling = pending.follow(moment, is_owed=is_stopped)
        ruling = _worse(ruling, offset.follow(moment, is_owed=position.is_saving))
        is_suspect = moment.kind in _READ_ONLY
        if is_suspect or standing.held:
            ruling = _worse(ruling, standing.follow(moment, is_suspect=is_suspect))


def _worse(one: Ruling | None, other: Ruling | None) -> Ruling | None:
    return other if one is None or isinstance(other, Broken) else one


def dead_space_harmless() -> Remembering:
    """No access between the registers and the data changes state or buffer.

    Premise: it ends before the current buffer begins; the values were read before, and
    are read again before anything that may change them (V1-ACC-10).
    """
    standing = Standing(_STATE, *_BUFFER)
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or standing.held else ASLEEP)
        ruling, is_suspect = None, is_dead_space(moment)
        if is_suspect or standing.held:
            ruling = standing.follow(moment, is_suspect=is_suspect)


_WATCHED: Final = (*_NATIVE, *_ODD, *_DATA, kinds.RESET, kinds.FAIL)
_READ_BACK: Final = (
    *during((_STOP_AND_COPY,), kinds.READ_PENDING_BYTES),
    *during(SAVING, kinds.READ_DATA_OFFSET),
)

CHECKS: Final = {
    native_width: (*_NATIVE, *_ODD),
    other_widths_refused: _ODD,
    many_registers_at_once_refused: (kinds.READ_ODD,),
    other_widths_change_nothing: Watch(kinds=_WATCHED, woken_by=_ODD),
    whole_or_error: _NATIVE,
    registers_trapped: (kinds.OPEN,),
    device_state_always_readable: Watch(kinds=_WATCHED, woken_by=(_STATE,)),
    reserved_reads_zero: (kinds.READ_RESERVED, kinds.WRITE_ODD),
    reserved_writes_ignored: Watch(kinds=_WATCHED, woken_by=(kinds.WRITE_RESERVED,)),
    read_only_registers_stay: Watch(
        kinds=_WATCHED, woken_by=(*_READ_ONLY, *_READ_BACK)
    ),
    dead_space_harmless: Watch(kinds=_WATCHED, woken_by=during(WITH_BUFFER, *_DATA)),
}
