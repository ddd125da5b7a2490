"""Mapping parts of the migration region: ABI-MMAP-01 to -03, on real memory."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = 9 << 40
PAGE = 4096
# Two areas that touch, and one by itself.
AREAS = (
    SparseMmapArea(1 * PAGE, 2 * PAGE),
    SparseMmapArea(3 * PAGE, 1 * PAGE),
    SparseMmapArea(6 * PAGE, 4 * PAGE),
)
# Where each area lies in the file: in no order, and not where it is in the region.
PLACES = {AREAS[0]: 5 * PAGE, AREAS[1]: 0, AREAS[2]: 1 * PAGE}


class Paged:
    """A driver with a file behind its areas; each page of it begins with its number."""

    def __init__(self, areas: tuple[SparseMmapArea, ...] = AREAS) -> None:
        self.migration_region = MigrationRegion(10 * PAGE, areas)
        self.asked: list[SparseMmapArea] = []
        self.refusal: OSError | None = None
        self.fd = os.memfd_create("behind the areas", os.MFD_CLOEXEC)
        for number in range(7):
            os.pwrite(self.fd, bytes([number]) * PAGE, number * PAGE)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        pass

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        self.asked.append(area)
        if self.refusal is not None:
            raise self.refusal
        return self.fd, PLACES[area]

    def reset(self) -> None:
        pass

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def driver() -> Iterator[Paged]:
    driver = Paged()
    yield driver
    driver.close()


def refused(device: DeviceFd, length: int, offset: int, **how: int) -> str:
    with pytest.raises(OSError) as refusal:  # noqa: PT011 - the errno is what counts
        device.mmap(length, BASE + offset, **how)
    assert refusal.value.errno is not None
    return errno.errorcode[refusal.value.errno]


def number_of_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("area", AREAS)
def test_an_area_is_mapped_from_its_own_place_in_the_file(
    driver: Paged, area: SparseMmapArea
) -> None:
    with DeviceFd(driver).mmap(area.size, BASE + area.offset) as mapping:
        assert driver.asked == [area]
        assert len(mapping) == area.size
        first = PLACES[area] // PAGE
        pages = list(range(first, first + area.size // PAGE))
        assert [mapping[at] for at in range(0, area.size, PAGE)] == pages


def test_a_part_of_an_area_is_mapped_from_where_it_lies(driver: Paged) -> None:
    with DeviceFd(driver).mmap(2 * PAGE, BASE + 7 * PAGE) as mapping:
        assert (mapping[0], mapping[PAGE]) == (2, 3)


def test_driver_and_user_application_share_the_memory(driver: Paged) -> None:
    with DeviceFd(driver).mmap(2 * PAGE, BASE + PAGE) as mapping:
        os.pwrite(driver.fd, b"of the driver", 5 * PAGE + 100)
        assert mapping[100:113] == b"of the driver"
        mapping[200:207] = b"of QEMU"
        assert os.pread(driver.fd, 7, 5 * PAGE + 200) == b"of QEMU"


def test_a_mapping_that_is_only_read_cannot_be_written(driver: Paged) -> None:
    with DeviceFd(driver).mmap(PAGE, BASE + PAGE, prot=mmap.PROT_READ) as mapping:
        assert mapping[0] == 5
        with pytest.raises(TypeError):
            mapping[0] = 0


def test_a_mapping_outlives_the_device_fd() -> None:
    device = DeviceFd(Paged())
    with device.mmap(PAGE, BASE + PAGE) as mapping:
        device.close()
        assert mapping[0] == 5


def test_the_file_stays_the_drivers(driver: Paged) -> None:
    before = number_of_fds()
    DeviceFd(driver).mmap(PAGE, BASE + PAGE).close()
    assert number_of_fds() == before
    os.fstat(driver.fd)


@pytest.mark.parametrize("offset", [PAGE + 1, PAGE + 8, PAGE + 2048, PAGE - 1])
def test_an_offset_that_is_no_page_is_refused(driver: Paged, offset: int) -> None:
    assert refused(DeviceFd(driver), 16, offset) == "EINVAL"  # ABI-MMAP-01
    assert driver.asked == []


def test_a_private_mapping_is_refused(driver: Paged) -> None:
    device = DeviceFd(driver)  # ABI-MMAP-01
    assert refused(device, PAGE, PAGE, flags=mmap.MAP_PRIVATE) == "EINVAL"
    assert driver.asked == []


@pytest.mark.parametrize("length", [0, -1, -PAGE])
def test_a_mapping_of_nothing_is_refused(driver: Paged, length: int) -> None:
    assert refused(DeviceFd(driver), length, PAGE) == "EINVAL"
    assert driver.asked == []


@pytest.mark.parametrize(
    ("length", "offset"),
    [
        (PAGE, 0),  # the registers
        (2 * PAGE, 0),
        (PAGE, 4 * PAGE),  # between two areas
        (2 * PAGE + 1, PAGE),  # past an area's end
        (3 * PAGE, PAGE),  # over two areas that touch
        (PAGE, 10 * PAGE),  # past the region
        (PAGE, -PAGE),  # another region
        (PAGE, 1 << 40),
        (1 << 62, PAGE),
    ],
)
def test_what_is_not_inside_one_area_is_refused(
    driver: Paged, length: int, offset: int
) -> None:
    assert refused(DeviceFd(driver), length, offset) == "EINVAL"  # ABI-MMAP-02
    assert driver.asked == []


def test_a_region_without_areas_cannot_be_mapped_at_all() -> None:
    driver = Paged(areas=())
    assert refused(DeviceFd(driver), PAGE, PAGE) == "EINVAL"
    assert driver.asked == []
    driver.close()


@pytest.mark.parametrize("name", ["EINVAL", "ENOMEM", "EAGAIN", "EACCES"])
def test_the_errno_of_the_driver_passes(driver: Paged, name: str) -> None:
    driver.refusal = OSError(getattr(errno, name), "as the driver says")
    assert refused(DeviceFd(driver), PAGE, PAGE) == name
