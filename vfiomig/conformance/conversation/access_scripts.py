"""Conversations about single accesses: every arc, every stray access, every fault."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.conversation.passages import (
    DESTINATION,
    NEVER_VALID,
    PRE_COPY,
    RESUMING,
    RUNNING,
    SAVING,
    SOURCE,
    STOP,
    STOP_AND_COPY,
    VALID,
    arrive,
    buffer,
    enter,
    pre_copy,
    save,
    way_to,
    work,
)
from vfiomig.conformance.conversation.steps import Step, step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.conversation.passages import Steps

_REGISTERS: Final = ("reserved", "pending_bytes", "data_offset", "data_size")

_ODD: Final = (
    *((0, size) for size in (1, 2, 3, 5, 8, 16, 32)),
    *((offset, 1) for offset in (1, 3, 4, 8, 16, 24, 31)),
    *((offset, 2) for offset in (2, 6, 10, 26)),
    *((offset, 4) for offset in (2, 8, 12, 16, 20, 24, 28, 30)),
    *((offset, 8) for offset in (4, 12, 20, 28)),
    *((offset, 12) for offset in (4, 20)),
    *((offset, 16) for offset in (8, 16, 24)),
)
_DEAD: Final = ((32, 1), (32, 4), (33, 1), (40, 8), (64, 64))  # if it is dead there
_DEAD_READS: Final = [step("read_odd", SOURCE, *place) for place in _DEAD]
_ODD_READS: Final = [step("read_odd", SOURCE, *place) for place in _ODD]
_ODD_WRITES: Final = [step("write_odd", SOURCE, *place) for place in _ODD]

# None of them is what a register holds, or may come to by itself.
_VALUES: Final = (0, 1, 0x1234_5678, 0xFFFF_FFFF)

_SITES: Final = ("device_state", "pending_bytes", "data_offset", "data_size", "data")
_CODES: Final = (errno.EIO, errno.ENOTRECOVERABLE)


def arcs() -> Iterator[Steps]:
    """Yield every arc of the table, and what comes behind it."""
    for source in VALID:
        for target in range(8):
            way = [work(), *way_to(SOURCE, source), *enter(SOURCE, target)]
            yield [*way, step("read_device_state", SOURCE), step("reset", SOURCE)]
    # Nor is a state that nobody has one with reserved bits beside it.
    for state in (RUNNING, STOP_AND_COPY):
        yield [*way_to(SOURCE, state), *enter(SOURCE, 0xD, 0xE, 0xF, 1 << 31 | 5)]
    # One that has succeeded once has to in every state.
    reset = step("reset", SOURCE)
    for state in VALID:
        used = [work(), reset, work(), *way_to(SOURCE, state)]
        yield [*used, reset, step("read_device_state", SOURCE)]
    # A refused request must leave the session as it was; so must the same state.
    for state in SAVING:
        for asked in (*NEVER_VALID, state):
            yield from _asked_within(state, enter(SOURCE, asked))
    # What may be refused, and then must leave the session as it was, too.
    for state in SAVING:
        for asked in VALID:
            if asked not in (state, STOP_AND_COPY):
                yield from _asked_within(state, enter(SOURCE, asked))
    loaded = step("load", DESTINATION)
    resuming, run = enter(DESTINATION, RESUMING), enter(DESTINATION, RUNNING)
    for asked in (*NEVER_VALID, RESUMING):
        extra = enter(DESTINATION, asked)
        yield [work(), *save(), *resuming, *extra, loaded, *run]
        yield [work(), *save(), *resuming, loaded, *extra, *run, *extra]
    # The bits above the third are not the state; QEMU writes back what it read.
    for source in VALID:
        way = way_to(SOURCE, source)
        for target in VALID:
            yield [*way, step("request_as_read", SOURCE, target)]
    for value in (0x80000001, 0xFFFFFFF9, 0x00000009, 0x8, 0x80000002):
        yield [work(), *enter(SOURCE, value), *enter(SOURCE, RUNNING), *save()]


def _asked_within(state: int, asked: Steps) -> Iterator[Steps]:
    """Yield a session in which a state is asked for that must change nothing."""
    begun = [work(), *enter(SOURCE, state)]
    pending, offset, size, data = buffer(SOURCE)
    between = [step("iterate", SOURCE, 1), pending]
    yield [*begun, *between, *asked, *between, *save(), *arrive()]
    known = [pending, offset, size, data, offset, size, data]
    again = [offset, size, data]
    yield [*begun, *known, *asked, *again, pending, *save(), *arrive()]
    queued = [pending, offset, *asked]
    yield [*begun, *queued, *again, pending, *save(), *arrive()]
    yield [*begun, *queued, *save(), *arrive()]
    yield [*begun, step("drain", SOURCE), *asked, pending, *save(), *arrive()]


def stray_accesses() -> Iterator[Steps]:
    """Yield accesses that nobody should make, in every state."""
    strays: tuple[Steps, ...] = (
        _ODD_READS,
        _ODD_WRITES,
        _DEAD_READS,
        [step("read_device_state", SOURCE)],
        *(_written(register) for register in _REGISTERS),
    )
    for state in VALID:
        reads = [step("read_register", SOURCE, name) for name in _REGISTERS]
        states = [step("read_device_state", SOURCE)] * 3
        way = [work(), *way_to(SOURCE, state)]
        yield [*way, *states, *reads, *reads, *states]
        for stray in strays:
            if state in SAVING:
                yield from _strays_within(state, stray)
            else:
                end = [*enter(SOURCE, RUNNING), *save(), *arrive()]
                yield [*way, *_each_seen(stray), *end]
    odd = [step("read_odd", DESTINATION, 0, 1), step("write_odd", DESTINATION, 24, 4)]
    reserved = [step("write_register", DESTINATION, "reserved", 0xFFFF_FFFF)]
    resuming, run = enter(DESTINATION, RESUMING), enter(DESTINATION, RUNNING)
    loaded = step("load", DESTINATION)
    for stray in (odd, reserved):
        yield [work(), *save(), *resuming, *stray, loaded, *run]
        yield [work(), *save(), *resuming, loaded, *stray, *run]


def _written(register: str) -> Steps:
    return [step("write_register", SOURCE, register, value) for value in _VALUES]


def _each_seen(strays: Steps) -> Steps:
    """Return each stray access with a look at the registers behind it."""
    state = step("read_device_state", SOURCE)
    reserved = step("read_register", SOURCE, "reserved")
    return [each for stray in strays for each in (stray, state, reserved)]


def _strays_within(state: int, strays: Steps) -> Iterator[Steps]:
    """Yield sessions with stray accesses in a buffer, between two, and at the end."""
    begun = [work(), *enter(SOURCE, state)]
    pending, offset, size, data = buffer(SOURCE)
    known = [pending, offset, size, data, offset, size, data]
    # Behind each, what is in hand is read again: it must be what it was.
    within = [each for stray in strays for each in (stray, size, offset, size, data)]
    yield [*begun, *known, *within, pending, *save(), *arrive()]
    one = step("iterate", SOURCE, 1)
    between = [each for stray in strays[:12] for each in (stray, pending, one)]
    yield [*begun, one, *between, *save(), *arrive()]
    # Before what is ready was ever read: it may be lost unseen.
    unread = [pending, offset, size, *strays[:12], data, pending]
    yield [*begun, *unread, *save(), *arrive()]
    drained = step("drain", SOURCE)
    yield [*begun, drained, *strays, pending, *save(), *arrive()]


def stopped_devices() -> Iterator[Steps]:
    """Yield devices that are stopped, with work that must not reach them."""
    snapshot = step("snapshot", SOURCE)
    watched = step("watch_work", SOURCE, 9)
    for state in VALID:
        way = way_to(SOURCE, state)
        yield [watched, watched, *way, watched, *enter(SOURCE, RUNNING), watched]
    for state in (STOP, STOP_AND_COPY, RESUMING):
        way = [work(), *way_to(SOURCE, state)]
        seen = step("read_device_state", SOURCE)
        look = [snapshot, work(), snapshot, seen, work(), snapshot]
        yield [*way, *look, *enter(SOURCE, RUNNING)]
        at_once = [snapshot, work(), snapshot]
        yield [work(), step("request", SOURCE, state), *at_once]
        copying = enter(SOURCE, PRE_COPY)
        yield [work(), *copying, work(), step("request", SOURCE, state), *at_once]
    stopped = [*enter(SOURCE, STOP_AND_COPY), work()]
    yield [work(), *stopped, step("drain", SOURCE), work(), *arrive()]
    yield [work(), *pre_copy(), *stopped, *save(), *arrive()]
    for state in VALID:
        way = [work(), *way_to(SOURCE, state), step("iterate", SOURCE, 2)]
        seen = step("read_device_state", SOURCE)
        yield [*way, snapshot, step("reset", SOURCE), seen, snapshot]
        yield [*way, step("reopen", SOURCE), snapshot]
    yield [*_broken(), snapshot, work(), snapshot, step("reset", SOURCE), snapshot]


def faults() -> Iterator[Steps]:
    """Yield faults inside the device, at every access and every arc."""
    for code in _CODES:
        for source in VALID:
            for target in VALID:
                if source != target:
                    yield _fault_at_arc(source, target, code)
        for site in _SITES[1:]:
            for state in SAVING:
                yield _fault_while_saving(state, site, code)
        for site in _SITES:
            yield _fault_while_loading(site, code)
    for state in (STOP, RUNNING, PRE_COPY):
        yield _tried_again(state)
    refused = _fault(SOURCE, "device_state", errno.ENOMEM)
    saved = [work(), *save(), *enter(SOURCE, RUNNING), refused]
    yield [*saved, *enter(SOURCE, STOP_AND_COPY), *save(), *arrive()]
    snapshot = step("snapshot", SOURCE)
    for target in range(8):
        yield [work(), *_broken(), *enter(SOURCE, target), snapshot, work()]
    for target in (STOP, RUNNING, STOP_AND_COPY):
        asked = [*enter(SOURCE, target), step("reset", SOURCE), work()]
        yield [work(), *_broken(), *asked, *save(), *arrive()]


def _again() -> Steps:
    """Return what a device must be able to do behind a reset."""
    running = enter(SOURCE, RUNNING)
    return [*running, step("reset", SOURCE), work(), *save(), *arrive()]


def _fault_at_arc(source: int, target: int, code: int) -> Steps:
    way = [work(), *way_to(SOURCE, source)]
    bad = [_fault(SOURCE, "device_state", code), *enter(SOURCE, target)]
    seen = step("read_device_state", SOURCE)
    return [*way, *bad, seen, *_again()]


def _tried_again(state: int) -> Steps:
    """Return a migration whose way was refused once, and goes on where it stood."""
    begun = [work(), *way_to(SOURCE, state), step("iterate", SOURCE, 2), work()]
    bad = [_fault(SOURCE, "device_state", errno.ENOMEM), *enter(SOURCE, STOP_AND_COPY)]
    return [*begun, *bad, *save(), *arrive()]


def _fault_while_saving(state: int, site: str, code: int) -> Steps:
    seen = step("read_device_state", SOURCE)
    bad = [_fault(SOURCE, site, code), step("iterate", SOURCE, 2), seen]
    return [work(), *enter(SOURCE, state), *bad, *_again()]


def _fault_while_loading(site: str, code: int) -> Steps:
    seen = step("read_device_state", DESTINATION)
    bad = [_fault(DESTINATION, site, code), step("load", DESTINATION), seen]
    tried = [*enter(DESTINATION, RUNNING), step("reset", DESTINATION), *arrive()]
    return [work(), *save(), *enter(DESTINATION, RESUMING), *bad, *tried]


def _fault(role: str, site: str, code: int) -> Step:
    return step("fail", role, site, code)


def _broken() -> Steps:
    """Return the steps that bring a device into ERROR, where it has a way there."""
    fault = _fault(SOURCE, "device_state", errno.ENOTRECOVERABLE)
    return [fault, *enter(SOURCE, STOP)]
