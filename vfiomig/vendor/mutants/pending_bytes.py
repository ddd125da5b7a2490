"""Mutants whose pending_bytes says or does the wrong thing.

Rule 1: what is to be sent is sent right, as long as pending_bytes is read no more
often than it must be and the user application goes on until it is 0.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from vfiomig.protocol.v1.states import DeviceState
from vfiomig.vendor.mutants.mutable import MutableDriver, fail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "FinishedInPreCopy",
    "MoreAfterTheEnd",
    "NeverDrained",
    "PendingDemandsAnOffset",
    "PendingReadAdvances",
    "PendingWobbles",
]


class _Polled(MutableDriver):
    """Knows whether pending_bytes was read since the last buffer was begun."""

    _is_polled = False

    def _read_data_offset(self) -> bytes:
        self._is_polled = False
        return super()._read_data_offset()

    def _set_state(self, state: DeviceState) -> None:
        self._is_polled = False
        super()._set_state(state)


class PendingReadAdvances(_Polled):
    """Drops a buffer that nobody queued on each further read of pending_bytes."""

    violates: ClassVar = frozenset(
        {
            "v1/pending-bytes/repeated-reads-have-no-effect",
            "v1/pending-bytes/acknowledges-only-a-queued-buffer",
        }
    )

    def _read_pending_bytes(self) -> bytes:
        if self._saving is not None:
            if self._is_polled:
                self._saving.queue_buffer()
            self._is_polled = True
        return super()._read_pending_bytes()


class PendingDemandsAnOffset(_Polled):
    """Fails when pending_bytes is read twice with no data_offset in between."""

    violates: ClassVar = frozenset({"v1/pending-bytes/any-number-of-reads-works"})

    def _read_pending_bytes(self) -> bytes:
        if self._is_polled and self._saving is not None:
            fail(errno.EBUSY, "data_offset is to be read now")
        answer = super()._read_pending_bytes()
        self._is_polled = self._saving is not None and any(answer)
        return answer


class FinishedInPreCopy(MutableDriver):
    """Takes 0 in pre-copy for the end of the stream, and says 0 in stop-and-copy, too.

    So did libvfio-user.
    """

    violates: ClassVar = frozenset({"v1/pending-bytes/zero-in-pre-copy-is-no-end"})
    _is_finished = False

    def _set_state(self, state: DeviceState) -> None:
        self._is_finished &= state is DeviceState.STOP_AND_COPY
        super()._set_state(state)

    def _read_pending_bytes(self) -> bytes:
        answer = super()._read_pending_bytes()
        if self._state is DeviceState.PRE_COPY and not any(answer):
            self._is_finished = True
        return bytes(8) if self._is_finished else answer


class MoreAfterTheEnd(MutableDriver):
    """Begins the stream again when pending_bytes is read once more after its end."""

    violates: ClassVar = frozenset(
        {"v1/pending-bytes/zero-in-stop-and-copy-is-the-end"}
    )
    _is_at_end = False

    def _set_state(self, state: DeviceState) -> None:
        self._is_at_end = False
        super()._set_state(state)

    def _read_pending_bytes(self) -> bytes:
        if self._is_at_end:
            _begin_again(self)
        answer = super()._read_pending_bytes()
        self._is_at_end = _is_at_end(self, answer)
        return answer


class NeverDrained(MutableDriver):
    """Sends its state over and over in stop-and-copy."""

    violates: ClassVar = frozenset({"v1/pending-bytes/stop-and-copy-ends"})

    def _read_pending_bytes(self) -> bytes:
        answer = super()._read_pending_bytes()
        if _is_at_end(self, answer):
            _begin_again(self)
            answer = super()._read_pending_bytes()
        return answer


def _is_at_end(driver: MutableDriver, answer: bytes) -> bool:
    return driver._state is DeviceState.STOP_AND_COPY and not any(answer)


def _begin_again(driver: MutableDriver) -> None:
    driver._end_sessions()
    driver._save(running=False)


def _wobble() -> Iterator[int]:
    while True:
        yield 0
        yield 1


class PendingWobbles(MutableDriver):
    """Says one byte more on every second read, stopped as it is."""

    violates: ClassVar = frozenset({"v1/pending-bytes/stable-while-stopped"})

    def __init__(self) -> None:
        super().__init__()
        self._more = _wobble()

    def _read_pending_bytes(self) -> bytes:
        pending = int.from_bytes(super()._read_pending_bytes(), "little")
        if pending and self._state is DeviceState.STOP_AND_COPY:
            pending += next(self._more)
        return pending.to_bytes(8, "little")
