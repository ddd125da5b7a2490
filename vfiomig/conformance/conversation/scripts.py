"""Conversations that are always held, before any that chance makes.

Each stands for what published bugs were found by, or should have been: sequences and
sessions first, single accesses last (kernel_uapi.md, section A.3; bugs.md).  They are
steps, so that they are stored, replayed and shortened like all others.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.steps import Step, step
from vfiomig.conformance.conversation.stream import DAMAGES
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from collections.abc import Iterator

_S, _D, _T = "source", "destination", "third"
_STOP, _RUNNING, _STOP_AND_COPY, _PRE_COPY, _RESUMING = 0, 1, 2, 3, 4
_VALID: Final = (_STOP, _RUNNING, _STOP_AND_COPY, _PRE_COPY, _RESUMING)

_REGISTERS: Final = ("reserved", "pending_bytes", "data_offset", "data_size")

# How the bench gets a fresh device into a state, by drawn arcs and one that QEMU needs.
_WAY_TO: Final = {
    _STOP: (_STOP,),
    _RUNNING: (),
    _STOP_AND_COPY: (_STOP_AND_COPY,),
    _PRE_COPY: (_PRE_COPY,),
    _RESUMING: (_RESUMING,),
}

_ODD: Final = (
    *((0, size) for size in (1, 2, 3, 5, 8, 16, 32)),
    *((offset, 1) for offset in (1, 3, 4, 8, 16, 24, 31)),
    *((offset, 2) for offset in (2, 6, 10, 26)),
    *((offset, 4) for offset in (2, 8, 12, 16, 20, 24, 28, 30)),
    *((offset, 8) for offset in (4, 12, 20, 28)),
    *((offset, 12) for offset in (4, 20)),
    *((offset, 16) for offset in (8, 16, 24)),
)

_SITES: Final = ("device_state", "pending_bytes", "data_offset", "data_size", "data")
_CODES: Final = (errno.EIO, errno.ENOTRECOVERABLE)


def _enter(role: str, *states: int) -> list[Step]:
    return [step("enter", role, state) for state in states]


def _arrive(role: str = _D, how: str = "whole") -> list[Step]:
    return [
        *_enter(role, _RESUMING),
        step("load", role, how),
        *_enter(role, _RUNNING),
    ]


def _save(role: str = _S, how: str = "whole") -> list[Step]:
    return [*_enter(role, _STOP_AND_COPY), step("drain", role, how)]


def _pre_copy(role: str = _S, how: str = "whole", rounds: int = 2) -> list[Step]:
    steps = _enter(role, _PRE_COPY)
    for _ in range(rounds):
        steps += [step("iterate", role, 3, how), step("work", role, 5)]
    return steps


def round_trips() -> Iterator[list[Step]]:
    """Yield migrations that must end in equal states."""
    work = step("work", _S, 7)
    for how in ("whole", "mapped", "halves", "bytes", "words", "odd"):
        writing = how if how != "mapped" else "whole"
        yield [work, *_save(_S, how), *_enter(_S, _STOP), *_arrive(_D, writing)]
        yield [work, *_pre_copy(_S, how), *_save(_S, how), *_arrive(_D, writing)]
    yield [*_save(), *_enter(_S, _STOP), *_arrive()]
    yield [work, *_enter(_S, _STOP), *_save(), *_arrive()]
    yield [work, *_enter(_S, _PRE_COPY), *_save(), *_enter(_S, _STOP), *_arrive()]
    # Long pre-copy: all that there is, and again what has changed since.
    drained = [step("drain", _S), step("work", _S, 3)]
    yield [work, *_enter(_S, _PRE_COPY), *drained, *drained, *_save(), *_arrive()]
    # A to B to A, A to B to C, and the same once more.
    there = [work, *_pre_copy(), *_save(), *_enter(_S, _STOP), *_arrive()]
    onward = [step("work", _D, 4), *_save(_D), *_enter(_D, _STOP)]
    yield [*there, *onward, *_arrive(_S)]
    yield [*there, *onward, *_arrive(_T)]
    yield [*there, *onward, *_arrive(_S), step("work", _S, 2), *_save(_S), *_arrive(_D)]
    # Many small rounds: chunk counts beyond 256 where chunks are that small.
    busy = [step("iterate", _S, 40), step("work", _S, 9)] * 12
    yield [work, *_enter(_S, _PRE_COPY), *busy, *_save(), *_arrive()]


def interrupted_sessions() -> Iterator[list[Step]]:
    """Yield migrations behind sessions that were given up, or hold a loose end."""
    work = step("work", _S, 7)
    to_running = _enter(_S, _RUNNING)
    loose_ends: tuple[list[Step], ...] = (
        [],
        [step("read_pending_bytes", _S)],
        [step("read_pending_bytes", _S), step("read_data_offset", _S)],
        [*_buffer(_S)[:3]],
        [*_buffer(_S)],
        [*_buffer(_S), step("read_pending_bytes", _S), *_buffer(_S)[1:3]],
    )
    for loose in loose_ends:
        yield [work, *_enter(_S, _PRE_COPY), *loose, *_save(), *_arrive()]
        yield [work, *_enter(_S, _PRE_COPY), *loose, *to_running, *_save(), *_arrive()]
        yield [work, *_enter(_S, _STOP_AND_COPY), *loose, *to_running, *_save()]
        stopped = [*_enter(_S, _STOP_AND_COPY), *loose, *to_running, work]
        yield [work, *stopped, *_pre_copy(), *_save(), *_arrive()]
        reset = [step("reset", _S), work]
        yield [work, *_enter(_S, _PRE_COPY), *loose, *reset, *_save(), *_arrive()]
        yield [work, *_enter(_S, _STOP_AND_COPY), *loose, *reset, *_save(), *_arrive()]
        reopened = [step("reopen", _S), work]
        yield [work, *_enter(_S, _PRE_COPY), *loose, *reopened, *_save(), *_arrive()]
    # Save twice; the same from STOP to STOP.
    yield [work, *_save(), *_enter(_S, _STOP), *_save(), *_arrive()]
    yield [work, *_save(), *to_running, work, *_save(), *_arrive()]
    yield [work, *_pre_copy(), *_save(), *to_running, work, *_pre_copy(), *_save()]
    # The destination did something else before.
    used = [step("work", _D, 11)]
    yield [work, *_save(), *used, *_arrive()]
    yield [work, *_save(), *used, step("reset", _D), *_arrive()]
    yield [work, *_save(), *_arrive(), step("work", _D, 3), *_arrive()]
    half = [*_enter(_D, _RESUMING), step("load_damaged", _D, "without its end")]
    for way_back in (
        [step("reset", _D)],
        [*_enter(_D, _RUNNING), step("reset", _D)],
        [step("reopen", _D)],
        [*_enter(_D, _STOP)],
    ):
        yield [work, *_save(), *half, *way_back, *_arrive()]
    yield [work, *_save(), *_enter(_D, _RESUMING), step("reset", _D), *_arrive()]


def _buffer(role: str) -> list[Step]:
    return [
        step("read_pending_bytes", role),
        step("read_data_offset", role),
        step("read_data_size", role),
        step("read_data", role),
    ]


def repeated_reads() -> Iterator[list[Step]]:
    """Yield sessions with reads that must have no effect."""
    work = step("work", _S, 7)
    pending = step("read_pending_bytes", _S)
    offset = step("read_data_offset", _S)
    size = step("read_data_size", _S)
    data = step("read_data", _S)
    for way in (_PRE_COPY, _STOP_AND_COPY):
        entered = [work, *_enter(_S, way)]
        twice = [pending, pending, pending, offset, size, data, pending]
        yield [*entered, *twice, *twice, *_save(), *_arrive()]
        again = [pending, offset, offset, size, size, offset, size, data, data, pending]
        yield [*entered, *again, *again, *again, *_save(), *_arrive()]
        mapped = step("read_data", _S, "mapped")
        yield [*entered, pending, offset, size, data, mapped, data, pending, *_save()]
        # V1-PEND-15: the user application's own fault must kill nothing.
        yield [*entered, pending, offset, pending, offset, size, pending, *_save()]
        yield [*entered, size, offset, data, size, pending, step("drain", _S)]
        yield [*entered, step("drain", _S), pending, pending, offset, size, pending]
    for state in _VALID:
        reads = [step("read_register", _S, name) for name in _REGISTERS]
        states = [step("read_device_state", _S)] * 3
        yield [work, *_enter(_S, *_WAY_TO[state]), *states, *reads, *reads, *states]


def damaged_streams() -> Iterator[list[Step]]:
    """Yield migrations of streams that no destination may run with."""
    work = step("work", _S, 7)
    for before in (_save(), [*_pre_copy(), *_save()]):
        for damage in DAMAGES:
            places = (0, 77, 1013, 40009) if damage == "a bit flipped" else (0,)
            for place in places:
                bad = step("load_damaged", _D, damage, place)
                steps = [work, *before, *_enter(_D, _RESUMING), bad]
                yield [*steps, *_enter(_D, _RUNNING), step("reset", _D), *_arrive()]
    for size in (0, 1, 2**31, 2**32, 2**63, 2**64 - 1):
        bad = step("write_register", _D, "data_size", size)
        steps = [work, *_save(), *_enter(_D, _RESUMING), bad]
        yield [*steps, *_enter(_D, _RUNNING), step("reset", _D), *_arrive()]
    filled = [*_enter(_D, _RESUMING), step("load", _D, "filled")]
    yield [work, *_save(), *filled, *_enter(_D, _RUNNING)]
    window = step("overwrite_window", _D)
    loaded = [*_enter(_D, _RESUMING), step("load", _D), window]
    yield [work, *_save(), *loaded, *_enter(_D, _RUNNING)]


def arcs() -> Iterator[list[Step]]:
    """Yield every arc of the table, and what comes behind it."""
    work = step("work", _S, 5)
    for source in _VALID:
        for target in range(8):
            way = [work, *_enter(_S, *_WAY_TO[source]), *_enter(_S, target)]
            yield [*way, step("read_device_state", _S), step("reset", _S)]
    # A refused request must leave the session as it was.
    for refused in (5, 6, 7):
        for state in (_PRE_COPY, _STOP_AND_COPY):
            loose = [step("iterate", _S, 1), step("read_pending_bytes", _S)]
            queued = [step("read_data_offset", _S)]
            steps = [work, *_enter(_S, state), *loose, *_enter(_S, refused), *loose]
            yield [*steps, *_save(), *_arrive()]
            steps = [work, *_enter(_S, state), *loose, *queued, *_enter(_S, refused)]
            rest = [step("read_data_size", _S), step("read_data", _S)]
            yield [*steps, *rest, step("read_pending_bytes", _S), *_save(), *_arrive()]
        bad = _enter(_D, refused)
        yield [work, *_save(), *_enter(_D, _RESUMING), *bad, *_load_run(), *bad]
    # So must the same state, written again.
    for state in (_PRE_COPY, _STOP_AND_COPY):
        same = _enter(_S, state)
        queued = _buffer(_S)[:2]
        yield [work, *same, step("iterate", _S, 1), *same, *_save(), *_arrive()]
        rest = [step("read_data_size", _S), step("read_data", _S)]
        steps = [work, *same, *queued, *same, *rest, step("read_pending_bytes", _S)]
        yield [*steps, *_save(), *_arrive()]
    again = _enter(_D, _RESUMING)
    yield [work, *_save(), *again, step("load", _D), *again, *_enter(_D, _RUNNING)]
    # The bits above the third are not the state.
    for value in (0x80000001, 0xFFFFFFF9, 0x00000009, 0x8, 0x80000002):
        yield [work, *_enter(_S, value), *_enter(_S, _RUNNING), *_save()]


def _load_run() -> list[Step]:
    return [step("load", _D), *_enter(_D, _RUNNING)]


def stray_accesses() -> Iterator[list[Step]]:
    """Yield accesses that nobody should make, in every state."""
    work = step("work", _S, 5)
    for state in _VALID:
        way = [work, *_enter(_S, *_WAY_TO[state])]
        reads = [step("read_odd", _S, *place) for place in _ODD]
        writes = [step("write_odd", _S, *place) for place in _ODD]
        end = [*_enter(_S, _RUNNING), *_save(), *_arrive()]
        if state in (_PRE_COPY, _STOP_AND_COPY):
            end = [step("drain", _S), *_save(), *_arrive()]
        yield [*way, *reads, *end]
        yield [*way, *writes, *end]
        for register in _REGISTERS:
            if register == "data_size" and state == _RESUMING:
                continue
            values = (0, 1, 0xFFFFFFFF)
            stray = [step("write_register", _S, register, value) for value in values]
            seen = step("read_register", _S, "reserved")
            yield [*way, *stray, seen, step("read_device_state", _S), *end]
            if state in (_PRE_COPY, _STOP_AND_COPY):
                queued = [*_buffer(_S)[:3], *stray, *_buffer(_S)[1:]]
                yield [*way, *queued, step("read_pending_bytes", _S), *end]
    yield [work, *_save(), *_enter(_D, _RESUMING), *_strays_while_loading()]


def _strays_while_loading() -> list[Step]:
    odd = [step("read_odd", _D, 0, 1), step("write_odd", _D, 24, 4)]
    stray = [step("write_register", _D, "reserved", 0xFFFFFFFF)]
    return [*odd, *stray, step("load", _D), *_enter(_D, _RUNNING)]


def stopped_devices() -> Iterator[list[Step]]:
    """Yield devices that are stopped, with work that must not reach them."""
    work = step("work", _S, 7)
    snapshot = step("snapshot", _S)
    watched = step("watch_work", _S, 9)
    for state in _VALID:
        yield [watched, *_enter(_S, *_WAY_TO[state]), watched]
    for state in (_STOP, _STOP_AND_COPY, _RESUMING):
        way = [work, *_enter(_S, *_WAY_TO[state])]
        look = [snapshot, work, snapshot, step("read_device_state", _S), work, snapshot]
        yield [*way, *look, *_enter(_S, _RUNNING)]
    yield [work, *_enter(_S, _STOP_AND_COPY), work, step("drain", _S), work, *_arrive()]
    yield [work, *_pre_copy(), *_enter(_S, _STOP_AND_COPY), work, *_save(), *_arrive()]
    for state in _VALID:
        end = [snapshot, step("reset", _S), step("read_device_state", _S), snapshot]
        yield [work, *_enter(_S, *_WAY_TO[state]), step("iterate", _S, 2), *end]
        yield [work, *_enter(_S, *_WAY_TO[state]), step("reopen", _S), snapshot]


def faults() -> Iterator[list[Step]]:
    """Yield faults inside the device, at every access and every arc."""
    work = step("work", _S, 7)
    for code in _CODES:
        for source in _VALID:
            for target in _VALID:
                if source == target:
                    continue
                way = [work, *_enter(_S, *_WAY_TO[source])]
                bad = [step("fail", _S, "device_state", code), *_enter(_S, target)]
                after = [*_enter(_S, _RUNNING), step("reset", _S), work, *_save()]
                yield [*way, *bad, *after, *_arrive()]
        for state in (_PRE_COPY, _STOP_AND_COPY):
            for site in _SITES[1:]:
                bad = [step("fail", _S, site, code), step("iterate", _S, 2)]
                after = [*_enter(_S, _RUNNING), step("reset", _S), work, *_save()]
                yield [work, *_enter(_S, state), *bad, *after, *_arrive()]
        for site in _SITES:
            bad = [step("fail", _D, site, code), step("load", _D)]
            tried = [*_enter(_D, _RUNNING), step("reset", _D), *_arrive()]
            yield [work, *_save(), *_enter(_D, _RESUMING), *bad, *tried]
    broken = [step("fail", _S, "device_state", errno.ENOTRECOVERABLE), *_enter(_S, 0)]
    for target in range(8):
        yield [work, *broken, *_enter(_S, target), step("snapshot", _S), work]


_GROUPS: Final = (
    round_trips,
    interrupted_sessions,
    repeated_reads,
    arcs,
    stopped_devices,
    damaged_streams,
    stray_accesses,
    faults,
)


def scripts() -> tuple[tuple[Step, ...], ...]:
    """Return all of them, in the order in which they are held."""
    assert set(_VALID) < {int(state) for state in DeviceState}
    return tuple(tuple(steps) for group in _GROUPS for steps in group())
