"""RAM's part in the stream at the source: migration/ram.c of QEMU 7.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.migration.exchange import Send, Steps
from vfiomig.migration.observer import Observer, Unobserved
from vfiomig.migration.pace import MAX_WAIT
from vfiomig.migration.ram_pages import BATCH, StreamPages
from vfiomig.migration.throttle import AutoConverge
from vfiomig.protocol.page_ranges import pages_in, up_to_count
from vfiomig.protocol.qemu_stream import ram_framing
from vfiomig.protocol.qemu_stream.page_batch import (
    FULL_SIZE,
    LARGEST_PAGE,
    PAGE_SIZE,
)
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.zero_pages import zero_pages_in

if TYPE_CHECKING:
    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.metrics import Metrics, Round
    from vfiomig.migration.pace import Pace
    from vfiomig.migration.ram_pages import PageSender, Sent
    from vfiomig.migration.side import MigratingMachine
    from vfiomig.protocol.page_ranges import Pages, Ranges
    from vfiomig.vm.dirty_pages import DirtyPages
    from vfiomig.vm.ram_block import RamBlock
    from vfiomig.vm.zero_pages import Flags

# Pages that are looked up in one go: what that costs is shared by so many.  More of
# them where they will surely go before the turn ends.
_AHEAD: Final = 1 << 12
_FAR_AHEAD: Final = 1 << 14
_NO_LIMIT: Final = 1 << 62

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
        sender: PageSender | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._machine = migrating.machine
        self._memory = migrating.machine.memory
        self._sync_dma = migrating.sync_dma
        self._start_dma = migrating.start_dma
        self._stop_dma = migrating.stop_dma
        self._rules = migrating.parameters.rules
        self._throttle = AutoConverge(migrating.parameters, self._slow_down)
        self._number = number
        self._clock = clock
        self._pace = pace
        self._metrics = metrics
        self._sender = sender or StreamPages()
        self._observer = observer or Unobserved()
        self._cursors = {block.idstr: 0 for block in self._memory.blocks}
        self._turn = 0  # the block that is sent from

    def save_setup(self) -> Steps[None]:
        """Let every page be dirty, log what is written from now on, name the blocks."""
        self._memory.start_log(LogUser.MIGRATION)
        for user in _LOGS:
            self._memory.start_log(user)
        self._start_dma()
        for block in self._memory.blocks:
            self._memory.mark(LogUser.MIGRATION, block, 0, block.size)
        self._sync()
        blocks = [(block.idstr, block.size) for block in self._memory.blocks]
        beside = yield from self._sender.set_up()
        self._metrics.channel_bytes += beside
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
        is_due = False
        while not is_due and (look := self._look(self._sure(deadline))) is not None:
            while not is_due and look.sent < len(look.numbers):
                room, sure = self._pace.room(), self._sure(deadline)
                sent = yield from self._send(head, look, room, sure)
                head = b""
                self._metrics.precopy_ram_bytes += sent.stream + sent.channels
                current.ram_bytes += sent.pages * PAGE_SIZE
                is_due = self._clock.now >= deadline or self._pace.is_exceeded()
            self._take_out(look)
        yield from self._end_section(head)
        return not self._memory.dirty_pages

    def save_complete_precopy(self) -> Steps[None]:
        """Look for dirty pages a last time, and send all."""
        self._sync()
        head = ram_framing.end_head(self._number)
        while (look := self._look(_NO_LIMIT)) is not None:
            while look.sent < len(look.numbers):
                sent = yield from self._send(head, look, _NO_LIMIT, _NO_LIMIT)
                head = b""
                self._metrics.stop_and_copy_ram_bytes += sent.stream + sent.channels
            self._take_out(look)
        yield from self._end_section(head)

    def save_state(self) -> Steps[None]:
        """Send nothing: RAM has no FULL section."""
        yield from ()

    def stop_logs(self) -> None:
        """Log no more (ram_save_cleanup)."""
        self._stop_dma()
        for user in (*_LOGS, LogUser.MIGRATION):
            self._memory.stop_log(user)

    def _sync(self) -> None:
        """Take in what was written (migration_bitmap_sync)."""
        pages = self._sync_dma()
        pages += sum(self._memory.sync(user) for user in _LOGS)
        self._metrics.dirty_syncs += 1
        self._throttle.look(
            now=self._clock.now,
            dirty_bytes=pages * PAGE_SIZE,
            sent_bytes=self._metrics.sent_bytes,
        )

    def _slow_down(self, percentage: int) -> None:
        self._metrics.cpu_throttle = percentage
        self._machine.throttle(self._clock.now, percentage)

    def _sure(self, deadline: int) -> int:
        """Return bytes that can go before the window or the turn ends at the soonest.

        Both would let the whole window through in 50 ms.
        """
        return self._pace.room() * (deadline - self._clock.now) // MAX_WAIT

    def _send(self, head: bytes, look: _Look, limit: int, sure: int) -> Steps[Sent]:
        """Send the next pages of a look.

        While ``sure`` bytes last neither the window nor the turn can end: so many
        batches may go in one step, and are the same as one after the other.
        """
        batches = (sure - LARGEST_PAGE) // (BATCH * FULL_SIZE)
        part = slice(look.sent, look.sent + BATCH * max(batches, 1))
        sent = yield from self._sender.send(
            head, look.block, look.numbers[part], look.zero[part], limit
        )
        look.sent += sent.pages
        metrics = self._metrics
        metrics.stream_bytes += sent.stream
        metrics.channel_bytes += sent.channels
        metrics.zero_pages += sent.zeros
        metrics.normal_pages += sent.pages - sent.zeros
        self._observer.pages_sent(sent.pages, self._clock.now)
        return sent

    def _end_section(self, head: bytes) -> Steps[None]:
        beside = yield from self._sender.end_section()
        self._metrics.channel_bytes += beside
        sent = yield Send(head + ram_framing.payload_foot(self._number))
        self._metrics.stream_bytes += sent

    def _look(self, sure: int) -> _Look | None:
        """Return the next dirty pages behind the last that were sent; None for none.

        Each block from where it was left to its end, then the next one, as QEMU
        (find_dirty_block).
        """
        blocks = self._memory.blocks
        if not self._memory.dirty_pages:
            return None
        ahead = max(_AHEAD, min(sure // FULL_SIZE, _FAR_AHEAD))
        while True:
            block = blocks[self._turn]
            ranges = self._log(block).next_ranges(self._cursors[block.idstr], ahead)
            if len(ranges):
                zero = zero_pages_in(block, ranges)
                return _Look(block, ranges, pages_in(ranges), zero)
            self._cursors[block.idstr] = 0
            self._turn = (self._turn + 1) % len(blocks)

    def _take_out(self, look: _Look) -> None:
        """Let what was sent be dirty no more."""
        ranges = up_to_count(look.ranges, look.sent)
        self._log(look.block).clear_ranges(ranges)
        self._cursors[look.block.idstr] = int(look.numbers[look.sent - 1]) + 1

    def _log(self, block: RamBlock) -> DirtyPages:
        log = self._memory.log(LogUser.MIGRATION, block)
        assert log is not None, "it is on from save_setup to the end"
        return log


@dataclass(slots=True)
class _Look:
    """Dirty pages of a block, of which ``sent`` have gone; ``zero`` tells which are.

    The guest does not write within a turn, so none of it changes meanwhile.
    """

    block: RamBlock
    ranges: Ranges
    numbers: Pages
    zero: Flags
    sent: int = 0
