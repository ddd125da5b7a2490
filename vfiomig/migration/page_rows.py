"""Pages of RAM as rows of the stream: they are moved from and to where they lie.

Full pages that continue their block are rows: a word, and the page.  Which word stands
before which page is known beforehand, so both sides have tables of them, for so many
pages at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.migration.transport.rows import Rows
from vfiomig.protocol.qemu_stream.page_batch import PAGE_SIZE, full_words

if TYPE_CHECKING:
    from vfiomig.migration.transport.rows import Bytes, Span
    from vfiomig.vm.ram_block import RamBlock

# Pages of one table: what it costs to make is shared by so many.  A source may jump.
_SENT: Final = 1 << 12
_RECEIVED: Final = 1 << 14
_WORD: Final = 8


class PageRows:
    """What a source sends of a block: rows of words that are so, and of its pages."""

    def __init__(self) -> None:
        self._block: RamBlock | None = None
        self._first = 0
        self._rows: Rows | None = None

    def spans(self, block: RamBlock, first: int, count: int) -> tuple[Span, ...]:
        """Return ``count`` pages from ``first`` on, with their words."""
        spans = []
        end = first + count
        while first < end:
            rows = self._rows_of(block, first)
            last = min(end - self._first, len(rows.heads))
            spans.append(rows.span(first - self._first, last))
            first = self._first + last
        return tuple(spans)

    def _rows_of(self, block: RamBlock, page: int) -> Rows:
        first = page - page % _SENT
        rows = self._rows
        if rows is None or block is not self._block or first != self._first:
            pages = _pages(block, first, _SENT)
            rows = self._rows = Rows(full_words(first, len(pages)), pages)
            self._block, self._first = block, first
        return rows


class ExpectedRows:
    """What a destination expects next: rows of pages, whose words are yet to come.

    ``first`` is the page of the first row, ``end`` the one behind the last; ``size``
    is the bytes of a row.
    """

    def __init__(self, block: RamBlock, page: int) -> None:
        pages = _pages(block, page, _RECEIVED)
        self.block = block
        self.first = page
        self.end = page + len(pages)
        self._words = bytearray(len(pages) * _WORD)
        self._expected = full_words(page, len(pages)).tobytes()
        heads = np.frombuffer(self._words, np.uint8).reshape(-1, _WORD)
        self._rows = Rows(heads, pages)
        self.size = self._rows.size
        self._agreed = 0  # bytes of words that are as they should be
        self._span = self._rows.span(0, 0)
        self._held = 0

    def begins_with(self, page: int, data: memoryview) -> bool:
        """Tell whether ``data``, less than a row, can be what ``page`` begins with."""
        place = (page - self.first) * _WORD
        known = min(len(data), _WORD)
        return data[:known] == self._expected[place : place + known]

    def begin(self, page: int, held: memoryview) -> Span:
        """Return the rows from ``page`` on, behind those bytes of it that are here."""
        row = page - self.first
        self._agreed = row * _WORD
        self._held = len(held)
        self._span = self._rows.span(row, self.end - self.first)
        self._span[: len(held)].copy_from(held)
        return self._span[len(held) :]

    def agrees(self, size: int) -> bool:
        """Tell whether all words are as expected of which ``size`` bytes have come."""
        behind = self._span.start + self._held + size
        whole, part = divmod(behind, self.size)
        known = (whole + (part >= _WORD)) * _WORD
        seen = self._agreed
        if self._words[seen:known] != self._expected[seen:known]:
            return False
        self._agreed = known
        return True

    def end_at(self, size: int) -> tuple[int, memoryview]:
        """Return how many pages came, and what else did: no page, or a part of one.

        The latter was received into pages that had not come yet. They are made zero,
        so that one that never comes holds nothing of a stream.
        """
        span, filled = self._span, self._held + size
        whole = filled // self.size
        first = span.start // self.size
        if not self.agrees(size):
            known = slice(self._agreed // _WORD, first + whole + 1)
            saw = np.frombuffer(self._words, np.uint64)[known]
            wanted = np.frombuffer(self._expected, np.uint64)[known]
            whole = known.start + int((saw != wanted).argmax()) - first
        rest = span[whole * self.size : filled].joined()
        touched = -(-(len(rest) - _WORD) // self.size)
        if touched > 0:
            row = first + whole
            self._rows.bodies[row : row + touched] = 0
        return whole, rest


def _pages(block: RamBlock, first: int, most: int) -> Bytes:
    """Return up to ``most`` pages of a block from ``first`` on, (n, bytes)."""
    return block.bytes.reshape(-1, PAGE_SIZE)[first : first + most]
