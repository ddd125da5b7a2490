"""The bytes of a region's information, laid out by hand from linux/vfio.h."""

from __future__ import annotations

import struct

import pytest

from vfiomig.host.region import absent_region_info, migration_region_info
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

READ, WRITE, MMAP, CAPS = 1, 2, 4, 8

# argsz, flags, index, cap_offset, size, offset; id, version, next; type, subtype.
INFO = struct.Struct("<IIIIQQ")
TYPE = struct.Struct("<HHIII")
# id, version, next, nr_areas, reserved; then offset and size of each area.
SPARSE = struct.Struct("<HHIII")
AREA = struct.Struct("<QQ")


@pytest.mark.parametrize("index", range(9))
def test_an_absent_region_has_its_place_and_nothing_else(index: int) -> None:
    expected = INFO.pack(32, 0, index, 0, 0, index << 40)
    assert absent_region_info(index) == expected


def test_a_trapped_region_has_one_capability_which_says_what_it_is() -> None:
    expected = INFO.pack(48, READ | WRITE | CAPS, 9, 32, 0x5000, 9 << 40)
    expected += TYPE.pack(2, 1, 0, 3, 1)
    assert migration_region_info(MigrationRegion(0x5000)) == expected


def test_areas_follow_in_a_second_capability_in_the_order_of_the_driver() -> None:
    areas = (SparseMmapArea(0x3000, 0x2000), SparseMmapArea(0x1000, 0x1000))
    expected = INFO.pack(96, READ | WRITE | MMAP | CAPS, 9, 32, 0x5000, 9 << 40)
    expected += TYPE.pack(2, 1, 48, 3, 1)
    expected += SPARSE.pack(1, 1, 0, 2, 0)
    expected += AREA.pack(0x3000, 0x2000) + AREA.pack(0x1000, 0x1000)
    assert migration_region_info(MigrationRegion(0x5000, areas)) == expected


@pytest.mark.parametrize(
    "area",
    [
        SparseMmapArea(0, 0x1000),  # over the registers
        SparseMmapArea(33, 1),  # not a page
        SparseMmapArea(0x1000, 0),  # empty
        SparseMmapArea(1 << 63, 1 << 63),  # outside of the region
    ],
)
def test_a_faulty_area_is_shown_as_the_driver_has_it(area: SparseMmapArea) -> None:
    answer = migration_region_info(MigrationRegion(0x2000, (area,)))
    assert answer[-16:] == AREA.pack(area.offset, area.size)


@pytest.mark.parametrize("size", [0, 1, 32, (1 << 64) - 1])
def test_a_faulty_size_is_shown_as_the_driver_has_it(size: int) -> None:
    assert INFO.unpack_from(migration_region_info(MigrationRegion(size)))[4] == size
