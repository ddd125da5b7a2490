"""Values that have to stand while accesses pass that owe to change nothing.

Rule 1: an access that owes to change nothing is blamed for a change only where nothing
else that is out of order lies between, and where the register is steady without it: two
reads of one buffer's agreed before, and none disagreed.  A driver that moves the buffer
at every read breaks another rule.

Rule 2: a driver may report an error of its session with whatever access comes next
(V1-SAVE-09).  So while a session goes on, or a fault is armed, one refusal is excused.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.moment import Kind
from vfiomig.conformance.ruling import HELD, Broken, Witness, witness
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.position import Position
    from vfiomig.conformance.ruling import Ruling

_STATE: Final = kinds.READ_DEVICE_STATE
_DATA: Final = kinds.READ_DATA
_DATA_ACCESSES: Final = (_DATA, kinds.WRITE_DATA)
_BUFFER: Final = (kinds.READ_DATA_OFFSET, kinds.READ_DATA_SIZE, _DATA)
_OF_BUFFER: Final = frozenset(_BUFFER)
_SHOWN_BY: Final = frozenset((_STATE, kinds.READ_RESERVED, *_BUFFER))

# What no user application does in good order: the change may be its doing.
_OUT_OF_ORDER: Final = frozenset(
    (
        kinds.READ_ODD,
        kinds.WRITE_ODD,
        kinds.WRITE_RESERVED,
        kinds.WRITE_PENDING_BYTES,
        kinds.WRITE_DATA_OFFSET,
        kinds.FAIL,
    )
)

# What may rightly change the values that a check watches.
_MOVES: Final[dict[Kind, tuple[Kind, ...]]] = {
    kinds.WRITE_DEVICE_STATE: (_STATE, *_BUFFER),
    kinds.RESET: (_STATE, *_BUFFER),
    kinds.READ_PENDING_BYTES: _BUFFER,
    kinds.WRITE_DATA_SIZE: _BUFFER,
    kinds.WRITE_DATA: (_DATA,),
}

# Where no session is that could have an error to report.
_OUTSIDE_SESSIONS: Final = (DeviceState.STOP, DeviceState.RUNNING, DeviceState.ERROR)


# Made of each read that shows anything, so by place: names take twice as long.
@dataclass(slots=True)
class _Value:
    """What was last read, and when; ``is_alone`` if nothing in question came since."""

    value: int | str
    moment: Moment  # not its witness: the text of each would cost too much
    is_alone: bool = True
    is_after_failure: bool = False


class Shown:
    """What a device showed last, as far as it has to stand.

    One for each device, for all the checks that compare with it.
    """

    def __init__(self) -> None:
        self.values: dict[Kind, _Value] = {}
        self._agreed: set[Kind] = set()
        self._disagreed: set[Kind] = set()

    def is_steady(self, kind: Kind) -> bool:
        """Tell whether two reads agreed, and none disagreed of itself."""
        return kind in self._agreed and kind not in self._disagreed

    def follow(self, moment: Moment) -> None:
        """Go on behind a moment."""
        kind, values = moment.kind, self.values
        if kind in _OUT_OF_ORDER:
            values.clear()
        elif not moment.ok:
            self._fail()
        elif kind in _SHOWN_BY:
            self._show(moment)
        if not values:
            return
        for moved in _MOVES.get(kind, ()):
            values.pop(moved, None)
        if kind is _STATE or (kind in _DATA_ACCESSES and is_dead_space(moment)):
            for seen in values.values():
                seen.is_alone = False

    def _fail(self) -> None:
        """Follow an access that failed: the buffer may be gone, the state be ERROR."""
        for lost in _BUFFER:
            self.values.pop(lost, None)
        for seen in self.values.values():
            seen.is_after_failure = True

    def _show(self, moment: Moment) -> None:
        kind, value = moment.kind, _shown(moment)
        if value is None:
            return
        seen = self.values.pop(kind, None)
        if seen is not None and _is_same_place(seen.moment, moment):
            if seen.value == value:
                self._agreed.add(kind)
            elif kind is _STATE:
                for lost in _BUFFER:  # there is none, or that of another session
                    self.values.pop(lost, None)
            elif seen.is_alone:
                self._disagreed.add(kind)
        if _is_owed(moment):
            self.values[kind] = _Value(value, moment)


@dataclass(slots=True)
class _Suspected:
    """What was shown before the first access that is in question."""

    seen: _Value
    suspect: Moment
    is_after_failure: bool


class Standing:
    """Values that have to stand while accesses pass that owe to change nothing.

    ``watched`` are the reads that show them: registers, and data of the current buffer.
    ``held`` is what there is to compare: without any, only a suspect matters.
    """

    def __init__(self, *watched: Kind) -> None:
        self._watched = watched
        self.held: dict[Kind, _Suspected] = {}

    def follow(self, moment: Moment, *, is_suspect: bool) -> Ruling | None:
        """Compare what a moment shows with what was shown before a suspect."""
        kind, held, ruling = moment.kind, self.held, None
        if kind in held and moment.ok:
            ruling = self._compare(moment)
        if is_suspect:
            self._suspect(moment)
        elif kind in _OUT_OF_ORDER:
            held.clear()
        elif not moment.ok:
            self._fail()
        if held:
            for moved in _MOVES.get(kind, ()):
                held.pop(moved, None)
        return ruling

    def _suspect(self, moment: Moment) -> None:
        position, held = moment.position, self.held
        if position.armed:  # the fault may go off here, with what it entails
            held.clear()
            return
        values = position.shown.values
        if not values:
            return
        for kind in self._watched:
            seen = values.get(kind)
            if seen is not None and kind not in held:
                held[kind] = _Suspected(seen, moment, seen.is_after_failure)

    def _fail(self) -> None:
        for lost in _BUFFER:
            self.held.pop(lost, None)
        for held in self.held.values():
            held.is_after_failure = True

    def _compare(self, moment: Moment) -> Ruling | None:
        kind, value = moment.kind, _shown(moment)
        held = self.held[kind]
        if value is None or not _is_same_place(held.seen.moment, moment):
            return None  # other data: what is in question may yet be read again
        del self.held[kind]
        if held.seen.value == value:
            return HELD
        if kind is _STATE:
            for lost in _BUFFER:
                self.held.pop(lost, None)
        if kind in _OF_BUFFER and not moment.position.shown.is_steady(kind):
            return None
        if held.is_after_failure and value == DeviceState.ERROR:
            return None  # what leads to ERROR is a matter of the transitions
        return _changed(moment, held, value)


def is_dead_space(moment: Moment) -> bool:
    """Tell whether a trapped access ends before the current buffer begins."""
    buffer = moment.position.buffer
    if buffer is None or moment.unseen or moment.kind not in _DATA_ACCESSES:
        return False
    return moment.offset + moment.size <= buffer.offset


def _is_same_place(one: Moment, other: Moment) -> bool:
    return one.offset == other.offset and one.size == other.size


def _shown(moment: Moment) -> int | str | None:
    """Return what a read shows; ``None`` where nobody saw it, or it is no buffer's."""
    kind, value = moment.kind, moment.value
    if kind is _DATA:
        return moment.data if moment.data and _is_of_buffer(moment) else None
    if kind is _STATE and value is not None:
        return value & VFIO_DEVICE_STATE_MASK
    return value


def _is_of_buffer(moment: Moment) -> bool:
    """Tell whether all that was read belongs to the current buffer."""
    buffer = moment.position.buffer
    return (
        buffer is not None
        and buffer.size is not None
        and buffer.offset <= moment.offset
        and moment.offset + moment.size <= buffer.offset + buffer.size
    )


def _is_owed(moment: Moment) -> bool:
    """Tell whether what a read shows is to be shown again."""
    kind, position = moment.kind, moment.position
    if kind not in _OF_BUFFER:
        return True
    if not position.pending or not position.is_saving:
        return False
    return kind is kinds.READ_DATA_OFFSET or _has_data(position)


def _has_data(position: Position) -> bool:
    """Tell whether there is a buffer, and none that is known to be empty."""
    return position.buffer is not None and position.buffer.size != 0


def _changed(moment: Moment, held: _Suspected, value: int | str) -> Broken:
    seen, suspect = held.seen, held.suspect
    if moment.kind is _DATA:
        name = f"the data at {moment.offset:#x}"
        expected, actual = f"{name} as it was", "other data"
    else:
        name = register_name(moment.kind)
        expected, actual = f"{name} = {seen.value:#x}", f"{name} = {value:#x}"
    return Broken(
        expected=expected,
        actual=actual,
        witnesses=(witness(seen.moment), witness(suspect), witness(moment)),
        because=(
            "B owes to change nothing;",
            f"nothing that may change {name} lies between A and C;",
            f"however, C has {actual}: a contradiction.",
        ),
    )


def register_name(kind: Kind) -> str:
    """Return the name of the register that a kind of access is for."""
    return kind.value.partition(" ")[2]


class ReadBack:
    """A register that must not take the value that is written to it.

    It ``remembers`` while there is anything to compare.
    """

    def __init__(self, register: str, *spoils: Kind) -> None:
        self._read = Kind(f"read {register}")
        self._write = Kind(f"write {register}")
        self._spoils = frozenset(spoils)
        # Moments, and not yet witnesses: one is made of each read.
        self._before: tuple[int, Moment] | None = None
        self._written: tuple[int, Moment] | None = None
        self.remembers = False

    def follow(self, moment: Moment, *, is_owed: bool) -> Ruling | None:
        """Compare a read with the write before it.

        ``is_owed`` says whether this read is to be given again by the next one.
        """
        kind, ruling = moment.kind, None
        if kind is self._read:
            ruling = self._compare(moment, is_owed=is_owed)
        elif kind is self._write:
            self._note_write(moment)
        elif self.remembers and kind in self._spoils:
            self._before = self._written = None
        else:
            return None
        self.remembers = self._before is not None or self._written is not None
        return ruling

    def _note_write(self, moment: Moment) -> None:
        value, before, self._written = moment.value, self._before, None
        # Zero and one are what a register may come to by itself.
        if value is not None and value > 1 and before is not None:
            self._written = (value, moment) if value != before[0] else None

    def _compare(self, moment: Moment, *, is_owed: bool) -> Ruling | None:
        before, written, value = self._before, self._written, moment.value
        self._before = self._written = None
        if value is None:
            return None
        if is_owed:
            self._before = (value, moment)
        if before is None or written is None:
            return None
        if value == before[0]:
            return HELD
        if value != written[0]:
            return None  # it changed, but not to this: pending_bytes is an estimate
        name = register_name(moment.kind)
        return Broken(
            expected=f"{name} = {before[0]:#x}",
            actual=f"{name} = {value:#x}",
            witnesses=(witness(before[1]), witness(written[1]), witness(moment)),
            because=(
                f"A has {name} = {before[0]:#x}, and B owes to change nothing;",
                f"however, C has {name} = {value:#x}, which B wrote: a contradiction.",
            ),
        )


class Refusals:
    """Whether a driver had an excuse for refusing an access that it has to grant."""

    def __init__(self) -> None:
        self._earlier: Witness | None = None

    def judge(self, moment: Moment) -> Broken | None:
        """Return what is broken by a refusal without an excuse."""
        earlier, self._earlier = self._earlier, None
        # EBADF is the answer of a fd that was closed; the driver was not asked.
        if not moment.errno or moment.errno == errno.EBADF or moment.died:
            return None
        self._earlier = witness(moment)
        position = moment.position
        if position.armed and (position.due or earlier is None):
            return None  # this may be where the fault goes off
        if position.state in _OUTSIDE_SESSIONS:
            because = "no session is open that could have an error to report;"
            return _refused(moment, because)
        if earlier is None:
            return None
        because = "A may have reported an error of the session, and it did;"
        return _refused(moment, because, earlier)


def _refused(moment: Moment, because: str, *earlier: Witness) -> Broken:
    letter = "B" if earlier else "A"
    return Broken(
        expected=f"the {moment.kind.value} succeeds",
        actual=moment.text,
        witnesses=(*earlier, witness(moment)),
        because=(because, f"however, {letter} failed: a contradiction."),
    )
