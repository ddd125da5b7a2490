"""Virtual time: a number that a model moves, so that seconds do not pass.

There is one time line.  Each side has its own place on it; the link ties the two
together, because no byte is read before it has been written and has travelled.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

SECOND: Final = 1_000_000_000  # nanoseconds


class VirtualClock:
    """One side's place on the time line: ``now``, in nanoseconds, never goes back."""

    def __init__(self) -> None:
        self.now = 0

    def advance(self, duration: int) -> None:
        """Let ``duration`` nanoseconds pass."""
        self.now += duration


@dataclass(frozen=True, slots=True)
class LinkModel:
    """How long bytes take: ``bandwidth`` in bytes a second, ``latency`` in ns."""

    bandwidth: int
    latency: int

    def duration(self, size: int) -> int:
        """Return the nanoseconds that ``size`` bytes take to be sent."""
        return size * SECOND // self.bandwidth


class _Stretch(NamedTuple):
    """Bytes sent without a pause: number ``first`` left at ``began`` / bandwidth."""

    first: int
    began: int


class Channel:
    """One direction of the link: it dates each byte of what was sent.

    The sender's clock moves by the time its bytes occupy the link, the receiver's at
    least to the moment of their arrival.  A byte's date does not depend on how a
    transport cut the stream to pieces, nor on when the receiver had its turn: times
    are kept as fractions of the bandwidth, and rounded only when they are told.
    """

    def __init__(
        self, model: LinkModel, sender: VirtualClock, receiver: VirtualClock
    ) -> None:
        self._bandwidth = model.bandwidth
        self._latency = model.latency
        self._sender = sender
        self._receiver = receiver
        self._received = 0
        self._end = 0  # when the last byte had left, times bandwidth
        self._stretches: deque[_Stretch] = deque()
        self.sent = 0

    def send(self, size: int) -> None:
        """Date ``size`` bytes that are sent now."""
        sender, bandwidth = self._sender, self._bandwidth
        if self._end // bandwidth != sender.now or not self.sent:
            self._end = sender.now * bandwidth
            self._stretches.append(_Stretch(self.sent, self._end))
        self.sent += size
        self._end += size * SECOND
        sender.now = self._end // bandwidth

    def receive(self, size: int) -> None:
        """Let the receiver have waited for the next ``size`` bytes."""
        self._received += size
        stretches = self._stretches
        while len(stretches) > 1 and stretches[1].first < self._received:
            stretches.popleft()
        first, began = stretches[0]
        left = (began + (self._received - first) * SECOND) // self._bandwidth
        arrived = left + self._latency
        if arrived > self._receiver.now:
            self._receiver.now = arrived
