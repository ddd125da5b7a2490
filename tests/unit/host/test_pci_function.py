"""A driver's BARs, its bus and what it says of itself, through the device fd."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.host.pci_card import (
    COMMAND,
    CONFIG,
    IO,
    MASTER,
    MEMORY,
    RESET,
    Card,
    User,
    errno_of,
)
from vfiomig.host.device_fd import DeviceFd
from vfiomig.host.pci import Bar, PciIdentity
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.region import MigrationRegion

if TYPE_CHECKING:
    from collections.abc import Callable

BAR2 = 2 << 40


class Bare:
    """A driver that knows of nothing but its migration region."""

    migration_region = MigrationRegion(0x5000)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        pass

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


class Ram:
    """Guest memory from 0 on; it writes down which pages were dirtied."""

    def __init__(self) -> None:
        self.bytes = bytearray(0x3000)
        self.dirty: set[int] = set()

    def dma_read(self, iova: int, size: int) -> bytes:
        self._require(iova, size)
        return bytes(self.bytes[iova : iova + size])

    def dma_write(self, iova: int, data: bytes | memoryview) -> None:
        self._require(iova, len(data))
        self.bytes[iova : iova + len(data)] = data
        self.dirty |= set(range(iova >> 12, (iova + len(data) - 1 >> 12) + 1))

    def _require(self, iova: int, size: int) -> None:
        if iova + size > len(self.bytes):
            raise OSError(errno.EFAULT, f"nothing is mapped at {iova:#x}")


@pytest.fixture
def user() -> User:
    user = User()
    user.enable(IO, MEMORY)
    return user


def asked_of(user: User) -> list[tuple[object, ...]]:
    """Return what the card was asked since the last time."""
    assert isinstance(user.card, Card)
    asked, user.card.asked = user.card.asked, []
    return asked


# -- BARs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "size", "pieces"),
    [
        (0, 1, [1]),
        (2, 2, [2]),
        (4, 4, [4]),
        (8, 8, [8]),
        (4, 8, [4, 4]),
        (1, 4, [1, 2, 1]),
        (3, 13, [1, 4, 8]),
        (0xFF8, 8, [8]),
        (0xFFE, 2, [2]),
        (0, 0, []),
    ],
)
def test_an_access_comes_in_naturally_aligned_pieces(
    user: User, place: int, size: int, pieces: list[int]
) -> None:
    asked_of(user)
    data = bytes((place + i) % 256 for i in range(size))
    assert user.device.pread(size, BAR2 + place) == data
    assert user.device.pwrite(data, BAR2 + place) == size
    starts = [place + sum(pieces[:i]) for i in range(len(pieces))]
    halves = zip(starts, pieces, strict=True)
    reads = [("read_bar", 2, start, width) for start, width in halves]
    writes = [
        ("write_bar", 2, start, data[start - place : start - place + width])
        for start, width in zip(starts, pieces, strict=True)
    ]
    assert asked_of(user) == reads + writes


def test_an_access_ends_with_its_bar(user: User) -> None:
    assert len(user.device.pread(16, BAR2 + 0xFFC)) == 4
    assert user.device.pwrite(bytes(16), BAR2 + 0xFFC) == 4
    assert len(user.device.pread(256, 0)) == 8


@pytest.mark.parametrize("offset", [8, BAR2 + 0x1000, BAR2 - 8, 1 << 40, 5 << 40])
def test_what_begins_in_no_bar_is_invalid(user: User, offset: int) -> None:
    asked_of(user)
    assert errno_of(lambda: user.device.pread(1, offset)) == "EINVAL"
    assert errno_of(lambda: user.device.pwrite(b"x", offset)) == "EINVAL"
    assert asked_of(user) == []


def test_memory_answers_when_it_is_enabled_and_ports_always_do(user: User) -> None:
    user.enable(IO)
    assert errno_of(lambda: user.device.pread(4, BAR2)) == "EIO"
    assert errno_of(lambda: user.device.pwrite(b"abcd", BAR2)) == "EIO"
    user.enable()
    assert user.device.pread(4, 0) == bytes(range(4))


DEATHS: dict[str, Callable[[DeviceFd], object]] = {
    "read of 4 bytes at 0x10 of BAR 2": lambda device: device.pread(4, BAR2 + 16),
    "write of 2 bytes at 0x8 of BAR 2": lambda device: device.pwrite(b"ab", BAR2 + 8),
}


@pytest.mark.parametrize("access", DEATHS)
def test_a_death_in_a_bar_is_named_with_access_and_line(
    user: User, access: str
) -> None:
    assert isinstance(user.card, Card)
    user.card.refusal = ZeroDivisionError("oh")
    with pytest.raises(DriverDiedError) as died:
        DEATHS[access](user.device)
    assert (died.value.access, died.value.error) == (access, "ZeroDivisionError: oh")
    source = Path(__file__).with_name("pci_card.py")
    lines = source.read_text(encoding="utf-8").splitlines()
    line = lines.index("            raise self.refusal") + 1
    assert died.value.where == f"{source}:{line}"


@pytest.mark.parametrize("access", DEATHS)
def test_the_errno_of_the_driver_passes(user: User, access: str) -> None:
    assert isinstance(user.card, Card)
    user.card.refusal = OSError(errno.EAGAIN, "later")
    assert errno_of(lambda: DEATHS[access](user.device)) == "EAGAIN"


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"abc", "3 bytes"), (b"abcde", "5 bytes"), (None, "NoneType"), (4, "int")],
)
def test_a_bar_answers_with_as_many_bytes_as_were_asked_for(
    answer: object, said: str
) -> None:
    class Odd(Card):
        def read_bar(self, bar: int, offset: int, size: int) -> bytes:
            return answer  # type: ignore[return-value]

    user = User(Odd())
    user.enable(MEMORY)
    with pytest.raises(DriverDiedError, match=f"it answered with {said}") as died:
        user.device.pread(4, BAR2)
    assert __file__ in died.value.where


# -- what a driver says of itself ------------------------------------------------------


def test_a_bare_driver_is_a_function_without_bars() -> None:
    device = DeviceFd(Bare())
    assert device.pread(4, CONFIG) == bytes.fromhex("48434656")
    assert errno_of(lambda: device.pread(1, 0)) == "EINVAL"
    device.ioctl(RESET)
    device.close()
    assert errno_of(lambda: device.pread(4, CONFIG)) == "EBADF"
    assert errno_of(lambda: device.pwrite(b"", CONFIG)) == "EBADF"


def test_an_identity_may_come_without_bars_and_without_a_bus() -> None:
    class Named(Bare):
        identity = Card.identity

    assert DeviceFd(Named()).pread(2, CONFIG) == bytes.fromhex("f41a")


def test_a_driver_is_told_of_its_bus_once_and_first() -> None:
    card = Card()
    device = DeviceFd(card)
    device.pread(256, CONFIG)
    device.ioctl(RESET)
    device.close()
    assert card.asked == [("connect",), ("reset",), ("close",)]


def test_a_driver_that_dies_of_its_bus_cannot_be_opened() -> None:
    card = Card()
    card.refusal = RuntimeError("no bus for me")
    with pytest.raises(DriverDiedError, match="no bus for me") as died:
        DeviceFd(card)
    assert "pci_card.py" in died.value.where


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        ("bars", (Bar(24),), "ValueError: BAR 0 has 24 bytes"),
        ("bars", (5,), "its bars are no tuple of"),
        ("identity", "me", "AttributeError"),
        ("identity", PciIdentity(
            vendor=-1, device=0, subsystem_vendor=0, subsystem=0, class_code=0
        ), "ValueError: vendor"),
    ],
)  # fmt: skip
def test_what_no_function_can_be_is_the_drivers_death(
    member: str, value: object, said: str
) -> None:
    device = DeviceFd(type("Odd", (Bare,), {member: value})())
    with pytest.raises(DriverDiedError, match=said):
        device.pread(4, CONFIG)


# -- the configuration space -----------------------------------------------------------


def test_the_configuration_space_is_read_in_one_go_and_reset() -> None:
    user = User()
    before = user.device.pread(256, CONFIG)
    assert len(before) == 256
    assert user.device.pwrite(b"\xff" * 4, CONFIG + 0x10) == 4
    assert user.device.pread(4, CONFIG + 0x10) == b"\xf9\xff\xff\xff"
    assert user.device.pwrite(b"\x07\x04", COMMAND) == 2
    user.ioctl(RESET)
    assert user.device.pread(256, CONFIG) == before
    assert errno_of(lambda: user.device.pread(4096, CONFIG)) == "EFAULT"
    assert errno_of(lambda: user.device.pwrite(b"ab", CONFIG + 255)) == "EFAULT"
    assert user.device.pread(0, CONFIG + 999) == b""


def test_a_reset_that_the_driver_refuses_changes_nothing() -> None:
    user = User()
    user.enable(MASTER)
    assert isinstance(user.card, Card)
    user.card.refusal = OSError(errno.EBUSY, "not now")
    assert errno_of(lambda: user.ioctl(RESET)) == "EBUSY"
    assert user.device.pread(2, COMMAND) == b"\x04\x00"


# -- DMA -------------------------------------------------------------------------------


def test_dma_goes_to_the_memory_of_the_user_and_leaves_marks() -> None:
    ram = Ram()
    user = User(dma=ram)
    user.enable(MASTER)
    user.bus.dma_write(0x1FFE, b"abcd")
    assert user.bus.dma_read(0x1FFF, 2) == b"bc"
    assert ram.dirty == {1, 2}
    assert errno_of(lambda: user.bus.dma_read(0x2FFF, 2)) == "EFAULT"


def test_dma_without_bus_mastering_or_memory_is_a_fault() -> None:
    ram = Ram()
    user = User(dma=ram)
    assert errno_of(lambda: user.bus.dma_write(0, b"x")) == "EFAULT"
    assert errno_of(lambda: user.bus.dma_read(0, 1)) == "EFAULT"
    assert ram.dirty == set()
    user.enable(MASTER)
    assert user.bus.dma_read(0, 1) == b"\0"
    user.ioctl(RESET)
    assert errno_of(lambda: user.bus.dma_read(0, 1)) == "EFAULT"
    lonely = User()
    lonely.enable(MASTER)
    assert errno_of(lambda: lonely.bus.dma_read(0, 1)) == "EFAULT"


def test_a_device_that_is_closed_reaches_nothing() -> None:
    user = User(dma=Ram())
    user.enable(MASTER)
    user.process.close(user.number)
    assert errno_of(lambda: user.bus.dma_read(0, 1)) == "EFAULT"
