"""`DirtyLog` against a set of page numbers that is searched page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfiomig.vendor.dirty_log import DirtyLog

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGES = 24

pages = st.integers(0, PAGES - 1)
limits = st.integers(1, PAGES)


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(st.integers(0, PAGES))
    return first, draw(st.integers(0, PAGES - first))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), pages),
        st.tuples(st.just("mark_run"), runs()),
        st.tuples(st.just("clear_run"), runs()),
        st.just(("mark_all", None)),
        st.just(("clear_all", None)),
    ),
    max_size=12,
)


def expected_run(
    dirty: Iterable[int], cursor: int, limit: int, lowest: int
) -> tuple[int, int] | None:
    """Do what the docstring says, one page at a time."""
    candidates = {page for page in dirty if page >= lowest}
    if not candidates:
        return None
    ahead = {page for page in candidates if page >= cursor}
    first = min(ahead or candidates)
    count = 1
    while count < limit and first + count in candidates:
        count += 1
    return first, count


def replay(log: DirtyLog, taken: list[tuple[str, object]]) -> set[int]:
    """Carry the steps out on the log, and on the set that is returned."""
    dirty: set[int] = set()
    for name, argument in taken:
        match name, argument:
            case "mark", int(page):
                log.mark(page)
                dirty.add(page)
            case "mark_run", (int(first), int(count)):
                log.mark_run(first, count)
                dirty.update(range(first, first + count))
            case "clear_run", (int(first), int(count)):
                log.clear_run(first, count)
                dirty.difference_update(range(first, first + count))
            case "mark_all", _:
                log.mark_all()
                dirty.update(range(PAGES))
            case _:
                log.clear_all()
                dirty.clear()
    return dirty


@settings(max_examples=60, deadline=None)
@given(steps, pages, limits, pages, runs())
def test_the_log_is_a_set_of_pages(
    taken: list[tuple[str, object]],
    cursor: int,
    limit: int,
    lowest: int,
    part: tuple[int, int],
) -> None:
    log = DirtyLog(PAGES)
    dirty = replay(log, taken)
    assert log.count == len(dirty)
    assert log.count_run(*part) == len(dirty & set(range(part[0], sum(part))))
    found = log.next_run(cursor, limit, lowest=lowest)
    assert found == expected_run(dirty, cursor, limit, lowest)


@settings(max_examples=40, deadline=None)
@given(steps, pages, limits)
def test_taking_run_after_run_gives_every_dirty_page_once(
    taken: list[tuple[str, object]], cursor: int, limit: int
) -> None:
    log = DirtyLog(PAGES)
    dirty = replay(log, taken)
    given_out: list[int] = []
    while run := log.next_run(cursor, limit):
        log.clear_run(*run)
        cursor = sum(run)
        given_out.extend(range(run[0], cursor))
    assert sorted(given_out) == sorted(dirty)
    assert log.count == 0


def test_a_new_log_is_clean() -> None:
    log = DirtyLog(3)
    assert (log.pages, log.count) == (3, 0)
    assert log.next_run(0, 3) is None


def test_a_run_of_no_pages_is_never_given() -> None:
    log = DirtyLog(3)
    log.mark_all()
    assert log.next_run(0, 0) is None
    assert log.next_run(0, -1) is None


@pytest.mark.parametrize("run", [(-1, 2), (2, 2), (0, 4), (3, 1), (1, -1)])
def test_pages_that_are_not_there_are_refused(run: tuple[int, int]) -> None:
    log = DirtyLog(3)
    with pytest.raises(IndexError):
        log.mark_run(*run)
    with pytest.raises(IndexError):
        log.clear_run(*run)
    assert (log.pages, log.count) == (3, 0)
