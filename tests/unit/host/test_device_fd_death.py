"""What a driver raises that has no errno is its death, and the report says where."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASE = 9 << 40
GET_REGION_INFO, RESET = 0x3B6C, 0x3B6F
AREA = SparseMmapArea(0x1000, 0x2000)


def place(marker: str) -> str:
    """Return file and line where this file has a comment of these words."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (found,) = (n for n, line in enumerate(lines, 1) if line.endswith(f"# {marker}"))
    return f"{__file__}:{found}"


class Mortal:
    """A driver that raises ``death`` wherever it is asked, if there is one."""

    def __init__(self, death: BaseException | None = None) -> None:
        self.migration_region = MigrationRegion(0x3000, (AREA,))
        self.death = death

    def read(self, offset: int, size: int) -> bytes:
        self._die()
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        self._die()

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        self._die()
        return 0, 0

    def reset(self) -> None:
        self._die()

    def close(self) -> None:
        self._die()

    def _die(self) -> None:
        if self.death is not None:
            raise self.death  # here it dies


CALLS: dict[str, Callable[[DeviceFd], object]] = {
    "read of 8 bytes at 0x10": lambda device: device.pread(8, BASE + 16),
    "write of 3 bytes at 0x1002": lambda device: device.pwrite(b"abc", BASE + 0x1002),
    "mmap of 0x1000 bytes at 0x2000": lambda device: device.mmap(4096, BASE + 0x2000),
    "VFIO_DEVICE_RESET": lambda device: device.ioctl(RESET),
    "close": lambda device: device.close(),
}
every_call = pytest.mark.parametrize("access", CALLS)


def death_of(call: Callable[[], object]) -> DriverDiedError:
    with pytest.raises(DriverDiedError) as died:
        call()
    assert "\n" not in str(died.value)
    assert died.value.access in str(died.value)
    assert died.value.where in str(died.value)
    return died.value


@every_call
@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(), "AssertionError"),
        (SystemExit(3), "SystemExit: 3"),
        (GeneratorExit(), "GeneratorExit"),
        (OSError("no errno"), "OSError: no errno"),
        (OSError(), "OSError"),
        (OSError(0, "none"), "OSError: [Errno 0] none"),
        (OSError(-errno.EIO, "as in C"), "OSError: [Errno -5] as in C"),
        (OSError("EIO", "a name"), "OSError: [Errno EIO] a name"),
    ],
)
def test_what_has_no_errno_is_named_with_access_and_line(
    access: str, raised: BaseException, said: str
) -> None:
    died = death_of(lambda: CALLS[access](DeviceFd(Mortal(raised))))
    assert (died.access, died.error) == (access, said)
    assert died.where == place("here it dies")
    assert died.__cause__ is raised


def test_the_line_is_the_drivers_own_even_where_a_library_raised() -> None:
    class Reader(Mortal):
        def read(self, offset: int, size: int) -> bytes:
            return bytes(json.loads("{"))  # here it asks the library

    died = death_of(lambda: DeviceFd(Reader()).pread(4, BASE))
    assert died.where == place("here it asks the library")


def test_too_deep_a_recursion_is_a_death_like_any_other() -> None:
    class Deep(Mortal):
        def read(self, offset: int, size: int) -> bytes:
            return self.read(offset, size)  # here it goes down

    died = death_of(lambda: DeviceFd(Deep()).pread(4, BASE))
    assert died.where == place("here it goes down")


def test_a_driver_that_dies_in_close_is_closed_all_the_same() -> None:
    closed = []
    device = DeviceFd(Mortal(ValueError()), on_close=lambda: closed.append(1))
    death_of(device.close)
    with pytest.raises(OSError, match="closed") as refused:
        device.close()
    assert refused.value.errno == errno.EBADF
    assert closed == [1]


# -- answers that are none -------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (bytes(9), "it answered with 9 bytes"),
        (bytearray(9), "it answered with 9 bytes"),
        (memoryview(bytes(16)).cast("Q"), "it answered with 16 bytes"),
        (None, "it answered with NoneType"),
        (0, "it answered with int"),
        ("12345678", "it answered with str"),
        ([0] * 8, "it answered with list"),
    ],
)
def test_an_answer_of_another_type_or_of_too_many_bytes_is_a_death(
    answer: bytes, said: str
) -> None:
    class Wrong(Mortal):
        def read(self, offset: int, size: int) -> bytes:  # here it reads
            return answer

    died = death_of(lambda: DeviceFd(Wrong()).pread(8, BASE + 16))
    assert (died.access, died.error) == ("read of 8 bytes at 0x10", said)
    assert died.where == place("here it reads")


def test_a_member_that_cannot_be_called_so_is_a_death() -> None:
    class Narrow(Mortal):
        def read(self, offset: int) -> bytes:  # type: ignore[override]  # here, narrow
            return bytes(offset)

    device = DeviceFd(Narrow())  # type: ignore[arg-type]
    died = death_of(lambda: device.pread(8, BASE))
    assert died.where == place("here, narrow")
    assert died.error.startswith("TypeError: ")


@contextlib.contextmanager
def file_of(size: int) -> Iterator[int]:
    fd = os.memfd_create("behind an area", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def map_whole_area(driver: Mortal) -> DriverDiedError:
    died = death_of(lambda: DeviceFd(driver).mmap(AREA.size, BASE + AREA.offset))
    assert died.access == "mmap of 0x2000 bytes at 0x1000"
    return died


def test_a_file_that_is_shorter_than_its_area_is_a_death() -> None:
    class Short(Mortal):
        def mmap(self, area: SparseMmapArea) -> tuple[int, int]:  # here it is short
            return fd, 4096

    with file_of(4096 + AREA.size - 1) as fd:
        assert map_whole_area(Short()).where == place("here it is short")


@pytest.mark.parametrize(
    "answer",
    [None, 3, (1, 2, 3), (-1, 0), (1 << 20, 0), ("1", 0), (0, -4096), (0, None)],
)
def test_what_is_no_file_and_offset_is_a_death(answer: tuple[int, int]) -> None:
    class Fileless(Mortal):
        def mmap(self, area: SparseMmapArea) -> tuple[int, int]:  # here it has no file
            return answer

    assert map_whole_area(Fileless()).where == place("here it has no file")


def test_areas_without_mmap_are_a_death_at_the_class() -> None:
    class Bare:  # here is the class
        migration_region = MigrationRegion(0x3000, (AREA,))
        read, write = Mortal.read, Mortal.write
        reset, close = Mortal.reset, Mortal.close

    died = map_whole_area(Bare())  # type: ignore[arg-type]  # it has no mmap
    assert died.where == place("here is the class")
    assert died.error == "AttributeError: 'Bare' object has no attribute 'mmap'"


# -- the region itself -----------------------------------------------------------------


def ask_for_region(device: DeviceFd) -> None:
    argument = bytearray(128)
    argument[:12] = b"".join(n.to_bytes(4, "little") for n in (128, 0, 9))
    device.ioctl(GET_REGION_INFO, argument)


def test_a_region_that_raises_is_a_death() -> None:
    class Shy(Mortal):
        @property
        def migration_region(self) -> NoReturn:
            raise ValueError("not yet")  # here it is shy

        @migration_region.setter
        def migration_region(self, region: object) -> None:
            pass

    died = death_of(lambda: ask_for_region(DeviceFd(Shy())))
    assert died.access == "VFIO_DEVICE_GET_REGION_INFO"
    assert died.where == place("here it is shy")
    died = death_of(lambda: DeviceFd(Shy()).mmap(4096, BASE + 0x1000))
    assert died.where == place("here it is shy")


def test_a_region_that_is_none_is_a_death() -> None:
    class Regionless(Mortal):  # here it has no region
        def __init__(self) -> None:
            super().__init__()
            self.migration_region = None  # type: ignore[assignment]

    died = death_of(lambda: ask_for_region(DeviceFd(Regionless())))
    assert died.access == "VFIO_DEVICE_GET_REGION_INFO"
