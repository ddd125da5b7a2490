"""Which pages of a device's memory have changed since they were last sent.

One byte a page, 1 for dirty: ``bytearray.find`` then finds where a run of pages
starts and where it ends at the speed of memchr, and clearing a run is one slice
assignment.  In a bitmap, an eighth of the size, Python would look at every bit.
"""

from __future__ import annotations

_CLEAN = 0
_DIRTY = 1
_ONE_DIRTY = b"\1"


class DirtyLog:
    """A set of pages, numbered from 0, out of which runs can be taken.

    ``pages`` is how many there are and ``count`` how many of them are dirty; nobody
    else may write ``count``.  A new log is clean.
    """

    __slots__ = ("_log", "count", "pages")

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.count = 0
        self._log = bytearray(pages)

    def mark(self, page: int) -> None:
        """Note one page as dirty."""
        if not self._log[page]:
            self._log[page] = _DIRTY
            self.count += 1

    def mark_run(self, first: int, count: int) -> None:
        """Note ``count`` pages from ``first`` on as dirty."""
        self.clear_run(first, count)
        self._log[first : first + count] = _ONE_DIRTY * count
        self.count += count

    def mark_all(self) -> None:
        """Note every page as dirty."""
        self.mark_run(0, self.pages)

    def clear_run(self, first: int, count: int) -> None:
        """Note ``count`` pages from ``first`` on as clean, whatever they were.

        Raises ``IndexError`` if there are not so many pages.
        """
        end = first + count
        if not 0 <= first <= end <= self.pages:
            # A slice assignment beyond the end would make the log longer.
            message = f"pages {first} to {end} of {self.pages}"
            raise IndexError(message)
        self.count -= self._log.count(_DIRTY, first, end)
        self._log[first:end] = bytes(count)

    def clear_all(self) -> None:
        """Note every page as clean."""
        self.clear_run(0, self.pages)

    def count_run(self, first: int, count: int) -> int:
        """Return how many of ``count`` pages from ``first`` on are dirty."""
        return self._log.count(_DIRTY, first, first + count)

    def next_run(
        self, cursor: int, limit: int, *, lowest: int = 0
    ) -> tuple[int, int] | None:
        """Return the next dirty pages from ``cursor`` on as (first page, count).

        The run is ``limit`` pages long at most.  The search goes to the last page and
        then on from ``lowest``; pages below that are left alone.  Returns ``None`` if
        nothing above ``lowest`` is dirty.
        """
        if limit <= 0:
            return None
        first = self._log.find(_DIRTY, max(cursor, lowest))
        if first < 0:
            first = self._log.find(_DIRTY, lowest)
        if first < 0:
            return None
        longest = min(first + limit, self.pages)
        end = self._log.find(_CLEAN, first, longest)
        return first, (longest if end < 0 else end) - first
