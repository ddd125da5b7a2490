"""Checks of the sequence of resuming, with the letters of linux/vfio.h.

Rule 1: the user application owes nothing more of the sequence once an access failed;
nor for bytes of a sparse mmap area, which nobody sees it write.

Rule 2: what a destination is given is held against what one source gave before, of the
same device: ``source/gpu0`` and ``destination/gpu0``.  Wherever it is not sure which
buffers there were, the rest of that stream is not judged.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.data_accesses import all_moved
from vfiomig.conformance.moment import during
from vfiomig.conformance.ruling import HELD, Broken, Witness, witness
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.ruling import Remembering, Ruling

# Buffers on their way that are remembered; a stream that is stored has more, and then
# it is not judged.
_ON_THEIR_WAY: Final = 1024


def in_sequence(moment: Moment) -> Ruling | None:
    """Each step of resuming comes where the sequence has it.

    Premise: device_state is RESUMING, and no access failed in this session.  Data is
    written from data_offset on, which was read since the last data_size, and data_size
    comes behind data (V1-RES-01).
    """
    position = moment.position
    if position.has_failed or moment.unseen:
        return None
    offset = position.load_offset
    if moment.kind is kinds.WRITE_DATA:
        if offset is None:
            return _out_of_sequence(moment, "data_offset first (a)", "data was written")
        if moment.offset < offset:
            return _out_of_sequence(
                moment,
                f"data from data_offset on, {offset:#x} (b)",
                f"data was written at {moment.offset:#x}",
            )
    elif moment.value:
        if offset is None:
            return _out_of_sequence(
                moment, "data_offset and the data first (a, b)", "data_size was written"
            )
        is_empty = not position.load_written
        if is_empty and not all_moved(moment, [], offset, moment.value):
            return _out_of_sequence(
                moment, "the data first (b)", "data_size was written (c)"
            )
    return HELD


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


def survives_any_content(moment: Moment) -> Ruling | None:
    """Whatever bytes and sizes are loaded, the driver answers, if only with an errno.

    Premise: device_state is RESUMING; its next value matters once data was given
    (V1-RES-07).
    """
    position = moment.position
    is_given = position.loaded or position.load_written
    if moment.kind is kinds.WRITE_DEVICE_STATE and not is_given:
        return None
    if not moment.died:
        return HELD
    return Broken(
        expected="success, or an errno",
        actual="the driver died",
        witnesses=(witness(moment),),
        because=(
            "the device is RESUMING, and what it is given may be anything;",
            "however, A brought the driver down.",
        ),
    )


# -- from source to destination --------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Sent:
    """A buffer of the source; ``data`` if it was read whole and in one access."""

    index: int
    size: int
    where: Witness
    data: str = ""


@dataclass(slots=True, kw_only=True)
class _Stream:
    """The buffers of one saving session that no destination has loaded yet."""

    source: str
    session: int
    buffers: deque[_Sent] = field(default_factory=deque)
    loading: tuple[str, int] | None = None  # destination, its session
    is_lost: bool = False

    def lose(self) -> None:
        """Judge no more of it."""
        self.is_lost = True
        self.buffers.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A buffer that a destination was given, and the one that was next."""

    next: _Sent
    is_known: bool  # some buffer on its way has this size
    is_next: bool  # in size, and in data as far as it was seen
    where: Witness
    size: int


class _Transfer:
    """Follows buffers from each source to its destination."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._written: dict[str, tuple[int, int, str]] = {}  # the last whole write

    def follow(self, moment: Moment) -> _Loaded | None:
        """Go on; return what a data_size write of a destination gave it."""
        key = moment.device.partition("/")[2]
        position = moment.position
        if position.is_resuming:
            return self._follow_destination(key, moment)
        if position.is_saving:
            self._follow_source(key, moment)
        return None

    # -- the source ------------------------------------------------------------------

    def _follow_source(self, key: str, moment: Moment) -> None:
        position, buffer = moment.position, moment.position.buffer
        stream = self._streams.get(key)
        if stream is None or (stream.source, stream.session) != (
            moment.device,
            position.session,
        ):
            is_mixed = stream is not None and stream.source != moment.device
            stream = _Stream(source=moment.device, session=position.session)
            stream.is_lost = is_mixed
            self._streams[key] = stream
        if position.has_failed:
            stream.lose()
        if stream.is_lost or buffer is None:
            return
        match moment.kind:
            case kinds.READ_DATA_SIZE:
                if buffer.size is None and moment.value:
                    self._send(stream, moment, buffer.index, moment.value)
            case kinds.READ_DATA:
                _note_data(stream, moment)
            case kinds.READ_PENDING_BYTES | kinds.WRITE_DEVICE_STATE | kinds.RESET:
                if moment.ok and not _keeps_state(moment):
                    _settle(stream, moment)

    def _send(self, stream: _Stream, moment: Moment, index: int, size: int) -> None:
        if len(stream.buffers) >= _ON_THEIR_WAY:
            stream.lose()
            return
        stream.buffers.append(_Sent(index=index, size=size, where=witness(moment)))

    # -- the destination -------------------------------------------------------------

    def _follow_destination(self, key: str, moment: Moment) -> _Loaded | None:
        if moment.kind is kinds.WRITE_DATA:
            whole = (moment.offset, moment.size, moment.data)
            self._written[moment.device] = whole
            return None
        stream, position = self._streams.get(key), moment.position
        if moment.kind is not kinds.WRITE_DATA_SIZE or stream is None:
            return None
        here = (moment.device, position.session)
        if stream.source == moment.device or stream.loading not in (None, here):
            stream.lose()
        stream.loading = here
        if position.has_failed or not stream.buffers:
            stream.lose()
        if stream.is_lost or not moment.value:
            return None
        data = self._data_of(moment)
        return _take(stream, moment, moment.value, data)

    def _data_of(self, moment: Moment) -> str:
        """Return the data that a data_size write is about, if it was one write."""
        offset, size, data = self._written.pop(moment.device, (0, 0, ""))
        is_whole = (offset, size) == (moment.position.load_offset, moment.value)
        return data if is_whole else ""


def _keeps_state(moment: Moment) -> bool:
    """Tell whether a write to device_state writes what it is: the buffer stays."""
    if moment.kind is not kinds.WRITE_DEVICE_STATE or moment.value is None:
        return False
    return moment.value & VFIO_DEVICE_STATE_MASK == moment.position.state


def _note_data(stream: _Stream, moment: Moment) -> None:
    buffer = moment.position.buffer
    assert buffer is not None
    is_whole = (moment.offset, moment.size) == (buffer.offset, buffer.size)
    if is_whole and moment.ok and stream.buffers:
        last = stream.buffers[-1]
        if last.index == buffer.index:
            last.data = moment.data


def _settle(stream: _Stream, moment: Moment) -> None:
    """Forget a buffer that was left before all of it was read: it is not sent."""
    buffer = moment.position.buffer
    assert buffer is not None
    is_last = stream.buffers and stream.buffers[-1].index == buffer.index
    if buffer.is_consumed or not is_last or buffer.size is None:
        return
    if all_moved(moment, buffer.read, buffer.offset, buffer.size):
        # Perhaps it was read, through a mapping.  Whoever asks for the next one says
        # so; whoever leaves the state does not.
        if moment.kind is not kinds.READ_PENDING_BYTES:
            stream.lose()
        return
    stream.buffers.pop()


def _take(stream: _Stream, moment: Moment, size: int, data: str) -> _Loaded:
    first = stream.buffers[0]
    is_known = any(each.size == size for each in stream.buffers)
    is_next = first.size == size
    if is_next and data and first.data and data != first.data:
        is_next = all(each.data != data for each in stream.buffers)
    loaded = _Loaded(
        next=first,
        is_known=is_known,
        is_next=is_next,
        where=witness(moment),
        size=size,
    )
    if is_next:
        stream.buffers.popleft()
    else:
        stream.lose()
    return loaded


def length_from_the_source() -> Remembering:
    """Every data_size at a destination is the size of a buffer that the source had.

    Premise: the history has the source's buffers, and up to here the destination was
    given just these (V1-RES-02).
    """
    transfer = _Transfer()
    ruling: Ruling | None = None
    while True:
        loaded = transfer.follow((yield ruling))
        if loaded is None or (loaded.is_known and not loaded.is_next):
            ruling = None
        elif loaded.is_known:
            ruling = HELD
        else:
            ruling = Broken(
                expected=f"data_size = {loaded.next.size:#x}",
                actual=f"data_size = {loaded.size:#x}",
                witnesses=(loaded.next.where, loaded.where),
                because=(
                    "A is the size of the buffer that the destination is to get next;",
                    f"however, B has data_size = {loaded.size:#x}, the size of no "
                    "buffer on its way.",
                ),
            )


def order_and_sizes_kept() -> Remembering:
    """Buffers reach a destination in the source's order and sizes.

    Premise: as of `length_from_the_source` (V1-RES-03).
    """
    transfer = _Transfer()
    ruling: Ruling | None = None
    while True:
        loaded = transfer.follow((yield ruling))
        if loaded is None:
            ruling = None
        elif loaded.is_next:
            ruling = HELD
        else:
            size = loaded.next.size
            same = "with the data of a later one" if loaded.size == size else "not that"
            ruling = Broken(
                expected=f"the buffer of {size:#x} bytes",
                actual=f"one of {loaded.size:#x} bytes, {same}",
                witnesses=(loaded.next.where, loaded.where),
                because=(
                    "A is the size of the buffer that the destination is to get next;",
                    f"however, B gives it {loaded.size:#x} bytes, {same}.",
                ),
            )


_TRANSFER: Final = (
    kinds.READ_DATA_SIZE,
    kinds.READ_DATA,
    kinds.READ_PENDING_BYTES,
    kinds.WRITE_DEVICE_STATE,
    kinds.RESET,
    kinds.WRITE_DATA,
    kinds.WRITE_DATA_SIZE,
)

_GIVEN: Final = (kinds.WRITE_DATA, kinds.WRITE_DATA_SIZE)
_RESUMING: Final = (DeviceState.RESUMING,)

CHECKS: Final = {
    in_sequence: during(_RESUMING, *_GIVEN),
    survives_any_content: during(_RESUMING, *_GIVEN, kinds.WRITE_DEVICE_STATE),
    length_from_the_source: _TRANSFER,
    order_and_sizes_kept: _TRANSFER,
}
ACROSS: Final = frozenset({length_from_the_source, order_and_sizes_kept})
