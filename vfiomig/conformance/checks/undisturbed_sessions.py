"""Writes to device_state that leave a session as it was.

There are two: a write of the state that the device is in, and a rejected request for
a state that nobody may ask for.

Rule 1: a session goes on where the current buffer is still the current one, where the
end of the stream stays the end, and where the ways on are still open.

Rule 2: a session is followed only as long as all else is in order.  Whatever fails, or
is undefined, ends what may be expected of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.checks.transitions import (
    demanded,
    drops_buffer,
    errno_name,
    is_healthy,
    target_of,
)
from vfiomig.conformance.moment import EVERY_KIND, Watch, failing
from vfiomig.conformance.ruling import ASLEEP, HELD, Broken, Witness, witness
from vfiomig.protocol.v1.states import (
    ArcClass,
    DeviceState,
    arc_between,
    state_name,
)

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.ruling import Remembering, Ruling

# Behind these nothing is certain of a saving session any more.
_UNDOING: Final = frozenset(
    {
        kinds.RESET,
        kinds.CLOSE,
        kinds.FAIL,
        kinds.READ_ODD,
        kinds.WRITE_ODD,
        kinds.WRITE_PENDING_BYTES,
        kinds.WRITE_DATA_OFFSET,
        kinds.WRITE_DATA_SIZE,
        kinds.WRITE_DATA,
    }
)
_IDLE: Final = frozenset({kinds.OPEN, kinds.WORK, kinds.SNAPSHOT, kinds.MMAP})
_NEVER_ASKED_FOR: Final = (ArcClass.INV, ArcClass.ERRW)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """What a write found: the state, the buffer as far as it was read, the end.

    ``since`` is the write.  A session has a buffer where it has an ``offset``.
    """

    since: Witness
    state: int
    is_drained: bool
    offset: int | None
    size: int | None

    @property
    def whereabouts(self) -> str:
        """How far the session had come, for a person."""
        if self.offset is not None:
            return f"a buffer at {self.offset:#x}"
        return "the end of the stream" if self.is_drained else "no buffer"


def _session_at(moment: Moment) -> _Session | None:
    """Return the session that a write finds, if the device is healthy.

    What is read as a buffer where nothing was pending is none (V1-SIZE-09).
    """
    position = moment.position
    if position.state is None or not is_healthy(position):
        return None
    buffer = position.buffer if position.pending else None
    return _Session(
        since=witness(moment),
        state=position.state,
        is_drained=position.drained,
        offset=buffer.offset if buffer is not None else None,
        size=buffer.size if buffer is not None else None,
    )


def _session_after(session: _Session, moment: Moment) -> _Session | None:
    """Return what is still certain of a session behind a moment.

    Writes to device_state are the caller's to follow.
    """
    if not moment.ok or moment.kind in _UNDOING or drops_buffer(moment):
        return None
    if moment.kind is kinds.READ_DEVICE_STATE:
        return session if target_of(moment) == session.state else None
    if moment.kind is kinds.READ_PENDING_BYTES:
        return replace(session, offset=None, size=None)
    # A buffer begun since then is not followed.
    is_new_buffer = moment.kind is kinds.READ_DATA_OFFSET and session.offset is None
    return None if is_new_buffer else session


def _owed_value(session: _Session, moment: Moment) -> int | None:
    """Return what a register has to read as; ``None`` where that is open."""
    match moment.kind:
        case kinds.READ_PENDING_BYTES:
            is_over = session.is_drained and session.offset is None
            return 0 if is_over else None
        case kinds.READ_DATA_OFFSET:
            return session.offset
        case kinds.READ_DATA_SIZE:
            return session.size
        case _:
            return None


def _is_readable(session: _Session, moment: Moment) -> bool:
    """Tell whether a read has to succeed while the session goes on."""
    match moment.kind:
        case kinds.READ_PENDING_BYTES:
            return True
        case kinds.READ_DATA_OFFSET | kinds.READ_DATA_SIZE:
            return session.offset is not None
        case kinds.READ_DATA if session.offset is not None and session.size:
            end = session.offset + session.size
            return session.offset <= moment.offset <= end - moment.size
        case _:
            return False


def _read_since(session: _Session, moment: Moment) -> Ruling | None:
    """Judge a read by what the session was."""
    is_saving = session.state in (DeviceState.PRE_COPY, DeviceState.STOP_AND_COPY)
    if not is_saving or moment.died or drops_buffer(moment):
        return None
    owed = _owed_value(session, moment)
    register = moment.kind.value.removeprefix("read ")
    if moment.errno:
        if not _is_readable(session, moment):
            return None
        return _disturbed(session, moment, "the read succeeds", errno_name(moment))
    if owed is None or moment.value is None:
        return None
    if moment.value == owed:
        return HELD
    return _disturbed(
        session, moment, f"{register} = {owed:#x}", f"{register} = {moment.value:#x}"
    )


def _disturbed(session: _Session, moment: Moment, expected: str, actual: str) -> Broken:
    verb = "fails with" if moment.errno else "has"
    return Broken(
        expected=expected,
        actual=actual,
        witnesses=(session.since, witness(moment)),
        because=(
            f"at A the device was in {state_name(session.state)}, and the session had"
            f" come to {session.whereabouts}",
            "A asks for no other state that a device can go to, and nothing between A"
            " and B undoes the session",
            f"however, B {verb} {actual}",
        ),
    )


def same_state_again() -> Remembering:
    """No write of the current state fails, and the saving session goes on.

    Premise: the device is healthy and in a valid state; in RESUMING nothing was
    loaded yet, for what was loaded may be damaged (V1-TRANS-29).
    """
    session: _Session | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or session else ASLEEP)
        ruling = None
        if moment.kind is kinds.WRITE_DEVICE_STATE:
            ruling = _written_again(moment)
            session = _session_at(moment) if ruling is HELD else None
        elif session is not None:
            ruling = _read_since(session, moment)
            session = _session_after(session, moment)


def _written_again(moment: Moment) -> Ruling | None:
    position = moment.position
    source, target = position.state, target_of(moment)
    if source is None or target != source:
        return None
    if arc_between(source, target).arc_class is not ArcClass.SELF:
        return None
    may_be_damaged = position.loaded or position.load_written or position.mapped
    if position.is_resuming and may_be_damaged and not moment.ok:
        return None
    return demanded(moment, source, target)


def rejection_without_side_effects() -> Remembering:
    """No session is touched by a rejected request for an invalid state or for ERROR.

    Premise: the device was healthy and in a known, valid state, and nothing else has
    failed since.  A drawn arc out of that state has to succeed then as well, but for
    one out of RESUMING (V1-TRANS-30).
    """
    session: _Session | None = None
    ruling: Ruling | None = None
    while True:
        moment = yield (ruling if ruling or session else ASLEEP)
        ruling = None
        if moment.kind is kinds.WRITE_DEVICE_STATE:
            if _is_rejected(moment):
                session = session or _session_at(moment)
            else:
                ruling = _way_on(session, moment) if session is not None else None
                session = None
        elif session is not None:
            ruling = _read_since(session, moment)
            session = _session_after(session, moment)


def _is_rejected(moment: Moment) -> bool:
    target = target_of(moment)
    if target is None or not moment.errno or moment.died:
        return False
    arc = arc_between(DeviceState.RUNNING, target)  # the row is the same in each state
    return arc.arc_class in _NEVER_ASKED_FOR


def _way_on(session: _Session, moment: Moment) -> Ruling | None:
    """Judge a write of a drawn arc out of the state that a rejection left in place."""
    target, reported = target_of(moment), moment.position.raw_state or 0
    if target is None or session.state == DeviceState.RESUMING:
        return None
    if arc_between(session.state, target).arc_class is not ArcClass.REQ:
        return None
    if moment.ok:
        return HELD
    if not moment.errno or moment.died or (moment.value or 0) ^ reported > 7:
        return None
    return _disturbed(session, moment, "the write succeeds", errno_name(moment))


_FOLLOWED: Final = tuple(kind for kind in EVERY_KIND if kind not in _IDLE)
_WRITTEN: Final = (kinds.WRITE_DEVICE_STATE,)

CHECKS: Final = {
    same_state_again: Watch(kinds=_FOLLOWED, woken_by=_WRITTEN),
    rejection_without_side_effects: Watch(kinds=_FOLLOWED, woken_by=failing(*_WRITTEN)),
}
