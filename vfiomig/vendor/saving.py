"""One session of saving: chunks out of a model, buffer after buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.vendor import chunk
from vfiomig.vendor.chunk import HEADER_SIZE, Chunk

if TYPE_CHECKING:
    from vfiomig.vendor.device_model import DeviceModel


class SavingSession:
    """From the write that sets SAVING to the one that clears it.

    ``view`` is the data section; a chunk begins at its start.
    """

    def __init__(self, model: DeviceModel, view: memoryview, *, running: bool) -> None:
        self._model = model
        self._view = view
        self._running = running
        self._sequence = 0
        self._queued: Chunk | None = None
        self._link = self._next_link = 0
        self._again = False
        self._ended = False
        model.begin_saving()

    @property
    def has_buffer(self) -> bool:
        """Whether a buffer is queued: its data may have been read, or not."""
        return self._queued is not None

    def pending_bytes(self) -> int:
        """Take the queued buffer as consumed, and return what is left to send.

        In stop-and-copy a stream has at least one chunk: the one that ends it.
        """
        if self._queued is not None:
            self._ended = bool(self._queued.flags & chunk.LAST)
            self._sequence += 1
            self._link = self._next_link
            self._again = False
            self._queued = None
        return self._left()

    def queue_buffer(self) -> int:
        """Make the next buffer ready, once, and return its size (V1-OFF-05)."""
        if self._queued is None and self._left():
            self._queued = self._make()
            chunk.seal(self._view, self._queued)
            self._next_link = chunk.link_to(self._view)
        return HEADER_SIZE + self._queued.size if self._queued is not None else 0

    def stop(self) -> None:
        """Go on in stop-and-copy; a buffer that is queued is offered once more.

        Nobody knows whether it was read.  So the next chunk takes its place, number
        included, and says so (V1-SAVE-07).
        """
        self._running = False
        if self._queued is not None:
            self._model.requeue()
            self._queued = None
            self._again = True

    def end(self) -> None:
        """Forget what was not sent (V1-TRANS-25)."""
        self._model.end_saving()

    def _left(self) -> int:
        pending = self._model.pending(running=self._running)
        if pending or not (self._running or self._ended):
            return HEADER_SIZE + pending
        return 0

    def _make(self) -> Chunk:
        payload = self._view[HEADER_SIZE:][: chunk.MAX_PAYLOAD]
        size = self._model.save(payload, running=self._running)
        flags = chunk.AGAIN if self._again else 0
        if not (self._running or self._model.pending(running=False)):
            flags |= chunk.LAST
        whose = (self._model.kind, self._model.shape)
        return Chunk(*whose, self._sequence, flags, size, self._link)
