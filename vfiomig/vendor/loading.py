"""One session of resuming: chunks into a model, checked one by one."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

from vfiomig.vendor import chunk
from vfiomig.vendor.chunk import HEADER_SIZE, Chunk

if TYPE_CHECKING:
    from vfiomig.vendor.device_model import DeviceModel


class LoadingSession:
    """From the write that sets RESUMING to the one that clears it.

    A stream that showed itself wrong stays refused: what came of it is dropped at
    once, and no later chunk is taken.
    """

    def __init__(self, model: DeviceModel, view: memoryview) -> None:
        self._model = model
        self._view = view
        self._expected = 0
        self._has_replaced = False
        self._link = self._link_before = 0
        self._complete = False
        self.is_refused = False
        model.begin_loading()
        self._forget_buffer()  # V1-TRANS-26

    def take(self, size: int) -> None:
        """Consume the chunk of ``size`` bytes that is in the data section (V1-RES-05).

        Raises:
            OSError: EINVAL for a size that no chunk has; what `chunk.unseal` raises;
                EINVAL for a chunk of another device, EPROTO for one out of order or
                of another stream, and what the model finds wrong.
        """
        if self.is_refused:
            _refuse(errno.EINVAL, "this stream was refused before")
        if not HEADER_SIZE <= size <= len(self._view):
            _refuse(errno.EINVAL, f"no chunk of {size} bytes is in the data section")
        try:
            self._apply(chunk.unseal(self._view[:size]))
        except OSError:
            self.is_refused = True
            self._model.drop_loading()
            raise
        self._forget_buffer()

    def finish(self) -> None:
        """Make what was loaded the device's state.

        Raises:
            OSError: EINVAL if the stream was refused or is not complete.
        """
        if self.is_refused:
            _refuse(errno.EINVAL, "this stream was refused")
        if not self._complete:
            _refuse(errno.EINVAL, f"the stream has not ended after {self._expected}")
        self._model.finish_loading()

    def drop(self) -> None:
        """Forget what was loaded."""
        if not self.is_refused:
            self._model.drop_loading()

    def _apply(self, head: Chunk) -> None:
        if (head.kind, head.shape) != (self._model.kind, self._model.shape):
            theirs = f"kind {head.kind:#x}, shape {head.shape:#x}"
            _refuse(errno.EINVAL, f"a chunk of another device: {theirs}")
        link = self._link
        if self._takes_the_place(head):
            link = self._link_before
        elif head.sequence != self._expected:
            why = f"chunk {head.sequence} came where {self._expected} belongs"
            _refuse(errno.EPROTO, why)
        if head.link != link:
            why = f"chunk {head.sequence} is of another stream than what came before"
            _refuse(errno.EPROTO, why)
        self._model.load(self._view[HEADER_SIZE : HEADER_SIZE + head.size])
        self._expected = head.sequence + 1
        self._has_replaced = bool(head.flags & chunk.AGAIN)
        self._link_before, self._link = link, chunk.link_to(self._view)
        self._complete = bool(head.flags & chunk.LAST)

    def _takes_the_place(self, head: Chunk) -> bool:
        """Tell whether a chunk may come where the one of its number has come."""
        if not head.flags & chunk.AGAIN or self._has_replaced:
            return False
        return head.sequence + 1 == self._expected

    def _forget_buffer(self) -> None:
        """Leave nothing that a later data_size could take for a chunk."""
        self._view[:HEADER_SIZE] = bytes(HEADER_SIZE)


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
