"""The stream without bytes: sizes are sent, dated by the link, and at once received."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.migration.clock import Channel, VirtualClock

if TYPE_CHECKING:
    from vfiomig.migration.clock import LinkModel
    from vfiomig.migration.metrics import Metrics


class Wire:
    """Both sides' clocks, and the link between them; ``metrics`` counts the stream."""

    def __init__(self, link: LinkModel, metrics: Metrics) -> None:
        self.source = VirtualClock()
        self.destination = VirtualClock()
        self.link = link
        self.metrics = metrics
        self._channel = Channel(link, self.source, self.destination)

    def send(self, size: int) -> None:
        """Let ``size`` bytes go into the stream, and arrive."""
        self._channel.send(size)
        self._channel.receive(size)
        self.metrics.stream_bytes += size

    def leap(self, size: int, duration: int, behind: int) -> None:
        """Let ``size`` bytes go in ``duration`` ns; the metrics know of them already.

        ``behind`` is the time that the destination's clock passes at least.
        """
        source, destination = self.source.now, self.destination.now
        self._channel.send(size)
        self._channel.receive(size)
        self.source.now = max(self.source.now, source + duration)
        self.destination.now = max(self.destination.now, destination + behind)

    def answer(self, size: int) -> None:
        """Let the destination say ``size`` bytes, which the source waits for."""
        arrived = self.destination.now + self.link.duration(size) + self.link.latency
        self.source.now = max(self.source.now, arrived)
