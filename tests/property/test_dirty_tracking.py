"""The whole of dirty tracking by chance, bit for bit against sets of pages.

The oracle knows of mappings, holes and words as kernel_uapi.md has them (DIRTY-GET-07):
what a bitmap held before is garbage here, so every word that is left alone shows.
"""

from __future__ import annotations

import errno

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.host.type1_user import PAGE, Bits, User

SLOTS = ((2, 5), (7, 64), (71, 1), (80, 66), (146, 7), (300, 3))
GARBAGE = bytes(range(37, 37 + 64))

slots = st.integers(0, len(SLOTS) - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("toggle"), slots, st.just(0), st.just(0)),
        st.tuples(st.just("write"), slots, st.integers(0, 67 * PAGE), st.just(0)),
        st.tuples(st.just("get"), slots, st.integers(0, 400), st.integers(1, 400)),
        st.tuples(st.just("unmap"), slots, st.integers(0, 400), st.integers(1, 400)),
        st.tuples(st.just("get"), slots, st.just(0), st.just(400)),
        st.tuples(st.just("track"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=20,
)
offsets = st.sampled_from([0, 1, 8, PAGE - 8, PAGE - 1])


class Oracle:
    """Mappings by slot, dirty pages, and whether there is tracking."""

    def __init__(self, base: int, offset: int) -> None:
        self.user = User()
        self.base, self.offset = base, offset
        self.mapped: set[int] = set()
        self.dirty: set[int] = set()
        self.is_tracking = False

    def toggle(self, slot: int, _: int, __: int) -> None:
        first, pages = SLOTS[slot]
        iova, size = self.base + first * PAGE, pages * PAGE
        if slot in self.mapped:
            assert self.user.unmap(iova, size) == size
            self.dirty -= set(range(first, first + pages))
        else:
            self.user.map(iova, size)
        self.mapped ^= {slot}

    def track(self, *_: int) -> None:
        self.user.stop() if self.is_tracking else self.user.start()
        self.dirty = set()
        self.is_tracking = not self.is_tracking

    def write(self, slot: int, offset: int, _: int) -> None:
        first, pages = SLOTS[slot]
        size = min(offset % 9000 + 1, pages * PAGE - offset)
        if slot in self.mapped and size > 0:
            self.user.dma.dma_write(self.base + first * PAGE + offset, bytes(size))
            if self.is_tracking:
                start = first * PAGE + offset
                self.dirty |= {byte // PAGE for byte in range(start, start + size)}

    def inside(self, first: int, pages: int) -> list[int] | None:
        """Return the slots in a range; None if it cuts one."""
        end = first + pages
        found = []
        for slot in sorted(self.mapped):
            start, behind = SLOTS[slot][0], sum(SLOTS[slot])
            if start < end and first < behind:
                if start < first or end < behind:
                    return None
                found.append(slot)
        return found

    def get(self, _: int, first: int, pages: int) -> None:
        found, bits = self.inside(first, pages), self.bits()
        iova, size = self.base + first * PAGE, pages * PAGE
        code = errno_of(lambda: self.user.get(iova, size, bits))
        self.compare(bits, first, found, code)

    def unmap(self, _: int, first: int, pages: int) -> None:
        found, bits = self.inside(first, pages), self.bits()
        iova, size = self.base + first * PAGE, pages * PAGE
        code = errno_of(lambda: self.user.unmap_with_bitmap(iova, size, bits))
        self.compare(bits, first, found, code)
        if not code:
            self.mapped -= set(found or ())

    def compare(
        self, bits: Bits, first: int, found: list[int] | None, code: int
    ) -> None:
        expected = [bool(byte >> bit & 1) for byte in GARBAGE for bit in range(8)]
        if found is None or not self.is_tracking:
            assert code == errno.EINVAL
        else:
            assert code == 0
            for slot in found:
                start, pages = SLOTS[slot][0] - first, SLOTS[slot][1]
                behind = -(-(start + pages) // 64) * 64
                expected[start:behind] = [
                    first + page in self.dirty and page < start + pages
                    for page in range(start, behind)
                ]
                self.dirty -= set(range(first + start, first + start + pages))
        read = [bool(byte >> bit & 1) for byte in bits.data for bit in range(8)]
        assert read == expected

    def bits(self) -> Bits:
        bits = self.user.bits(len(GARBAGE), self.offset)
        bits.fill(GARBAGE)
        return bits


def errno_of(action: object) -> int:
    assert callable(action)
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


@settings(max_examples=3 * settings().max_examples)
@given(st.sampled_from([0, 3 * PAGE, 0x1_0000_0000]), offsets, steps)
def test_every_bit_of_every_bitmap(
    base: int, offset: int, taken: list[tuple[str, int, int, int]]
) -> None:
    oracle = Oracle(base, offset)
    for slot in (0, 1, 3, 4):
        oracle.toggle(slot, 0, 0)
    oracle.track()
    for what, slot, first, second in taken:
        getattr(oracle, what)(slot, first, second)
    oracle.get(0, 0, 400)
