"""Mutants of the standalone driver: what is taken, and what is believed.

Rule 1: as `StandaloneDriver`, but for one method.
"""

from __future__ import annotations

import errno
import struct
from typing import ClassVar, Final

from vfiomig.vendor.mutants.standalone import (
    BLOCK,
    HEAD,
    OVERHEAD,
    RESUMING,
    WINDOW,
    StandaloneDriver,
    refuse,
)

__all__ = [
    "AnyBytesAreAStream",
    "BlankDeviceRefused",
    "ChecksOnlyTheFirstChunk",
    "ChecksumNotCompared",
    "HalfAStreamWillDo",
    "LoadsWhenAskedAgain",
    "OnlyOneSession",
    "ShortChunkCrashes",
    "SignedSize",
    "SkipsTheFirstBlock",
    "TrustsTheLength",
]

_SIGN: Final = 1 << 63


class LoadsWhenAskedAgain(StandaloneDriver):
    """Takes a chunk at the next data_offset or transition, not at data_size."""

    violates: ClassVar = frozenset({"v1/data-size/returns-on-consumption"})

    def end_session(self) -> None:
        """Forget the chunk that waits, too."""
        super().end_session()
        self._waiting = 0

    def write_data_size(self, size: int) -> None:
        """Note that a chunk waits in the window."""
        if self.state == RESUMING and OVERHEAD <= size <= WINDOW:
            self.trip("data_size")
            self._flush()
            self._waiting = size
            return
        super().write_data_size(size)

    def data_offset(self) -> int:
        """Return where the window is, once it is free."""
        self._flush()
        return super().data_offset()

    def finish(self) -> None:
        """Finish with the last chunk."""
        self._flush()
        super().finish()

    def _flush(self) -> None:
        size, self._waiting = self._waiting, 0
        if size:
            self.take(bytes(self.window[:size]))


class SkipsTheFirstBlock(StandaloneDriver):
    """Checks every block, and leaves the first as it was."""

    violates: ClassVar = frozenset(
        {"v1/data-size/applied-to-the-device", "v1/transitions/resuming-to-running"}
    )

    def finish(self) -> None:
        """Finish; the first block is not of the stream."""
        before = self.memory[:BLOCK]
        super().finish()
        self.memory[:BLOCK] = before


class SignedSize(StandaloneDriver):
    """Compares data_size as a signed number: -1 is small enough (BUG-MLX5-18)."""

    violates: ClassVar = frozenset({"v1/data-size/refused-if-impossible"})

    def write_data_size(self, size: int) -> None:
        """Take a chunk of a negative size for one that is done."""
        if self.state == RESUMING and size >= _SIGN:
            return
        super().write_data_size(size)


class ChecksumNotCompared(StandaloneDriver):
    """Has checksums in its stream, and never compares one."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-ends-with-a-verdict"})

    def check(self, chunk: bytes) -> None:
        """Check nothing but that the chunk fits."""
        _check_that_it_fits(chunk, self.memory_size)

    def finish(self) -> None:
        """Take what came."""
        if self.is_spoiled or self.expected is None:
            refuse("the stream is not whole")
        self.memory = self.staged


def _check_that_it_fits(chunk: bytes, memory_size: int) -> None:
    _, _, address, length, _ = HEAD.unpack_from(chunk)
    if address + length > memory_size or length != len(chunk) - OVERHEAD:
        refuse("a chunk that no device sends")


class HalfAStreamWillDo(StandaloneDriver):
    """Runs with the blocks that came before the stream broke off."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-ends-with-a-verdict"})

    def finish(self) -> None:
        """Take what came, if it has not ended."""
        if not self.is_spoiled and self.expected is None:
            self.memory = self.staged
            return
        super().finish()


class AnyBytesAreAStream(StandaloneDriver):
    """Passes over what it does not know, and goes on with its own state."""

    violates: ClassVar = frozenset({"v1/resuming/refuses-another-devices-data"})

    def take(self, chunk: bytes) -> None:
        """Take what is known."""
        try:
            self.check(chunk)
        except OSError:
            return
        self.apply(chunk)

    def finish(self) -> None:
        """Take what came, if anything did."""
        if any(self.staged):
            super().finish()


class OnlyOneSession(StandaloneDriver):
    """Can be resumed once; a second stream into the same device is refused."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-without-reset"})
    _has_resumed = False

    def enter(self, target: int) -> None:
        """Enter; RESUMING no more than once."""
        if target == RESUMING and self._has_resumed:
            raise OSError(errno.EBUSY, "the device was resumed before")
        super().enter(target)
        self._has_resumed |= target == RESUMING

    def power_on(self) -> None:
        """Switch on, to be resumed."""
        super().power_on()
        self._has_resumed = False


class ChecksOnlyTheFirstChunk(StandaloneDriver):
    """Remembers that a chunk matched, and checks no later one (as BUG-HISI-09)."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-ends-with-a-verdict"})

    def end_session(self) -> None:
        """Forget that a chunk matched."""
        super().end_session()
        self._has_matched = False

    def check(self, chunk: bytes) -> None:
        """Check a chunk, unless there was a good one before."""
        if self._has_matched:
            _check_that_it_fits(chunk, self.memory_size)
            return
        super().check(chunk)
        self._has_matched = True

    def finish(self) -> None:
        """Take what came."""
        if self.is_spoiled or self.expected is None:
            refuse("the stream is not whole")
        self.memory = self.staged


class BlankDeviceRefused(StandaloneDriver):
    """Refuses the stream of a device that was never used (BUG-HISI-07)."""

    violates: ClassVar = frozenset({"v1/transitions/resuming-to-running"})

    def finish(self) -> None:
        """Finish; a memory of zeros is no memory."""
        if self.expected is not None and not any(self.staged):
            refuse("the device has no queues")
        super().finish()


class ShortChunkCrashes(StandaloneDriver):
    """Unpacks the header of a chunk before it knows that there is one."""

    violates: ClassVar = frozenset({"v1/resuming/survives-any-content"})

    def write_data_size(self, size: int) -> None:
        """Take a chunk that is too short as far as ``struct.error``."""
        if self.state == RESUMING and size < OVERHEAD:
            HEAD.unpack(self.window[: min(size, HEAD.size - 1)])
        super().write_data_size(size)


class TrustsTheLength(StandaloneDriver):
    """Looks for the checksum where the header says that the block ends."""

    violates: ClassVar = frozenset({"v1/resuming/survives-any-content"})

    def check(self, chunk: bytes) -> None:
        """Check a chunk; a length that leads out of it is ``struct.error``."""
        _, _, _, length, _ = HEAD.unpack_from(chunk)
        struct.unpack_from("<I", chunk, HEAD.size + length)
        super().check(chunk)
