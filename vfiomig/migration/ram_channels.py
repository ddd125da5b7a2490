"""RAM over several channels: batches of pages, and the SYNCs that part them.

::

    the source's loop                              the destination's loop
    put(batch) put(batch) sync()  -> channel 0 ->  place(block, offsets, pages)
                                     channel 1 ->  place(...)   is_synced, resume()

Rule 1: nothing here waits.  A channel carries one packet after the other; ``step`` does
what can be done now, and ``wait_on`` names what that waits for.

Rule 2: between two SYNCs a page is sent once, so that channels may run past one
another.  A channel that has come to its SYNC stands still until all have: at the source
by itself, at the destination until `ReceivingChannels.resume`.

What is wrong with one channel is raised by ``step`` and names the channel; all of them
are closed then.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.migration.channel_packets import (
    Batch,
    ChannelError,
    Line,
    Place,
    Room,
    no_room,
    receive_packet,
    send_batch,
    send_initial,
    send_sync,
)
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.multifd import (
    INITIAL_SIZE,
    NO_UUID,
    PACKET_SIZE,
    PAGE_SIZE,
    PAGES,
    InitialPacket,
    Layout,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.clock import Channel
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.transport.base import ByteStream
    from vfiomig.migration.transport.waiting import Waiting

__all__ = [
    "Batch",
    "ChannelError",
    "Place",
    "ReceivingChannels",
    "Room",
    "SendingChannels",
]

# Batches that a channel should find waiting; more would only hold views of RAM.
_AHEAD: Final = 2


class SendingChannels:
    """The source's ends of all channels but the main one.

    ``streams`` are by channel. ``links`` date what each sends; without, no time passes.
    """

    def __init__(
        self,
        streams: Sequence[ByteStream],
        *,
        uuid: bytes = NO_UUID,
        layout: Layout = Layout.QEMU_7_2,
        links: Sequence[Channel] = (),
    ) -> None:
        self._layout = layout
        self._number = 0
        self._jobs: deque[Batch | _Sync] = deque()
        self._finishes = False
        self.is_over = False  # all was sent, and every stream is finished
        self._lines = [
            Line(number, stream, outgoing=link)
            for number, (stream, link) in enumerate(_linked(streams, links))
        ]
        for line in self._lines:
            line.begin(send_initial(InitialPacket(line.number, uuid)))

    @property
    def has_room(self) -> bool:
        """Whether another batch should be put: no more wait than will soon be sent."""
        return len(self._jobs) < _AHEAD * len(self._lines)

    @property
    def is_idle(self) -> bool:
        """Whether the streams have taken all that was put."""
        return not self._jobs and not any(line.is_busy for line in self._lines)

    def put(self, batch: Batch) -> None:
        """Send a batch by the first channel that is free.

        Raises ValueError for more than `PAGES` pages, and for zero pages in a layout
        without.
        """
        if len(batch.offsets) + len(batch.zero_offsets) > PAGES:
            message = f"a batch has up to {PAGES} pages"
            raise ValueError(message)
        if len(batch.zero_offsets) and not self._layout.has_zero_pages:
            message = f"QEMU {self._layout.value} sends zero pages by the main channel"
            raise ValueError(message)
        self._jobs.append(batch)

    def sync(self) -> None:
        """Send a SYNC by every channel, behind all that was put before."""
        self._jobs.append(_Sync({line.number for line in self._lines}))

    def finish(self) -> None:
        """Send no more than was put: then every channel ends."""
        self._finishes = True
        self._end()

    def close(self) -> None:
        """Close every channel."""
        for line in self._lines:
            line.close()

    def step(self) -> bool:
        """Let each channel send what it can; return whether anything was."""
        moved = False
        for line in self._lines:
            try:
                moved = self._step(line) or moved
            except BaseException:
                self.close()
                raise
        self._end()
        return moved

    def wait_on(self, waiting: Waiting) -> None:
        """Add what the channels wait for."""
        for line in self._lines:
            line.wait_on(waiting)

    def _step(self, line: Line) -> bool:
        if not line.is_busy and (job := self._next(line.number)) is not None:
            line.begin(job)
        moved, _ = line.step()
        return moved

    def _end(self) -> None:
        if self._finishes and self.is_idle and not self.is_over:
            self.is_over = True
            for line in self._lines:
                line.finish()

    def _next(self, channel: int) -> Steps[None] | None:
        """Return what a free channel sends next; None while it has to wait."""
        if not self._jobs:
            return None
        job = self._jobs[0]
        if isinstance(job, Batch):
            self._jobs.popleft()
            return send_batch(job, self._numbered(), self._layout)
        if channel not in job.missing:
            return None
        job.missing.remove(channel)
        if not job.missing:
            self._jobs.popleft()
        return send_sync(self._numbered(), self._layout)

    def _numbered(self) -> int:
        self._number += 1
        return self._number - 1


class ReceivingChannels:
    """The destination's ends of all channels but the main one.

    They are added as they come (`IncomingChannels.channels`), behind their initial
    packets. ``wanted`` is how many there will be. ``place`` takes their pages, but for
    those that ``room`` has memory for.
    """

    def __init__(
        self,
        place: Place,
        *,
        wanted: int,
        layout: Layout = Layout.QEMU_7_2,
        room: Room = no_room,
    ) -> None:
        self._place = place
        self._room = room
        self._wanted = wanted
        self._layout = layout
        self._lines: dict[int, Line] = {}
        self._pages: dict[int, memoryview] = {}
        self._position: dict[int, int] = {}
        self._at_sync: set[int] = set()
        self._ended: set[int] = set()

    @property
    def is_synced(self) -> bool:
        """Whether every channel stands at its SYNC, and all before it was placed."""
        return len(self._at_sync) == self._wanted > 0

    @property
    def received(self) -> int:
        """How many bytes of whole packets have come, initial packets included."""
        return sum(self._position.values())

    @property
    def is_over(self) -> bool:
        """Whether every channel has ended."""
        return len(self._ended) == self._wanted

    def add(
        self, channel: int, stream: ByteStream, link: Channel | None = None
    ) -> None:
        """Receive from another channel; ``link`` dates what it brings.

        Raises ValueError for one that is there already.
        """
        if channel in self._lines:
            message = f"channel {channel} was added already"
            raise ValueError(message)
        if link is not None:
            link.receive(INITIAL_SIZE)  # who told the channels apart had no clock
        self._lines[channel] = Line(channel, stream, incoming=link)
        self._pages[channel] = memoryview(bytearray(PAGES * PAGE_SIZE))
        self._position[channel] = INITIAL_SIZE

    def resume(self) -> None:
        """Go on behind the SYNC that every channel has come to.

        Raises ValueError when not all have.
        """
        if not self.is_synced:
            message = f"{len(self._at_sync)} of {self._wanted} channels are at a SYNC"
            raise ValueError(message)
        self._at_sync.clear()

    def close(self) -> None:
        """Close every channel."""
        for line in self._lines.values():
            line.close()

    def step(self) -> bool:
        """Let each channel receive what is there; return whether anything was.

        Raises:
            ChannelError: a packet cannot be read, or a channel ends within one or
                before a SYNC that another has come to.
            OSError: a channel was lost.
        """
        moved = False
        for line in self._lines.values():
            try:
                moved = self._step(line) or moved
            except BaseException:
                self.close()
                raise
        return moved

    def wait_on(self, waiting: Waiting) -> None:
        """Add what the channels wait for."""
        for line in self._lines.values():
            line.wait_on(waiting)

    def _step(self, line: Line) -> bool:
        number = line.number
        if number in self._ended or number in self._at_sync:
            return False
        if not line.is_busy:
            line.begin(
                receive_packet(
                    self._layout,
                    self._position[number],
                    self._pages[number],
                    self._place,
                    self._room,
                )
            )
        moved, packet = line.step()
        if line.is_busy:
            return moved
        if packet is None:
            self._ended.add(number)
        else:
            self._position[number] += PACKET_SIZE + packet.size
            if packet.is_sync:
                self._at_sync.add(number)
        self._check_ends()
        return True

    def _check_ends(self) -> None:
        if self._ended and self._at_sync:
            channel = min(self._ended)
            message = f"it ends, and channel {min(self._at_sync)} has come to a SYNC"
            position = self._position[channel]
            raise ChannelError(channel, StreamError(message, position=position))


class _Sync(NamedTuple):
    """A SYNC that some channels have still to send."""

    missing: set[int]


def _linked(
    streams: Sequence[ByteStream], links: Sequence[Channel]
) -> list[tuple[ByteStream, Channel | None]]:
    if links and len(links) != len(streams):
        message = f"{len(links)} links for {len(streams)} channels"
        raise ValueError(message)
    dates: Sequence[Channel | None] = links or [None] * len(streams)
    return list(zip(streams, dates, strict=True))
