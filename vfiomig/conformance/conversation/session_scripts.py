"""Conversations about whole sessions: what they carry, and what may lie between them.

They stand for what published bugs were found by, or should have been (bugs.md, section
1; kernel_uapi.md, section A.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.conformance.conversation.damage import DAMAGES, HEADS, REARRANGEMENTS
from vfiomig.conformance.conversation.moving import IMPOSSIBLE_SIZES, WAYS
from vfiomig.conformance.conversation.passages import (
    DESTINATION,
    PRE_COPY,
    RESUMING,
    RUNNING,
    SAVING,
    SOURCE,
    STOP,
    STOP_AND_COPY,
    THIRD,
    arrive,
    buffer,
    enter,
    pre_copy,
    save,
    work,
)
from vfiomig.conformance.conversation.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.conformance.conversation.passages import Steps

_PLACES = {"a bit flipped": (0, 77, 1013, 40009), "without its end": (0, 1, 2, 4, 8)}
_HEAD_SIZE = 24  # bytes: room for a magic number, a version, a count, a checksum


def round_trips() -> Iterator[Steps]:
    """Yield migrations that must end in equal states."""
    for how in WAYS:
        there = arrive(DESTINATION, how)
        yield [work(), *save(SOURCE, how), *enter(SOURCE, STOP), *there]
        yield [work(), *pre_copy(SOURCE, how), *save(SOURCE, how), *there]
    yield [*save(), *enter(SOURCE, STOP), *arrive()]
    yield [work(), *enter(SOURCE, STOP), *save(), *arrive()]
    yield [work(), *enter(SOURCE, PRE_COPY), *save(), *enter(SOURCE, STOP), *arrive()]
    # Long pre-copy: all that there is, and again what has changed since.
    drained = [step("drain", SOURCE), work(SOURCE, 3)]
    begun = [work(), *enter(SOURCE, PRE_COPY)]
    yield [*begun, *drained, *drained, *save(), *arrive()]
    # Counts that need more than 8 bits, and more than 16.
    for amount in (300, 70_000):
        yield [work(SOURCE, amount), *save(), *arrive()]
    # Hardly anything has changed since the last round.
    for amount in (1, 2):
        yield [*begun, drained[0], work(SOURCE, amount), *save(), *arrive()]
    # A little of it, and much work: what was sent before is changed behind it.
    yield [work(SOURCE, 40), *pre_copy(rounds=6), work(SOURCE, 60), *save(), *arrive()]
    # A to B to A, A to B to C, and the same once more.
    there = [work(), *pre_copy(), *save(), *enter(SOURCE, STOP), *arrive()]
    onward = [work(DESTINATION, 4), *save(DESTINATION), *enter(DESTINATION, STOP)]
    yield [*there, *onward, *arrive(SOURCE)]
    yield [*there, *onward, *arrive(THIRD)]
    back = [work(SOURCE, 2), *save(), *arrive(DESTINATION)]
    yield [*there, *onward, *arrive(SOURCE), *back]
    # A device that has resumed stops as any other.
    for state in (STOP, STOP_AND_COPY):
        snapshot = step("snapshot", DESTINATION)
        looked = [snapshot, work(DESTINATION, 5), snapshot]
        yield [*there, work(DESTINATION, 4), *enter(DESTINATION, state), *looked]
    # At once, with no work between: nothing is dirty but what was loaded.
    yield [*there, *save(DESTINATION), *arrive(THIRD)]
    yield [*there, *pre_copy(DESTINATION), *save(DESTINATION), *arrive(THIRD)]
    # Nothing left to read, and asked for all the same.
    patience = [buffer(SOURCE)[0]] * 12
    seen = step("read_device_state", SOURCE)
    yield [*begun, step("drain", SOURCE), *patience, seen, *save(), *arrive()]
    yield [*begun, step("drain", SOURCE), *patience, *drained, *save(), *arrive()]
    # Work between every two accesses of a buffer.
    pending, offset, size, data = buffer(SOURCE)
    for amount in (3, 60):
        each = work(SOURCE, amount)
        changing = [pending, each, offset, each, size, each, data, each] * 3
        yield [*begun, *changing, pending, *save(), *arrive()]
        again = [pending, offset, size, data, each, data, each, data]
        yield [*begun, *again, *again, pending, *save(), *arrive()]
        yield [*begun, *changing[:4], *save(), *arrive()]
    # Many small rounds: chunk counts beyond 256 where chunks are that small.
    busy = [step("iterate", SOURCE, 40), work(SOURCE, 9)] * 12
    yield [*begun, *busy, *save(), *arrive()]
    rounds = [step("drain", SOURCE), work(SOURCE, 20)] * 24
    yield [*begun, *rounds, *save(), *arrive()]


def interrupted_sessions() -> Iterator[Steps]:
    """Yield migrations behind sessions that were given up, or hold a loose end."""
    whole = buffer(SOURCE)
    loose_ends: tuple[Steps, ...] = (
        [],
        whole[:1],
        whole[:2],
        whole[:3],
        whole,
        [*whole, *whole[:1], *whole[1:3]],
        [step("iterate", SOURCE, 3)],
    )
    to_running = enter(SOURCE, RUNNING)
    for loose in loose_ends:
        copying = [work(), *enter(SOURCE, PRE_COPY), *loose]
        stopped = [work(), *enter(SOURCE, STOP_AND_COPY), *loose]
        yield [*copying, *save(), *arrive()]
        for begun in (copying, stopped):
            yield [*begun, *to_running, *save(), *arrive()]
            yield [*begun, *to_running, work(SOURCE, 3), *save(), *arrive()]
            yield [*begun, *to_running, work(), *pre_copy(), *save(), *arrive()]
            yield [*begun, step("reset", SOURCE), work(), *save(), *arrive()]
            yield [*begun, step("reopen", SOURCE), work(), *save(), *arrive()]
        yield [*stopped, *enter(SOURCE, STOP), *save(), *arrive()]
    # Much was taken before a reset, and hardly anything has happened since.
    for amount in (0, 1):
        taken = [work(), *enter(SOURCE, PRE_COPY), step("iterate", SOURCE, 9)]
        fresh = [step("reset", SOURCE), work(SOURCE, amount)]
        yield [*taken, *fresh, *save(), *arrive()]
    # Save twice; the same from STOP to STOP.
    yield [work(), *save(), *enter(SOURCE, STOP), *save(), *arrive()]
    yield [work(), *save(), *to_running, work(), *save(), *arrive()]
    copied = [work(), *pre_copy(), *save()]
    yield [*copied, *to_running, work(), *pre_copy(), *save(), *arrive()]
    # What was mapped before a reset is the data section behind it.
    mapped = [*save(SOURCE, "mapped"), step("reset", SOURCE), work(SOURCE, 7)]
    yield [work(), *mapped, *save(SOURCE, "mapped"), *arrive(DESTINATION, "mapped")]
    half = [*enter(DESTINATION, RESUMING), step("load", DESTINATION, "mapped")]
    begun = [work(), *save(), *half, step("reset", DESTINATION)]
    yield [*begun, *arrive(DESTINATION, "mapped")]
    yield from _destinations_with_a_past()


def _destinations_with_a_past() -> Iterator[Steps]:
    used = [work(DESTINATION, 11)]
    reset, reopen = step("reset", DESTINATION), step("reopen", DESTINATION)
    saved = [work(), *save()]
    yield [*saved, *used, *arrive()]
    yield [*saved, *used, reset, *arrive()]
    yield [*saved, *arrive(), work(DESTINATION, 3), *arrive()]
    yield [*saved, *arrive(), reopen, *arrive()]
    yield [*saved, *arrive(), work(DESTINATION, 3), reset, *save(DESTINATION)]
    # It was saved itself, and given up.
    gave = [*pre_copy(DESTINATION), *enter(DESTINATION, RUNNING)]
    yield [*saved, *gave, *arrive()]
    half = [
        *enter(DESTINATION, RESUMING),
        step("load_damaged", DESTINATION, "without its end"),
    ]
    ways_back: tuple[Steps, ...] = (
        [reset],
        [*enter(DESTINATION, RUNNING), reset],
        [reopen],
        enter(DESTINATION, STOP),
        enter(DESTINATION, RUNNING),
    )
    for way_back in ways_back:
        yield [*saved, *half, *way_back, *arrive()]
    yield [*saved, *enter(DESTINATION, RESUMING), reset, *arrive()]
    # All was loaded, and another state asked for, which may be refused.
    resuming, loaded, *run = arrive()
    for state in (STOP, *SAVING):
        yield [*saved, resuming, loaded, *enter(DESTINATION, state), *run]
    # What was loaded before is not loaded now.
    resaved = [*enter(SOURCE, RUNNING), work(SOURCE, 9), *save()]
    nothing = [
        *enter(DESTINATION, RESUMING),
        step("load_damaged", DESTINATION, "empty"),
        *enter(DESTINATION, RUNNING),
    ]
    yield [*saved, *arrive(), *resaved, *nothing]
    for how in ("without its start", "without its end", "cut short"):
        some = step("load_damaged", DESTINATION, how)
        again = [*enter(DESTINATION, RESUMING), some, *enter(DESTINATION, RUNNING)]
        yield [*saved, *arrive(), *resaved, *again]
    yield [*saved, *arrive(), *resaved, *arrive()]


def repeated_reads() -> Iterator[Steps]:
    """Yield sessions with reads that must have no effect."""
    pending, offset, size, data = buffer(SOURCE)
    mapped = step("read_data", SOURCE, "mapped")
    for state in SAVING:
        entered = [work(), *enter(SOURCE, state)]
        twice = [pending, pending, pending, offset, size, data, pending]
        yield [*entered, *twice, *twice, *save(), *arrive()]
        again = [pending, offset, offset, size, size, offset, size, data, data, pending]
        yield [*entered, *again, *again, *again, *save(), *arrive()]
        pieces = [step("read_data", SOURCE, how) for how in ("halves", "sevens")]
        seen = [data, *pieces, data, size, offset, pending]
        yield [*entered, pending, offset, size, *seen, *save(), *arrive()]
        seen = [data, mapped, data, pending]
        yield [*entered, pending, offset, size, *seen, *save(), *arrive()]
        # V1-PEND-15: the user application's own fault must kill nothing.
        lost = [pending, offset, pending, offset, size, pending]
        yield [*entered, *lost, *save()]
        yield [*entered, size, offset, data, size, pending, step("drain", SOURCE)]
        yield [*entered, step("drain", SOURCE), pending, pending, offset, size, pending]


def damaged_streams() -> Iterator[Steps]:
    """Yield migrations of streams that no destination may run with unawares."""
    seen = step("read_device_state", DESTINATION)
    tried = [seen, *enter(DESTINATION, RUNNING), step("reset", DESTINATION), *arrive()]
    resuming = enter(DESTINATION, RESUMING)
    for before in (save(), [*pre_copy(), *save()]):
        for damage in (*DAMAGES, *REARRANGEMENTS):
            places = _PLACES.get(damage, (0,))
            for place in places:
                bad = step("load_damaged", DESTINATION, damage, place)
                yield [work(), *before, *resuming, bad, *tried]
    for size in (0, 1, 2**31, 2**32, 2**63, 2**64 - 1):
        bad = step("write_register", DESTINATION, "data_size", size)
        yield [work(), *save(), *resuming, bad, *tried]
    for before in (save(), [*pre_copy(), *save()]):
        late = step("load_damaged", DESTINATION, "without its end")
        rest, run = step("load_rest", DESTINATION), enter(DESTINATION, RUNNING)
        yield [work(), *before, *resuming, late, *run, rest, *run]
    yield from _damaged_heads()
    for how in IMPOSSIBLE_SIZES:
        yield [work(), *save(), *resuming, step("announce", DESTINATION, how), *tried]
    yield from _spoiled_windows()


def _damaged_heads() -> Iterator[Steps]:
    """Yield streams with one bit after the other flipped where a head may be.

    What a destination believes of a head decides what it does with the rest.
    """
    for how in HEADS:
        for bit in (0, 5):
            attempts: Steps = []
            for place in range(_HEAD_SIZE):
                bad = step("load_damaged", DESTINATION, how, 8 * place + bit)
                attempts += [*enter(DESTINATION, RESUMING), bad]
                attempts += [*enter(DESTINATION, RUNNING), step("reset", DESTINATION)]
            yield [work(), *save(), *attempts, *arrive()]


def _spoiled_windows() -> Iterator[Steps]:
    """Yield loads with rubbish in the data section, before a chunk or behind it."""
    resuming = enter(DESTINATION, RESUMING)
    loaded = step("load", DESTINATION)
    filled = step("load", DESTINATION, "filled")
    window = step("overwrite_window", DESTINATION)
    run = enter(DESTINATION, RUNNING)
    yield [work(), *save(), *resuming, filled, *run]
    yield [work(), *save(), *resuming, step("load", DESTINATION, "interrupted"), *run]
    yield [work(), *save(), *resuming, loaded, window, *run]
    yield [work(), *pre_copy(), *save(), *resuming, loaded, window, *run]
