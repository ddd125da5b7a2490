"""How pages of RAM leave the source: in the stream, or by channels of their own.

Both send a prefix of the pages that they are given, and say how much that was: the
limit is looked at before each page, as QEMU does, so the last one may go beyond it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from vfiomig.migration.channel_packets import Batch
from vfiomig.migration.exchange import Elsewhere, Send, Steps, Wait
from vfiomig.migration.page_rows import PageRows
from vfiomig.protocol.multifd import INITIAL_SIZE, PACKET_SIZE, PAGES
from vfiomig.protocol.qemu_stream.page_batch import FULL_SIZE, PAGE_SIZE, PageEncoder

if TYPE_CHECKING:
    from vfiomig.migration.ram_channels import SendingChannels
    from vfiomig.protocol.qemu_stream.page_batch import Flags, PageNumbers
    from vfiomig.vm.ram_block import RamBlock

# Pages after which time and limit are looked at again: a mebibyte.  What is copied on
# its way is sent in such steps, which the caches of a processor hold.
BATCH: Final = 256
# Full pages side by side that are better sent from where they are than copied.
_MANY: Final = 64


class Sent(NamedTuple):
    """So many pages went, ``zeros`` of them as zero.

    ``stream`` and ``channels`` are the bytes in the stream and by other channels.
    """

    pages: int
    zeros: int
    stream: int
    channels: int = 0


class PageSender(Protocol):
    """Sends pages of one block after another."""

    def set_up(self) -> Steps[int]:
        """Begin, behind the list of blocks; return the bytes by other channels."""

    def send(
        self,
        head: bytes,
        block: RamBlock,
        numbers: PageNumbers,
        zero: Flags,
        limit: int,
    ) -> Steps[Sent]:
        """Send ``head`` and then pages, up to `BATCH`, of which ``zero`` are zero.

        Where it is given more, it may send more: whole batches.
        """

    def end_section(self) -> Steps[int]:
        """Let all that was sent be there before the section ends; bytes as `set_up`."""


class StreamPages:
    """All pages stand in the stream, each behind its word."""

    def __init__(self) -> None:
        self._encoder = PageEncoder(BATCH)
        self._rows = PageRows()

    def set_up(self) -> Steps[int]:
        """Do nothing."""
        yield from ()
        return 0

    def send(
        self,
        head: bytes,
        block: RamBlock,
        numbers: PageNumbers,
        zero: Flags,
        limit: int,
    ) -> Steps[Sent]:
        """Send as many as the limit lets through."""
        if self._encoder.continues(block.idstr):
            count = _full_run(numbers, zero)
            if count >= _MANY:
                count = min(count, limit // FULL_SIZE + 1)
                spans = self._rows.spans(block, int(numbers[0]), count)
                sent = yield Send(head, spans) if head else Send(spans[0], spans[1:])
                return Sent(count, 0, sent)
        numbers, zero = numbers[:BATCH], zero[:BATCH]
        ram = block.bytes.reshape(-1, PAGE_SIZE)
        encoded = self._encoder.encode(block.idstr, ram, numbers, zero, limit)
        sent = yield Send(head, (encoded.view,)) if head else Send(encoded.view)
        return Sent(encoded.pages, encoded.zero_pages, sent)

    def end_section(self) -> Steps[int]:
        """Let go of the pages: what stands before the end is there before it."""
        self._rows = PageRows()
        yield from ()
        return 0


class ChannelPages:
    """multifd: pages with contents go by the channels, zero pages in the stream."""

    def __init__(self, channels: SendingChannels, count: int) -> None:
        self._channels = channels
        self._count = count
        self._encoder = PageEncoder(BATCH)

    def set_up(self) -> Steps[int]:
        """Let the channels introduce themselves, and come to their first SYNC."""
        size = self._count * INITIAL_SIZE
        yield Elsewhere(size)
        return size + (yield from self.end_section())

    def send(
        self,
        head: bytes,
        block: RamBlock,
        numbers: PageNumbers,
        zero: Flags,
        limit: int,
    ) -> Steps[Sent]:
        """Send a packet's pages at most, and the zero pages among them."""
        numbers, zero = numbers[:BATCH], zero[:BATCH]
        full = np.flatnonzero(~zero)
        count = len(numbers) if len(full) <= PAGES else int(full[PAGES])
        count = min(count, limit // PAGE_SIZE + 1)
        numbers, zero = numbers[:count], zero[:count]
        zeros, filled = numbers[zero], numbers[~zero]
        sent = elsewhere = 0
        if len(zeros):
            ram = block.bytes.reshape(-1, PAGE_SIZE)
            flags = np.ones(len(zeros), np.bool_)
            encoded = self._encoder.encode(block.idstr, ram, zeros, flags, _NO_LIMIT)
            sent = yield Send(head, (encoded.view,)) if head else Send(encoded.view)
        elif head:
            sent = yield Send(head)
        if len(filled):
            yield Wait(lambda: self._channels.has_room)
            self._channels.put(_batch(block, filled))
            elsewhere = PACKET_SIZE + len(filled) * PAGE_SIZE
            yield Elsewhere(elsewhere)
        return Sent(count, len(zeros), sent, elsewhere)

    def end_section(self) -> Steps[int]:
        """Send a SYNC by every channel, and wait until the streams have taken all."""
        self._channels.sync()
        size = self._count * PACKET_SIZE
        yield Elsewhere(size)
        yield Wait(lambda: self._channels.is_idle)
        return size


_NO_LIMIT: Final = 1 << 62


def _full_run(numbers: PageNumbers, zero: Flags) -> int:
    """Return how many pages to begin with are full and side by side.

    More than a batch are whole batches; 0 if not all of one are so.
    """
    first, offered = int(numbers[0]), len(numbers)
    full = zero.tobytes().find(1)
    full = offered if full < 0 else full
    for count in (full - full % BATCH, min(BATCH, offered)):
        if 0 < count <= full and int(numbers[count - 1]) - first == count - 1:
            return count
    return 0


def _batch(block: RamBlock, numbers: PageNumbers) -> Batch:
    """Return pages as a packet has them; side by side they are not copied."""
    first, count = int(numbers[0]), len(numbers)
    if int(numbers[-1]) - first == count - 1:
        pages: object = block.pages_view(first, count)
    else:
        pages = block.bytes.reshape(-1, PAGE_SIZE)[numbers]
    offsets = (numbers * PAGE_SIZE).astype(np.uint64)
    return Batch(block.idstr, offsets, pages)  # type: ignore[arg-type]
