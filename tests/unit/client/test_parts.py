"""Mapped parts and trapped pieces, against a count of single bytes."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.client.parts import Part, parts_of, pieces_of
from vfiomig.protocol.region import SparseMmapArea

QEMU_WIDTHS = (8, 4, 2, 1)

# QEMU's own example (section 2.3), and what it does with it.
TWO_AREAS = (SparseMmapArea(0x1000, 0x1000), SparseMmapArea(0x3000, 0x1000))


@st.composite
def disjoint_areas(draw: st.DrawFn) -> tuple[SparseMmapArea, ...]:
    """Areas that do not overlap but may touch, in any order."""
    cuts = draw(st.lists(st.integers(0, 60), unique=True, max_size=8))
    cuts.sort()
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    areas = [SparseMmapArea(start, end - start) for start, end in pairs]
    return tuple(draw(st.permutations(areas)))


areas_of_any_kind = st.lists(
    st.builds(SparseMmapArea, st.integers(0, 60), st.integers(1, 30)), max_size=5
)
offsets, sizes = st.integers(0, 70), st.integers(0, 70)


def byte_by_byte(
    offset: int, size: int, areas: tuple[SparseMmapArea, ...]
) -> list[Part]:
    """Ask for each single byte where it lies, then put neighbours together."""

    def owner(place: int) -> SparseMmapArea | None:
        for area in areas:
            if place in range(area.offset, area.offset + area.size):
                return area
        return None

    runs = groupby(range(offset, offset + size), key=owner)
    return [
        Part(area, run[0], len(run)) for area, run in ((a, list(r)) for a, r in runs)
    ]


@given(offset=offsets, size=sizes, areas=disjoint_areas())
def test_parts_are_the_runs_of_bytes(
    offset: int, size: int, areas: tuple[SparseMmapArea, ...]
) -> None:
    assert list(parts_of(offset, size, areas)) == byte_by_byte(offset, size, areas)


@given(offset=offsets, size=sizes, areas=areas_of_any_kind)
def test_overlapping_areas_leave_no_byte_out(
    offset: int, size: int, areas: list[SparseMmapArea]
) -> None:
    place = offset
    for part in parts_of(offset, size, areas):
        assert part.offset == place
        assert part.size > 0
        bytes_of_part = range(part.offset, part.offset + part.size)
        if part.area is None:
            assert not any(
                byte in range(area.offset, area.offset + area.size)
                for area in areas
                for byte in bytes_of_part
            )
        else:
            covering = [a for a in areas if a.offset <= place < a.offset + a.size]
            assert part.area == covering[0]
            assert bytes_of_part[-1] < part.area.offset + part.area.size
        place += part.size
    assert place == offset + size


def test_the_example_of_qemu_has_four_parts() -> None:
    first, second = TWO_AREAS
    assert list(parts_of(0x1000, 0x5000, TWO_AREAS)) == [
        Part(first, 0x1000, 0x1000),
        Part(None, 0x2000, 0x1000),
        Part(second, 0x3000, 0x1000),
        Part(None, 0x4000, 0x2000),
    ]


def test_the_order_in_which_areas_are_listed_does_not_order_the_bytes() -> None:
    there_and_back = [
        list(parts_of(0x1000, 0x5000, areas)) for areas in (TWO_AREAS, TWO_AREAS[::-1])
    ]
    assert there_and_back[0] == there_and_back[1]


def test_the_area_that_is_listed_first_wins_a_byte_that_two_have() -> None:
    wide, narrow = SparseMmapArea(0, 0x3000), SparseMmapArea(0x1000, 0x1000)
    assert list(parts_of(0x1000, 0x2000, (narrow, wide))) == [
        Part(narrow, 0x1000, 0x1000),
        Part(wide, 0x2000, 0x1000),
    ]
    assert list(parts_of(0x1000, 0x2000, (wide, narrow))) == [
        Part(wide, 0x1000, 0x2000),
    ]


def test_nothing_has_no_parts() -> None:
    assert list(parts_of(0x1000, 0, TWO_AREAS)) == []
    assert list(parts_of(0x9000, 0x10, ())) == [Part(None, 0x9000, 0x10)]


# -- pieces --------------------------------------------------------------------------


def widths_by_the_rule(position: int, left: int) -> list[int]:
    """Section 2.1, word for word."""
    widths = []
    while left:
        if left >= 8 and position % 8 == 0:
            width = 8
        elif left >= 4 and position % 4 == 0:
            width = 4
        elif left >= 2 and position % 2 == 0:
            width = 2
        else:
            width = 1
        widths.append(width)
        position, left = position + width, left - width
    return widths


@given(position=st.integers(0, 1 << 44), size=st.integers(0, 100))
def test_pieces_follow_the_rule_of_vfio_mig_access(position: int, size: int) -> None:
    pieces = list(pieces_of(position, size, QEMU_WIDTHS))
    assert pieces == widths_by_the_rule(position, size)
    assert sum(pieces) == size


@pytest.mark.parametrize(
    ("position", "size", "pieces"),
    [
        (0x1000, 23, [8, 8, 4, 2, 1]),
        (0x1000, 0x1800, [8] * 768),
        (0x2000, 0x1000, [8] * 512),
        (0x1001, 7, [1, 2, 4]),
        (0x1001, 16, [1, 2, 4, 8, 1]),
        (0x1004, 8, [4, 4]),
        (0x1006, 3, [2, 1]),
        (0x1007, 1, [1]),
        (0x1000, 0, []),
    ],
)
def test_pieces_are_those_that_qemu_was_seen_to_make(
    position: int, size: int, pieces: list[int]
) -> None:
    assert list(pieces_of(position, size, QEMU_WIDTHS)) == pieces


@pytest.mark.parametrize("place", [0, 1, 0x1003])
def test_without_widths_there_is_one_piece(place: int) -> None:
    assert list(pieces_of(place, 0x1800, ())) == [0x1800]
