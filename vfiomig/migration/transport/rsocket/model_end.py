"""One end of a modelled connection: its buffers, its credits and its windows.

Rule 1: the adapter is instant.  What is written lies in the peer's memory, and the
completion in its queue, before the call returns; nothing of it is looked at until the
peer's own call looks.

Rule 2: `enter` is that look: what rdma-core 44.0 does in rpoll(), in an rrecv() that
finds nothing, in an rsend() or riowrite() that may not send, and in rshutdown().  There
alone completions are taken, and half of the receive buffer is handed back when half was
consumed.

Rule 3: nothing here waits, locks, or knows descriptors.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.buffer_address import address_of
from vfiomig.uapi.rsocket import (
    RS_CTRL_DISCONNECT,
    RS_CTRL_SHUTDOWN,
    RS_MSG_DATA_MASK,
    RS_MSG_SHIFT,
    RS_OP_CTRL,
    RS_OP_IOMAP_SGL,
    RS_OP_SGL,
)

if TYPE_CHECKING:
    from vfiomig.protocol.rdma_cm import RsocketHello

FIRST_TRANSFER: Final = 2048  # bytes; doubled with each transfer of one call
MAX_TRANSFER: Final = 65536
_SEND_LOW_WATER: Final = 2048  # bytes free in the send buffer
_CONTROL_SLOTS: Final = 4  # of the send queue, kept for what is not data
_MAPPING_BYTES: Final = 24  # struct rs_iomap
_SEQUENCE: Final = 0xFFFF
_LEAST_QUEUE, _LARGEST_QUEUE = 16, 0xFFFE
_DISCONNECT: Final = RS_OP_CTRL << RS_MSG_SHIFT | RS_CTRL_DISCONNECT
_SHUTDOWN: Final = RS_OP_CTRL << RS_MSG_SHIFT | RS_CTRL_SHUTDOWN


@dataclass(slots=True, kw_only=True)
class Sizes:
    """What a socket can be asked for before it is connected; rdma-core's defaults."""

    send_buffer: int = 1 << 17
    receive_buffer: int = 1 << 17
    send_queue: int = 384
    receive_queue: int = 384
    inline: int = 64
    mappings: int = 0

    def settled(self) -> Sizes:
        """Return them as a connection has them: queues have limits."""
        return replace(
            self,
            send_queue=_in_range(self.send_queue),
            receive_queue=_in_range(self.receive_queue),
        )


@dataclass(slots=True)
class Copies:
    """What the processor copied: how often, and how many bytes in all."""

    copies: int = 0
    copied_bytes: int = 0

    def count(self, size: int, copies: int = 1) -> None:
        """Count copies of ``size`` bytes in all."""
        self.copies += copies
        self.copied_bytes += size

    def add(self, other: Copies) -> None:
        """Count what another counted."""
        self.count(other.copied_bytes, other.copies)


@dataclass(slots=True, eq=False)
class Mapping:
    """A buffer that the peer may write into, and the offset that it has for the peer.

    ``buffer`` is None once it is unmapped: the peer hears nothing of that.
    """

    offset: int
    size: int
    address: int
    buffer: memoryview | None


class End:
    """One end; connected when made, once it knows its ``peer``."""

    def __init__(self, sizes: Sizes, *, is_native: bool) -> None:
        self.sizes = sizes
        self.is_native = is_native  # its buffers are registered: nothing is copied
        self.peer: End = self
        self.is_connected = self.is_readable = self.is_writable = True
        self.has_failed = False
        self.has_event = False  # a completion came that no call has looked at
        self.sending, self.receiving = Copies(), Copies()
        self._completions: deque[int] = deque()
        self._start_receiving(sizes)
        self._start_sending(sizes)

    def _start_receiving(self, sizes: Sizes) -> None:
        self._room = memoryview(bytearray(sizes.receive_buffer))
        self._half = sizes.receive_buffer // 2
        self._unpublished = self._half  # the peer was told of the other half
        self._next_published = 1
        self._read_at = 0
        self.messages: deque[int] = deque()  # sizes of those that wait and were seen
        self._waiting = 0  # bytes in them
        self._consumed = 0  # messages
        self._credits_due = sizes.receive_queue // 2

    def _start_sending(self, sizes: Sizes) -> None:
        self._windows = [0, 0]  # room in the halves of the peer's receive buffer
        self._window = 0
        self._write_at = 0
        self._sent = self._credits = 0  # messages: in all, and allowed in all
        self._slots = sizes.send_queue - _CONTROL_SLOTS
        self._free = sizes.send_buffer
        self.unheard: list[Mapping] = []  # mappings that the peer is to hear of first
        self._mappings: list[Mapping | None] = []
        self._reachable: list[Mapping | None] = [None] * sizes.mappings

    def learn(self, peer: End, hello: RsocketHello) -> None:
        """Take what the peer said of itself: its first half, credits, and places."""
        self.peer = peer
        self._windows[0] = hello.data.length
        self._credits = hello.credits
        self._mappings = [None] * hello.iomap_size

    # A window that the peer reopens is seen at once: it is written into our memory.
    # Credits and the completions that free the send buffer have to be looked at.

    @property
    def can_send(self) -> bool:
        """Whether a message can go now."""
        return (
            self._windows[self._window] > 0
            and self._sent != self._credits
            and self._free >= _SEND_LOW_WATER
            and self._slots > 0
        )

    def can_answer(self) -> bool:
        """Tell whether a receive can return: with bytes, or at the end."""
        return bool(self.messages) or not self.is_readable

    def enter(self) -> bool:
        """Do what every entry into the library does; tell whether the peer got any."""
        self.has_event = False
        first = self._hand_back()
        self._take_completions()
        return self._hand_back() or first

    def send(self, data: memoryview, limit: int) -> tuple[int, int]:
        """Transfer what goes into the half that is being filled, if anything can go.

        The first piece is of at most ``limit`` bytes, each further one of twice as
        many, up to 64 KiB. Return how many bytes went, and the limit of the next.
        """
        pieces: list[int] = []
        left, room, free = len(data), self._windows[self._window], self._free
        messages = min(self._slots, (self._credits - self._sent) & _SEQUENCE)
        while left and room and free >= _SEND_LOW_WATER and len(pieces) < messages:
            piece = min(limit, left, room, free)
            pieces.append(piece)
            left -= piece
            room -= piece
            free -= piece
            if limit < MAX_TRANSFER:
                limit <<= 1
        sent = len(data) - left
        self._slots -= len(pieces)
        self._sent = (self._sent + len(pieces)) & _SEQUENCE
        self._free = free
        self._windows[self._window] = room
        if not room:
            self._window = 1 - self._window
        if not self.is_native:
            self._count_sent(sent, pieces)
        self.has_event = True
        self._write_at = self.peer.place(data[:sent], self._write_at, pieces)
        return sent, limit

    def _count_sent(self, size: int, pieces: list[int]) -> None:
        inline = self.sizes.inline
        if pieces and min(pieces) <= inline:
            pieces = [piece for piece in pieces if piece > inline]
            size = sum(pieces)
        self.sending.count(size, len(pieces))

    def place(self, data: memoryview, position: int, pieces: list[int]) -> int:
        """Be written to at ``position`` of the receive buffer; return what is behind.

        Each piece is a message. None of them crosses the end of a half, so none the end
        of the buffer: as they lie behind one another, they are moved together. What is
        no connection any more is not written to.
        """
        behind = position + len(data)
        if not self.is_connected:
            return behind % len(self._room)
        self._room[position:behind] = data
        self._completions += pieces  # messages of RS_OP_DATA, which is 0
        self.has_event = True
        return behind % len(self._room)

    def take(self, buffer: memoryview) -> int:
        """Copy what waits; it is free to be handed back at the next entry."""
        size = self.peek(buffer)
        if not size:
            return 0
        messages, left, before = self.messages, size, self._consumed
        if size == self._waiting:
            self._consumed += len(messages)
            messages.clear()
            left = 0
        while left and left >= messages[0]:
            left -= messages.popleft()
            self._consumed += 1
        if left:
            messages[0] -= left
        self._read_at = (self._read_at + size) % len(self._room)
        self._waiting -= size
        self._unpublished += size
        if not self.is_native:
            self.receiving.count(size, self._consumed - before + bool(left))
        return size

    def peek(self, buffer: memoryview) -> int:
        """Copy what waits and leave it."""
        size, start = min(len(buffer), self._waiting), self._read_at
        if start + size <= len(self._room):
            buffer[:size] = self._room[start : start + size]
        else:
            to_end = len(self._room) - start
            buffer[:to_end] = self._room[start:]
            buffer[to_end:size] = self._room[: size - to_end]
        return size

    def shut(self, *, reading: bool, writing: bool) -> None:
        """Give up one direction or both; the peer is told if it is not to be read."""
        if not self.is_connected:
            return
        self.is_readable = self.is_readable and not reading
        self.is_writable = self.is_writable and not writing
        if self.is_writable:
            return
        both = reading or not self.is_readable
        self.peer._complete(_DISCONNECT if both else _SHUTDOWN)
        self.enter()
        if both:
            self.disconnect()

    def map(self, buffer: memoryview, offset: int) -> int | None:
        """Reserve a place of the peer's for ``buffer``; None if there is none.

        Return the offset that it has there: its address, if -1 was asked for.
        """
        if None not in self._mappings:
            return None
        place = self._mappings.index(None)
        where = address_of(buffer)
        mapping = Mapping(
            where if offset == -1 else offset, len(buffer), where, buffer[:]
        )
        self._mappings[place] = mapping
        self.unheard.append(mapping)
        return mapping.offset

    def unmap(self, buffer: memoryview) -> bool:
        """Give the place back; False if ``buffer`` is not mapped."""
        wanted = address_of(buffer), len(buffer)
        for mapping in self._mappings:
            if mapping is not None and (mapping.address, mapping.size) == wanted:
                self._let_go(mapping)
                return True
        return False

    def unmap_all(self) -> None:
        """Give every place back."""
        for mapping in self._mappings:
            if mapping is not None:
                self._let_go(mapping)

    def _let_go(self, mapping: Mapping) -> None:
        self._mappings[self._mappings.index(mapping)] = None
        self.unheard = [each for each in self.unheard if each is not mapping]
        if mapping.buffer is not None:
            mapping.buffer.release()
        mapping.buffer = None

    def publish(self) -> None:
        """Tell the peer of one mapping; it costs one message."""
        mapping = self.unheard.pop(0)
        place = self._mappings.index(mapping)
        self._sent = (self._sent + 1) & _SEQUENCE
        self._slots -= 1
        self._free -= _MAPPING_BYTES
        self.has_event = True
        self.peer._reachable[place] = mapping
        self.peer._complete(RS_OP_IOMAP_SGL << RS_MSG_SHIFT | place)

    def reach(self, offset: int) -> Mapping | None:
        """Return the mapping of the peer's that holds ``offset``, if it is known."""
        for mapping in self._reachable:
            if mapping is not None:
                start = mapping.offset
                if start <= offset < start + mapping.size:
                    return mapping
        return None

    def write(self, data: memoryview, limit: int, mapping: Mapping, offset: int) -> int:
        """Write a first piece of ``data`` to where the peer mapped ``offset``.

        What was unmapped is no memory of the peer's any more: the connection fails.
        """
        start = offset - mapping.offset
        size = min(len(data), limit, self._free, mapping.size - start)
        self._slots -= 1
        self._free -= size
        self.has_event = True
        if size > self.sizes.inline and not self.is_native:
            self.sending.count(size)
        if mapping.buffer is None:
            self._fail()
        elif self.peer.is_connected:
            mapping.buffer[start : start + size] = data[:size]
        return size

    def _complete(self, message: int) -> None:
        self._completions.append(message)
        self.has_event = True

    def _take_completions(self) -> None:
        completions = self._completions
        if completions and max(completions) <= RS_MSG_DATA_MASK:  # bytes and no more
            self.messages += completions
            self._waiting += sum(completions)
            completions.clear()
        while completions:
            message = completions.popleft()
            if message <= RS_MSG_DATA_MASK:  # RS_OP_DATA is 0
                self.messages.append(message)
                self._waiting += message
            else:
                self._take_control(message)
        self._slots = self.sizes.send_queue - _CONTROL_SLOTS
        self._free = self.sizes.send_buffer

    def _take_control(self, message: int) -> None:
        if message >> RS_MSG_SHIFT == RS_OP_SGL:
            self._credits = message & RS_MSG_DATA_MASK
        elif message == _DISCONNECT or (message == _SHUTDOWN and not self.is_writable):
            self.disconnect()
        elif message == _SHUTDOWN:
            self.is_readable = False

    def _hand_back(self) -> bool:
        """Publish the half that was consumed, and credits for as many messages."""
        has_half = self._unpublished >= self._half
        if not self.is_connected or not (
            has_half or self._consumed >= self._credits_due
        ):
            return False
        self._credits_due = self._consumed + self.sizes.receive_queue // 2
        if has_half:
            self.peer._windows[self._next_published] = self._half
            self._next_published = 1 - self._next_published
            self._unpublished -= self._half
        allowed = (self._consumed + self.sizes.receive_queue) & _SEQUENCE
        self.peer._complete(RS_OP_SGL << RS_MSG_SHIFT | allowed)
        return True

    def disconnect(self) -> None:
        """Be no connection any more; what came before can still be taken."""
        self.is_connected = self.is_readable = self.is_writable = False

    def _fail(self) -> None:
        for end in (self, self.peer):
            end.disconnect()
            end.has_failed = end.has_event = True


def _in_range(queue: int) -> int:
    return max(_LEAST_QUEUE, min(queue, _LARGEST_QUEUE))
