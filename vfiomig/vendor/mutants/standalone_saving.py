"""Mutants of the standalone driver: what is sent, and what is not.

Rule 1: as `StandaloneDriver`, but for one method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vfiomig.vendor.mutants.standalone import (
    BLOCK,
    PRE_COPY,
    STOP_AND_COPY,
    TRAILER,
    StandaloneDriver,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BlockCountWraps",
    "CacheFlushedTooLate",
    "CountsOnPreCopy",
    "ExtraPollSkips",
    "NotesAreWipedAtTheEnd",
    "PreCopySessionEmpties",
    "QueuedBlockDropped",
    "ReadsLikeAPipe",
    "RereadIsTheNext",
    "TrailerAfterTrailer",
    "ZeroInTheMiddle",
    "ZeroIsForever",
]


class ExtraPollSkips(StandaloneDriver):
    """Takes a block as read on every poll, with a buffer queued or without.

    The first poll of a session and the one that ends an iteration are free.
    """

    violates: ClassVar = frozenset(
        {
            "v1/pending-bytes/repeated-reads-have-no-effect",
            "v1/pending-bytes/acknowledges-only-a-queued-buffer",
        }
    )
    _is_free = True

    def begin_saving(self) -> None:
        """Begin; the first poll is free."""
        super().begin_saving()
        self._is_free = True

    def pending_bytes(self) -> int:
        """Poll, and skip a block where the poll is not free."""
        if self.queued is None and not self._is_free and self.dirty:
            self.dirty.discard(min(self.dirty))
        self._is_free = False
        return super().pending_bytes()

    def switch_over(self) -> None:
        """Switch over; the next poll is free."""
        super().switch_over()
        self._is_free = True


class ZeroInTheMiddle(StandaloneDriver):
    """Says 0 once in stop-and-copy with half of its blocks to go."""

    violates: ClassVar = frozenset(
        {"v1/pending-bytes/zero-in-stop-and-copy-is-the-end"}
    )
    _has_said = False

    def begin_saving(self) -> None:
        """Begin, with the lie to come."""
        super().begin_saving()
        self._has_said = False

    def left(self) -> int:
        """Return what is left, but once."""
        half = self.memory_size // BLOCK // 2
        is_now = self.state == STOP_AND_COPY and 0 < len(self.dirty) <= half
        if is_now and not self._has_said and self.queued is None:
            self._has_said = True
            return 0
        return super().left()


class ZeroIsForever(StandaloneDriver):
    """Stops noting changes once pending_bytes was 0 in pre-copy."""

    violates: ClassVar = frozenset({"v1/pending-bytes/zero-in-pre-copy-is-no-end"})
    _is_done = False

    def begin_saving(self) -> None:
        """Begin to note."""
        super().begin_saving()
        self._is_done = False

    def left(self) -> int:
        """Return what is left; 0 is the end."""
        left = super().left()
        self._is_done |= self.state == PRE_COPY and not left
        return left

    def note(self, block: int) -> None:
        """Note a block, before the end."""
        if not self._is_done:
            super().note(block)


class TrailerAfterTrailer(StandaloneDriver):
    """Never gets past the chunk that ends its stream."""

    violates: ClassVar = frozenset({"v1/pending-bytes/stop-and-copy-ends"})

    def acknowledge(self) -> None:
        """Take a chunk as read; the last one is to be sent again."""
        super().acknowledge()
        self.has_ended = False


class RereadIsTheNext(StandaloneDriver):
    """Puts the next chunk into the window on each read of data_offset."""

    violates: ClassVar = frozenset({"v1/data-offset/stable-within-iteration"})

    def data_offset(self) -> int:
        """Begin an iteration, whether one is under way or not."""
        if self.queued not in (None, TRAILER):
            self.acknowledge()
        return super().data_offset()


class ReadsLikeAPipe(StandaloneDriver):
    """Hands data out in order, whatever offset is read: nothing can be read twice."""

    violates: ClassVar = frozenset({"v1/saving/data-stays"})
    _next = 0

    def queue(self) -> None:
        """Queue, and begin at the start."""
        super().queue()
        self._next = 0

    def read_data(self, start: int, size: int) -> bytes:
        """Read on."""
        if self.queued is None:
            return super().read_data(start, size)
        data = super().read_data(self._next, size)
        self._next += size
        return data.ljust(size, b"\0")


class NotesAreWipedAtTheEnd(StandaloneDriver):
    """Clears the note of a change when a block was read, not when it was copied.

    What the guest writes to it in between is never sent.
    """

    violates: ClassVar = frozenset({"v1/saving/stream-restores"})

    def acknowledge(self) -> None:
        """Take a chunk as read, and its block as clean."""
        if self.queued is not None:
            self.dirty.discard(self.queued)
        super().acknowledge()


class BlockCountWraps(StandaloneDriver):
    """Counts the blocks of its memory in a byte, and has 260 of them."""

    violates: ClassVar = frozenset(
        {"v1/saving/stream-restores", "v1/transitions/resuming-to-running"}
    )
    memory_size: ClassVar = 260 * BLOCK

    def put(self, address: int, payload: bytes | bytearray, flags: int = 0) -> None:
        """Make a chunk; the 257th goes where the first one is."""
        super().put(address % (256 * BLOCK), payload, flags)


class CacheFlushedTooLate(StandaloneDriver):
    """Writes its cache back only when the copy has begun (BUG-HISI-05).

    Each piece of work stays in the cache until the next one, or a reset.
    """

    violates: ClassVar = frozenset(
        {"v1/saving/stream-restores", "v1/transitions/resuming-to-running"}
    )

    def power_on(self) -> None:
        """Switch on, with nothing in the cache."""
        super().power_on()
        self._written = bytearray(self.memory)

    def work(self, amount: int) -> None:
        """Work, and write back what the work before has left."""
        if self.is_running():
            self._written = bytearray(self.memory)
        super().work(amount)

    def queue(self) -> None:
        """Copy from behind the cache."""
        cached, self.memory = self.memory, self._written
        try:
            super().queue()
        finally:
            self.memory = cached

    def finish(self) -> None:
        """Finish, with nothing in the cache."""
        super().finish()
        self._written = bytearray(self.memory)


class QueuedBlockDropped(StandaloneDriver):
    """Forgets the block in the window when stop-and-copy begins."""

    violates: ClassVar = frozenset({"v1/saving/unread-buffer-is-not-lost"})

    def switch_over(self) -> None:
        """Switch over; the block was surely read."""
        self.acknowledge()


class CountsOnPreCopy(StandaloneDriver):
    """Sends in stop-and-copy what has changed since pre-copy began, and no more."""

    violates: ClassVar = frozenset({"v1/saving/pre-copy-may-be-skipped"})

    def begin_saving(self) -> None:
        """Begin, with nothing changed."""
        super().begin_saving()
        self._changed: set[int] = set()

    def note(self, block: int) -> None:
        """Note a change twice."""
        super().note(block)
        if self.state == PRE_COPY:
            self._changed.add(block)

    def switch_over(self) -> None:
        """Switch over: all that has not changed was surely read."""
        queued = self.queued
        super().switch_over()
        self.dirty &= self._changed | {queued}


def _once() -> Iterator[bool]:
    yield True
    while True:
        yield False


class PreCopySessionEmpties(StandaloneDriver):
    """Has everything to send in its first session, and changes in later ones.

    A flag that belongs to a session outlives it (BUG-HISI-09).
    """

    violates: ClassVar = frozenset(
        {"v1/transitions/saving-starts-afresh", "v1/saving/can-be-saved-again"}
    )

    def power_on(self) -> None:
        """Switch on, with a first session to come."""
        super().power_on()
        self._is_first = _once()

    def begin_saving(self) -> None:
        """Begin; later sessions have little to send."""
        super().begin_saving()
        if not next(self._is_first):
            self.dirty = {0}
