"""Conversations by chance, to find a container that loses a page that was written.

The container's own answers say what is mapped, tracked and written.  So only one thing
is judged here: that a page which was written since is in the next bitmap of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from vfiomig.conformance.iommu.bench import PAGE, Bench, Breach
from vfiomig.conformance.seed_alone import of_the_seed_alone

if TYPE_CHECKING:
    from vfiomig.conformance.iommu.bench import Buffer, MakeBench

# What a step does, from which slot to which, an offset in it, and an amount of bytes.
Step: TypeAlias = tuple[str, int, int, int, int]

# Mappings come and go in these slots: the first page and how many.  The words of a
# bitmap that begins at any of them are shared in many ways.
_SLOTS: Final = ((0, 5), (5, 64), (69, 1), (75, 66), (141, 7))
_CONVERSATIONS: Final = 250

_slots, _nothing = st.integers(0, len(_SLOTS) - 1), st.just(0)
_offsets = st.sampled_from([0, 1, 8, PAGE - 8, PAGE - 1])
_places = _offsets | st.integers(0, 66 * PAGE)
_steps: Final = st.lists(
    st.one_of(
        st.tuples(st.just("map"), _slots, _nothing, _nothing, _nothing),
        st.tuples(st.just("write"), _slots, _nothing, _places, st.integers(1, 9000)),
        st.tuples(st.just("get"), _slots, _slots, _offsets, _nothing),
        st.tuples(st.just("get"), _nothing, _slots, _offsets, _nothing),
        st.tuples(st.just("unmap"), _slots, _slots, _offsets, _nothing),
        st.tuples(st.sampled_from(["start", "stop"]), *(_nothing for _ in range(4))),
    ),
    max_size=12,
)
_bases = st.sampled_from([0, 3 * PAGE, 0x1_0000_0000])


@dataclass(kw_only=True)
class _Known:
    """What the container agreed to."""

    bench: Bench
    base: int
    is_tracking: bool = False
    dirty: set[int] = field(default_factory=set)

    def perform(self, step: Step) -> Breach | None:
        """Do one step and return what it lost."""
        what, slot, last, offset, size = step
        first, pages = _SLOTS[slot]
        behind = max(first + pages, sum(_SLOTS[last]))
        match what:
            case "map":
                self.bench.map(self.base + first * PAGE, pages * PAGE)
            case "write":
                self._write(first * PAGE + offset, size)
            case "get":
                return self._get(first, behind - first, offset)
            case "unmap":
                return self._unmap(first, behind - first, offset)
            case "start":
                self.start()
            case _:
                if self.bench.stop() == 0:
                    self.is_tracking, self.dirty = False, set()
        return None

    def start(self) -> None:
        """Start tracking; what was written before is of no interest."""
        if self.bench.start() == 0 and not self.is_tracking:
            self.is_tracking, self.dirty = True, set()

    def _write(self, place: int, size: int) -> None:
        touched = set(range(place // PAGE, (place + size - 1) // PAGE + 1))
        if self.bench.write(self.base + place, size) == 0 and self.is_tracking:
            self.dirty |= touched

    def _get(self, first: int, pages: int, offset: int) -> Breach | None:
        buffer = self._buffer(pages, offset)
        if self.bench.get(self.base + first * PAGE, pages * PAGE, buffer):
            return None
        return self._lost(buffer, first, pages)

    def _unmap(self, first: int, pages: int, offset: int) -> Breach | None:
        iova, size = self.base + first * PAGE, pages * PAGE
        buffer = self._buffer(pages, offset) if self.is_tracking else None
        code, _ = self.bench.unmap(iova, size, buffer)
        if code or buffer is None:
            return None
        return self._lost(buffer, first, pages)

    def _lost(self, buffer: Buffer, first: int, pages: int) -> Breach | None:
        asked = set(range(first, first + pages))
        wanted = {page - first for page in self.dirty & asked}
        self.dirty -= asked
        return next(self.bench.holds(buffer, wanted, may_be_more=True), None)

    def _buffer(self, pages: int, offset: int) -> Buffer:
        return self.bench.buffer(-(-pages // 64) * 8, offset)


def lost_in(make: MakeBench, base: int, steps: list[Step]) -> Breach | None:
    """Have one conversation, of tracked slots, and return the first loss in it."""
    known = _Known(bench=make(), base=base)
    for slot in (0, 1, 3):
        known.perform(("map", slot, 0, 0, 0))
    known.start()
    for step in steps:
        breach = known.perform(step)
        if breach is not None:
            return breach
    return None


def first_lost_page(make: MakeBench) -> Breach | None:
    """Have conversations by chance; return the loss of the shortest that has one."""
    run = settings(
        max_examples=_CONVERSATIONS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        with of_the_seed_alone():
            base, steps = find(
                st.tuples(_bases, _steps),
                lambda both: lost_in(make, *both) is not None,
                settings=run,
            )
    except NoSuchExample:
        return None
    return lost_in(make, base, steps)
