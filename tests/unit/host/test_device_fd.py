"""One opened device, held against kernel_uapi.md sections C.1 to C.3.

The numbers here are those of that page, not those of our uapi package.
"""

from __future__ import annotations

import errno
import struct
from functools import partial
from typing import TYPE_CHECKING

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

if TYPE_CHECKING:
    from collections.abc import Callable

GET_INFO, GET_REGION_INFO, GET_IRQ_INFO, RESET = 0x3B6B, 0x3B6C, 0x3B6D, 0x3B6F

# argsz, flags, num_regions, num_irqs, cap_offset
DEVICE_INFO = struct.Struct("<IIIII")
# argsz, flags, index, cap_offset, size, offset
REGION_INFO = struct.Struct("<IIIIQQ")
# argsz, flags, index, count
IRQ_INFO = struct.Struct("<IIII")

READ, WRITE, MMAP, CAPS = 1, 2, 4, 8
MIGRATION = 9
BASE = MIGRATION << 40
SIZE = 0x5000
AREAS = (SparseMmapArea(0x1000, 0x1000), SparseMmapArea(0x3000, 0x2000))
GUARD = 0xA5


class Tape:
    """A driver that writes down what it is asked, and answers with its memory."""

    def __init__(self, region: MigrationRegion | None = None) -> None:
        self.migration_region = region or MigrationRegion(SIZE)
        self.asked: list[tuple[object, ...]] = []
        self.refusal: BaseException | None = None

    def read(self, offset: int, size: int) -> bytes:
        self._note("read", offset, size)
        return bytes(range(256))[:size]

    def write(self, offset: int, data: bytes) -> None:
        self._note("write", offset, data)

    def reset(self) -> None:
        self._note("reset")

    def close(self) -> None:
        self._note("close")

    def _note(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is what counts
        call()
    assert refused.value.errno is not None
    return errno.errorcode[refused.value.errno]


def structure(argsz: int, *fields: int, room: int | None = None) -> bytearray:
    """Return a user's structure, with guard bytes after the fields that are given."""
    given = struct.pack(f"<{1 + len(fields)}I", argsz, *fields)
    return bytearray(given.ljust(argsz if room is None else room, bytes([GUARD])))


def is_guard(rest: bytes | bytearray) -> bool:
    return bytes(rest) == bytes([GUARD]) * len(rest)


# -- VFIO_DEVICE_GET_INFO --------------------------------------------------------------


def test_the_device_says_pci_reset_and_how_many_regions_and_interrupts() -> None:
    argument = structure(20)
    assert DeviceFd(Tape()).ioctl(GET_INFO, argument) == 0
    # VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI (V1-DISC-07, V1-DISC-03)
    assert DEVICE_INFO.unpack(argument) == (20, 0b11, 10, 5, 0)


@pytest.mark.parametrize("argsz", [16, 19, 20, 24, 64])
def test_device_info_ends_where_argsz_or_the_structure_ends(argsz: int) -> None:
    argument = structure(argsz, room=80)
    assert DeviceFd(Tape()).ioctl(GET_INFO, argument) == 0  # ABI-INFO-06
    assert argument[:16] == struct.pack("<IIII", argsz, 0b11, 10, 5)
    assert not any(argument[16 : min(argsz, 20)])
    assert is_guard(argument[min(argsz, 20) :])
    assert len(argument) == 80


# -- VFIO_DEVICE_GET_REGION_INFO -------------------------------------------------------

REGIONS = {
    "trapped": (MigrationRegion(SIZE), 48, READ | WRITE | CAPS),
    "one area": (MigrationRegion(SIZE, AREAS[:1]), 80, READ | WRITE | MMAP | CAPS),
    "two areas": (MigrationRegion(SIZE, AREAS), 96, READ | WRITE | MMAP | CAPS),
}
every_region = pytest.mark.parametrize(
    ("region", "needed", "flags"), REGIONS.values(), ids=REGIONS.keys()
)


@every_region
def test_with_too_little_room_the_answer_is_how_much_it_takes(
    region: MigrationRegion, needed: int, flags: int
) -> None:
    device = DeviceFd(Tape(region))
    for argsz in range(32, needed):
        argument = structure(argsz, 0, MIGRATION, 77, room=needed + 8)
        assert device.ioctl(GET_REGION_INFO, argument) == 0  # ABI-INFO-03
        head = REGION_INFO.unpack_from(argument)
        assert head == (needed, flags, MIGRATION, 0, SIZE, BASE)
        assert is_guard(argument[32:])


@every_region
def test_with_enough_room_the_chain_follows_the_structure(
    region: MigrationRegion, needed: int, flags: int
) -> None:
    device = DeviceFd(Tape(region))
    for argsz in (needed, needed + 1, needed + 100):
        argument = structure(argsz, 0, MIGRATION)
        assert device.ioctl(GET_REGION_INFO, argument) == 0
        head = REGION_INFO.unpack_from(argument)
        assert head == (argsz, flags, MIGRATION, 32, SIZE, BASE)  # ABI-INFO-04
        assert is_guard(argument[needed:])
        assert len(argument) == argsz


@every_region
def test_the_chain_leads_forward_to_its_end_and_says_what_the_region_is(
    region: MigrationRegion, needed: int, flags: int
) -> None:
    argument = structure(needed, 0, MIGRATION)
    DeviceFd(Tape(region)).ioctl(GET_REGION_INFO, argument)
    found, position = {}, REGION_INFO.unpack_from(argument)[3]
    while position:
        identity, version, following = struct.unpack_from("<HHI", argument, position)
        found[identity, version] = position
        assert not following or position < following <= needed - 8  # ABI-INFO-04
        position = following
    # CAP_TYPE comes first (ABI-INFO-07): type 3, subtype 1 (V1-DISC-01).
    assert next(iter(found)) == (2, 1)
    assert struct.unpack_from("<II", argument, found[2, 1] + 8) == (3, 1)
    assert ((1, 1) in found) == bool(region.areas)  # V1-MMAP-02
    if region.areas:
        at = found[1, 1]
        numbers = struct.unpack_from(f"<II{2 * len(region.areas)}Q", argument, at + 8)
        listed = [number for area in region.areas for number in area]
        assert numbers == (len(region.areas), 0, *listed)


@pytest.mark.parametrize("index", range(7))
def test_a_known_region_that_is_not_there_has_size_0(index: int) -> None:
    argument = structure(32, 0, index, 77, room=40)
    assert DeviceFd(Tape()).ioctl(GET_REGION_INFO, argument) == 0  # ABI-INFO-02
    argsz, flags, answered, cap_offset, size, _ = REGION_INFO.unpack_from(argument)
    assert (argsz, flags, answered, cap_offset, size) == (32, 0, index, 0, 0)
    assert is_guard(argument[32:])


def test_every_device_has_a_configuration_space() -> None:
    argument = structure(40, 0, 7, 77)
    assert DeviceFd(Tape()).ioctl(GET_REGION_INFO, argument) == 0
    head = REGION_INFO.unpack_from(argument)
    assert head == (40, READ | WRITE, 7, 0, 256, 7 << 40)
    assert is_guard(argument[32:])


@pytest.mark.parametrize("index", [8, 10, 11, 0x7FFFFFFF, 0xFFFFFFFF])
def test_vga_and_what_is_beyond_the_last_region_are_refused(index: int) -> None:
    argument = structure(32, 0, index)
    before = bytes(argument)
    device = DeviceFd(Tape())
    assert errno_of(lambda: device.ioctl(GET_REGION_INFO, argument)) == "EINVAL"
    assert argument == before


def test_region_info_is_the_same_in_every_state_and_at_every_time() -> None:
    device = DeviceFd(Tape(REGIONS["two areas"][0]))  # V1-DISC-06
    arguments = [structure(96, 0, MIGRATION) for _ in range(2)]
    for argument in arguments:
        device.ioctl(GET_REGION_INFO, argument)
        device.ioctl(RESET)
    assert arguments[0] == arguments[1]


# -- VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_RESET and the rest --------------------------


# EVENTFD 1, MASKABLE 2, AUTOMASKED 4, NORESIZE 8; as vfio-pci says it of a function
# without a pin and without MSI, which a driver is that says nothing of itself.
@pytest.mark.parametrize(
    ("index", "flags", "count"), [(0, 7, 0), (1, 9, 0), (2, 9, 0), (4, 9, 1)]
)
def test_a_bare_driver_has_no_interrupt_but_that_of_requests(
    index: int, flags: int, count: int
) -> None:
    argument = structure(24, 0xFF, index, 0xFF)
    assert DeviceFd(Tape()).ioctl(GET_IRQ_INFO, argument) == 0
    assert IRQ_INFO.unpack_from(argument) == (24, flags, index, count)
    assert is_guard(argument[16:])


# Of ERR (3) vfio-pci knows with PCI Express alone; told a count of 0, QEMU would warn.
@pytest.mark.parametrize("index", [3, 5, 0xFFFFFFFF])
def test_an_unknown_interrupt_is_refused(index: int) -> None:
    argument = structure(16, 0, index)
    device = DeviceFd(Tape())
    assert errno_of(lambda: device.ioctl(GET_IRQ_INFO, argument)) == "EINVAL"


@pytest.mark.parametrize(
    ("request_number", "minimum"),
    [(GET_INFO, 16), (GET_REGION_INFO, 32), (GET_IRQ_INFO, 16)],
)
def test_an_argument_that_cannot_be_is_refused_and_left_alone(
    request_number: int, minimum: int
) -> None:
    device = DeviceFd(Tape())

    def answer(argument: bytearray | None) -> str:
        before = None if argument is None else bytes(argument)
        answered = errno_of(lambda: device.ioctl(request_number, argument))
        assert argument == before
        return answered

    assert answer(structure(0, room=64)) == "EINVAL"  # ABI-INFO-01
    assert answer(structure(minimum - 1, room=64)) == "EINVAL"
    assert answer(structure(minimum - 1)) == "EINVAL"
    assert answer(None) == "EFAULT"
    assert answer(bytearray()) == "EFAULT"
    assert answer(bytearray(3)) == "EFAULT"
    assert answer(structure(minimum, room=minimum - 1)) == "EFAULT"
    assert answer(structure(0xFFFFFFFF, room=64)) == "EFAULT"


def test_reset_reaches_the_driver_and_needs_no_argument() -> None:
    driver = Tape()
    assert DeviceFd(driver).ioctl(RESET) == 0
    assert driver.asked == [("reset",)]


@pytest.mark.parametrize("argument", [None, bytearray(64)])
@pytest.mark.parametrize("number", [0, 0x3B64, 0x3B72, 0x3B74, 0x3B79, 0xFFFFFFFF])
def test_an_unknown_ioctl_is_not_for_this_fd(
    number: int, argument: bytearray | None
) -> None:
    driver = Tape()
    device = DeviceFd(driver)
    assert errno_of(lambda: device.ioctl(number, argument)) == "ENOTTY"  # ABI-UNK-01
    assert driver.asked == []


# -- pread and pwrite ------------------------------------------------------------------

every_width = pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 7, 8, 12, 32, 255])
every_place = pytest.mark.parametrize(
    "place", [0, 3, 8, 31, 0xFFF, SIZE, (1 << 40) - 1]
)


@every_width
@every_place
def test_any_width_anywhere_goes_to_the_driver_as_it_came(
    width: int, place: int
) -> None:
    driver = Tape()
    device = DeviceFd(driver)
    data = bytes(range(width))
    assert device.pread(width, BASE + place) == data
    assert device.pwrite(data, BASE + place) == width
    assert driver.asked == [("read", place, width), ("write", place, data)]


@pytest.mark.parametrize(
    "offset", [0, 8, 6 << 40, BASE - 1, 8 << 40, 10 << 40, (10 << 40) + 8, -1, 1 << 63]
)
def test_an_offset_of_no_region_is_refused_before_the_driver_sees_it(
    offset: int,
) -> None:
    driver = Tape()
    device = DeviceFd(driver)
    assert errno_of(lambda: device.pread(8, offset)) == "EINVAL"  # ABI-OFF-02
    assert errno_of(lambda: device.pwrite(bytes(8), offset)) == "EINVAL"
    assert driver.asked == []


def test_a_short_read_passes_as_it_is() -> None:
    class Short(Tape):
        def read(self, offset: int, size: int) -> bytes:
            return b"abc"

    assert DeviceFd(Short()).pread(8, BASE) == b"abc"
    assert DeviceFd(Short()).pread(3, BASE) == b"abc"


@pytest.mark.parametrize(
    "kind", [bytearray, memoryview, lambda data: memoryview(data).cast("Q")]
)
def test_any_kind_of_bytes_is_an_answer(kind: Callable[[bytes], bytes]) -> None:
    class Other(Tape):
        def read(self, offset: int, size: int) -> bytes:
            return kind(b"12345678")

    answer = DeviceFd(Other()).pread(8, BASE)
    assert (type(answer), answer) == (bytes, b"12345678")


def test_the_driver_gets_bytes_whatever_was_written() -> None:
    driver = Tape()
    device = DeviceFd(driver)
    assert device.pwrite(memoryview(b"abcd")[1:3], BASE) == 2
    assert device.pwrite(memoryview(b"12345678").cast("Q"), BASE) == 8
    assert driver.asked == [("write", 0, b"bc"), ("write", 0, b"12345678")]
    assert all(type(asked[2]) is bytes for asked in driver.asked)


CALLS: dict[str, Callable[[DeviceFd], object]] = {
    "read": lambda device: device.pread(8, BASE),
    "write": lambda device: device.pwrite(bytes(8), BASE),
    "reset": lambda device: device.ioctl(RESET),
    "close": lambda device: device.close(),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@every_call
@pytest.mark.parametrize("name", ["EINVAL", "EIO", "EAGAIN", "ENODEV", "EBADF"])
def test_the_errno_of_the_driver_passes(
    call: Callable[[DeviceFd], object], name: str
) -> None:
    driver = Tape()
    driver.refusal = OSError(getattr(errno, name), "as the driver says")
    assert errno_of(lambda: call(DeviceFd(driver))) == name


@every_call
def test_an_interrupt_by_the_keyboard_passes(
    call: Callable[[DeviceFd], object],
) -> None:
    driver = Tape()
    driver.refusal = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        call(DeviceFd(driver))


# -- close -----------------------------------------------------------------------------


def test_a_closed_fd_answers_everything_with_ebadf() -> None:
    driver = Tape(MigrationRegion(SIZE, AREAS))
    device = DeviceFd(driver)
    device.close()
    assert errno_of(lambda: device.pread(4, BASE)) == "EBADF"
    assert errno_of(lambda: device.pread(4, 0)) == "EBADF"
    assert errno_of(lambda: device.pwrite(bytes(4), BASE)) == "EBADF"
    assert errno_of(lambda: device.pwrite(bytes(4), 0)) == "EBADF"
    assert errno_of(lambda: device.mmap(0x1000, BASE + 0x1000)) == "EBADF"
    for number in (GET_INFO, GET_REGION_INFO, GET_IRQ_INFO, RESET, 0):
        assert errno_of(partial(device.ioctl, number)) == "EBADF"
    assert errno_of(device.close) == "EBADF"
    assert driver.asked == [("close",)]


def test_on_close_comes_once_and_after_the_driver() -> None:
    driver = Tape()
    device = DeviceFd(driver, on_close=lambda: driver.asked.append(("on_close",)))
    device.close()
    errno_of(device.close)
    assert driver.asked == [("close",), ("on_close",)]


def test_a_driver_that_fails_to_close_is_closed_all_the_same() -> None:
    driver = Tape()
    driver.refusal = OSError(errno.EIO, "no")
    device = DeviceFd(driver, on_close=lambda: driver.asked.append(("on_close",)))
    assert errno_of(device.close) == "EIO"
    assert errno_of(device.close) == "EBADF"
    assert driver.asked == [("close",), ("on_close",)]
