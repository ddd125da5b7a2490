"""The log of one block: what is in it, how much, and in which order it comes out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.vm.dirty_pages import DirtyPages


def marked(pages: int, *runs: tuple[int, int]) -> DirtyPages:
    log = DirtyPages(pages)
    for first, count in runs:
        log.mark(first, count)
    return log


def test_marking_tells_what_was_not_dirty() -> None:
    log = DirtyPages(200)
    assert log.mark(60, 10) == 10
    assert log.mark(65, 10) == 5
    assert log.mark_ranges(np.array([[0, 2], [74, 2]])) == 3
    assert log.mark_pages(np.array([199, 0, 199])) == 1
    assert log.ranges().tolist() == [[0, 2], [60, 16], [199, 1]]
    assert log.count == 19


def test_clearing_tells_what_was_dirty() -> None:
    log = marked(200, (0, 200))
    assert log.clear(10, 100) == 100
    assert log.clear(10) == 0
    assert log.clear_ranges(np.array([[9, 2], [150, 50]])) == 51
    assert log.ranges().tolist() == [[0, 9], [110, 40]]
    assert log.count == 49
    log.clear_all()
    assert (log.count, len(log.ranges())) == (0, 0)


def test_all_pages_are_no_more_than_there_are() -> None:
    log = DirtyPages(130)
    log.mark_all()
    assert log.count == 130
    # Bits behind the last page are 0.
    assert int(log.words[2]) == 3


def test_the_next_pages_begin_at_the_cursor_and_keep_the_limit() -> None:
    log = marked(1 << 20, (5, 10), (100, 3), (900_000, 4))
    assert log.next_ranges(0, 1 << 20).tolist() == [[5, 10], [100, 3], [900_000, 4]]
    assert log.next_ranges(7, 9).tolist() == [[7, 8], [100, 1]]
    assert log.next_ranges(101, 2).tolist() == [[101, 2]]
    assert log.next_ranges(103, 2).tolist() == [[900_000, 2]]
    assert log.next_ranges(900_004, 5).tolist() == []
    assert log.next_ranges(1 << 20, 5).tolist() == []
    assert log.next_ranges(0, 0).tolist() == []
    assert log.count == 17


@given(
    runs=st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 900)), max_size=6),
    pages=st.sets(st.integers(0, 2999), max_size=30),
    cursor=st.integers(-5, 3100),
    limit=st.one_of(st.integers(-1, 40), st.integers(0, 4000)),
)
def test_the_next_pages_are_the_first_of_all_that_follow(
    runs: list[tuple[int, int]], pages: set[int], cursor: int, limit: int
) -> None:
    log = DirtyPages(3000)
    log.mark_pages(np.array(sorted(pages), np.int64))
    for first, count in runs:
        log.mark(first, min(count, 3000 - first))
    all_pages = [page for first, n in log.ranges() for page in range(first, first + n)]
    behind = [page for page in all_pages if page >= cursor]
    found = log.next_ranges(cursor, limit)
    told = [page for first, count in found for page in range(first, first + count)]
    assert told == behind[: max(limit, 0)]
    # The longest runs: no row could be joined with the next.
    assert all(a + n < b for (a, n), (b, _) in pairwise(found.tolist()))


def test_a_run_is_one_range_however_far_it_goes() -> None:
    log = marked(1 << 21, (1, (1 << 21) - 1))
    assert log.next_ranges(0, 1 << 21).tolist() == [[1, (1 << 21) - 1]]
    assert log.next_ranges(1 << 18, 1 << 20).tolist() == [[1 << 18, 1 << 20]]


def test_a_bitmap_of_somebody_else_is_marked_elsewhere() -> None:
    log = marked(100, (11, 1))
    told = np.array([0b1110, 1], np.uint64)  # 1, 2, 3, 64
    assert log.mark_copied(10, told, 1, 64) == 3
    assert log.ranges().tolist() == [[10, 3], [73, 1]]
    assert log.count == 4
    with pytest.raises(IndexError, match="pages 37 to 101 of 100"):
        log.mark_copied(37, told, 0, 64)


def test_taking_another_log_joins_both_and_empties_it() -> None:
    mine, other = marked(300, (0, 10), (250, 50)), marked(300, (5, 10), (299, 1))
    assert mine.take(other) == 5
    assert mine.ranges().tolist() == [[0, 15], [250, 50]]
    assert (mine.count, other.count, len(other.ranges())) == (65, 0, 0)
    assert mine.take(other) == 0


def test_taking_a_wide_log() -> None:
    pages = 1 << 24  # joined in several goes
    mine, other = marked(pages, (0, 1)), marked(pages, (0, 2), (pages - 1, 1))
    assert mine.take(other) == 2
    assert mine.ranges().tolist() == [[0, 2], [pages - 1, 1]]


def test_a_log_of_another_block_is_not_taken() -> None:
    with pytest.raises(ValueError, match="65 pages does not fit one of 64"):
        DirtyPages(64).take(DirtyPages(65))


OUTSIDE = [(-1, 1), (0, 101), (100, 1), (50, 0), (50, -1)]


@pytest.mark.parametrize(("first", "count"), OUTSIDE)
def test_pages_that_are_not_there_change_nothing(first: int, count: int) -> None:
    log = marked(100, (20, 20))
    rows = np.array([[first, count]])
    for change_run in (log.mark, log.clear):
        with pytest.raises(IndexError, match="of 100"):
            change_run(first, count)
    for change_rows in (log.mark_ranges, log.clear_ranges):
        with pytest.raises(IndexError, match="of 100"):
            change_rows(rows)
    assert log.ranges().tolist() == [[20, 20]]


@pytest.mark.parametrize("pages", [[-1], [100], [3, 100, 4], [-1, 99]])
def test_page_numbers_that_are_not_there(pages: list[int]) -> None:
    log = DirtyPages(100)
    with pytest.raises(IndexError, match="of 100"):
        log.mark_pages(np.array(pages))
    assert log.count == 0


def test_no_pages_are_no_error() -> None:
    log = DirtyPages(100)
    assert log.mark_pages(np.empty(0, np.int64)) == 0
    assert log.mark_ranges(np.empty((0, 2), np.int64)) == 0
