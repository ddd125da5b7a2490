"""Where the conversation with one device stands, as far as its history shows.

It is what both parties may know: nothing in it is believed of a device that was not
seen.  So a failed write to device_state leaves the state unknown until it is read, and
a mapping leaves data unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.standing import Shown
from vfiomig.protocol.v1.states import (
    DEFAULT_STATE,
    ArcClass,
    DeviceState,
    arc_between,
)
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.moment import Kind, Moment

Range = tuple[int, int]  # offset, size

_NEVER_GRANTED: Final = (ArcClass.INV, ArcClass.ERRW)
SAVING: Final = (DeviceState.PRE_COPY, DeviceState.STOP_AND_COPY)
SESSIONS: Final = (*SAVING, DeviceState.RESUMING)
# Where there may be a buffer: a write that fails leaves it, and the state unknown.
WITH_BUFFER: Final = (*SAVING, None)
_RUNNING: Final = (DeviceState.RUNNING, DeviceState.PRE_COPY)

# Which accesses a fault that the bench armed under a name shows itself at.
_FAULT_AT: Final = {
    kinds.READ_DEVICE_STATE: ("device_state",),
    kinds.WRITE_DEVICE_STATE: ("device_state",),
    kinds.READ_PENDING_BYTES: ("pending_bytes", "data"),
    kinds.READ_DATA_OFFSET: ("data_offset", "data"),
    kinds.READ_DATA_SIZE: ("data_size", "data"),
    kinds.WRITE_DATA_SIZE: ("data_size", "data"),
    kinds.READ_DATA: ("data",),
    kinds.WRITE_DATA: ("data",),
}

# A history of a million one-byte reads must not become a million ranges.
RANGES_LIMIT: Final = 64


def _add(ranges: list[Range], offset: int, size: int) -> None:
    """Add a range, joined with the last one where it goes on from there."""
    if ranges:
        first, length = ranges[-1]
        if first <= offset <= first + length:
            ranges[-1] = (first, max(length, offset + size - first))
            return
    if len(ranges) >= RANGES_LIMIT:
        ranges.sort()
        joined = [ranges[0]]
        for each in ranges[1:]:
            _add(joined, *each) if len(joined) < RANGES_LIMIT else joined.append(each)
        ranges[:] = joined[-RANGES_LIMIT:]
    ranges.append((offset, size))


def covers(ranges: list[Range], offset: int, size: int) -> bool:
    """Tell whether the ranges together have every byte of another one."""
    end = offset + size
    if len(ranges) == 1:  # as it mostly is: one read of all that there is
        first, length = ranges[0]
        return size <= 0 or (first <= offset and end <= first + length)
    for first, length in sorted(ranges):
        if first > offset:
            break
        offset = max(offset, first + length)
    return offset >= end


@dataclass(slots=True, kw_only=True)
class Buffer:
    """The current buffer: between the read of data_offset and that of pending_bytes."""

    offset: int
    index: int
    number: int
    size: int | None = None
    size_index: int | None = None
    read: list[Range] = field(default_factory=list)

    @property
    def is_consumed(self) -> bool:
        """Whether the user application has read all of it."""
        return self.size is not None and covers(self.read, self.offset, self.size)


@dataclass(slots=True, kw_only=True)
class Position:
    """Facts about one device; `follow` changes them, after the checks saw a moment.

    A fault is ``due`` until an access that it shows itself at fails: only so long can
    it be missed, and not behind a reset, which may have disarmed it.  It stays
    ``armed`` until a reset that finds it gone off: an access that failed may have been
    refused for another reason, with the fault still to come.  Only where the very next
    access has to show it, it is ``owed``: armed twice, it may go off once or twice.
    """

    state: int | None = int(DEFAULT_STATE)
    state_before_failure: int | None = None
    attempted: int | None = None
    raw_state: int | None = None
    session: int = 0
    pending: int | None = None
    buffer: Buffer | None = None
    drained: bool = False
    buffers: int = 0
    load_offset: int | None = None
    load_written: list[Range] = field(default_factory=list)
    loaded: int = 0
    armed: tuple[str, ...] = ()
    due: tuple[str, ...] = ()
    owed: frozenset[str] = frozenset()
    may_be_disarmed: bool = False
    has_failed: bool = False
    has_died: bool = False
    mapped: bool = False
    shown: Shown = field(default_factory=Shown)
    # Whether device_state is known to be one of those; they are told by `state`.
    is_saving: bool = field(init=False)
    is_running: bool = field(init=False)
    is_resuming: bool = field(init=False)
    in_error: bool = field(init=False)

    def __post_init__(self) -> None:
        self._be_in(self.state)

    def _be_in(self, state: int | None) -> None:
        """Note the state, and what checks ask of it at nearly every access."""
        self.state = state
        self.is_saving = state in SAVING
        self.is_running = state in _RUNNING
        self.is_resuming = state == DeviceState.RESUMING
        self.in_error = state == DeviceState.ERROR

    def follow(self, moment: Moment) -> None:
        """Go on behind a moment."""
        self.shown.follow(moment)
        if not moment.ok:
            self._follow_trouble(moment)
        step = _STEPS.get(moment.kind)
        if step is not None:
            step(self, moment)

    def _follow_trouble(self, moment: Moment) -> None:
        if moment.died:
            self._lose_state()
            self.has_died = True
        is_short = moment.kind is kinds.READ_DATA and 0 < moment.moved < moment.size
        if not is_short and moment.kind is not kinds.FAIL:
            self._follow_failure(moment)

    def _lose_state(self) -> None:
        self.state_before_failure = self.state
        self._be_in(None)

    def _follow_failure(self, moment: Moment) -> None:
        self.has_failed |= not self._is_due_refusal(moment)
        self.owed = self.owed.difference(_FAULT_AT.get(moment.kind, ()))
        for site in _FAULT_AT.get(moment.kind, ()):
            if site in self.due:
                due = list(self.due)
                due.remove(site)
                self.due = tuple(due)
                return

    def _is_due_refusal(self, moment: Moment) -> bool:
        """Tell whether a write asked for what no driver may grant (V1-TRANS-30)."""
        is_asked = moment.kind is kinds.WRITE_DEVICE_STATE and moment.errno
        if not is_asked or self.state is None or moment.value is None:
            return False
        return arc_between(self.state, moment.value).arc_class in _NEVER_GRANTED

    # -- device_state ----------------------------------------------------------------

    def _read_device_state(self, moment: Moment) -> None:
        if moment.value is None:
            return
        self.raw_state = moment.value
        state = moment.value & VFIO_DEVICE_STATE_MASK
        if self.state is None:
            settled = self.state_before_failure
            if settled is not None and state != settled:
                self._enter(settled, state)
            self._be_in(state)
        elif state != self.state:  # it moved by itself, and some check says so
            self._enter(self.state, state)
        self.state_before_failure = self.attempted = None

    def _write_device_state(self, moment: Moment) -> None:
        if moment.value is None:
            return
        target = moment.value & VFIO_DEVICE_STATE_MASK
        if moment.ok:
            if self.state is None:  # which session this is, nobody knows
                self._enter(None, target)
                self.has_failed = True
            elif target != self.state:
                self._enter(self.state, target)
            self.state_before_failure = self.attempted = None
        else:
            if self.state is not None:
                self.state_before_failure = self.state
            self._be_in(None)
            self.attempted = target

    def _enter(self, source: int | None, target: int) -> None:
        """Follow a change of device_state."""
        was_saving = source in SAVING
        begins = (target in SAVING and not was_saving) or (
            target == DeviceState.RESUMING and source != target
        )
        if begins:
            self.session += 1
            self.buffers = self.loaded = 0
            self.has_failed = False
        self._be_in(target)
        self.pending = self.buffer = self.load_offset = None
        self.load_written = []
        self.drained = False

    def _reset(self, moment: Moment) -> None:
        if moment.ok:
            self._enter(None, int(DEFAULT_STATE))
            self.state_before_failure = self.attempted = self.raw_state = None
            self.armed, self.may_be_disarmed = self.due, True
            self.owed = frozenset()
            self.has_failed = self.has_died = False
        else:
            self._lose_state()

    # -- saving ------------------------------------------------------------------------

    def _read_pending_bytes(self, moment: Moment) -> None:
        self.pending = moment.value
        if moment.value is None or not self.is_saving:
            return
        self.buffer = None
        if self.state == DeviceState.STOP_AND_COPY and not moment.value:
            self.drained = True

    def _read_data_offset(self, moment: Moment) -> None:
        if moment.value is None:
            return
        if self.is_resuming:
            self.load_offset = moment.value
        elif self.is_saving and self.buffer is None:
            self.buffer = Buffer(
                offset=moment.value, index=moment.index, number=self.buffers
            )
            self.buffers += 1

    def _read_data_size(self, moment: Moment) -> None:
        if moment.value is None or self.buffer is None or not self.is_saving:
            return
        if self.buffer.size is None:
            self.buffer.size = moment.value
            self.buffer.size_index = moment.index

    def _read_data(self, moment: Moment) -> None:
        if self.buffer is not None and (moment.moved or moment.unseen):
            size = moment.size if moment.unseen else moment.moved
            _add(self.buffer.read, moment.offset, size)

    # -- resuming ----------------------------------------------------------------------

    def _write_data(self, moment: Moment) -> None:
        if self.is_resuming and (moment.moved or moment.unseen):
            size = moment.size if moment.unseen else moment.moved
            _add(self.load_written, moment.offset, size)

    def _write_data_size(self, moment: Moment) -> None:
        if not self.is_resuming or not moment.ok:
            return
        self.loaded += bool(moment.value)
        self.load_offset, self.load_written = None, []

    # -- the rest ----------------------------------------------------------------------

    def _odd(self, moment: Moment) -> None:
        self.has_failed = True
        if moment.kind is kinds.WRITE_ODD and moment.ok and moment.offset < 4:
            # Undefined, and perhaps it did move the device.
            self._lose_state()

    def _note_strange(self, moment: Moment) -> None:
        self.has_failed = True

    def _map(self, moment: Moment) -> None:
        self.mapped |= moment.ok

    def _fail(self, moment: Moment) -> None:
        self.armed = (*self.armed, moment.on)
        before = () if self.may_be_disarmed else self.due
        self.due = (*before, moment.on)
        self.owed |= {moment.on}
        self.may_be_disarmed = False


_STEPS: Final[dict[Kind, Callable[[Position, Moment], None]]] = {
    kinds.READ_DEVICE_STATE: Position._read_device_state,
    kinds.WRITE_DEVICE_STATE: Position._write_device_state,
    kinds.READ_PENDING_BYTES: Position._read_pending_bytes,
    kinds.READ_DATA_OFFSET: Position._read_data_offset,
    kinds.READ_DATA_SIZE: Position._read_data_size,
    kinds.WRITE_DATA_SIZE: Position._write_data_size,
    kinds.WRITE_PENDING_BYTES: Position._note_strange,
    kinds.WRITE_DATA_OFFSET: Position._note_strange,
    kinds.READ_DATA: Position._read_data,
    kinds.WRITE_DATA: Position._write_data,
    kinds.READ_ODD: Position._odd,
    kinds.WRITE_ODD: Position._odd,
    kinds.MMAP: Position._map,
    kinds.RESET: Position._reset,
    kinds.FAIL: Position._fail,
}
