"""Interrupts through VFIO_DEVICE_SET_IRQS, with real eventfds.

Errnos are those of vfio_pci_intrs.c and ``vfio_set_irqs_validate_and_prepare()``.
"""

from __future__ import annotations

import contextlib
import os
import struct
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.unit.host.pci_card import (
    BOOL,
    CONFIG,
    ERR,
    EVENTFD,
    INTX,
    INTX_DISABLE,
    IO,
    MASK,
    MASTER,
    MSI,
    MSIX,
    NONE,
    REQ,
    RESET,
    SET_IRQS,
    TRIGGER,
    UNMASK,
    Card,
    Eventfd,
    User,
    errno_of,
)
from vfiomig.host.device_fd import DeviceFd

if TYPE_CHECKING:
    from collections.abc import Iterator

SET, TELL, TEST = EVENTFD | TRIGGER, NONE | TRIGGER, BOOL | TRIGGER


@pytest.fixture
def user() -> Iterator[User]:
    user = User()
    yield user
    with contextlib.suppress(OSError):
        user.device.close()


@pytest.fixture
def event() -> Iterator[Eventfd]:
    with Eventfd() as event:
        yield event


@pytest.fixture
def other() -> Iterator[Eventfd]:
    with Eventfd() as event:
        yield event


# -- what is refused before anything is done -------------------------------------------

TOO_MANY = 0xFFFFFFFF
HEADERS = {
    "no kind of data": (24, TRIGGER, INTX, 0, 1),
    "two kinds of data": (24, NONE | BOOL | TRIGGER, INTX, 0, 1),
    "an unknown flag": (24, NONE | TRIGGER | 0x40, INTX, 0, 1),
    "an unknown index": (24, TELL, 5, 0, 1),
    "MSI-X, of which there is none": (24, TELL, MSIX, 0, 0),
    "ERR, of which there is none": (24, SET, ERR, 0, 1),
    "a start beyond": (24, SET, INTX, 1, 0),
    "a count beyond": (24, SET, INTX, 0, 2),
    "the last vector and one more": (28, SET, MSI, 3, 2),
    "a sum that wraps": (24, TELL, MSI, 1, TOO_MANY),
    "a sum that is the largest number": (24, TELL, MSI, 1, TOO_MANY - 1),
    "no room for an fd": (23, SET, INTX, 0, 1),
    "no room for the last bool": (23, TEST, MSI, 0, 4),
    "too small a structure": (19, TELL, INTX, 0, 0),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_makes_no_sense_is_invalid(
    user: User, header: tuple[int, ...]
) -> None:
    argument = struct.pack("=5I", *header) + bytes(8)
    assert errno_of(lambda: user.ioctl(SET_IRQS, argument)) == "EINVAL"
    structure = bytearray(argument)
    assert errno_of(lambda: user.device.ioctl(SET_IRQS, structure)) == "EINVAL"
    assert structure == argument


def test_data_that_are_not_there_are_a_bad_address(user: User) -> None:
    head = struct.pack("=5I", 36, SET, MSI, 0, 4)
    assert errno_of(lambda: user.ioctl(SET_IRQS, head + bytes(15))) == "EFAULT"
    assert errno_of(lambda: user.ioctl(SET_IRQS, head[:19])) == "EFAULT"
    structure = bytearray(head)
    assert errno_of(lambda: user.device.ioctl(SET_IRQS, structure)) == "EFAULT"


@pytest.mark.parametrize(
    ("flags", "index", "name"),
    [
        (NONE, INTX, "ENOTTY"),
        (NONE | MASK | UNMASK, INTX, "ENOTTY"),
        (NONE | MASK, MSI, "ENOTTY"),
        (NONE | UNMASK, MSI, "ENOTTY"),
        (NONE | MASK, REQ, "ENOTTY"),
        (NONE | MASK, INTX, "EINVAL"),  # it is not set up
        (NONE | UNMASK, INTX, "EINVAL"),
        (TELL, INTX, "EINVAL"),
        (TELL, MSI, "EINVAL"),
        (TELL, REQ, "EINVAL"),
    ],
)
def test_what_cannot_be_done_to_an_interrupt(
    user: User, flags: int, index: int, name: str
) -> None:
    assert errno_of(lambda: user.set_irqs(flags, index, count=1)) == name


def test_tearing_down_what_is_not_set_up_is_invalid(user: User) -> None:
    assert errno_of(lambda: user.set_irqs(TELL, INTX)) == "EINVAL"
    assert errno_of(lambda: user.set_irqs(TELL, MSI)) == "EINVAL"
    assert errno_of(lambda: user.set_irqs(SET, MSI)) == "ERANGE"


@pytest.mark.parametrize("index", [INTX, MSI, REQ])
def test_an_fd_must_be_an_eventfd(user: User, event: Eventfd, index: int) -> None:
    before = open_fds()
    assert errno_of(lambda: user.set_irqs(SET, index, 0x7FFF_FFFF)) == "EBADF"
    file = os.memfd_create("no eventfd")
    assert errno_of(lambda: user.set_irqs(SET, index, file)) == "EINVAL"
    fds = (event.fd, event.fd, file)
    assert errno_of(lambda: user.set_irqs(SET, MSI, *fds)) == "EINVAL"
    os.close(file)
    assert open_fds() == before


def test_a_set_up_that_failed_leaves_nothing(user: User, event: Eventfd) -> None:
    assert errno_of(lambda: user.set_irqs(SET, INTX, 0x7FFF_FFFF)) == "EBADF"
    assert user.set_irqs(SET, MSI, event.fd) == 0


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as cheap as it gets


# -- INTx ------------------------------------------------------------------------------


def test_intx_is_masked_as_it_fires_and_fires_again_while_it_is_high(
    user: User, event: Eventfd
) -> None:
    assert user.set_irqs(SET, INTX, event.fd) == 0
    assert event.taken() == 0
    user.bus.raise_interrupt(0)
    assert event.taken() == 1
    user.bus.raise_interrupt(0)
    user.bus.lower_interrupt(0)
    user.bus.raise_interrupt(0)
    assert event.taken() == 0  # masked since it fired
    assert user.set_irqs(NONE | UNMASK, INTX, count=1) == 0
    assert event.taken() == 1  # still high
    user.bus.lower_interrupt(0)
    assert user.set_irqs(NONE | UNMASK, INTX, count=1) == 0
    assert event.taken() == 0  # low by now
    user.bus.raise_interrupt(0)
    assert event.taken() == 1


def test_intx_that_is_high_already_fires_when_it_is_set_up(
    user: User, event: Eventfd
) -> None:
    user.bus.raise_interrupt(0)
    user.set_irqs(SET, INTX, -1)
    user.set_irqs(SET, INTX, event.fd)
    assert event.taken() == 1
    user.set_irqs(SET, INTX, event.fd)  # as KVM does it, with another eventfd
    assert event.taken() == 0  # and still masked


def test_a_user_masks_and_unmasks_intx(user: User, event: Eventfd) -> None:
    user.set_irqs(SET, INTX, event.fd)
    user.set_irqs(BOOL | MASK, INTX, 0)
    user.set_irqs(BOOL | MASK, INTX, 1)
    user.bus.raise_interrupt(0)
    assert event.taken() == 0
    user.set_irqs(BOOL | UNMASK, INTX, 0)
    assert event.taken() == 0
    user.set_irqs(BOOL | UNMASK, INTX, 1)
    assert event.taken() == 1


def test_no_eventfd_masks_or_unmasks(user: User, event: Eventfd) -> None:
    user.set_irqs(SET, INTX, event.fd)
    mask, unmask = EVENTFD | MASK, EVENTFD | UNMASK
    assert errno_of(lambda: user.set_irqs(mask, INTX, event.fd)) == "ENOTTY"
    assert errno_of(lambda: user.set_irqs(unmask, INTX, event.fd)) == "ENOTTY"
    assert user.set_irqs(unmask, INTX, -1) == 0


def test_a_test_by_the_user_signals_and_masks_nothing(
    user: User, event: Eventfd
) -> None:
    user.set_irqs(SET, INTX, event.fd)
    user.set_irqs(TELL, INTX, count=1)
    user.set_irqs(TEST, INTX, 1)
    user.set_irqs(TEST, INTX, 0)
    assert event.taken() == 2
    user.bus.raise_interrupt(0)
    assert event.taken() == 1


@pytest.mark.parametrize("how", ["count 0", "fd -1"])
def test_intx_that_was_torn_down_signals_nobody(
    user: User, event: Eventfd, how: str
) -> None:
    before = open_fds()
    user.set_irqs(SET, INTX, event.fd)
    assert open_fds() == before + 1
    if how == "count 0":
        user.set_irqs(TELL, INTX)
        assert errno_of(lambda: user.set_irqs(NONE | MASK, INTX, count=1)) == "EINVAL"
    else:
        user.set_irqs(SET, INTX, -1)
    assert open_fds() == before
    user.bus.raise_interrupt(0)
    assert event.taken() == 0
    user.set_irqs(SET, INTX, event.fd)
    assert event.taken() == 1


def test_the_command_register_disables_intx(user: User, event: Eventfd) -> None:
    user.set_irqs(SET, INTX, event.fd)
    user.enable(IO, INTX_DISABLE)
    user.bus.raise_interrupt(0)
    assert user.device.pread(2, CONFIG + 6) == b"\x18\x00"  # pending all the same
    user.set_irqs(NONE | UNMASK, INTX, count=1)
    user.set_irqs(TELL, INTX, count=1)
    assert event.taken() == 0
    user.enable(IO)
    assert event.taken() == 1
    user.bus.lower_interrupt(0)
    assert user.device.pread(2, CONFIG + 6) == b"\x10\x00"


# -- MSI -------------------------------------------------------------------------------


def test_each_message_has_its_eventfd_and_is_never_masked(
    user: User, event: Eventfd, other: Eventfd
) -> None:
    user.enable(MASTER)
    assert user.set_irqs(SET, MSI, event.fd, -1, other.fd) == 0
    for vector in (0, 1, 2, 2, 3, 0):
        user.bus.raise_interrupt(vector)
    assert (event.taken(), other.taken()) == (2, 2)
    user.set_irqs(SET, MSI, event.fd, start=1)
    user.set_irqs(SET, MSI, -1, start=2)
    for vector in range(3):
        user.bus.raise_interrupt(vector)
    assert (event.taken(), other.taken()) == (2, 0)


def test_a_message_without_bus_mastering_is_lost(user: User, event: Eventfd) -> None:
    user.set_irqs(SET, MSI, event.fd)
    user.bus.raise_interrupt(0)
    user.enable(MASTER)
    assert event.taken() == 0
    user.bus.raise_interrupt(0)
    assert event.taken() == 1


def test_there_are_as_many_messages_as_were_set_up_first(
    user: User, event: Eventfd
) -> None:
    user.set_irqs(SET, MSI, event.fd, event.fd)
    for start, count in ((2, 1), (1, 2), (0, 3)):
        fds = [event.fd] * count
        again = partial(user.set_irqs, SET, MSI, *fds, start=start)
        assert errno_of(again) == "EINVAL"  # NORESIZE
    user.set_irqs(TELL, MSI)
    assert user.set_irqs(SET, MSI, event.fd, event.fd, event.fd, event.fd) == 0


def test_a_user_tries_its_messages(user: User, event: Eventfd, other: Eventfd) -> None:
    user.set_irqs(SET, MSI, event.fd, other.fd)
    user.set_irqs(TELL, MSI, count=2)
    user.set_irqs(TEST, MSI, 0, 1)
    user.set_irqs(TEST, MSI, 0, start=1)
    assert (event.taken(), other.taken()) == (1, 2)


def test_only_one_of_intx_and_msi_is_set_up(user: User, event: Eventfd) -> None:
    user.set_irqs(SET, INTX, event.fd)
    assert errno_of(lambda: user.set_irqs(SET, MSI, event.fd)) == "EINVAL"
    assert errno_of(lambda: user.set_irqs(TELL, MSI)) == "EINVAL"
    user.set_irqs(TELL, INTX)
    user.set_irqs(SET, MSI, event.fd)
    assert errno_of(lambda: user.set_irqs(SET, INTX, event.fd)) == "EINVAL"
    assert errno_of(lambda: user.set_irqs(TELL, INTX)) == "EINVAL"
    user.set_irqs(TELL, MSI)
    user.set_irqs(SET, INTX, event.fd)


def test_a_user_enables_msi_by_ioctl_and_not_in_the_configuration_space(
    user: User, event: Eventfd
) -> None:
    control = CONFIG + 0x42
    user.device.pwrite(b"\x21\x00", control)
    assert user.device.pread(2, control) == b"\xa4\x00"
    user.set_irqs(SET, MSI, event.fd)
    user.device.pwrite(b"\x21\x00", control)
    assert user.device.pread(2, control) == b"\xa5\x00"


# -- REQ -------------------------------------------------------------------------------


def test_the_eventfd_of_requests_is_kept_replaced_and_let_go(
    user: User, event: Eventfd, other: Eventfd
) -> None:
    before = open_fds()
    user.set_irqs(SET, REQ, event.fd)
    user.set_irqs(TELL, REQ, count=1)
    user.set_irqs(TEST, REQ, 1)
    user.set_irqs(TEST, REQ, 0)
    assert event.taken() == 2
    user.set_irqs(SET, REQ, other.fd)
    user.set_irqs(TELL, REQ, count=1)
    assert (event.taken(), other.taken()) == (0, 1)
    assert open_fds() == before + 1
    user.set_irqs(SET, REQ, -1)
    assert open_fds() == before
    user.set_irqs(SET, REQ, event.fd)
    user.set_irqs(TELL, REQ)
    assert open_fds() == before
    assert user.set_irqs(TEST, REQ, 1) == 0  # to nobody
    assert errno_of(lambda: user.set_irqs(SET, REQ)) == "EINVAL"
    assert errno_of(lambda: user.set_irqs(TEST, REQ)) == "EINVAL"


# -- the rest --------------------------------------------------------------------------


def test_reset_lowers_intx_and_leaves_the_eventfds(user: User, event: Eventfd) -> None:
    user.enable(INTX_DISABLE)
    user.set_irqs(SET, INTX, event.fd)
    user.bus.raise_interrupt(0)
    user.ioctl(RESET)
    assert event.taken() == 0  # low before the command register let it through
    user.bus.raise_interrupt(0)
    assert event.taken() == 1


def test_everything_is_closed_with_the_device(event: Eventfd) -> None:
    before = open_fds()
    for index in (INTX, MSI):
        user = User()
        user.set_irqs(SET, index, event.fd)
        user.set_irqs(SET, REQ, event.fd)
        assert open_fds() == before + 2
        user.process.close(user.number)
        assert open_fds() == before
        user.bus.raise_interrupt(0)  # a thread of a driver may be late
    assert event.taken() == 0


def test_a_full_eventfd_that_blocks_is_not_waited_for(user: User) -> None:
    with Eventfd(os.EFD_CLOEXEC) as event:
        user.set_irqs(SET, INTX, event.fd)
        os.eventfd_write(event.fd, 0xFFFF_FFFF_FFFF_FFFE)
        user.bus.raise_interrupt(0)
        assert event.taken() == 0xFFFF_FFFF_FFFF_FFFE


@pytest.mark.parametrize("vector", [-1, 4, 1 << 40])
def test_a_vector_that_is_not_there_is_the_drivers_mistake(
    user: User, vector: int
) -> None:
    with pytest.raises(ValueError, match=f"vector {vector}: the function has 4"):
        user.bus.raise_interrupt(vector)


def test_in_process_the_eventfds_are_those_of_this_process(event: Eventfd) -> None:
    card = Card()
    device = DeviceFd(card)
    argument = bytearray(struct.pack("=5Ii", 24, SET, INTX, 0, 1, event.fd))
    assert device.ioctl(SET_IRQS, argument) == 0
    assert card.bus is not None
    card.bus.raise_interrupt(0)
    assert event.taken() == 1
    device.close()
