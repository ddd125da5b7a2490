"""Ioctls by pointer, and the realize and first reset of QEMU 7.2 in its own order."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.unit.host.pci_card import (
    CONFIG,
    EVENTFD,
    FEATURE,
    GET_HOT_RESET_INFO,
    GET_INFO,
    GET_IRQ_INFO,
    GET_REGION_INFO,
    HOT_RESET,
    INTX,
    MSI,
    NONE,
    REQ,
    RESET,
    SET_IRQS,
    TRIGGER,
    Card,
    Eventfd,
    User,
    errno_of,
)
from vfiomig.host.pci import Bar, PciIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

MINIMUM = {
    GET_INFO: 16,
    GET_REGION_INFO: 32,
    GET_IRQ_INFO: 16,
    SET_IRQS: 20,
    GET_HOT_RESET_INFO: 12,
    HOT_RESET: 12,
    FEATURE: 8,
}
every_request = pytest.mark.parametrize("number", MINIMUM)


@pytest.fixture
def user() -> User:
    return User()


def words(*numbers: int, size: int = 0) -> bytes:
    return struct.pack(f"={len(numbers)}I", *numbers).ljust(size, b"\xa5")


# -- the argument ----------------------------------------------------------------------


@every_request
@pytest.mark.parametrize("address", [0, 0xDEAD_0000, (1 << 64) - 4])
def test_a_pointer_to_nothing_is_a_bad_address(
    user: User, number: int, address: int
) -> None:
    call = partial(user.process.ioctl, user.number, number, address)
    assert errno_of(call) == "EFAULT"


@every_request
def test_a_structure_that_ends_too_early_is_a_bad_address(
    user: User, number: int
) -> None:
    short = words(64, size=MINIMUM[number] - 1)
    assert errno_of(lambda: user.ioctl(number, short)) == "EFAULT"


@every_request
def test_a_structure_that_says_it_is_too_small_is_invalid(
    user: User, number: int
) -> None:
    for argsz in (0, MINIMUM[number] - 1):
        argument = words(argsz, size=64)
        assert errno_of(partial(user.ioctl, number, argument)) == "EINVAL"


def test_an_answer_that_does_not_fit_into_memory_is_a_bad_address(user: User) -> None:
    argument = words(0xFFFF_FFFF, 0, 9, size=32)  # 48 bytes would come back
    assert errno_of(lambda: user.ioctl(GET_REGION_INFO, argument)) == "EFAULT"


@pytest.mark.parametrize("argsz", [16, 20, 24, 0xFFFF_FFFF])
def test_argsz_may_be_larger_than_what_is_there(user: User, argsz: int) -> None:
    answer = user.ioctl(GET_INFO, words(argsz, size=24))
    length = min(argsz, 20)
    expected = words(argsz, 3, 10, 5, 0)[:length].ljust(24, b"\xa5")
    assert answer == (0, expected)


def test_an_unknown_request_is_not_for_this_fd(user: User) -> None:
    for number in (0x3B64, 0x3B72, 0x3B74, 0x3B76, 0, 0xFFFF_FFFF):
        call = partial(user.process.ioctl, user.number, number)
        assert errno_of(call) == "ENOTTY"


def test_a_closed_device_is_a_bad_fd(user: User) -> None:
    user.device.close()
    for number in (*MINIMUM, RESET):
        assert errno_of(partial(user.ioctl, number, words(64, size=64))) == "EBADF"


# -- information -----------------------------------------------------------------------

READ_WRITE = 3


@pytest.mark.parametrize(
    ("index", "flags", "size"),
    [
        (0, READ_WRITE, 8),
        (1, 0, 0),
        (2, READ_WRITE, 0x1000),
        (3, 0, 0),
        (5, 0, 0),
        (6, 0, 0),
        (7, READ_WRITE, 256),
    ],
)
def test_the_regions_of_a_card(user: User, index: int, flags: int, size: int) -> None:
    answer = user.ioctl(GET_REGION_INFO, words(40, 0, index, size=40))[1]
    assert struct.unpack("=4I2Q", answer[:32]) == (
        *(40, flags, index, 0),
        *(size, index << 40),
    )
    assert answer[32:] == b"\xa5" * 8


@pytest.mark.parametrize(
    ("index", "flags", "count"), [(INTX, 7, 1), (MSI, 9, 4), (2, 9, 0), (REQ, 9, 1)]
)
def test_the_interrupts_of_a_card(
    user: User, index: int, flags: int, count: int
) -> None:
    answer = user.ioctl(GET_IRQ_INFO, words(16, 0xFF, index, 0xFF))
    assert answer == (0, words(16, flags, index, count))


# -- what is refused -------------------------------------------------------------------


def test_there_is_no_hot_reset(user: User) -> None:
    assert errno_of(lambda: user.ioctl(GET_HOT_RESET_INFO, words(12, 0, 0))) == "ENODEV"
    assert errno_of(lambda: user.ioctl(HOT_RESET, words(16, 0, 1, 3))) == "ENODEV"
    assert errno_of(lambda: user.ioctl(HOT_RESET, words(16, 1, 1, 3))) == "EINVAL"


GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (PROBE | 1, "ENOTTY"),  # VFIO_DEVICE_FEATURE_MIGRATION
        (PROBE | GET | SET | 2, "ENOTTY"),
        (GET | 1, "ENOTTY"),
        (SET | 0xFFFF, "ENOTTY"),
        (GET | SET | 1, "EINVAL"),
        (1 << 19 | PROBE | 1, "EINVAL"),
    ],
)
def test_there_is_no_feature(user: User, flags: int, name: str) -> None:
    for argsz in (8, 24):
        argument = words(argsz, flags, size=24)
        assert errno_of(partial(user.ioctl, FEATURE, argument)) == name


# -- QEMU 7.2 --------------------------------------------------------------------------


class Mtty(Card):
    """A card without messages and without memory."""

    identity = PciIdentity(
        vendor=0x4348,
        device=0x3253,
        subsystem_vendor=0x4348,
        subsystem=0x3253,
        class_code=0x070002,
        interrupt_pin=1,
    )
    bars: tuple[Bar, ...] = (Bar(8, "io"),)


class Qemu(User):
    """QEMU's calls, each checked for what makes it go on."""

    def region(self, index: int, argsz: int = 32) -> tuple[int, ...]:
        code, answer = self.ioctl(GET_REGION_INFO, words(argsz, 0, index, size=argsz))
        assert code == 0
        return struct.unpack_from("=4I2Q", answer)

    def config(self, size: int, place: int, value: int | None = None) -> int:
        if value is None:
            data = self.device.pread(size, CONFIG + place)
            assert len(data) == size
            return int.from_bytes(data, "little")
        data = value.to_bytes(size, "little")
        assert self.device.pwrite(data, CONFIG + place) == size
        return 0


@pytest.fixture
def events() -> Iterator[list[Eventfd]]:
    events = [Eventfd() for _ in range(2)]
    yield events
    for event in events:
        event.__exit__()


def test_realize_and_first_reset_of_qemu_7_2(events: list[Eventfd]) -> None:
    """Appendix A of qemu_v1_client.md, from GET_INFO on, in its order."""
    intx, request = events
    qemu = Qemu(Mtty())
    realize(qemu, intx, request)
    # The reset: interrupts off, the command register cleared, and all on again.
    assert qemu.set_irqs(NONE | TRIGGER, INTX) == 0
    command = qemu.config(2, 0x04)
    qemu.config(2, 0x04, command & ~0x407)
    assert qemu.process.ioctl(qemu.number, RESET) == 0
    assert qemu.config(1, 0x3D) == 1
    assert qemu.set_irqs(EVENTFD | TRIGGER, INTX, intx.fd) == 0
    for place in range(0x10, 0x28, 4):
        qemu.config(4, place, 0)
    # The eventfd of requests outlived the reset, for it is never given again.
    assert qemu.set_irqs(NONE | TRIGGER, REQ, count=1) == 0
    qemu.bus.raise_interrupt(0)
    assert (intx.taken(), request.taken()) == (1, 1)
    # "cont"
    assert qemu.device.pread(4, 9 << 40) == bytes(4)
    assert qemu.device.pwrite(b"\x01\0\0\0", 9 << 40) == 4


def realize(qemu: Qemu, intx: Eventfd, request: Eventfd) -> None:
    code, info = qemu.ioctl(GET_INFO, words(20, size=20))
    assert (code, info[4:16]) == (0, words(3, 10, 5))
    sizes = [qemu.region(index)[4] for index in (*range(6), 7)]
    assert sizes == [8, 0, 0, 0, 0, 0, 256]
    error_info = partial(qemu.ioctl, GET_IRQ_INFO, words(16, 0, 3, 0))
    assert errno_of(error_info) == "EINVAL"  # tolerated: no error recovery
    assert qemu.config(256, 0) & 0xFFFF_FFFF == 0x32534348
    assert qemu.config(4, 0x30) == 0  # the size of the ROM
    qemu.config(4, 0x30, 0xFFFF_F800)
    assert qemu.config(4, 0x30) == 0
    qemu.config(4, 0x30, 0)
    assert qemu.config(4, 0x10) == 1  # ports
    assert qemu.config(1, 0x3D) == 1
    assert qemu.config(1, 0x3D) == 1
    assert qemu.set_irqs(EVENTFD | TRIGGER, INTX, intx.fd) == 0
    for index in (*range(8), 9):
        qemu.region(index)
    assert errno_of(partial(qemu.region, 8)) == "EINVAL"  # tolerated: no VGA
    for _ in range(2):
        needed, flags, _, cap_offset, _, _ = qemu.region(9)
        assert (needed, flags, cap_offset) == (48, 0b1011, 0)
        assert qemu.region(9, needed)[3] == 32
    code, irq = qemu.ioctl(GET_IRQ_INFO, words(16, 0, REQ, 0))
    assert (code, irq[12:]) == (0, words(1))
    assert qemu.set_irqs(EVENTFD | TRIGGER, REQ, request.fd) == 0
