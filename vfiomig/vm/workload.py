"""What a guest does to its RAM, by virtual time.

Rule 1: what was done depends on ``now`` and the throttle alone, not on how often it
was asked for: time is kept as an exact count of work, and each write is a function
of its number.

Rule 2: a write changes 8 bytes of its page to what they never were, so that a page
that was not sent again shows in the digest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from vfiomig.protocol.page_ranges import Pages, Words
    from vfiomig.vm.memory import GuestMemory

Pattern = Literal["stride", "random"]

_SECOND: Final = 1_000_000_000  # nanoseconds
_PERCENT: Final = 100
_MOST_THROTTLE: Final = 99  # per cent, as in QEMU

_PAGE_WORDS: Final = PAGE_SIZE // 8
_WRITES: Final = 1 << 16  # done in one go
_FILLED: Final = 1 << 17  # words filled in one go
_FULL_WORD: Final = 1 << 64

# The finalizer of splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
# Generators", 2014): each step can be undone, so different numbers stay different.
_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class RamLoad:
    """A guest that writes ``dirty_rate`` bytes a second, a page (4 KiB) each time.

    It writes to ``working_set`` bytes from ``offset`` on in the block ``block``.
    ``pattern``: "stride" goes through all pages with a step of about 0.6 of them and
    then begins again, so that n writes are in min(n, pages) pages; "random" takes any
    page each time.

    Raises:
        ValueError: a rate below 0, no whole pages, no such pattern.
    """

    dirty_rate: int
    working_set: int
    offset: int = 0
    pattern: Pattern = "stride"
    seed: int = 1
    block: str = "pc.ram"

    def __post_init__(self) -> None:
        if self.dirty_rate < 0:
            message = f"a dirty rate of {self.dirty_rate} bytes a second"
            raise ValueError(message)
        if self.working_set < PAGE_SIZE or self.working_set % PAGE_SIZE:
            message = f"a working set of {self.working_set} bytes is not whole pages"
            raise ValueError(message)
        if self.offset < 0 or self.offset % PAGE_SIZE:
            message = f"a working set at {self.offset} does not begin with a page"
            raise ValueError(message)
        if self.pattern not in ("stride", "random"):
            message = f"no pattern {self.pattern!r}: known are stride, random"
            raise ValueError(message)

    @property
    def pages(self) -> int:
        """The pages of the working set."""
        return self.working_set // PAGE_SIZE

    def pages_written(self, first: int, count: int) -> Pages:
        """Return the pages (of the block) of ``count`` writes from number ``first``."""
        numbers = _numbers(first, count)
        pages = np.uint64(self.pages)
        if self.pattern == "stride":
            chosen = numbers % pages * np.uint64(self.step()) % pages
        else:
            chosen = _mixed(numbers, self.seed) % pages
        return chosen.astype(np.int64) + self.offset // PAGE_SIZE

    def step(self) -> int:
        """Return a step that has no divisor in common with the number of pages."""
        # The golden section, moved a little by the seed: neighbours come late.
        step = self.pages * 618 // 1000 + self.seed % 97
        while math.gcd(step, self.pages) != 1:
            step += 1
        return step


class Workload:
    """One load at work on a guest's memory, from time 0 on.

    ``writes`` is how many it did so far; ``percent`` is the throttle.

    Raises:
        ValueError: the working set does not lie in its block.
        KeyError: there is no such block.
    """

    def __init__(self, memory: GuestMemory, load: RamLoad) -> None:
        self.load = load
        self.writes = 0
        self.percent = 0
        self._memory = memory
        self._block = memory.block(load.block)
        if load.offset + load.working_set > self._block.size:
            message = f"the working set does not lie in {load.block}"
            raise ValueError(message)
        self._now = 0
        self._work = 0  # bytes x ns / s x per cent: whole, whatever the steps in time

    def run_until(self, now: int) -> int:
        """Do what is due until ``now`` (ns), mark the kernel's log; return the writes.

        A time that is past does nothing.
        """
        if now > self._now:
            share = _PERCENT - self.percent
            self._work += self.load.dirty_rate * (now - self._now) * share
            self._now = now
        due = self._work // (PAGE_SIZE * _SECOND * _PERCENT)
        done = due - self.writes
        if self.load.pattern == "stride":
            # What one cycle writes, the next writes over.
            self.writes = max(self.writes, due - self.load.pages)
        while self.writes < due:
            count = min(due - self.writes, _WRITES)
            self._write(self.writes, count)
            self.writes += count
        return done

    def throttle(self, now: int, percent: int) -> None:
        """Let the guest have 100 - ``percent`` in 100 of its time from ``now`` on.

        Raises ``ValueError`` unless it is 0 to 99.
        """
        if not 0 <= percent <= _MOST_THROTTLE:
            message = f"a throttle of {percent} per cent"
            raise ValueError(message)
        self.run_until(now)
        self.percent = percent

    def _write(self, first: int, count: int) -> None:
        pages = self.load.pages_written(first, count)
        # One place in a page, so that the last write to it is all that is left.
        places = _mixed(pages.astype(np.uint64), ~self.load.seed)
        words = pages * _PAGE_WORDS + (places % _PAGE_WORDS).astype(np.int64)
        # Of a page written twice the last value stays (NumPy: "the last value
        # assigned"), for the numbers are in order.
        self._block.words[words] = _mixed(_numbers(first, count), self.load.seed)
        log = self._memory.log(LogUser.KERNEL, self._block)
        if log is not None:
            log.mark_pages(pages)


def fill(memory: GuestMemory, size: int, seed: int = 1) -> None:
    """Give the first ``size`` bytes of RAM contents, no page of which is zero.

    Goes through the blocks in their order; marks the kernel's log.

    Raises:
        ValueError: not whole pages, or more than there is.
    """
    if size < 0 or size % PAGE_SIZE or size > memory.size:
        message = f"{size} bytes are not whole pages of {memory.size} bytes of RAM"
        raise ValueError(message)
    source = np.random.SFC64(seed)
    for block in memory.blocks:
        part = min(size, block.size)
        for at in range(0, part // 8, _FILLED):
            words = block.words[at : min(at + _FILLED, part // 8)]
            words[:] = source.random_raw(len(words))
            words[::_PAGE_WORDS] |= np.uint64(1)
        memory.mark(LogUser.KERNEL, block, 0, part)
        size -= part


def _numbers(first: int, count: int) -> Words:
    return np.arange(first, first + count, dtype=np.uint64)


def _mixed(numbers: Words, seed: int) -> Words:
    """Return a pseudo-random number for each number; no two are the same."""
    # The seed is mixed as well: neighbours would give one sequence, a place apart.
    start = _finished(np.array([seed % _FULL_WORD], np.uint64))
    return _finished(numbers + start)


def _finished(numbers: Words) -> Words:
    mixed = (numbers + np.uint64(1)) * np.uint64(_GAMMA)
    for shift, factor in _MIX:
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(_LAST_SHIFT))
