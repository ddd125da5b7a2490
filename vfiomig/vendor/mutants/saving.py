"""Mutants that lose or spoil state on its way out.

Rule 1: registers tell the truth about the buffer that is there.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from vfiomig.protocol.v1.states import DeviceState
from vfiomig.vendor.chunk import HEADER_SIZE
from vfiomig.vendor.mutants.mutable import MutableDriver, fail, refuse

__all__ = [
    "BufferFollowsTheDevice",
    "BufferLostAtStop",
    "ChunkOffsetIgnored",
    "FaultOnDataSwallowed",
    "NumbersGoOn",
    "ReadsOnce",
    "SavesInPreCopyOnly",
    "SecondSaveIsBusy",
    "SmallRestIsForgotten",
    "WordReadsOnly",
    "WorkIsNotNoted",
]

_WORDS: Final = (4, 8)
_PLACE: Final = HEADER_SIZE + 32  # in a buffer: somewhere in its payload


class SavesInPreCopyOnly(MutableDriver):
    """Makes no buffer ready in stop-and-copy: data_offset fails there."""

    violates: ClassVar = frozenset({"v1/saving/same-in-both-states"})

    def _read_data_offset(self) -> bytes:
        if self._state is DeviceState.STOP_AND_COPY:
            refuse("the device is stopped")
        return super()._read_data_offset()


class ReadsOnce(MutableDriver):
    """Wipes what is read of a buffer, so that it cannot be read again."""

    violates: ClassVar = frozenset({"v1/saving/data-stays"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        answer = super().read(offset, size)
        if self._saving is not None and offset >= self._section.offset:
            self._section.write(offset, bytes(size))
        return answer


class BufferFollowsTheDevice(MutableDriver):
    """Lets guest traffic show through in a buffer that is being read."""

    violates: ClassVar = frozenset({"v1/saving/data-stays"})

    def work(self, amount: int) -> None:
        """Work, and change a byte of the buffer along with the device."""
        super().work(amount)
        if self._state is DeviceState.PRE_COPY and amount > 0:
            self._section.view[_PLACE] ^= 0xFF


class WordReadsOnly(MutableDriver):
    """Lets its data be read in words alone."""

    violates: ClassVar = frozenset({"v1/saving/data-in-any-pieces"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if offset >= self._section.offset and size not in _WORDS:
            refuse(f"{size} bytes are no word")
        return super().read(offset, size)


class ChunkOffsetIgnored(MutableDriver):
    """Answers each read with the first bytes of its buffer (BUG-HISI-01)."""

    violates: ClassVar = frozenset({"v1/saving/data-in-any-pieces"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if self._saving is not None and offset >= self._section.offset:
            super().read(offset, size)  # an access that leaves the section still fails
            offset = self._section.offset
        return super().read(offset, size)


class WorkIsNotNoted(MutableDriver):
    """Does not send again what the guest changes in pre-copy (as BUG-HISI-05)."""

    violates: ClassVar = frozenset({"v1/saving/stream-restores"})

    def work(self, amount: int) -> None:
        """Work; in pre-copy the log of dirty pages stays as it was."""
        if self._state is not DeviceState.PRE_COPY:
            super().work(amount)
            return
        dirty = self.scratchpad._memory.dirty
        log, count = bytes(dirty._log), dirty.count
        super().work(amount)
        dirty._log[:] = log
        dirty.count = count


class FaultOnDataSwallowed(MutableDriver):
    """Hands out data as if nothing were wrong when the device fails at it."""

    violates: ClassVar = frozenset({"v1/saving/error-at-the-next-access"})

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read, with the bug."""
        if offset >= self._section.offset:
            return self._section.read(offset, size)
        return super().read(offset, size)


class BufferLostAtStop(MutableDriver):
    """Takes the buffer that is queued when stop-and-copy begins for consumed."""

    violates: ClassVar = frozenset({"v1/saving/unread-buffer-is-not-lost"})

    def _save(self, *, running: bool) -> None:
        if self._saving is not None and not running:
            self._saving.pending_bytes()
        super()._save(running=running)


class SmallRestIsForgotten(MutableDriver):
    """Takes a page that is dirty when the device stops for no page at all."""

    violates: ClassVar = frozenset(
        {
            "v1/pending-bytes/zero-in-pre-copy-is-no-end",
            "v1/saving/stream-restores",
        }
    )

    def _save(self, *, running: bool) -> None:
        dirty = self.scratchpad._memory.dirty
        if self._saving is not None and not running and dirty.count <= 2:
            dirty.clear_run(1, dirty.pages - 1)  # the head goes last, and always
        super()._save(running=running)


class SecondSaveIsBusy(MutableDriver):
    """Never lets go of what the first saving session took (as BUG-MLX5-12)."""

    violates: ClassVar = frozenset({"v1/saving/can-be-saved-again"})
    _has_saved = False

    def _enter(self, target: DeviceState) -> None:
        is_new = target.is_saving and self._saving is None
        if is_new and self._has_saved:
            fail(errno.EBUSY, "another session has the firmware")
        super()._enter(target)
        self._has_saved |= is_new

    def reset(self) -> None:
        """Reset, and let go."""
        self._has_saved = False
        super().reset()


class NumbersGoOn(MutableDriver):
    """Numbers the chunks of a session from where the one before it ended."""

    violates: ClassVar = frozenset({"v1/saving/can-be-saved-again"})
    _number = 0

    def _save(self, *, running: bool) -> None:
        is_new = self._saving is None
        super()._save(running=running)
        if is_new and self._saving is not None:
            self._saving._sequence = self._number

    def _end_sessions(self) -> None:
        if self._saving is not None:
            self._number = self._saving._sequence
        super()._end_sessions()

    def reset(self) -> None:
        """Reset, and count from 0."""
        super().reset()
        self._number = 0
