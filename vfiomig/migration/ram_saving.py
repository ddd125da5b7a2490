"""RAM's part in the stream at the source: migration/ram.c of QEMU 7.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.migration.exchange import Send, Steps
from vfiomig.migration.pace import MAX_WAIT
from vfiomig.migration.throttle import AutoConverge
from vfiomig.protocol.qemu_stream import ram_framing
from vfiomig.protocol.qemu_stream.page_batch import PAGE_SIZE, PageEncoder
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.zero_pages import zero_pages_in

if TYPE_CHECKING:
    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.metrics import Metrics, Round
    from vfiomig.migration.pace import Pace
    from vfiomig.migration.side import MigratingMachine
    from vfiomig.protocol.page_ranges import Ranges
    from vfiomig.vm.dirty_pages import DirtyPages
    from vfiomig.vm.ram_block import RamBlock

# Pages that are sent in one step: a mebibyte, which the caches of a processor hold.
BATCH: Final = 256

_LOGS: Final = (LogUser.KERNEL, LogUser.DMA)


class RamSaving:
    """All RAM of a machine, a `SaveHandler`.

    ``number`` is the id of its sections.
    """

    name = ram_framing.RAM_IDSTR

    def __init__(
        self,
        migrating: MigratingMachine,
        number: int,
        *,
        clock: VirtualClock,
        pace: Pace,
        metrics: Metrics,
    ) -> None:
        self._machine = migrating.machine
        self._memory = migrating.machine.memory
        self._sync_dma = migrating.sync_dma
        self._rules = migrating.parameters.rules
        self._throttle = AutoConverge(migrating.parameters, self._slow_down)
        self._number = number
        self._clock = clock
        self._pace = pace
        self._metrics = metrics
        self._encoder = PageEncoder(BATCH)
        self._cursors = dict.fromkeys(self._memory.blocks, 0)
        self._turn = 0  # the block that is sent from

    def save_setup(self) -> Steps[None]:
        """Let every page be dirty, log what is written from now on, name the blocks."""
        self._memory.start_log(LogUser.MIGRATION)
        for user in _LOGS:
            self._memory.start_log(user)
        for block in self._memory.blocks:
            self._memory.mark(LogUser.MIGRATION, block, 0, block.size)
        self._sync()
        blocks = [(block.idstr, block.size) for block in self._memory.blocks]
        sent = yield Send(ram_framing.start_section(self._number, blocks))
        self._metrics.stream_bytes += sent

    def pending_estimate(self) -> int:
        """Return the bytes of all pages that are known to be dirty."""
        return self._memory.dirty_pages * PAGE_SIZE

    def pending_exact(self, threshold: int) -> int:
        """Return the same; look for newly dirty pages where that could change it.

        Until 8.0 it looked below the threshold only; since then who estimates first
        asks only then.
        """
        if self._rules.estimates_first or self.pending_estimate() < threshold:
            self._sync()
        return self.pending_estimate()

    def save_iterate(self, current: Round) -> Steps[bool]:
        """Send pages for 50 ms, or until the window's budget is used up."""
        deadline = self._clock.now + MAX_WAIT
        head = ram_framing.part_head(self._number)
        dirty = self._memory.dirty_pages
        while dirty:
            sent = yield self._batch(head, self._pace.room())
            head = b""
            self._metrics.stream_bytes += sent
            self._metrics.precopy_ram_bytes += sent
            current.ram_bytes += (dirty - self._memory.dirty_pages) * PAGE_SIZE
            dirty = self._memory.dirty_pages
            if self._clock.now >= deadline or self._pace.is_exceeded():
                break
        sent = yield Send(head + ram_framing.payload_foot(self._number))
        self._metrics.stream_bytes += sent
        return not dirty

    def save_complete_precopy(self) -> Steps[None]:
        """Look for dirty pages a last time, and send all."""
        self._sync()
        head = ram_framing.end_head(self._number)
        while self._memory.dirty_pages:
            sent = yield self._batch(head, _NO_LIMIT)
            head = b""
            self._metrics.stream_bytes += sent
            self._metrics.stop_and_copy_ram_bytes += sent
        sent = yield Send(head + ram_framing.payload_foot(self._number))
        self._metrics.stream_bytes += sent

    def save_state(self) -> Steps[None]:
        """Send nothing: RAM has no FULL section."""
        yield from ()

    def stop_logs(self) -> None:
        """Log no more (ram_save_cleanup)."""
        for user in (*_LOGS, LogUser.MIGRATION):
            self._memory.stop_log(user)

    def _sync(self) -> None:
        """Take in what was written (migration_bitmap_sync)."""
        self._sync_dma()
        pages = sum(self._memory.sync(user) for user in _LOGS)
        self._metrics.dirty_syncs += 1
        self._throttle.look(
            now=self._clock.now,
            dirty_bytes=pages * PAGE_SIZE,
            sent_bytes=self._metrics.stream_bytes,
        )

    def _slow_down(self, percentage: int) -> None:
        self._metrics.cpu_throttle = percentage
        self._machine.throttle(self._clock.now, percentage)

    def _batch(self, head: bytes, limit: int) -> Send:
        """Take the next dirty pages out of the log; return them as a step."""
        block, log, ranges = self._next()
        zero = zero_pages_in(block, ranges)
        numbers = _numbers(ranges)
        ram = block.bytes.reshape(-1, PAGE_SIZE)
        encoded = self._encoder.encode(block.idstr, ram, numbers, zero, limit)
        log.clear_ranges(_cut(ranges, encoded.pages))
        self._cursors[block] = int(numbers[encoded.pages - 1]) + 1
        self._metrics.zero_pages += encoded.zero_pages
        self._metrics.normal_pages += encoded.pages - encoded.zero_pages
        return Send(head, (encoded.view,)) if head else Send(encoded.view)

    def _next(self) -> tuple[RamBlock, DirtyPages, Ranges]:
        """Return the next dirty pages behind the last that were sent, a batch at most.

        Each block from where it was left to its end, then the next one, as QEMU
        (find_dirty_block).
        """
        blocks = self._memory.blocks
        while True:
            block = blocks[self._turn]
            log = self._log(block)
            ranges = log.next_ranges(self._cursors[block], BATCH)
            if len(ranges):
                return block, log, ranges
            self._cursors[block] = 0
            self._turn = (self._turn + 1) % len(blocks)

    def _log(self, block: RamBlock) -> DirtyPages:
        log = self._memory.log(LogUser.MIGRATION, block)
        assert log is not None, "it is on from save_setup to the end"
        return log


_NO_LIMIT: Final = 1 << 62


def _numbers(ranges: Ranges) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return every page of ranges, in order."""
    counts = ranges[:, 1]
    if len(ranges) == 1:
        return np.arange(ranges[0, 0], ranges[0, 0] + counts[0])
    before = np.cumsum(counts) - counts
    return np.repeat(ranges[:, 0] - before, counts) + np.arange(counts.sum())


def _cut(ranges: Ranges, pages: int) -> Ranges:
    """Return the ranges of the first ``pages`` pages."""
    ends = np.cumsum(ranges[:, 1])
    last = int(np.searchsorted(ends, pages))
    cut = ranges[: last + 1].copy()
    cut[last, 1] -= ends[last] - pages
    return cut
