"""RAM as a handler that sends only sizes: `ram_saving`, with expected numbers.

Turns, batches and the window's budget end where they do there; between two ends all
batches are alike, so that they are sent as one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from vfiomig.migration.clock import SECOND
from vfiomig.migration.pace import MAX_WAIT
from vfiomig.migration.throttle import AutoConverge
from vfiomig.protocol.qemu_stream import ram_framing
from vfiomig.protocol.qemu_stream.framing import SECTION_HEAD
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.metrics import Round
    from vfiomig.migration.pace import Pace
    from vfiomig.migration.parameters import Parameters
    from vfiomig.migration.what_if.stretches import RamMap, Stretch
    from vfiomig.migration.what_if.wire import Wire

BLOCK: Final = "pc.ram"
_BATCH: Final = 256  # pages: what `ram_saving` sends in one step
_WORD: Final = 8
_FULL, _ZERO = _WORD + PAGE_SIZE, _WORD + 1
_HEAD: Final = SECTION_HEAD.size
_FOOT: Final = len(ram_framing.payload_foot(1))

# What changes in a window of a stretch by less is taken for constant.
_STEADY: Final = 0.01


class ModelledRam:
    """All RAM of a machine, a `SaveHandler`."""

    name = ram_framing.RAM_IDSTR

    def __init__(
        self, ram: RamMap, parameters: Parameters, *, wire: Wire, pace: Pace
    ) -> None:
        self._ram = ram
        self._rules = parameters.rules
        self._throttle = AutoConverge(parameters, self._slow_down)
        self._wire = wire
        self._clock = wire.source
        self._metrics = wire.metrics
        self._pace = pace
        # The first page of all names its block.
        self._name = 1 + len(BLOCK)

    def save_setup(self) -> Steps[None]:
        """Let every page be dirty, and name the block."""
        self._sync(counts=False)
        size = sum(stretch.pages for stretch in self._ram.stretches) * PAGE_SIZE
        self._wire.send(len(ram_framing.start_section(1, [(BLOCK, size)])))
        yield from ()

    def pending_estimate(self) -> int:
        """Return the bytes of all pages that are known to be dirty."""
        return self._ram.dirty * PAGE_SIZE

    def pending_exact(self, threshold: int) -> int:
        """Return the same; look for newly dirty pages where that could change it."""
        if self._rules.estimates_first or self.pending_estimate() < threshold:
            self._sync()
        return self.pending_estimate()

    def save_iterate(self, current: Round) -> Steps[bool]:
        """Send pages for 50 ms, or until the window's budget is used up."""
        deadline = self._clock.now + MAX_WAIT
        ram, head = self._ram, _HEAD
        while ram.dirty:
            room = self._pace.room()
            batches = self._batches(deadline, room, head)
            pages, sent = self._take(batches) if batches else self._mixed(room)
            sent += head
            self._wire.send(sent)
            self._metrics.precopy_ram_bytes += sent
            current.ram_bytes += pages * PAGE_SIZE
            head = 0
            if self._clock.now >= deadline or self._pace.is_exceeded():
                break
        self._wire.send(head + _FOOT)
        yield from ()
        return not ram.dirty

    def save_complete_precopy(self) -> Steps[None]:
        """Look for dirty pages a last time, and send all."""
        self._sync()
        head = _HEAD
        while self._ram.dirty:
            sent = head + self._take(self._ram.current.dirty)[1]
            head = 0
            self._wire.send(sent)
            self._metrics.stop_and_copy_ram_bytes += sent
        self._wire.send(head + _FOOT)
        yield from ()

    def save_state(self) -> Steps[None]:
        """Send nothing: RAM has no FULL section."""
        yield from ()

    # -- many windows at once

    def most_leaps(self, pages: int, duration: int) -> int:
        """Return how often ``pages`` more may go in ``duration`` ns, all alike."""
        if not pages:
            return 0 if self._ram.dirty else _ANY
        stretch = self._ram.current
        over = self._ram.dirty - self._pace.threshold // PAGE_SIZE
        leaps = min(stretch.dirty, over) // pages - 2
        if stretch.is_new and not stretch.filled:
            for load in stretch.loads:
                leaps = int(min(leaps, load.time_to_write(_STEADY) / duration))
        return leaps

    def leap(self, pages: int) -> None:
        """Take ``pages`` as sent; the metrics know of them already."""
        self._ram.send(pages)

    @property
    def place(self) -> Stretch:
        """What is sent from: pages of one stretch are alike."""
        return self._ram.current

    # -- pages

    def _batches(self, deadline: int, room: int, head: int) -> int:
        """Return the pages that can go in whole batches, all alike, before the last.

        The last batch of a turn or of a stretch gets the room that is left when it is
        its turn; none of them is for `_mixed`.
        """
        stretch = self._ram.current
        page = _page_size(stretch.zero_share())
        batch = min(_BATCH, int(room // page) + 1)
        left = (deadline - self._clock.now) * self._wire.link.bandwidth / SECOND
        in_time = math.ceil((left - head) / (batch * page)) - 1
        in_room = int(room // (batch * page))
        return max(min(in_time, in_room, stretch.dirty // batch), 0) * batch

    def _mixed(self, room: int) -> tuple[int, int]:
        """Send one batch, of any pages; return how many, and their bytes."""
        ram = self._ram
        pages = size = 0
        while ram.dirty and pages < _BATCH and size <= room:
            place = ram.turn
            stretch = ram.current
            if pages and ram.turn < place:
                break  # nothing is looked up beyond the end of a block
            fit = int((room - size) // _page_size(stretch.zero_share())) + 1
            taken, more = self._take(min(fit, _BATCH - pages, stretch.dirty))
            pages, size = pages + taken, size + more
        return pages, size

    def _take(self, pages: int) -> tuple[int, int]:
        """Take pages of the current stretch out; return them, and their bytes."""
        zero = round(pages * self._ram.current.zero_share(pages))
        self._metrics.zero_pages += zero
        self._metrics.normal_pages += pages - zero
        self._ram.send(pages)
        size = self._name + zero * _ZERO + (pages - zero) * _FULL
        self._name = 0
        return pages, size

    def _sync(self, *, counts: bool = True) -> None:
        pages = self._ram.sync()
        self._metrics.dirty_syncs += 1
        self._throttle.look(
            now=self._clock.now,
            dirty_bytes=pages * PAGE_SIZE if counts else 0,
            sent_bytes=self._metrics.stream_bytes,
        )

    def _slow_down(self, percentage: int) -> None:
        self._metrics.cpu_throttle = percentage
        for load in self._ram.loads:
            load.throttle(self._clock.now, percentage)


_ANY: Final = 1 << 40


def _page_size(zero_share: float) -> float:
    return zero_share * _ZERO + (1 - zero_share) * _FULL
