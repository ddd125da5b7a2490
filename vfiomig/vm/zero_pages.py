"""Which pages of RAM are zero, and the digest of those that are not.

Rule 1: a page that was never written is not read: reading through the mapping would
make it.  SEEK_DATA leads over long holes; mincore tells the short ones, for
SEEK_HOLE walks to the end of the data however far that is.  A page that is swapped out
is not "in core", and no hole either: SEEK_DATA finds it.

Rule 2: a page whose first word is not 0 is looked at no further.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from vfiomig.protocol.page_ranges import flag_ranges, pages_in
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vfiomig.protocol.page_ranges import Pages, Ranges
    from vfiomig.vm.ram_block import RamBlock, RamWords

Flags: TypeAlias = NDArray[np.bool_]

_PAGE_WORDS: Final = PAGE_SIZE // 8
_IN_CORE: Final = 1  # the lowest bit of mincore(2)'s bytes
_ASK: Final = 1 << 14  # pages that mincore is asked for at once
_READ: Final = 512  # pages read in one go: they fit the second-level cache
_ROWS: Final = 1 << 10  # ranges looked at in one go
_NEAR: Final = (
    256  # pages from one range to the next: below, they are looked at at once
)
_DIGEST: Final = 1 << 14  # pages of which a digest takes the numbers, then the bytes

_libc = ctypes.CDLL(None, use_errno=True)
_mincore = _libc.mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def zero_pages(block: RamBlock, first: int, count: int) -> Flags:
    """Tell of each of ``count`` pages from ``first`` on whether it holds only zeros.

    A page that was never written is told without being read, and stays unmade.
    Better few calls with many pages: a call takes some ten microseconds.
    Raises ``IndexError`` for pages that are not there.
    """
    return zero_pages_in(block, np.array([[first, count]], np.int64))


def zero_pages_in(block: RamBlock, ranges: Ranges) -> Flags:
    """Tell the same of all pages in ranges (rows of first page, count), in a row."""
    behind = ranges.sum(axis=1)
    if len(ranges) and not 0 <= ranges[0, 0] <= behind.max() <= block.pages:
        message = f"pages {ranges[0, 0]} to {behind.max()} of {block.pages}"
        raise IndexError(message)
    flags = np.ones(int(ranges[:, 1].sum()), np.bool_)
    place = 0
    for at in range(0, len(ranges), _ROWS):
        rows = ranges[at : at + _ROWS]
        told = flags[place : place + int(rows[:, 1].sum())]
        is_near = rows[-1].sum() - rows[0, 0] <= _NEAR * len(rows)
        if is_near and len(rows) > 1:
            _look_near(block, rows, told)
        else:
            _look_far(block, rows, told)
        place += len(told)
    return flags


def digest(blocks: Iterable[RamBlock]) -> str:
    """Return a digest (hex) of the blocks' names, sizes, and pages that are not zero.

    A page never written and one of written zeros are the same; holes cost nothing.
    """
    hashed = xxhash.xxh3_128()
    for block in blocks:
        hashed.update(f"{block.idstr}\0{block.size}\0".encode())
        first = _next_data(block, 0)
        while first < block.pages:
            first -= first % _DIGEST  # where data begins must not tell
            count = min(_DIGEST, block.pages - first)
            ranges = flag_ranges(~zero_pages(block, first, count))
            ranges[:, 0] += first
            if len(ranges):
                hashed.update(len(ranges).to_bytes(8, "little") + ranges.tobytes())
            for start, length in ranges.tolist():
                hashed.update(block.pages_view(start, length))
            first = _next_data(block, first + count)
    return hashed.hexdigest()


# -- holes


def _next_data(block: RamBlock, page: int) -> int:
    """Return the first page from ``page`` on that is no hole; ``pages`` if none is."""
    try:
        return os.lseek(block.fd, page * PAGE_SIZE, os.SEEK_DATA) // PAGE_SIZE
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return block.pages


def _data_windows(
    block: RamBlock, first: int, count: int
) -> Iterator[tuple[int, Flags]]:
    """Yield (first page, is it no hole, page by page) of all that is no hole."""
    end = first + count
    first = _next_data(block, first) if count else end
    while first < end:
        asked = min(end - first, _ASK)
        yield first, _are_data(block, first, asked)
        first = _next_data(block, first + asked) if first + asked < end else end


def _are_data(block: RamBlock, first: int, count: int) -> Flags:
    """Tell of each page whether it is no hole."""
    if mmap.PAGESIZE != PAGE_SIZE:
        return np.ones(count, np.bool_)  # mincore counts in other pages
    vector = np.empty(count, np.uint8)
    start = block.address + first * PAGE_SIZE
    if _mincore(start, count * PAGE_SIZE, vector.ctypes.data):
        code = ctypes.get_errno()
        raise OSError(code, f"mincore: {os.strerror(code)}")
    vector &= _IN_CORE
    flags: Flags = vector.view(np.bool_)
    if flags.all():
        return flags
    for gap, length in flag_ranges(~flags).tolist():
        page = _next_data(block, first + gap)
        while page < first + gap + length:
            flags[page - first] = True
            page = _next_data(block, page + 1)
    return flags


# -- contents


def _look_far(block: RamBlock, ranges: Ranges, flags: Flags) -> None:
    """Put into ``flags`` which pages of ranges are zero, one range after the other."""
    pages = block.words.reshape(-1, _PAGE_WORDS)
    place = 0
    for first, count in ranges.tolist():
        for start, is_data in _data_windows(block, first, count):
            at = place + start - first
            told = flags[at : at + len(is_data)]
            if is_data.all():
                _look(pages[start : start + len(is_data)], told)
            else:
                places = np.flatnonzero(is_data)
                told[places] = _look_at(pages, places + start)
        place += count


def _look_near(block: RamBlock, ranges: Ranges, flags: Flags) -> None:
    """Put into ``flags`` which pages of ranges are zero, all of them together."""
    pages = block.words.reshape(-1, _PAGE_WORDS)
    lowest, end = int(ranges[0, 0]), int(ranges[-1].sum())
    is_data = np.zeros(end - lowest, np.bool_)
    for start, told in _data_windows(block, lowest, end - lowest):
        is_data[start - lowest : start - lowest + len(told)] = told
    numbers = pages_in(ranges)
    places = np.flatnonzero(is_data[numbers - lowest])
    flags[places] = _look_at(pages, numbers[places])


def _look(pages: RamWords, flags: Flags) -> None:
    """Put into ``flags`` which of the rows are zero."""
    np.equal(pages[:, 0], 0, out=flags)
    for at in range(0, len(pages), _READ):
        part, told = pages[at : at + _READ], flags[at : at + _READ]
        left = np.count_nonzero(told)
        if left == len(told):
            np.equal(np.bitwise_or.reduce(part, axis=1), 0, out=told)
        elif left:
            rows = np.flatnonzero(told)
            told[rows] = np.bitwise_or.reduce(part[rows], axis=1) == 0


def _look_at(pages: RamWords, numbers: Pages) -> Flags:
    """Tell which of the rows with these numbers are zero."""
    flags: Flags = pages[numbers, 0] == 0
    left = np.flatnonzero(flags)
    for at in range(0, len(left), _READ):
        part = left[at : at + _READ]
        flags[part] = np.bitwise_or.reduce(pages[numbers[part]], axis=1) == 0
    return flags
