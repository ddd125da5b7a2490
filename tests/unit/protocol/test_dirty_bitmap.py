"""The arithmetic of dirty bitmaps, against sets of page numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.dirty_bitmap import (
    MAX_BITMAP_SIZE,
    MAX_PAGES,
    DirtyLog,
    Place,
    bitmap_size,
    holds,
    place_of,
    smallest_page,
)

PAGE = 4096


def pages_of(bitmap: bytes) -> set[int]:
    """Read a bitmap the slow way."""
    text = "".join(f"{byte:08b}"[::-1] for byte in bitmap)
    return {number for number, digit in enumerate(text) if digit == "1"}


@pytest.mark.parametrize(
    ("pages", "size"),
    [(0, 0), (1, 8), (63, 8), (64, 8), (65, 16), (128, 16), (1 << 24, 2 << 20)],
)
def test_a_bitmap_has_whole_words(pages: int, size: int) -> None:
    assert bitmap_size(pages) == size


def test_the_largest_bitmap_is_of_256_mib() -> None:
    assert (MAX_PAGES, MAX_BITMAP_SIZE) == (2147483647, 268435456)
    assert holds(MAX_BITMAP_SIZE, MAX_PAGES * PAGE, PAGE)
    assert not holds(MAX_BITMAP_SIZE + 1, PAGE, PAGE)
    assert not holds(8, 0, PAGE)
    assert not holds(8, PAGE - 1, PAGE)


@pytest.mark.parametrize("shift", range(64))
def test_the_smallest_page_size_is_the_lowest_bit(shift: int) -> None:
    above = ((1 << 64) - 1) << shift & ((1 << 64) - 1)
    assert smallest_page(above) == smallest_page(1 << shift) == 1 << shift


@pytest.mark.parametrize(
    ("page", "place"),
    [(0, Place(0, 0)), (63, Place(0, 63)), (64, Place(8, 0)), (200, Place(24, 8))],
)
@pytest.mark.parametrize("base", [0, PAGE, 1 << 32, 1 << 63])
def test_a_place_is_counted_from_the_base(page: int, place: Place, base: int) -> None:
    assert place_of(base + page * PAGE, base, PAGE) == place


writes = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, PAGE - 1))


@given(
    pages=st.integers(1, 300),
    bit=st.integers(0, 63),
    word=st.binary(min_size=8, max_size=8),
    marked=st.lists(writes, max_size=4),
    more=st.lists(writes, max_size=4),
)
def test_a_log_laid_anywhere_has_the_pages_that_were_written(
    pages: int,
    bit: int,
    word: bytes,
    marked: list[tuple[int, int, int]],
    more: list[tuple[int, int, int]],
) -> None:
    log = DirtyLog(pages * PAGE, PAGE)
    for each in (marked, more):
        log.clear()
        expected = {page for page in pages_of(word) if page < bit}
        for first, last, inside in each:
            if first <= last < pages:
                offset = first * PAGE + inside
                end = max(last * PAGE + 1, offset + 1)
                log.mark(offset, end - offset)
                expected |= {bit + page for page in range(first, last + 1)}
        laid = bytes(log.laid_at(bit, word))
        assert len(laid) == bitmap_size(bit + pages)
        assert pages_of(laid) == expected


@given(pages=st.integers(1, 300), bit=st.integers(0, 63))
def test_all_pages_are_all_and_no_more(pages: int, bit: int) -> None:
    log = DirtyLog(pages * PAGE, PAGE)
    log.mark_all()
    assert pages_of(bytes(log.laid_at(bit, bytes(8)))) == set(range(bit, bit + pages))
    log.clear()
    assert not any(log.laid_at(bit, bytes(8)))


def test_a_view_of_a_log_cannot_be_written() -> None:
    view = DirtyLog(PAGE, PAGE).laid_at(0, b"")
    assert isinstance(view, memoryview)
    assert view.readonly


def test_more_pages_than_a_log_can_have() -> None:
    with pytest.raises(ValueError, match="2147483648 pages"):
        DirtyLog((MAX_PAGES + 1) * PAGE, PAGE)
    assert DirtyLog(64 * PAGE, PAGE).nbytes == 8
