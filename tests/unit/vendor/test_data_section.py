"""A data section for driver authors: a memfd of a sealed size, and its views."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
from vfiomig.vendor.data_section import PAGE, DataSection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 3 * PAGE
OFFSET = 2 * PAGE


@pytest.fixture
def section() -> Iterator[DataSection]:
    section = DataSection(SIZE, offset=OFFSET)
    yield section
    section.close()


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is what counts
        call()
    assert refused.value.errno is not None
    return errno.errorcode[refused.value.errno]


def number_of_fds() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def number_of_mappings() -> int:
    gc.collect()
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return maps.count("memfd:vfiomig-data-section")


# -- the file --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PAGE, OFFSET + SIZE - 1, OFFSET + SIZE + PAGE])
def test_nobody_can_truncate_or_extend_the_file(
    section: DataSection, size: int
) -> None:
    assert errno_of(lambda: os.ftruncate(section.fd, size)) == "EPERM"
    assert os.fstat(section.fd).st_size == OFFSET + SIZE


def test_the_file_takes_more_seals(section: DataSection) -> None:
    fcntl.fcntl(section.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    seals = fcntl.fcntl(section.fd, fcntl.F_GET_SEALS)
    assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def test_a_program_that_is_started_does_not_inherit_the_file(
    section: DataSection,
) -> None:
    assert not os.get_inheritable(section.fd)


def test_what_precedes_the_section_is_a_hole(section: DataSection) -> None:
    section.view[:] = b"\xff" * SIZE
    assert os.pread(section.fd, OFFSET, 0) == bytes(OFFSET)
    assert os.pread(section.fd, SIZE, OFFSET) == b"\xff" * SIZE


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (0, PAGE),
        (-PAGE, PAGE),
        (PAGE + 1, PAGE),
        (PAGE - 1, PAGE),
        (PAGE, 0),
        (PAGE, -PAGE),
        (PAGE, 32),
        (PAGE, PAGE + 8),
    ],
)
def test_anything_but_whole_pages_behind_the_registers_is_refused(
    size: int, offset: int
) -> None:
    before = number_of_fds()
    with pytest.raises(ValueError, match=f"not {size} bytes at {offset}"):
        DataSection(size, offset=offset)
    assert number_of_fds() == before


# -- its memory ------------------------------------------------------------------------


def test_view_traps_and_mappings_are_the_same_memory(section: DataSection) -> None:
    (area,) = section.region().areas
    fd, place = section.mmap(area)
    assert (area, place) == (SparseMmapArea(OFFSET, SIZE), OFFSET)
    with mmap.mmap(fd, area.size, offset=place) as mapping:
        section.view[PAGE : PAGE + 4] = b"view"
        assert mapping[PAGE : PAGE + 4] == b"view"
        assert section.read(OFFSET + PAGE, 4) == b"view"
        mapping[-3:] = b"map"
        assert bytes(section.view[SIZE - 3 :]) == b"map"
        assert section.read(OFFSET + SIZE - 3, 3) == b"map"
        section.write(OFFSET, b"trap")
        assert bytes(section.view[:4]) == b"trap"
        assert mapping[:4] == b"trap"


@pytest.mark.parametrize(
    ("offset", "size"),
    [(OFFSET, SIZE), (OFFSET, 1), (OFFSET + SIZE - 1, 1), (OFFSET + SIZE, 0)],
)
def test_a_trapped_access_goes_up_to_the_ends(
    section: DataSection, offset: int, size: int
) -> None:
    section.write(offset, b"\x5a" * size)
    assert section.read(offset, size) == b"\x5a" * size


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (OFFSET - 1, 1),
        (OFFSET - 1, 2),
        (0, 8),
        (OFFSET + SIZE, 1),
        (OFFSET + SIZE - 7, 8),
        (OFFSET, SIZE + 1),
        (1 << 64, 1),
        (-8, 8),
    ],
)
def test_a_trapped_access_that_leaves_the_section_is_refused(
    section: DataSection, offset: int, size: int
) -> None:
    assert errno_of(lambda: section.read(offset, size)) == "EINVAL"
    assert errno_of(lambda: section.write(offset, b"\xff" * size)) == "EINVAL"
    assert not any(section.view)


def test_a_negative_size_is_refused(section: DataSection) -> None:
    assert errno_of(lambda: section.read(OFFSET + PAGE, -1)) == "EINVAL"


# -- its region ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapped", "areas"),
    [
        (None, (SparseMmapArea(OFFSET, SIZE),)),
        (SIZE, (SparseMmapArea(OFFSET, SIZE),)),
        (PAGE, (SparseMmapArea(OFFSET, PAGE),)),
        (0, ()),
    ],
)
def test_the_region_maps_as_much_as_is_asked_for(
    section: DataSection, mapped: int | None, areas: tuple[SparseMmapArea, ...]
) -> None:
    assert section.region(mapped=mapped) == MigrationRegion(OFFSET + SIZE, areas)


@pytest.mark.parametrize("mapped", [-PAGE, -1, 1, PAGE + 1, SIZE + PAGE])
def test_an_area_of_no_whole_pages_or_beyond_the_section_is_refused(
    section: DataSection, mapped: int
) -> None:
    with pytest.raises(ValueError, match=str(mapped)):  # V1-MMAP-07
        section.region(mapped=mapped)


def test_an_area_is_mapped_through_a_device_fd_as_it_is() -> None:
    class Driver:
        def __init__(self) -> None:
            self.section = DataSection(SIZE)
            self.migration_region = self.section.region(mapped=2 * PAGE)
            self.mmap = self.section.mmap
            self.read = self.section.read
            self.write = self.section.write
            self.close = self.section.close

        def reset(self) -> None:
            pass

    driver = Driver()
    device = DeviceFd(driver)
    base = 9 << 40
    with device.mmap(2 * PAGE, base + PAGE) as mapping:
        driver.section.view[:5] = b"saved"
        assert mapping[:5] == b"saved"
        assert device.pread(5, base + PAGE) == b"saved"
    device.close()


# -- the end ---------------------------------------------------------------------------


def test_closing_leaves_neither_file_nor_mapping() -> None:
    fds, mappings = number_of_fds(), number_of_mappings()
    section = DataSection(SIZE)
    assert number_of_mappings() == mappings + 1
    section.close()
    assert (number_of_fds(), number_of_mappings()) == (fds, mappings)


def test_a_slice_that_is_alive_does_not_keep_it_from_closing() -> None:
    fds, mappings = number_of_fds(), number_of_mappings()
    section = DataSection(SIZE)
    fd, piece = section.fd, section.view[PAGE : PAGE + 4]
    piece[:] = b"held"
    section.close()
    assert errno_of(lambda: os.fstat(fd)) == "EBADF"
    assert bytes(piece) == b"held"
    del piece, section
    assert (number_of_fds(), number_of_mappings()) == (fds, mappings)


def test_a_structure_over_it_does_not_keep_it_from_closing() -> None:
    fds, mappings = number_of_fds(), number_of_mappings()
    section = DataSection(SIZE)
    number = ctypes.c_uint64.from_buffer(section.view, 8)
    number.value = 7
    section.close()
    assert number.value == 7
    del number, section
    assert (number_of_fds(), number_of_mappings()) == (fds, mappings)


def test_a_users_mapping_lives_on() -> None:
    section = DataSection(SIZE)
    fd, place = section.mmap(section.region().areas[0])
    with mmap.mmap(fd, SIZE, offset=place) as mapping:
        section.view[:4] = b"last"
        section.close()
        assert mapping[:4] == b"last"


def test_closing_again_closes_nobody_elses_file() -> None:
    section = DataSection(SIZE)
    section.close()
    other = os.memfd_create("somebody else's", os.MFD_CLOEXEC)
    section.close()
    os.fstat(other)
    os.close(other)
