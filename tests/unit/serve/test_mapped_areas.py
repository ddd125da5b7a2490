from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
from vfiomig.serve.mapped_areas import (
    MirroredAreas,
    Place,
    SharedAreas,
    mapped_areas,
)
from vfiomig.vendor.data_section import DataSection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vfiomig.serve.mapped_areas import MappedAreas

PAGE = mmap.PAGESIZE


def memfd(pages: int, *, flags: int = os.MFD_ALLOW_SEALING) -> int:
    fd = os.memfd_create("driver", flags | os.MFD_CLOEXEC)
    os.ftruncate(fd, pages * PAGE)
    return fd


@contextlib.contextmanager
def areas_of(pages: int, *places: tuple[int, int, int, int]) -> Iterator[MappedAreas]:
    """Make them of (page of the region, pages, fd, page of the file)."""
    there = [
        Place(SparseMmapArea(at * PAGE, size * PAGE), fd, place * PAGE)
        for at, size, fd, place in places
    ]
    region = MigrationRegion(pages * PAGE, tuple(each.area for each in there))
    areas = mapped_areas(region, there)
    yield areas
    areas.close()


def test_one_file_laid_out_as_the_region_is_shared() -> None:
    fd = memfd(4)
    with areas_of(4, (1, 3, fd, 1)) as areas:
        assert isinstance(areas, SharedAreas)
        assert areas.base == 0
        os.pwrite(fd, b"driver", PAGE)
        with mmap.mmap(areas.fd, PAGE, offset=PAGE) as program:
            assert program[:6] == b"driver"
            program[:7] = b"program"
            assert os.pread(fd, 7, PAGE) == b"program"


def test_a_region_further_behind_in_its_file_is_shared_with_that_base() -> None:
    fd = memfd(8)
    with areas_of(4, (1, 1, fd, 5), (3, 1, fd, 7)) as areas:
        assert isinstance(areas, SharedAreas)
        assert areas.base == 4 * PAGE


def test_a_data_section_of_ours_is_shared_and_more_than_once() -> None:
    section = DataSection(4 * PAGE)
    region = section.region()
    places = [Place(region.areas[0], *section.mmap(region.areas[0]))]
    for _ in range(2):
        areas = mapped_areas(region, places)
        assert isinstance(areas, SharedAreas)
        section.view[:3] = b"abc"  # the seals do not keep its owner from writing
        areas.close()
    section.close()


def test_a_shared_file_resists_a_program() -> None:
    fd = memfd(4)
    with areas_of(4, (1, 3, fd, 1)) as areas:
        for size in (0, PAGE, 8 * PAGE):
            with pytest.raises(PermissionError):
                os.ftruncate(areas.fd, size)
        for seal in (fcntl.F_SEAL_WRITE, 0x10):  # F_SEAL_FUTURE_WRITE
            with pytest.raises(PermissionError):
                fcntl.fcntl(areas.fd, fcntl.F_ADD_SEALS, seal)
        os.lseek(areas.fd, 77, os.SEEK_SET)
        fcntl.fcntl(areas.fd, fcntl.F_SETFL, os.O_APPEND)
        # The driver's own description of the file is as it was.
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        os.pwrite(fd, b"still", PAGE)


def written(pages: int, page: int) -> int:
    fd = memfd(pages)
    os.pwrite(fd, b"secret", page * PAGE)
    return fd


SIZE = memfd(4)
OTHER = memfd(4)
UNSEALABLE = memfd(4, flags=0)
SEALED = memfd(4)
fcntl.fcntl(SEALED, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)

# What is not shared: (page of the region, pages, fd, page of the file) of each area.
NOT_SHARED = {
    "it begins in front of its file": ((1, 1, SIZE, 0),),
    "several files": ((1, 1, SIZE, 1), (2, 1, OTHER, 2)),
    "another layout": ((1, 1, SIZE, 1), (2, 1, SIZE, 3)),
    "unsealable": ((1, 3, UNSEALABLE, 1),),
    "sealed against seals": ((1, 3, SEALED, 1),),
    "longer than its areas": ((1, 2, SIZE, 1),),
    "something in front": ((1, 3, written(4, 0), 1),),
    "something between": ((1, 1, written(4, 2), 1), (3, 1, -1, 3)),
    "something behind": ((1, 2, written(4, 3), 1),),
}


@pytest.mark.parametrize("places", NOT_SHARED.values(), ids=NOT_SHARED)
def test_what_a_program_must_not_reach_is_mirrored(
    places: tuple[tuple[int, int, int, int], ...],
) -> None:
    same = places[0][2]
    places = tuple((at, n, same if fd < 0 else fd, to) for at, n, fd, to in places)
    with areas_of(4, *places) as areas:
        assert isinstance(areas, MirroredAreas)
        for at, _, fd, place in places:
            os.pwrite(fd, b"%d" % at, place * PAGE)
        areas.before_data_is_read(0, 4 * PAGE)
        assert [os.pread(areas.fd, 1, at * PAGE) for at, *_ in places] == [
            b"%d" % at for at, *_ in places
        ]
        for at, *_ in places:
            os.pwrite(areas.fd, b"p%d" % at, at * PAGE)
        areas.before_data_is_taken(0, 1 << 64)
        assert [os.pread(fd, 2, place * PAGE) for _, _, fd, place in places] == [
            b"p%d" % at for at, *_ in places
        ]
        with pytest.raises(PermissionError):
            os.ftruncate(areas.fd, 0)


def test_a_regular_file_is_mirrored(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(4 * PAGE)
        with areas_of(4, (1, 3, file.fileno(), 1)) as areas:
            assert isinstance(areas, MirroredAreas)


def test_only_what_was_asked_for_is_mirrored() -> None:
    fd = memfd(4, flags=0)
    os.pwrite(fd, b"d" * 4 * PAGE, 0)
    with areas_of(4, (1, 1, fd, 1), (3, 1, fd, 3)) as areas:
        areas.before_data_is_read(PAGE + 8, 2 * PAGE)
        seen = os.pread(areas.fd, 5 * PAGE, 0)
        assert seen.count(b"d") == 2 * PAGE - 8 - (PAGE - 8)
        areas.before_data_is_read(5 * PAGE, PAGE)
        areas.before_data_is_read(PAGE, 0)
        areas.written(2 * PAGE - 2, b"1234")
        assert os.pread(areas.fd, 6, 2 * PAGE - 3) == b"d12\0\0\0"
        assert os.pread(fd, 4, 2 * PAGE - 2) == b"dddd"


def test_a_file_that_its_driver_truncates_is_an_error_and_no_crash() -> None:
    fd = memfd(4, flags=0)
    with areas_of(4, (1, 3, fd, 1)) as areas:
        os.ftruncate(fd, PAGE + 8)
        with pytest.raises(OSError, match="shorter") as caught:
            areas.before_data_is_read(0, 4 * PAGE)
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ((1, 4, memfd(4), 1), "the file is shorter"),
        ((1, 1, memfd(4), 9), "the file is shorter"),
        ((4, 1, memfd(4, flags=0), 0), "ValueError"),
    ],
)
def test_an_area_that_cannot_be_is_the_death_of_its_driver(
    place: tuple[int, int, int, int], why: str
) -> None:
    with (
        pytest.raises(DriverDiedError, match=f"mmap of 0x.000 bytes .*{why}"),
        areas_of(4, place),
    ):
        pass
