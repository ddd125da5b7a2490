"""Mutants that lose, refuse or choke on data on its way in.

Rule 1: a bad stream is refused as the reference driver does it, unless that is the
bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from vfiomig.vendor.loading import LoadingSession
from vfiomig.vendor.mutants.mutable import MutableDriver, refuse

if TYPE_CHECKING:
    from vfiomig.protocol.v1.states import DeviceState

__all__ = [
    "ChunkOffsetIgnoredOnWrite",
    "FirstChunkIsTheLast",
    "GarbageCrashes",
    "LoadsNothing",
    "RefusalDropsTheLoad",
    "TakesTheChunkTooEarly",
    "WordWritesOnly",
]

_WORDS: Final = (4, 8)


class WordWritesOnly(MutableDriver):
    """Lets its data be written in words alone."""

    violates: ClassVar = frozenset(
        {"v1/resuming/data-in-any-pieces", "v1/transitions/resuming-to-running"}
    )

    def _write_data(self, offset: int, data: bytes) -> None:
        if len(data) not in _WORDS:
            refuse(f"{len(data)} bytes are no word")
        super()._write_data(offset, data)


class ChunkOffsetIgnoredOnWrite(MutableDriver):
    """Puts each write over the first bytes of its buffer (BUG-HISI-01)."""

    violates: ClassVar = frozenset({"v1/resuming/data-in-any-pieces"})

    def _write_data(self, offset: int, data: bytes) -> None:
        if offset + len(data) <= self._section.offset + self._section.size:
            offset = self._section.offset
        super()._write_data(offset, data)


class GarbageCrashes(MutableDriver):
    """Raises ValueError, which is no errno, for a chunk that makes no sense."""

    violates: ClassVar = frozenset({"v1/resuming/survives-any-content"})

    def _write_data_size(self, size: int) -> None:
        try:
            super()._write_data_size(size)
        except OSError as failure:
            if self._loading is not None and self._loading.is_refused:
                message = f"unexpected chunk: {failure}"
                raise ValueError(message) from failure
            raise


class FirstChunkIsTheLast(MutableDriver):
    """Takes one chunk in a session, and refuses those that follow."""

    violates: ClassVar = frozenset(
        {"v1/resuming/takes-many-buffers", "v1/transitions/resuming-to-running"}
    )

    def _write_data_size(self, size: int) -> None:
        if self._loading is not None and self._loading._expected:
            refuse("the chunk was there already")
        super()._write_data_size(size)


class TakesTheChunkTooEarly(MutableDriver):
    """Keeps what was first written to a place, whatever is written over it.

    data_size consumes that, and the next buffer begins afresh.
    """

    violates: ClassVar = frozenset({"v1/resuming/consumed-at-data-size"})
    _end = 0

    def _write_data(self, offset: int, data: bytes) -> None:
        fresh = max(0, self._end - offset)
        if offset + len(data) > self._section.offset + self._section.size:
            refuse("the data leaves the data section")
        if fresh < len(data):
            super()._write_data(offset + fresh, data[fresh:])
            self._end = offset + len(data)

    def _write_data_size(self, size: int) -> None:
        self._end = 0
        super()._write_data_size(size)

    def _end_sessions(self) -> None:
        self._end = 0
        super()._end_sessions()


class RefusalDropsTheLoad(MutableDriver):
    """Refuses to go from RESUMING to STOP, and forgets what was loaded."""

    violates: ClassVar = frozenset({"v1/transitions/undrawn-arc-refused-cleanly"})

    def _enter(self, target: DeviceState) -> None:
        if self._loading is not None and not target.is_running:
            self._loading = LoadingSession(self.model, self._section.view)
            refuse("what was loaded has to run first")
        super()._enter(target)


class LoadsNothing(MutableDriver):
    """Takes and checks every chunk, and goes on with the state that it had."""

    violates: ClassVar = frozenset(
        {"v1/device-state/resuming-uses-the-data", "v1/transitions/resuming-to-running"}
    )

    def _enter(self, target: DeviceState) -> None:
        session = self._loading
        if session is not None and session._complete and not session.is_refused:
            session.drop()
            self._loading = None
        super()._enter(target)
