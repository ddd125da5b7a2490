"""Which pages of RAM are dirty, as expected numbers: a few stretches of addresses.

Pages that lie together and were sent between the same two dirty syncs have the same
past, so one record stands for all of them, whatever the guest's size.  The cursor
goes through them in the order of addresses, as `ram_saving` does; where it stands at a
dirty sync a stretch is cut in two.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vfiomig.migration.what_if.writing import ModelledLoad

# Beyond so many, neighbours are taken for one: their pasts hardly differ.
_MOST: Final = 2048


@dataclass(slots=True)
class Stretch:
    """``pages`` pages from ``first`` on that have one past, ``dirty`` of them dirty.

    ``loads`` write to it; ``sent_at`` is the number of writes that each of them had
    made when what is here was sent last.  ``is_new``: it never was.  ``filled``: no
    page of it ever was zero.
    """

    first: int
    pages: int
    filled: bool
    loads: tuple[ModelledLoad, ...]
    dirty: int = 0
    is_new: bool = True
    sent_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.sent_at = self.sent_at or (0,) * len(self.loads)

    def zero_share(self, pages: int = 0) -> float:
        """Return the share of the next pages to go, or of all, that are zero."""
        if self.filled or not self.is_new:
            return 0.0
        # All of it is dirty until it goes, so what went lies before the rest.
        first = self.first + self.pages - self.dirty
        share = 1.0
        for load in self.loads:
            end = first + (pages or self.dirty)
            share *= 1 - load.share_written(0, load.writes, first, end)
        return share

    def share_dirty(self, writes: dict[ModelledLoad, int]) -> float:
        """Return the share that is dirty when the loads have made so many writes."""
        if self.is_new:
            return 1.0
        clean, end = 1.0, self.first + self.pages
        for load, since in zip(self.loads, self.sent_at, strict=True):
            clean *= 1 - load.share_written(since, writes[load], self.first, end)
        return 1 - clean


@dataclass(slots=True)
class RamMap:
    """All RAM of a guest; ``dirty`` pages are known to be so.

    ``turn`` is the number of the stretch that is sent from.

    Made by `of`, with no page dirty; the first `sync` makes all of them so.
    """

    stretches: list[Stretch]
    loads: Sequence[ModelledLoad]
    dirty: int = 0
    turn: int = 0
    _synced: dict[ModelledLoad, int] = field(default_factory=dict)
    _at_sync: int = 0  # dirty pages of the stretch in turn at the last sync

    @classmethod
    def of(cls, pages: int, filled: int, loads: Sequence[ModelledLoad]) -> RamMap:
        """Return ``pages`` pages, the first ``filled`` of which are not zero."""
        edges = {0, filled, pages}
        for load in loads:
            edges |= {load.first, load.end}
        stretches = [
            Stretch(
                first,
                end - first,
                filled=end <= filled,
                loads=tuple(x for x in loads if x.first <= first and end <= x.end),
            )
            for first, end in itertools.pairwise(sorted(edges))
        ]
        return cls(stretches, loads)

    @property
    def current(self) -> Stretch:
        """The stretch that is sent from: it has dirty pages, if any has."""
        if self.dirty:
            while not self.stretches[self.turn].dirty:
                self._finish()
        return self.stretches[self.turn]

    def send(self, pages: int) -> None:
        """Take ``pages`` dirty pages of the current stretch as sent."""
        self.current.dirty -= pages
        self.dirty -= pages

    def sync(self) -> int:
        """Look for what was written; return the pages that became dirty by it."""
        self._cut()
        self._synced = {load: load.writes for load in self.loads}
        before, self.dirty = self.dirty, 0
        rest = 0.0
        for stretch in self.stretches:
            # What rounding takes from one the next one gets.
            exact = stretch.pages * stretch.share_dirty(self._synced) + rest
            stretch.dirty = min(max(round(exact), 0), stretch.pages)
            rest = exact - stretch.dirty
            self.dirty += stretch.dirty
        self._at_sync = self.stretches[self.turn].dirty
        return max(self.dirty - before, 0)

    def _finish(self) -> None:
        """Go on to the next stretch: all of this one was sent."""
        self._mark_sent(self.stretches[self.turn])
        self.turn = (self.turn + 1) % len(self.stretches)
        self._at_sync = self.stretches[self.turn].dirty

    def _mark_sent(self, stretch: Stretch) -> None:
        stretch.is_new = False
        stretch.sent_at = tuple(self._synced.get(load, 0) for load in stretch.loads)

    def _cut(self) -> None:
        """Let the part of the current stretch that was sent be one of its own."""
        stretch = self.stretches[self.turn]
        if not self._at_sync or stretch.dirty == self._at_sync:
            return
        if not stretch.dirty:
            self._finish()
            return
        left = max(round(stretch.pages * stretch.dirty / self._at_sync), 1)
        if left < stretch.pages:
            gone = stretch.pages - left
            sent = Stretch(stretch.first, gone, stretch.filled, stretch.loads)
            self._mark_sent(sent)
            stretch.first, stretch.pages = stretch.first + gone, left
            self.stretches.insert(self.turn, sent)
            self.turn += 1
        self._join()

    def _join(self) -> None:
        """Let neighbours with one past be one; with like pasts, if there are many."""
        is_crowded = len(self.stretches) > _MOST
        joined: list[Stretch] = []
        turn = 0
        for place, stretch in enumerate(self.stretches):
            last = joined[-1] if joined else None
            # Nothing is joined to what the cursor stands before.
            is_fixed = place == self.turn
            if last and not is_fixed and _are_alike(last, stretch, loosely=is_crowded):
                joined[-1] = _one_of(last, stretch)
            else:
                joined.append(stretch)
            if is_fixed:
                turn = len(joined) - 1
        self.stretches, self.turn = joined, turn


def _are_alike(one: Stretch, other: Stretch, *, loosely: bool) -> bool:
    return (
        one.is_new == other.is_new
        and one.filled == other.filled
        and one.loads == other.loads
        and (loosely or one.sent_at == other.sent_at)
    )


def _one_of(one: Stretch, other: Stretch) -> Stretch:
    pages = one.pages + other.pages

    def means() -> Iterator[int]:
        for first, second in zip(one.sent_at, other.sent_at, strict=True):
            yield (first * one.pages + second * other.pages) // pages

    sent_at = one.sent_at if one.sent_at == other.sent_at else tuple(means())
    dirty = one.dirty + other.dirty
    return Stretch(one.first, pages, one.filled, one.loads, dirty, one.is_new, sent_at)
