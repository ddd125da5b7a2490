"""Which pages of one RAM block are dirty, and who says so.

Nothing here is atomic: one thread marks, takes and clears.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.protocol.page_ranges import (
    clear_ranges,
    clear_run,
    count_pages,
    dirty_ranges,
    empty_words,
    from_page,
    is_run,
    joined,
    set_copied,
    set_pages,
    set_ranges,
    set_run,
    up_to_count,
)

if TYPE_CHECKING:
    from vfiomig.protocol.page_ranges import Pages, Ranges, Words

_LOOK: Final = 1 << 20  # pages looked at first for the next ranges, at most
_JOIN: Final = 1 << 16  # words joined in one go


class LogUser(enum.Enum):
    """Whose log of dirty pages it is (in QEMU: ram_list.dirty_memory, and so on)."""

    MIGRATION = "migration"  # what is still to be sent; the others flow into it
    DMA = "dma"  # devices that write behind the kernel's back
    KERNEL = "kernel"  # what KVM logs: the vCPUs


class DirtyPages:
    """A set of pages numbered from 0, as a bitmap; a new one is empty.

    ``words`` is the bitmap (bit i of little-endian u64 words is page i), for reading;
    ``count`` is how many bits are set.  Whatever marks or clears raises ``IndexError``
    for pages that are not there, and changes nothing then.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.count = 0
        self.words: Words = empty_words(pages)

    def mark(self, first: int, count: int = 1) -> int:
        """Add ``count`` pages from ``first`` on; return how many were not dirty."""
        self._check_run(first, count)
        fresh = set_run(self.words, first, count)
        self.count += fresh
        return fresh

    def mark_ranges(self, ranges: Ranges) -> int:
        """Add sorted ranges that do not overlap; return how many were not dirty."""
        if len(ranges) == 1:
            return self.mark(*ranges[0].tolist())
        self._check(ranges)
        fresh = set_ranges(self.words, ranges)
        self.count += fresh
        return fresh

    def mark_pages(self, pages: Pages) -> int:
        """Add pages in any order, repeats too; return how many were not dirty."""
        if len(pages) and not 0 <= pages.min() <= pages.max() < self.pages:
            message = f"pages {pages.min()} to {pages.max()} of {self.pages}"
            raise IndexError(message)
        fresh = set_pages(self.words, pages)
        self.count += fresh
        return fresh

    def mark_copied(self, page: int, bitmap: Words, first: int, count: int) -> int:
        """Add the pages from ``page`` on that ``count`` bits of a bitmap tell of.

        Those begin with its bit ``first``.  Return how many were not dirty.
        """
        self._check_run(page, count)
        fresh = set_copied(self.words, page, bitmap, first, count)
        self.count += fresh
        return fresh

    def mark_all(self) -> None:
        """Add every page."""
        self.mark(0, self.pages)

    def clear(self, first: int, count: int = 1) -> int:
        """Take ``count`` pages from ``first`` on out; return how many were dirty."""
        self._check_run(first, count)
        cleared = clear_run(self.words, first, count)
        self.count -= cleared
        return cleared

    def clear_ranges(self, ranges: Ranges) -> int:
        """Take sorted ranges that do not overlap out; return how many were dirty."""
        if len(ranges) == 1:
            return self.clear(*ranges[0].tolist())
        self._check(ranges)
        cleared = clear_ranges(self.words, ranges)
        self.count -= cleared
        return cleared

    def clear_all(self) -> None:
        """Let no page be dirty."""
        if self.count:
            self.words.fill(0)
            self.count = 0

    def ranges(self) -> Ranges:
        """Return all dirty pages as an array of rows (first page, count), in order."""
        return dirty_ranges(self.words)

    def next_ranges(self, cursor: int, limit: int) -> Ranges:
        """Return the first dirty pages at or behind ``cursor``, ``limit`` at most.

        Rows are (first page, count); the last is cut to keep the limit.  The search
        ends with the last page; no row means that there are none from there on.
        """
        cursor, limit = max(cursor, 0), max(limit, 0)
        if limit and is_run(self.words, cursor, limit):  # a migration's first round
            return _one(cursor, limit)
        found: list[Ranges] = []
        # Not much more than the limit: taking apart what nobody asked for is dear.
        missing, look = limit, min(limit, _LOOK) // 64 + 2
        at = cursor >> 6
        while missing > 0 and at < len(self.words):
            part = dirty_ranges(self.words[at : at + look])
            part[:, 0] += at << 6
            part = from_page(part, cursor)
            part = up_to_count(part, missing)
            missing -= int(part[:, 1].sum())
            found.append(part)
            at += look
            look = min(8 * look, _LOOK)
        return joined(found)

    def take(self, other: DirtyPages) -> int:
        """Move all of ``other``'s pages here; return how many were not dirty here."""
        if other.pages != self.pages:
            message = f"a log of {other.pages} pages does not fit one of {self.pages}"
            raise ValueError(message)
        if not other.count:
            return 0
        fresh = 0
        for at in range(0, len(self.words), _JOIN):
            mine, theirs = self.words[at : at + _JOIN], other.words[at : at + _JOIN]
            fresh += count_pages(theirs & ~mine)
            mine |= theirs
        other.clear_all()
        self.count += fresh
        return fresh

    def _check(self, ranges: Ranges) -> None:
        if len(ranges):
            first, end = int(ranges[0, 0]), int(ranges[-1].sum())
            self._check_run(first, end - first)

    def _check_run(self, first: int, count: int) -> None:
        if not 0 <= first < first + count <= self.pages:
            message = f"pages {first} to {first + count} of {self.pages}"
            raise IndexError(message)


def _one(first: int, count: int) -> Ranges:
    return np.array([[first, count]], np.int64)
