"""A guest's load on its RAM, as numbers: how often it wrote, and to how many pages.

The writes are counted as `vm.workload.Workload` does, by the same exact arithmetic, so
that both have made the same number at the same moment; which pages they were to is
only expected.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from vfiomig.migration.what_if.striding import steps_into
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from vfiomig.vm.workload import RamLoad

_SECOND: Final = 1_000_000_000  # nanoseconds
_PERCENT: Final = 100


class ModelledLoad:
    """One load at work from time 0 on; ``writes`` is how many it did so far.

    ``first`` and ``end`` bound the pages of its working set.
    """

    def __init__(self, load: RamLoad) -> None:
        self.load = load
        self.first = load.offset // PAGE_SIZE
        self.end = self.first + load.pages
        self.writes = 0
        self._percent = 0
        self._now = 0
        self._work = 0  # bytes x ns / s x per cent, as the workload keeps it

    def run_until(self, now: int) -> None:
        """Write what is due until ``now`` (ns)."""
        if now > self._now:
            share = _PERCENT - self._percent
            self._work += self.load.dirty_rate * (now - self._now) * share
            self._now = now
        self.writes = self._work // (PAGE_SIZE * _SECOND * _PERCENT)

    def throttle(self, now: int, percent: int) -> None:
        """Take ``percent`` of its time from ``now`` on."""
        self.run_until(now)
        self._percent = percent

    def share_written(self, since: int, until: int, first: int, end: int) -> float:
        """Return which share of pages writes ``since`` to ``until`` hit (end excluded).

        The pages are ``first`` to ``end`` of the block, all in its working set.  For
        "stride" they are counted; "random" hits any, and the share is expected.
        """
        load, writes = self.load, until - since
        if load.pattern != "stride":
            return -math.expm1(-writes / load.pages)
        if writes >= load.pages:
            return 1.0
        hit = steps_into(
            first - self.first,
            end - self.first,
            first=since,
            end=until,
            step=load.step(),
            pages=load.pages,
        )
        return hit / (end - first)

    def time_to_write(self, share: float) -> float:
        """Return the nanoseconds in which it writes to ``share`` of its pages, once."""
        rate = self.load.dirty_rate * (_PERCENT - self._percent) / _PERCENT
        if not rate:
            return math.inf
        return share * self.load.working_set / rate * _SECOND
