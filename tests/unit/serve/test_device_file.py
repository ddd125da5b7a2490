from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.serve.devices import USE_DEVICES, Machine
from tests.unit.serve.programs import run
from vfiomig.host.user_process import LocalProcess
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea
from vfiomig.serve.broker.device_file import DeviceFile
from vfiomig.serve.mapped_areas import MirroredAreas, Place, SharedAreas
from vfiomig.uapi.vfio import vfio_region_info

if TYPE_CHECKING:
    from vfiomig.host.user_process import UserProcess

PAGE = 4096


def elsewhere(places: list[Place]) -> list[Place]:
    """Return the same memory as something that cannot be sealed: it is copied."""
    fd = os.memfd_create("more", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, places[-1].offset + places[-1].area.size)
    return [*places, Place(SparseMmapArea(0, 0), fd, 0)]


MIGRATE = """
join()
moved, source, destination = migrate()
say(moved > 10000, source.offset, len(source.maps))
source.close(); destination.close()
"""


@pytest.mark.parametrize(
    ("section", "mapped", "kind"),
    [
        ("mapped", 1, SharedAreas),
        ("split", 1, MirroredAreas),
        ("trapped", 0, type(None)),
    ],
)
def test_a_device_migrates_whatever_its_data_section_is(
    section: str, mapped: int, kind: type
) -> None:
    machine = Machine(f"accelerator,memory=64K,data-section={section}")
    said = run(USE_DEVICES + MIGRATE, machine)
    assert said == [[True, 0, mapped]]
    assert {type(each._areas) for each in machine.files} == {kind}
    before, after = machine.snapshots()
    assert before == after
    assert any(before)
    assert {each[0] for each in machine.unseen} == (
        {"read", "write"} if mapped else set()
    )


def test_a_data_section_in_several_files_migrates() -> None:
    machine = Machine("accelerator,memory=64K", elsewhere)
    assert run(USE_DEVICES + MIGRATE, machine) == [[True, 0, 1]]
    assert isinstance(machine.files[0]._areas, MirroredAreas)
    before, after = machine.snapshots()
    assert before == after


def test_what_is_mapped_is_seen_by_both_sides_at_once() -> None:
    machine = Machine("accelerator,memory=64K")
    said = run(
        USE_DEVICES
        + """
join()
device = Device("source")
device.put(0, 4, 4)
start, there = device.maps[0]
there[5:8] = b"abc"
# A trapped read is answered by the driver, out of its own memory.
say(os.pread(device.fd, 5, device.offset + start + 4).decode("latin1"))
os.pwrite(device.fd, b"xyz", device.offset + start + 6)
say(there[5:9].decode("latin1"))
""",
        machine,
    )
    assert said == [["\0abc\0"], ["axyz"]]


def test_only_areas_can_be_mapped() -> None:
    said = run(
        USE_DEVICES
        + """
join()
device = Device("source")
start, size = device.areas[0]
def mapped(at, length, flags=1):
    found = raw(MMAP, 0, length, 3, flags, device.fd, device.offset + at)
    return found if isinstance(found, str) else "mapped"
say(mapped(start, size), mapped(start + 4096, 4096), mapped(start, 1))
say(mapped(0, 4096), mapped(0, start + size), mapped(start, size + 1))
say(mapped(start + size, 4096), mapped(start, size, 2), mapped(1 << 56, 4096))
say(mapped(start, 0), mapped(start + 1, 1), mapped(-4096, 4096))
say(raw(MMAP, 0, 4096, 3, 1, group, 0), raw(MMAP, 0, 4096, 3, 1, container, 0))
""",
        Machine("accelerator,memory=64K"),
    )
    assert said == [
        ["mapped"] * 3,
        ["EINVAL"] * 3,
        ["EINVAL"] * 3,
        ["EINVAL"] * 3,
        ["ENODEV"] * 2,
    ]


def test_a_hostile_program_reaches_nothing_but_the_areas() -> None:
    machine = Machine("accelerator,memory=64K")
    said = run(
        USE_DEVICES
        + """
join()
device = Device("source")
say(tried(os.ftruncate, device.fd, 0), tried(os.ftruncate, device.fd, 1 << 20))
say(tried(fcntl.fcntl, device.fd, 1033, 0x10), tried(fcntl.fcntl, device.fd, 1033, 8))
punch = libc.fallocate(device.fd, 3, ctypes.c_long(0), ctypes.c_long(1 << 20))
say(punch)  # it only clears what a program can write anyway
say(tried(os.write, device.fd, b"registers?"))
say(device.get(0, 4), device.get(8, 8))
moved, source, destination = 0, device, Device("destination")
destination.load(source.save())
""",
        machine,
    )
    assert said[:3] == [["EPERM"] * 2, ["EPERM"] * 2, [0]]
    assert said[4] == [1, 0]  # RUNNING, nothing pending: as they were
    before, after = machine.snapshots()
    assert before == after


class Lying:
    """A device that answers each ioctl, and each register with what it was told."""

    migration_region = MigrationRegion(3 * PAGE, (SparseMmapArea(PAGE, 2 * PAGE),))

    def __init__(self) -> None:
        self.value = 0
        self.index = 9
        self.error: Exception | None = None
        self.closed = 0

    def user_ioctl(self, _: int, argument: int, user: UserProcess) -> int:
        self._fail()
        info = vfio_region_info(argsz=32, index=self.index, offset=(1 << 64) - 1)
        user.memory.write(argument, bytes(info))
        return 0

    def pread(self, size: int, _: int) -> bytes:
        self._fail()
        return self.value.to_bytes(8, "little")[:size]

    def pwrite(self, data: bytes | memoryview, _: int) -> int:
        self._fail()
        return len(data)

    def close(self) -> None:
        self.closed += 1

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


def lying(*, offset: int = PAGE, sealable: bool = True) -> tuple[Lying, DeviceFile]:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING if sealable else 0)
    os.ftruncate(fd, offset + 2 * PAGE)
    device = Lying()
    place = Place(device.migration_region.areas[0], fd, offset)
    return device, DeviceFile(device, device.migration_region, [place])


STATE, PENDING, OFFSET, SIZE = 0, 8, 16, 24
SIZES = (0, 1, PAGE, 2 * PAGE, 3 * PAGE, 1 << 32, (1 << 63) + 1, (1 << 64) - 1)


@pytest.mark.parametrize("sealable", [True, False])
@pytest.mark.parametrize("state", [2, 3, 4, 6, 0xFFFFFFFF])
def test_no_offset_and_no_size_of_data_is_too_much(sealable: bool, state: int) -> None:
    device, file = lying(sealable=sealable)
    file.pwrite(state.to_bytes(4, "little"), STATE)
    for offset in SIZES:
        for size in SIZES:
            device.value = offset
            file.pread(8, OFFSET)
            device.value = size
            assert file.pread(8, SIZE) == size.to_bytes(8, "little")
            assert file.pwrite(size.to_bytes(8, "little"), SIZE) == 8
    for length in range(12):
        file.pread(length, SIZE)
        file.pwrite(bytes(length), SIZE)
    file.close()


@pytest.mark.parametrize("index", [0, 7, 9, 10, 0xFFFFFFFF])
def test_a_region_whose_info_changes_meanwhile_is_moved_within_64_bits(
    index: int,
) -> None:
    device, file = lying(offset=3 * PAGE)
    device.index = index
    process = LocalProcess(lambda _: file)
    fd = process.open("x")
    buffer = bytearray(64)
    argument = process.memory.place(buffer)
    process.ioctl(fd, 0x3B6C, argument)
    told = vfio_region_info.from_buffer(buffer).offset
    assert told == (
        2 * PAGE if index == 9 else (index << 40) + (1 << 56) & (1 << 64) - 1
    )
    assert not any(buffer[32:])


def test_no_offset_is_below_the_region() -> None:
    _, file = lying(offset=3 * PAGE)
    for offset in (0, 2 * PAGE - 1, (1 << 40) + 2 * PAGE, (1 << 56) - 1):
        with pytest.raises(OSError, match="no region lies at") as caught:
            file.pread(4, offset)
        assert caught.value.errno == errno.EINVAL
    assert file.pread(4, 2 * PAGE) == bytes(4)


def test_a_driver_that_has_died_answers_eio_and_is_closed_once() -> None:
    device, file = lying()
    user = LocalProcess(lambda _: file)
    device.error = DriverDiedError("a read", "x.py:1", "KeyError")
    with pytest.raises(DriverDiedError):
        file.pread(4, 0)
    device.error = None
    for access in (
        lambda: file.pread(4, 0),
        lambda: file.pwrite(b"1234", 0),
        lambda: file.user_ioctl(0x3B6F, 0, user),
    ):
        with pytest.raises(OSError, match="has died") as caught:
            access()
        assert caught.value.errno == errno.EIO
    file.close()
    assert device.closed == 1


def test_region_info_is_told_with_offsets_of_this_fd() -> None:
    said = run(
        USE_DEVICES
        + """
join()
device = Device("source")
for index in range(10):
    info = tried(device.info, index)
    say(info if isinstance(info, str) else [*REGION.unpack_from(info)[3:6:2]])
short = device.info(9, argsz=32)
say(REGION.unpack_from(short)[0] > 32, REGION.unpack_from(short)[3], any(short[32:]))
for argsz in (31, 8, 0): say(tried(device.info, 9, argsz))
config = REGION.unpack_from(device.info(7))[5]
say(os.pread(device.fd, 2, config) != b"\\xff\\xff", tried(device.info, 11))
""",
        Machine("accelerator,memory=64K"),
    )
    assert [each[0] for each in said[:8]] == [
        [0, (n << 40) + (1 << 56)] for n in range(8)
    ]
    assert said[8] == ["EINVAL"]
    assert said[9] == [[32, 0]]
    assert said[10] == [True, 0, False]
    assert said[11:] == [["EINVAL"], ["EINVAL"], ["EINVAL"], [True, "EINVAL"]]
