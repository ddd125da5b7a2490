"""Dirty bitmaps: a bit a page.  All arithmetic on them is in this file.

(And in `page_ranges`, by numpy, where they are wide: the guest's.)

Rule 1: bit i is the page at base + i * pgsize, counted in an array of little-endian
u64 words (DIRTY-GET-06); so it is bit i % 8 of byte i / 8.  A bitmap has whole words,
and the bits behind its last page are 0.

Rule 2: a range of bytes covers each page that it touches.  The last page is that of
the last byte, never of the one behind it.

Rule 3: who asks for a range has one bitmap, and each mapping inside it has a log of
its own.  A log is laid into the bitmap as whole words; of the word that it begins in
the middle of, the lower bits stay as they are (DIRTY-GET-07).
"""

from __future__ import annotations

from typing import Final, NamedTuple

WORD_BYTES: Final = 8
WORD_BITS: Final = 64

# The most pages that a log has, and what a bitmap of them takes, 256 MiB
# (DIRTY-CAP-01, DIRTY-OP-03).
MAX_PAGES: Final = (1 << 31) - 1


def bitmap_size(pages: int) -> int:
    """Return the bytes of a bitmap of so many pages: whole words."""
    return -(-pages // WORD_BITS) * WORD_BYTES


MAX_BITMAP_SIZE: Final = bitmap_size(MAX_PAGES)


def smallest_page(page_sizes: int) -> int:
    """Return the smallest page size, in bytes, of a bitmap of page sizes."""
    return page_sizes & -page_sizes


def holds(bitmap: int, size: int, pgsize: int) -> bool:
    """Tell whether ``bitmap`` bytes do for a range of ``size`` bytes (DIRTY-GET-04)."""
    pages = size // pgsize
    return pages > 0 and bitmap_size(pages) <= bitmap <= MAX_BITMAP_SIZE


class Place(NamedTuple):
    """Where a log begins in a bitmap: at a bit of the word at a byte."""

    byte: int  # a multiple of WORD_BYTES
    bit: int  # below WORD_BITS


def place_of(iova: int, base: int, pgsize: int) -> Place:
    """Return the place of the page at ``iova`` in a bitmap that begins at ``base``."""
    word, bit = divmod((iova - base) // pgsize, WORD_BITS)
    return Place(word * WORD_BYTES, bit)


class DirtyLog:
    """Which pages of one mapping were written: ``size`` bytes in pages of ``pgsize``.

    Raises:
        ValueError: more than MAX_PAGES pages.
    """

    def __init__(self, size: int, pgsize: int) -> None:
        pages = size // pgsize
        if pages > MAX_PAGES:
            message = f"{pages} pages are more than {MAX_PAGES}"
            raise ValueError(message)
        self._shift = pgsize.bit_length() - 1
        self._pages = pages
        self._bits = bytearray(bitmap_size(pages))
        self._low, self._high = len(self._bits), 0  # only bytes between were touched

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return len(self._bits)

    def mark(self, offset: int, size: int) -> None:
        """Log a write of ``size`` bytes, at least one, at an offset in the mapping."""
        self._set(offset >> self._shift, (offset + size - 1) >> self._shift)

    def mark_all(self) -> None:
        """Log every page."""
        self._set(0, self._pages - 1)

    def clear(self) -> None:
        """Forget every write."""
        if self._low < self._high:
            self._bits[self._low : self._high] = bytes(self._high - self._low)
        self._low, self._high = len(self._bits), 0

    def laid_at(self, bit: int, word: bytes) -> memoryview:
        """Return the words of a bitmap in which the log begins at a bit of the first.

        ``word`` is that word as it was: its lower bits are kept.  A log that begins
        with its word is not copied: the view must not outlive the next call.
        """
        if not bit:
            return memoryview(self._bits).toreadonly()
        words = bytearray(bitmap_size(bit + self._pages))
        if self._low < self._high:
            moved = int.from_bytes(self._bits[self._low : self._high], "little") << bit
            end = min(self._high + WORD_BYTES, len(words))
            words[self._low : end] = moved.to_bytes(end - self._low, "little")
        kept = int.from_bytes(word, "little") & ((1 << bit) - 1)
        first = int.from_bytes(words[:WORD_BYTES], "little") | kept
        words[:WORD_BYTES] = first.to_bytes(WORD_BYTES, "little")
        return memoryview(words)

    def _set(self, first: int, last: int) -> None:
        """Set bits, both ends included."""
        head, tail = first >> 3, last >> 3
        from_first, to_last = 0xFF << (first & 7) & 0xFF, 0xFF >> (7 - (last & 7))
        if head == tail:
            self._bits[head] |= from_first & to_last
        else:
            self._bits[head] |= from_first
            self._bits[head + 1 : tail] = b"\xff" * (tail - head - 1)
            self._bits[tail] |= to_last
        self._low, self._high = min(self._low, head), max(self._high, tail + 1)
