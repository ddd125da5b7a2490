"""Device memory that migrates in pages: all of it once, then what has changed.

Rule 1: a page is sent whole, and its bytes are moved once, from the memory into the
chunk (and at the destination from the chunk into the memory).

Rule 2: the first pages, the head, hold what only makes sense as a whole: registers,
queues, counters.  They wait until the device has stopped.

Rule 3: a payload is a row of records, each a header and a run of pages, as many as
fit: scattered dirty pages share a chunk.

Rule 4: what is loaded is not the device's state before `finish_loading`.  A device
that nobody touched since power-on (all zero) is loaded in place, for there "the state
from before" can be had again for nothing; otherwise a second memory is filled and
takes the place of the first.
"""

from __future__ import annotations

import ctypes
import enum
import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from vfiomig.vendor.device_memory import DeviceMemory
from vfiomig.vendor.dirty_log import DirtyLog

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE_SIZE: Final = 4096


class RecordType(enum.IntEnum):
    """Which part of the memory a record's pages belong to."""

    HEAD = 1
    MEMORY = 2


class RecordHeader(ctypes.Structure):
    """What stands before a run of pages in a payload (host byte order).

    ``first_page`` is counted from the start of the part that ``type`` names.
    """

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("page_count", ctypes.c_uint32),
        ("first_page", ctypes.c_uint64),
    )


_HEADER_SIZE: Final = ctypes.sizeof(RecordHeader)


class _Run(NamedTuple):
    """A run of pages, counted from the start of the head, and where its bytes are."""

    first: int
    length: int
    position: int


class PagedMemory:
    """A head of ``head_pages`` pages followed by ``memory_pages`` pages.

    Whoever writes to ``view`` marks the pages in ``dirty`` (numbered from the start
    of the head) and calls `touch` before.  ``view`` is another object after
    `finish_loading`: never keep it.
    """

    def __init__(self, *, head_pages: int, memory_pages: int) -> None:
        self.head_pages = head_pages
        self.pages = head_pages + memory_pages
        self.dirty = DirtyLog(self.pages)
        self._memory = DeviceMemory(self.pages * PAGE_SIZE)
        self._is_pristine = True
        self._is_saving = False
        self._cursor = head_pages
        self._sent: list[tuple[int, int]] = []
        self._staged: DeviceMemory | None = None
        self._missing: DirtyLog | None = None

    @property
    def view(self) -> memoryview:
        """The bytes, head first, writable."""
        return self._memory.view

    def snapshot(self) -> memoryview:
        """Return a read-only view of the head and the memory."""
        return self.view.toreadonly()

    def touch(self) -> None:
        """Say that the memory is about to be other than at power-on."""
        self._is_pristine = False

    def power_on(self) -> None:
        """Zero everything and end what session there is."""
        self.drop_loading()
        self.end_saving()
        if not self._is_pristine:
            self._memory.zero()
            self._is_pristine = True

    def close(self) -> None:
        """Let the mappings go."""
        self.drop_loading()
        self._memory.close()

    # -- saving

    def begin_saving(self) -> None:
        """Start a session: every page is to be sent."""
        self.dirty.mark_all()
        self._cursor = self.head_pages
        self._sent.clear()
        self._is_saving = True

    def pending(self, *, running: bool) -> int:
        """Return the bytes of the pages that `save` would still give."""
        if not self._is_saving:
            return 0
        held = self.dirty.count_run(0, self.head_pages) if running else 0
        return (self.dirty.count - held) * PAGE_SIZE

    def save(self, payload: memoryview, *, running: bool) -> int:
        """Fill ``payload`` with records of dirty pages and return the bytes used.

        It goes on where the last one ended, so that pages that are written again and
        again cannot keep the others from being sent.
        """
        self._sent.clear()
        if not self._is_saving:
            return 0
        filled = 0
        lowest = self.head_pages if running else 0
        while run := self.dirty.next_run(
            self._cursor, _room(payload, filled), lowest=lowest
        ):
            first, count = run
            if first < self.head_pages:
                count = min(count, self.head_pages - first)
            filled = self._put(payload, filled, first, count)
            self.dirty.clear_run(first, count)
            self._sent.append((first, count))
            self._cursor = first + count
        return filled

    def requeue(self) -> None:
        """Take the pages of the last `save` as not sent."""
        for first, count in self._sent:
            self.dirty.mark_run(first, count)
        self._sent.clear()

    def end_saving(self) -> None:
        """End the session."""
        self._is_saving = False
        self._sent.clear()

    def _put(self, payload: memoryview, at: int, first: int, count: int) -> int:
        header = RecordHeader.from_buffer(payload, at)
        header.page_count = count
        if first < self.head_pages:
            header.type, header.first_page = RecordType.HEAD, first
        else:
            header.type = RecordType.MEMORY
            header.first_page = first - self.head_pages
        start = at + _HEADER_SIZE
        end = start + count * PAGE_SIZE
        source = first * PAGE_SIZE
        payload[start:end] = self.view[source : source + count * PAGE_SIZE]
        return end

    # -- loading

    def begin_loading(self) -> None:
        """Get ready for every page to come."""
        self.drop_loading()
        self._missing = DirtyLog(self.pages)
        self._missing.mark_all()
        if not self._is_pristine:
            self._staged = DeviceMemory(self.pages * PAGE_SIZE)

    def load(self, payload: memoryview) -> None:
        """Take the pages of one payload.

        Raises ``OSError(EINVAL)``, and takes none of them, if a record is cut short,
        of no known type or names pages that are not there.
        """
        missing = self._loading()
        runs = self._records(payload)
        target = (self._staged or self._memory).view
        for first, length, position in runs:
            start, size = first * PAGE_SIZE, length * PAGE_SIZE
            target[start : start + size] = payload[position : position + size]
            missing.clear_run(first, length)

    def finish_loading(self, check: Callable[[memoryview], None]) -> None:
        """Make what came the memory's content.

        ``check`` is given the head that came, and raises if it makes no sense.
        Raises ``OSError(EINVAL)`` if a page never came.
        """
        missing = self._loading()
        if missing.count:
            message = f"{missing.count} of {self.pages} pages never came"
            raise OSError(errno.EINVAL, message)
        loaded = self._staged or self._memory
        check(loaded.view[: self.head_pages * PAGE_SIZE])
        if self._staged is not None:
            self._memory.close()
            self._memory = self._staged
        self._is_pristine = False
        self._staged = self._missing = None

    def drop_loading(self) -> None:
        """Forget what came; the memory is what it was before `begin_loading`."""
        if self._missing is None:
            return
        if self._staged is not None:
            self._staged.close()
        elif self._missing.count < self.pages:
            self._memory.zero()
        self._staged = self._missing = None

    def _loading(self) -> DirtyLog:
        if self._missing is None:
            raise OSError(errno.EINVAL, "the device is not being loaded")
        return self._missing

    def _records(self, payload: memoryview) -> list[_Run]:
        runs = []
        position = 0
        while position < len(payload):
            if len(payload) - position < _HEADER_SIZE:
                raise OSError(errno.EINVAL, f"record header cut short at {position}")
            header = RecordHeader.from_buffer_copy(payload, position)
            position += _HEADER_SIZE
            if header.page_count > (len(payload) - position) // PAGE_SIZE:
                raise OSError(errno.EINVAL, f"pages cut short at {position}")
            runs.append(_Run(self._place(header), header.page_count, position))
            position += header.page_count * PAGE_SIZE
        return runs

    def _place(self, header: RecordHeader) -> int:
        """Return the page, from the start of the head, that a record begins with."""
        match header.type:
            case RecordType.HEAD:
                start, pages = 0, self.head_pages
            case RecordType.MEMORY:
                start, pages = self.head_pages, self.pages - self.head_pages
            case unknown:
                raise OSError(errno.EINVAL, f"record type {unknown} is not known")
        if not 0 < header.page_count <= pages - header.first_page:
            message = f"{header.page_count} pages from {header.first_page} of {pages}"
            raise OSError(errno.EINVAL, message)
        return start + int(header.first_page)


def _room(payload: memoryview, filled: int) -> int:
    return (len(payload) - filled - _HEADER_SIZE) // PAGE_SIZE
