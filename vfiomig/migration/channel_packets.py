"""What one channel of RAM carries: packets, each a generator of `exchange`.

A packet is begun when there is something to send or to receive, and the stream stays
open behind it: a `Line` is a stream and the packet in hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import numpy as np

from vfiomig.migration.exchange import Party, Receive, Send
from vfiomig.protocol.errors import StreamError, VfiomigError
from vfiomig.protocol.multifd import (
    PACKET_SIZE,
    PAGE_SIZE,
    InitialPacket,
    Layout,
    Packet,
    decode_packet,
    encode_initial,
    encode_packet,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vfiomig.migration.clock import Channel
    from vfiomig.migration.exchange import Steps
    from vfiomig.migration.transport.base import ByteStream
    from vfiomig.migration.transport.waiting import Waiting


class Batch(NamedTuple):
    """Up to 128 pages of one RAM block, of which up to all may be zero."""

    block: str
    offsets: NDArray[np.uint64]  # (n,), bytes in the block
    # (n, PAGE_SIZE), read when the batch is sent; a view is as long as that.
    pages: NDArray[np.uint8] | memoryview
    zero_offsets: NDArray[np.uint64] = np.empty(0, np.uint64)


class Place(Protocol):
    """Who takes the pages that come, of any channel in any order."""

    def __call__(
        self, block: str, offsets: NDArray[np.uint64], pages: NDArray[np.uint8] | None
    ) -> None:
        """Place ``pages``, (n, PAGE_SIZE), at ``offsets``, (n,), of a RAM block.

        None are pages that are all zero. The array is filled anew afterwards. Whether
        there is such a block and such an offset is to be judged here; what is raised
        passes through ``step``.
        """


class Room(Protocol):
    """Who has memory that pages can be received into straight, without a copy."""

    def __call__(self, block: str, offsets: NDArray[np.uint64]) -> memoryview | None:
        """Return the bytes at ``offsets``, (n,), of a RAM block: n * PAGE_SIZE of them.

        None where they do not lie side by side: then they are placed. What is raised
        passes through ``step``. A stream that ends leaves half a page there.
        """


class ChannelError(StreamError):
    """What one of several channels carries cannot be read; ``position`` is in its own.

    ``channel`` is its number.
    """

    def __init__(self, channel: int, error: StreamError) -> None:
        VfiomigError.__init__(self, f"channel {channel}: {error}")
        self.channel = channel
        self.position = error.position


def send_initial(initial: InitialPacket) -> Steps[None]:
    """Say which channel this is."""
    yield Send(encode_initial(initial))


def send_batch(batch: Batch, number: int, layout: Layout) -> Steps[None]:
    """Send a batch as packet ``number``.

    Raises ValueError as `encode_packet` does, and for pages that are not as many as
    their offsets.
    """
    packet = Packet(
        number=number,
        block=batch.block,
        offsets=batch.offsets,
        zero_offsets=batch.zero_offsets,
    )
    pages = _flat(batch.pages)
    if len(pages) != packet.size:
        message = f"{len(pages)} bytes for {len(batch.offsets)} pages"
        raise ValueError(message)
    yield Send(encode_packet(packet, layout), (pages,) if len(pages) else ())


def send_sync(number: int, layout: Layout) -> Steps[None]:
    """Send a SYNC, without pages, as packet ``number``: every QEMU reads it so."""
    yield Send(encode_packet(Packet(number=number, is_sync=True), layout))


def receive_packet(
    layout: Layout, position: int, pages: memoryview, place: Place, room: Room
) -> Steps[Packet | None]:
    """Receive a packet that stands at ``position``, and its pages.

    ``pages`` has room for 128 of them. None is the end of the stream.

    Raises:
        StreamError: the packet cannot be read, or the stream ends within it.
        ValueError: the room has another size than the pages.
    """
    head = bytearray(PACKET_SIZE)
    got = yield Receive(memoryview(head))
    if not got:
        return None
    packet = decode_packet(memoryview(head)[:got], layout, position=position)
    if packet.size:
        straight = room(packet.block, packet.offsets)
        view = pages[: packet.size] if straight is None else straight
        if len(view) != packet.size:
            message = f"room of {len(view)} bytes for {packet.size} of pages"
            raise ValueError(message)
        got = yield Receive(view)
        if got < packet.size:
            message = f"it ends after {got} of {packet.size} bytes of pages"
            raise StreamError(message, position=position + PACKET_SIZE + got)
        if straight is None:
            shaped = np.frombuffer(pages, np.uint8, packet.size).reshape(-1, PAGE_SIZE)
            place(packet.block, packet.offsets, shaped)
    if len(packet.zero_offsets):
        place(packet.block, packet.zero_offsets, None)
    return packet


def no_room(block: str, offsets: NDArray[np.uint64]) -> None:
    """Have all pages placed."""


class Line:
    """One channel: a stream that stays open over the packets that it carries."""

    def __init__(
        self,
        number: int,
        stream: ByteStream,
        *,
        outgoing: Channel | None = None,
        incoming: Channel | None = None,
    ) -> None:
        self.number = number
        self._stream = stream
        self._open = _StaysOpen(stream)
        self._links: dict[str, Channel | None] = {
            "outgoing": outgoing,
            "incoming": incoming,
        }
        self._party: Party[Any] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it is within a packet."""
        return self._party is not None

    def begin(self, steps: Steps[Any]) -> None:
        """Begin a packet."""
        self._party = Party(steps, self._open, **self._links)

    def step(self) -> tuple[bool, Any]:
        """Go on as far as it can: whether anything moved, what the packet returned."""
        party, moved = self._party, False
        if party is None:
            return False, None
        while not party.is_over and party.step():
            moved = True
        if not party.is_over:
            return moved, None
        self._party = None
        try:
            return moved, party.result()
        except StreamError as error:
            if isinstance(error, ChannelError) or party.error is not error:
                raise
            raise ChannelError(self.number, error) from None
        except OSError as error:
            self._lose(error)

    def wait_on(self, waiting: Waiting) -> None:
        """Register for what the packet waits for."""
        if self._party is not None:
            self._party.wait_on(waiting)

    def finish(self) -> None:
        """Send no more."""
        self._stream.finish()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _lose(self, error: OSError) -> NoReturn:
        if error.errno is None:
            raise error
        why = f"channel {self.number}: {error.strerror}"
        raise OSError(error.errno, why) from error


class _StaysOpen:
    """A stream that a party's end does not finish: another packet follows."""

    def __init__(self, stream: ByteStream) -> None:
        self.send = stream.send
        self.receive_into = stream.receive_into
        self.close = stream.close
        self.fileno = stream.fileno

    def finish(self) -> None:
        """Do nothing."""


def _flat(pages: NDArray[np.uint8] | memoryview) -> memoryview:
    """Return the bytes of pages as the exchange moves them."""
    view = pages if isinstance(pages, memoryview) else np.ascontiguousarray(pages).data
    return view.cast("B") if view.nbytes else memoryview(b"")
