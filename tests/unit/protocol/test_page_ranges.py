"""Wide bitmaps, against sets of page numbers and Python's integers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.page_ranges import (
    Pages,
    Ranges,
    Words,
    clear_ranges,
    clear_run,
    count_pages,
    dirty_ranges,
    empty_words,
    flag_ranges,
    from_page,
    in_pages_of,
    is_run,
    joined,
    pages_in,
    set_copied,
    set_pages,
    set_ranges,
    set_run,
    up_to_count,
    up_to_page,
    words_of,
)

PAGES = 400
EVERYTHING = (1 << 64) - 1

# What the edges of words make interesting: full words, runs over several, lone bits.
words64 = st.one_of(
    st.sampled_from([0, EVERYTHING, 1, 1 << 63, 0x5555555555555555, EVERYTHING >> 1]),
    st.integers(0, EVERYTHING),
)
bitmaps = st.lists(words64, max_size=9)
page_sets = st.sets(st.integers(0, PAGES - 1), max_size=40)
cut_pages = st.integers(-3, PAGES + 70)


def ranges_of(pages: set[int]) -> Ranges:
    """Make ranges the slow way."""
    rows: list[list[int]] = []
    for page in sorted(pages):
        if rows and sum(rows[-1]) == page:
            rows[-1][1] += 1
        else:
            rows.append([page, 1])
    return np.array(rows, np.int64).reshape(-1, 2)


def set_of(ranges: Ranges) -> set[int]:
    """Read ranges the slow way; they must be sorted and not overlap."""
    rows = ranges.tolist()
    assert all(count > 0 for _, count in rows)
    assert all(sum(row) <= following[0] for row, following in pairwise(rows))
    return {page for first, n in rows for page in range(first, first + n)}


def bits_of(words: Words) -> set[int]:
    number = int.from_bytes(words.tobytes(), "little")
    return {page for page in range(len(words) * 64) if number >> page & 1}


def bitmap_of(pages: set[int]) -> Words:
    number = sum(1 << page for page in pages)
    return np.frombuffer(number.to_bytes(-(-PAGES // 64) * 8, "little"), "<u8").copy()


# A few long runs make middle words; lone pages make words with many edges.
run_sets = st.lists(
    st.tuples(st.integers(0, PAGES - 1), st.integers(1, 200)), max_size=4
).map(lambda runs: {p for a, n in runs for p in range(a, min(a + n, PAGES))})
sets = st.one_of(page_sets, run_sets)


@given(values=bitmaps)
def test_ranges_are_the_longest_runs_of_the_bits(values: list[int]) -> None:
    words = np.array(values, np.uint64)
    ranges = dirty_ranges(words)
    assert ranges.tolist() == ranges_of(bits_of(words)).tolist()
    assert count_pages(words) == sum(value.bit_count() for value in values)


@pytest.mark.parametrize("fill", [EVERYTHING, 0x8000000000000001, 0x5555555555555555])
def test_runs_go_on_where_the_work_was_cut(fill: int) -> None:
    words = np.full(70_000, fill, np.uint64)  # taken apart in three goes
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.int8)
    edges = np.diff(bits, prepend=np.int8(0), append=np.int8(0))
    ranges = dirty_ranges(words)
    assert np.array_equal(ranges[:, 0], np.flatnonzero(edges == 1))
    assert np.array_equal(ranges.sum(axis=1), np.flatnonzero(edges == -1))


def test_a_few_pages_in_a_wide_bitmap() -> None:
    pages = {
        0,
        1,
        63,
        64,
        1 << 24,
        (1 << 25) - 1,
        1 << 25,
        (1 << 26) + 5,
        (1 << 27) - 1,
    }
    words = empty_words(1 << 27)
    assert set_pages(words, np.array(sorted(pages))) == len(pages)
    assert dirty_ranges(words).tolist() == ranges_of(pages).tolist()


@given(before=sets, pages=sets)
def test_setting_ranges(before: set[int], pages: set[int]) -> None:
    words = bitmap_of(before)
    assert set_ranges(words, ranges_of(pages)) == len(pages - before)
    assert bits_of(words) == before | pages


@given(before=sets, pages=sets)
def test_clearing_ranges(before: set[int], pages: set[int]) -> None:
    words = bitmap_of(before)
    assert clear_ranges(words, ranges_of(pages)) == len(pages & before)
    assert bits_of(words) == before - pages


@given(before=sets, first=st.integers(0, PAGES - 1), count=st.integers(1, PAGES))
def test_one_run(before: set[int], first: int, count: int) -> None:
    count = min(count, PAGES - first)
    run = set(range(first, first + count))
    words = bitmap_of(before)
    assert set_run(words, first, count) == len(run - before)
    assert bits_of(words) == before | run
    words = bitmap_of(before)
    assert clear_run(words, first, count) == len(run & before)
    assert bits_of(words) == before - run


@given(pages=sets, first=st.integers(0, PAGES + 200), count=st.integers(1, PAGES))
def test_telling_a_run(pages: set[int], first: int, count: int) -> None:
    words = bitmap_of(pages)
    assert is_run(words, first, count) == (set(range(first, first + count)) <= pages)
    assert not is_run(words, 0, 1 << 60)


@given(before=sets, pages=st.lists(st.integers(0, PAGES - 1)))
def test_setting_pages_in_any_order(before: set[int], pages: list[int]) -> None:
    words = bitmap_of(before)
    fresh = set_pages(words, np.array(pages, np.int64))
    assert fresh == len(set(pages) - before)
    assert bits_of(words) == before | set(pages)


@given(
    before=sets,
    source=bitmaps,
    at=st.integers(0, PAGES - 1),
    first=st.integers(0, PAGES),
    count=st.integers(0, PAGES),
)
def test_copying_bits_to_another_place(
    before: set[int], source: list[int], at: int, first: int, count: int
) -> None:
    count = min(count, PAGES - at)
    words, other = bitmap_of(before), np.array(source, np.uint64)
    told = {
        page - first + at for page in bits_of(other) if first <= page < first + count
    }
    assert set_copied(words, at, other, first, count) == len(told - before)
    assert bits_of(words) == before | told


@pytest.mark.parametrize(("at", "first"), [(0, 0), (64, 0), (7, 100), (100, 7)])
def test_copying_a_wide_bitmap(at: int, first: int) -> None:
    rng = np.random.default_rng(1)
    source = rng.integers(0, EVERYTHING, 300_000, np.uint64)  # copied in three goes
    count = 64 * len(source) - 111
    words = empty_words(at + count)
    fresh = set_copied(words, at, source, first, count)
    number = int.from_bytes(source.tobytes(), "little") >> first & (1 << count) - 1
    assert int.from_bytes(words.tobytes(), "little") == number << at
    assert fresh == number.bit_count()


@given(pages=sets, cut=cut_pages)
def test_cutting_at_a_page(pages: set[int], cut: int) -> None:
    ranges = ranges_of(pages)
    assert set_of(from_page(ranges, cut)) == {page for page in pages if page >= cut}
    assert set_of(up_to_page(ranges, cut)) == {page for page in pages if page < cut}
    assert set_of(ranges) == pages  # as it was


@given(pages=sets, count=st.integers(0, PAGES + 1))
def test_cutting_at_a_count(pages: set[int], count: int) -> None:
    ranges = ranges_of(pages)
    assert set_of(up_to_count(ranges, count)) == set(sorted(pages)[:count])
    assert set_of(ranges) == pages


@given(rows=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=9))
def test_joining_ranges_that_touch_or_overlap(rows: list[tuple[int, int]]) -> None:
    parts = [np.array([row], np.int64) for row in sorted(rows)]
    pages = {page for first, count in rows for page in range(first, first + count)}
    assert joined(parts).tolist() == ranges_of(pages).tolist()


@given(
    pages=page_sets,
    start=st.integers(-(1 << 16), 1 << 16).map(lambda sixteenth: sixteenth * 256),
    page=st.sampled_from([256, 1024, 4096, 8192, 1 << 16]),
)
def test_pages_of_one_size_in_pages_of_another(
    pages: set[int], start: int, page: int
) -> None:
    found = in_pages_of(ranges_of(pages), start, page, 4096)
    touched = {
        byte // 4096
        for number in pages
        for byte in range(start + number * page, start + (number + 1) * page, 256)
    }
    assert found.tolist() == ranges_of(touched).tolist()


@given(flags=st.lists(st.booleans(), max_size=70))
def test_flags_as_ranges(flags: list[bool]) -> None:
    true = {place for place, flag in enumerate(flags) if flag}
    ranges = flag_ranges(np.array(flags, np.bool_))
    assert ranges.tolist() == ranges_of(true).tolist()
    numbers: Pages = pages_in(ranges)
    assert numbers.tolist() == sorted(true)


@pytest.mark.parametrize("bitmap", [bytes(16), bytearray(16), memoryview(bytes(16))])
def test_a_bitmap_of_somebody_else_is_read_in_place(
    bitmap: bytes | bytearray | memoryview,
) -> None:
    words = words_of(bitmap)
    assert words.tolist() == [0, 0]
    if isinstance(bitmap, bytearray):
        bitmap[8] = 1
        assert words.tolist() == [0, 1]


@pytest.mark.parametrize("size", [1, 7, 9])
def test_a_bitmap_has_whole_words(size: int) -> None:
    with pytest.raises(ValueError, match="no whole words"):
        words_of(bytes(size))
