"""Wide dirty bitmaps: many pages at a time, by numpy.

The layout is that of `vfiomig.protocol.dirty_bitmap`: bit i of little-endian u64 words
is page i.  It is a file of its own because importing numpy takes a quarter of a second,
and who serves or judges a device has no use for it.

Rule 1: a **range** is a row (first page, count).  Rows are sorted, counts at least 1,
and no two rows overlap: so it is what `dirty_ranges` returns and what the others want.

Rule 2: the cost follows what is set: words that are 0 are only looked at.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vfiomig.protocol.dirty_bitmap import WORD_BITS, WORD_BYTES, bitmap_size

Words: TypeAlias = NDArray[np.uint64]  # 1-D
Ranges: TypeAlias = NDArray[np.int64]  # shape (n, 2): first page, count
Pages: TypeAlias = NDArray[np.int64]  # 1-D: page numbers

WORD: Final = np.dtype("<u8")
_ONE: Final = np.uint64(1)
_ALL: Final = np.uint64((1 << WORD_BITS) - 1)
_TOP: Final = np.uint64(WORD_BITS - 1)
_LOW_BITS: Final = WORD_BITS - 1
_SHIFT: Final = 6  # log2 of WORD_BITS

# Words looked at in one go: the flags made of them stay in the second-level cache.
_LOOK: Final = 1 << 17
# Words with pages in them that are taken apart in one go: bounds what that allocates.
_TAKE: Final = 1 << 15
_FEW: Final = 2  # bits a word: with more it is quicker to look at each


def empty_words(pages: int) -> Words:
    """Return a bitmap of so many pages, all clean; its memory comes when written."""
    return np.zeros(bitmap_size(pages) // WORD_BYTES, WORD)


def words_of(bitmap: bytes | bytearray | memoryview) -> Words:
    """Return a bitmap that somebody else wrote as words, without a copy.

    Raises:
        ValueError: not whole words.
    """
    size = memoryview(bitmap).nbytes
    if size % WORD_BYTES:
        message = f"a bitmap of {size} bytes has no whole words"
        raise ValueError(message)
    return np.frombuffer(bitmap, WORD)


def count_pages(words: Words) -> int:
    """Return how many bits are set."""
    return int(np.bitwise_count(words).sum(dtype=np.int64))


def is_run(words: Words, first: int, count: int) -> bool:
    """Tell whether ``count`` bits from ``first`` on are there, and all set."""
    if first + count > len(words) * WORD_BITS:
        return False
    part = words[first >> _SHIFT : (first + count + _LOW_BITS) >> _SHIFT]
    mask = (1 << count) - 1
    return int.from_bytes(part, "little") >> (first & _LOW_BITS) & mask == mask


def words_with_pages(words: Words) -> Pages:
    """Return the numbers of the words that are not 0."""
    flags = np.empty(min(_LOOK, len(words)), np.bool_)
    found = []
    for start in range(0, len(words), _LOOK):
        part = words[start : start + _LOOK]
        hits = np.flatnonzero(np.not_equal(part, 0, out=flags[: len(part)]))
        if len(hits):
            hits += start
            found.append(hits)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def dirty_ranges(words: Words) -> Ranges:
    """Return the longest runs of set bits, first page and count, in order."""
    numbers = words_with_pages(words)
    if not len(numbers):
        return np.empty((0, 2), np.int64)
    first, last = [], []
    for at in range(0, len(numbers), _TAKE):
        taken = numbers[at : at + _TAKE]
        values = words[taken]
        # A run goes on over the edge of a word if the bit beside it is set.
        below = words[np.maximum(taken, 1) - 1] >> _TOP
        below[taken == 0] = 0
        first.append(_positions(taken, values & ~(values << _ONE | below)))
        above = words[np.minimum(taken + 1, len(words) - 1)] << _TOP
        above[taken == len(words) - 1] = 0
        last.append(_positions(taken, values & ~(values >> _ONE | above)))
    begins = np.concatenate(first)
    counts = np.concatenate(last)
    counts -= begins
    counts += 1
    return np.stack((begins, counts), axis=1)


def _positions(numbers: Pages, values: Words) -> Pages:
    """Return the pages whose bits are set in words of these numbers, in order."""
    bases = numbers << _SHIFT
    counts = np.bitwise_count(values).astype(np.int64)
    behind = np.cumsum(counts)
    if behind[-1] > _FEW * len(values):
        ones = np.flatnonzero(np.unpackbits(values.view(np.uint8), bitorder="little"))
        dense: Pages = bases[ones >> _SHIFT] + (ones & _LOW_BITS)
        return dense
    # The lowest bit of every word, then the next of those that have one.
    pages = np.empty(int(behind[-1]), np.int64)
    places = behind - counts
    while True:
        left = np.flatnonzero(values)
        if not len(left):
            return pages
        if len(left) < len(values):
            values, bases, places = values[left], bases[left], places[left]
        rest = values & (values - _ONE)
        pages[places] = bases + np.bitwise_count(~values & (values - _ONE))
        values, places = rest, places + 1


def set_ranges(words: Words, ranges: Ranges) -> int:
    """Set the bits of ranges that lie inside; return how many were not set."""
    edges, masks, inner = _parts(ranges)
    before = words[edges]
    fresh = count_pages(masks & ~before)
    words[edges] = before | masks
    if len(inner):
        fresh += len(inner) * WORD_BITS - count_pages(words[inner])
        words[inner] = _ALL
    return fresh


def clear_ranges(words: Words, ranges: Ranges) -> int:
    """Clear the bits of ranges that lie inside; return how many were set."""
    edges, masks, inner = _parts(ranges)
    before = words[edges]
    cleared = count_pages(masks & before)
    words[edges] = before & ~masks
    if len(inner):
        cleared += count_pages(words[inner])
        words[inner] = 0
    return cleared


def set_pages(words: Words, pages: Pages) -> int:
    """Set the bits of pages in any order, repeats too; return how many were not set."""
    if not len(pages):
        return 0
    low = int(pages.min()) >> _SHIFT
    high = (int(pages.max()) >> _SHIFT) + 1
    if high - low > len(pages):
        ordered = np.sort(pages)
        bits = _ONE << (ordered & _LOW_BITS).astype(WORD)
        edges, masks = _joined(ordered >> _SHIFT, bits)
        before = words[edges]
        words[edges] = before | masks
        return count_pages(masks & ~before)
    flags = np.zeros((high - low) * WORD_BITS, np.bool_)
    flags[pages - (low << _SHIFT)] = True
    mask = np.packbits(flags, bitorder="little").view(WORD)
    fresh = count_pages(mask & ~words[low:high])
    words[low:high] |= mask
    return fresh


def set_run(words: Words, first: int, count: int) -> int:
    """Set the bits of one range; return how many were not set."""
    changed = count
    for part, mask in _run_parts(words, first, count):
        changed -= count_pages(part & mask)
        part |= mask
    return changed


def set_copied(words: Words, at: int, source: Words, first: int, count: int) -> int:
    """Set the bits from ``at`` on that are set in ``count`` bits of another bitmap.

    Those begin with its bit ``first``.  Return how many were not set.
    """
    changed = 0
    begin, end = at >> _SHIFT, (at + count - 1) >> _SHIFT
    for low in range(begin, end + 1 if count else begin, _LOOK):
        high = min(low + _LOOK, end + 1)
        bits = _shifted(source, (low << _SHIFT) + first - at, high - low)
        if low == begin:
            bits[0] &= _ALL << np.uint64(at & _LOW_BITS)
        if high == end + 1:
            bits[-1] &= _ALL >> np.uint64(_LOW_BITS - (at + count - 1 & _LOW_BITS))
        part = words[low:high]
        changed += count_pages(bits & ~part)
        part |= bits
    return changed


def _shifted(words: Words, first: int, count: int) -> Words:
    """Return ``count`` words of the bits from ``first`` on; beyond the ends are 0s."""
    start, shift = first >> _SHIFT, first & _LOW_BITS
    row = np.zeros(count + 1, WORD)
    inside = words[max(start, 0) : start + count + 1]
    row[max(-start, 0) :][: len(inside)] = inside
    if not shift:
        return row[:-1]
    return row[:-1] >> np.uint64(shift) | row[1:] << np.uint64(WORD_BITS - shift)


def clear_run(words: Words, first: int, count: int) -> int:
    """Clear the bits of one range; return how many were set."""
    changed = 0
    for part, mask in _run_parts(words, first, count):
        changed += count_pages(part & mask)
        part &= ~mask
    return changed


def _run_parts(words: Words, first: int, count: int) -> list[tuple[Words, np.uint64]]:
    """Return the words of one range as slices, each with the mask of its bits."""
    head, tail = first >> _SHIFT, (first + count - 1) >> _SHIFT
    from_first = _ALL << np.uint64(first & _LOW_BITS)
    to_last = _ALL >> np.uint64(_LOW_BITS - ((first + count - 1) & _LOW_BITS))
    if head == tail:
        return [(words[head : head + 1], from_first & to_last)]
    return [
        (words[head : head + 1], from_first),
        (words[head + 1 : tail], _ALL),
        (words[tail : tail + 1], to_last),
    ]


def _parts(ranges: Ranges) -> tuple[Pages, Words, Pages]:
    """Return the words that ranges begin or end in, with masks, and those between."""
    first = ranges[:, 0]
    last = first + ranges[:, 1] - 1
    head, tail = first >> _SHIFT, last >> _SHIFT
    from_first = _ALL << (first & _LOW_BITS).astype(WORD)
    to_last = _ALL >> (_LOW_BITS - (last & _LOW_BITS)).astype(WORD)
    both = from_first & to_last
    is_one_word = head == tail
    numbers = np.stack((head, tail), axis=1).ravel()
    masks = np.where(is_one_word, both, (from_first, to_last)).T.ravel()
    edges, joined = _joined(numbers, masks)
    return edges, joined, _counted(head + 1, tail - head - 1)


def _joined(numbers: Pages, masks: Words) -> tuple[Pages, Words]:
    """Join the masks of equal numbers, which are sorted."""
    if not len(numbers):
        return numbers, masks
    is_new = np.empty(len(numbers), np.bool_)
    is_new[0] = True
    np.not_equal(numbers[1:], numbers[:-1], out=is_new[1:])
    starts = np.flatnonzero(is_new)
    return numbers[starts], np.bitwise_or.reduceat(masks, starts)


def _counted(first: Pages, counts: Pages) -> Pages:
    """Return first, first + 1, ... of each row, so many as ``counts`` says."""
    has_any = counts > 0
    first, counts = first[has_any], counts[has_any]
    behind = np.cumsum(counts)
    total = int(behind[-1]) if len(behind) else 0
    numbers: Pages = np.arange(total, dtype=np.int64)
    numbers += np.repeat(first - (behind - counts), counts)
    return numbers


def pages_in(ranges: Ranges) -> Pages:
    """Return the numbers of all pages in ranges."""
    return _counted(ranges[:, 0], ranges[:, 1])


def flag_ranges(flags: NDArray[np.bool_]) -> Ranges:
    """Return the runs of true flags as ranges."""
    edges = np.zeros(len(flags) + 2, np.int8)
    edges[1:-1] = flags
    bounds = np.flatnonzero(edges[1:] != edges[:-1]).reshape(-1, 2)
    bounds[:, 1] -= bounds[:, 0]
    return bounds


def from_page(ranges: Ranges, page: int) -> Ranges:
    """Return what of ranges lies at or behind a page."""
    at = int(np.searchsorted(ranges.sum(axis=1), page, side="right"))
    kept = ranges[at:]
    if len(kept) and kept[0, 0] < page:
        kept = kept.copy()
        kept[0] = page, kept[0].sum() - page
    return kept


def up_to_page(ranges: Ranges, page: int) -> Ranges:
    """Return what of ranges lies before a page."""
    kept = ranges[: int(np.searchsorted(ranges[:, 0], page))]
    if len(kept) and kept[-1].sum() > page:
        kept = kept.copy()
        kept[-1, 1] = page - kept[-1, 0]
    return kept


def up_to_count(ranges: Ranges, pages: int) -> Ranges:
    """Return the first so many pages of ranges."""
    behind = np.cumsum(ranges[:, 1])
    if not len(ranges) or behind[-1] <= pages:
        return ranges
    at = int(np.searchsorted(behind, pages))
    kept = ranges[: at + 1].copy()
    kept[at, 1] -= behind[at] - pages
    return kept if kept[at, 1] else kept[:at]


def joined(parts: list[Ranges]) -> Ranges:
    """Join ranges that follow one another; rows that touch or overlap become one."""
    ranges = np.concatenate([np.empty((0, 2), np.int64), *parts])
    if len(ranges) < 2:
        return ranges
    first = ranges[:, 0]
    behind = np.maximum.accumulate(ranges.sum(axis=1))
    starts = np.flatnonzero(np.append(True, first[1:] > behind[:-1]))
    ends = np.append(starts[1:], len(ranges)) - 1
    return np.stack((first[starts], behind[ends] - first[starts]), axis=1)


def in_pages_of(ranges: Ranges, start: int, page: int, target: int) -> Ranges:
    """Return the pages of ``target`` bytes that ranges of pages of ``page`` touch.

    ``start`` is the byte at which page 0 begins, counted from the target's page 0; it
    may be below 0 if nothing of the ranges is.
    """
    first = (start + ranges[:, 0] * page) // target
    last = (start + ranges.sum(axis=1) * page - 1) // target
    return joined([np.stack((first, last - first + 1), axis=1)])
