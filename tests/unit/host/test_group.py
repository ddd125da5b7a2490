"""The group, the folder /dev/vfio, and who keeps whom open."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.unit.host.test_container import grown_info, refused
from tests.unit.host.type1_user import (
    CHECK_EXTENSION,
    GET_API_VERSION,
    GET_DEVICE_FD,
    GET_STATUS,
    NOWHERE,
    PAGE,
    SET_CONTAINER,
    SET_IOMMU,
    STATUS,
    TYPE1V2,
    UNSET_CONTAINER,
    Silent,
    User,
)
from vfiomig.protocol.errors import DriverDiedError

if TYPE_CHECKING:
    from vfiomig.host.pci import Bar, Bus

COMMAND = (7 << 40) + 4  # of configuration space; 4 there is to be a bus master
UUID = "0dfbd9a8-7dc1-4bd5-a5a5-2bf8ae5bd0f8"


class Dmaer(Silent):
    """A driver of a function without BARs, that keeps its bus."""

    from vfiomig.host.pci import DEFAULT_IDENTITY as identity  # noqa: N811

    bars: tuple[Bar, ...] = ()
    last: Dmaer | None = None

    def __init__(self) -> None:
        super().__init__()
        self.bus: Bus | None = None
        type(self).last = self

    def connect(self, bus: Bus) -> None:
        self.bus = bus

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        return bytes(size)

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        pass


def device_fd(user: User, name: str = "device") -> int:
    address = user.memory.place(bytearray(name.encode() + b"\0"))
    return user.ioctl(GET_DEVICE_FD, address, fd=user.group)


def status(user: User, argsz: int = 8) -> int:
    answer = user.call(GET_STATUS, STATUS.pack(argsz, 0xFFFF), fd=user.group)
    assert STATUS.unpack(answer)[0] == argsz
    return int(STATUS.unpack(answer)[1])


def test_the_whole_flow_of_opening_as_qemu_does_it() -> None:
    user = User(iommu=None, groups={1: {UUID: Dmaer}})
    assert status(user) == 1
    assert user.ioctl(GET_API_VERSION) == 0
    assert [user.ioctl(CHECK_EXTENSION, number) for number in (3, 1, 7, 2)] == [
        *(1, 1, 0, 0)
    ]
    user.join()
    assert status(user) == 3
    assert user.ioctl(SET_IOMMU, TYPE1V2) == 0
    assert len(grown_info(user)) == 120
    ram = user.map(0, 0xA0000)
    user.map(0xFFFC_0000, 0x40000, flags=1)
    device = device_fd(user, UUID)
    user.start()
    driver = Dmaer.last
    assert driver is not None
    assert driver.bus is not None
    user.process.file(device).pwrite(b"\6\0", COMMAND)
    driver.bus.dma_write(0x5FFF, b"ab")
    assert ram[0x5FFF:0x6001] == b"ab"
    assert user.dirty(0, 0xA0000) == {5, 6}
    assert user.dirty(0, 0xA0000) == set()
    user.stop()
    for fd in (device, user.container, user.group):
        user.process.close(fd)
    assert driver.is_closed


# -- opening ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/dev/vfio/2", "/dev/vfio", "/dev/vfio/", "/dev/vfio/01", "/dev/vfioo1", "1", ""],
)
def test_nothing_else_is_there(path: str) -> None:
    refused(errno.ENOENT, lambda: User().process.open(path))


def test_a_group_has_one_opener_at_a_time() -> None:
    user = User(iommu=None)
    refused(errno.EBUSY, lambda: user.process.open("/dev/vfio/1"))
    user.process.close(user.group)
    assert user.process.open("/dev/vfio/1")


def test_every_container_is_a_new_one() -> None:
    user = User()
    other = user.process.open("/dev/vfio/vfio")
    refused(errno.EINVAL, lambda: user.ioctl(SET_IOMMU, TYPE1V2, fd=other))


# -- containers ------------------------------------------------------------------------


def container_of(user: User, fd: int) -> None:
    argument = fd.to_bytes(4, "little", signed=True)
    user.call(SET_CONTAINER, argument, fd=user.group)


def test_only_a_container_will_do() -> None:
    user = User(iommu=None)
    refused(errno.EINVAL, lambda: container_of(user, -1))
    refused(errno.EBADF, lambda: container_of(user, 77))
    refused(errno.EINVAL, lambda: container_of(user, user.group))
    refused(errno.EFAULT, lambda: user.ioctl(SET_CONTAINER, NOWHERE, fd=user.group))
    assert status(user) == 1


def test_a_group_is_in_one_container() -> None:
    user = User()
    refused(errno.EINVAL, lambda: container_of(user, user.container))


def test_a_group_without_a_container_cannot_leave_it() -> None:
    user = User(iommu=None)
    leave = partial(user.ioctl, UNSET_CONTAINER, fd=user.group)
    refused(errno.EINVAL, leave)
    user.join()
    assert leave() == 0
    assert status(user) == 1
    refused(errno.EINVAL, leave)


def test_two_groups_share_a_container() -> None:
    user = User(groups={1: {"device": Silent}, 2: {"device": Silent}})
    user.map(0, PAGE)
    first, user.group = user.group, user.process.open("/dev/vfio/2")
    user.join()
    device_fd(user)
    user.ioctl(UNSET_CONTAINER, fd=first)
    assert user.dma.dma_read(0, 1) == b"\0"
    user.process.close(user.group)
    assert user.dma.dma_read(0, 1) == b"\0"  # its device is still open


@pytest.mark.parametrize("argsz", [0, 7])
def test_a_status_has_its_size(argsz: int) -> None:
    user = User()
    refused(errno.EINVAL, lambda: status(user, argsz))
    refused(errno.EFAULT, lambda: user.ioctl(GET_STATUS, NOWHERE, fd=user.group))
    assert status(user, 9) == 3


def test_a_group_knows_no_other_ioctl() -> None:
    user = User()
    for request in (GET_API_VERSION, SET_IOMMU, 0x3B6B, 0):
        refused(errno.ENOTTY, partial(user.ioctl, request, fd=user.group))


def test_a_group_has_no_bytes_and_is_closed_once() -> None:
    user = User()
    group = user.opened[0]
    refused(errno.EINVAL, lambda: group.pread(8, 0))
    refused(errno.EINVAL, lambda: group.pwrite(b"8", 0))
    group.close()
    refused(errno.EBADF, lambda: group.pread(8, 0))
    refused(errno.EBADF, lambda: group.user_ioctl(GET_STATUS, 0, user.process))
    refused(errno.EBADF, group.close)


# -- devices ---------------------------------------------------------------------------


def test_a_device_needs_an_iommu() -> None:
    user = User(iommu=None)
    refused(errno.EINVAL, lambda: device_fd(user))
    user.join()
    refused(errno.EINVAL, lambda: device_fd(user))
    user.ioctl(SET_IOMMU, TYPE1V2)
    assert device_fd(user) > user.container


@pytest.mark.parametrize("name", ["", "devic", "device2", "d\xff"])
def test_a_device_has_its_name(name: str) -> None:
    user = User()
    refused(errno.ENODEV, lambda: device_fd(user, name))


def test_a_name_is_a_string_in_memory() -> None:
    user = User()
    get = partial(user.ioctl, GET_DEVICE_FD, fd=user.group)
    refused(errno.EFAULT, lambda: get(NOWHERE))
    unended = user.memory.place(bytearray(b"device"))
    refused(errno.EFAULT, lambda: get(unended))
    endless = user.memory.place(bytearray(b"d" * 3 * PAGE))
    refused(errno.EINVAL, lambda: get(endless))
    split = user.memory.place(bytearray(b"x" * (PAGE - 3) + b"dev"))
    user.memory.place(bytearray(b"ice\0"), split + PAGE)
    assert get(split + PAGE - 3)


def test_a_device_is_opened_once_at_a_time() -> None:
    user = User()
    device = device_fd(user)
    refused(errno.EBUSY, lambda: device_fd(user))
    user.process.close(device)
    assert device_fd(user)


def test_an_open_device_keeps_its_group_in_the_container() -> None:
    user = User()
    memory = user.map(0, PAGE)
    device = device_fd(user)
    refused(errno.EBUSY, lambda: user.ioctl(UNSET_CONTAINER, fd=user.group))
    user.process.close(user.group)
    user.process.close(user.container)
    user.dma.dma_write(0, b"still")
    assert memory[:5] == b"still"
    refused(errno.EBUSY, lambda: user.process.open("/dev/vfio/1"))
    user.process.close(device)
    refused(errno.EFAULT, lambda: user.dma.dma_write(0, b"gone"))
    assert user.process.open("/dev/vfio/1")


def test_what_a_factory_raises_leaves_nothing_behind() -> None:
    def refuses() -> NoReturn:
        raise OSError(errno.ENOSPC, "no port is free")

    def dies() -> NoReturn:
        message = "a bug"
        raise RuntimeError(message)

    user = User(groups={1: {"full": refuses, "bug": dies}})
    refused(errno.ENOSPC, lambda: device_fd(user, "full"))
    with pytest.raises(DriverDiedError, match=r"test_group\.py"):
        device_fd(user, "bug")
    user.ioctl(UNSET_CONTAINER, fd=user.group)


def test_no_room_for_an_fd_closes_the_device_again() -> None:
    made: list[Silent] = []

    def make() -> Silent:
        made.append(Silent())
        return made[-1]

    user = User(groups={1: {"device": make}})

    def install(_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "no more fds")

    give, user.process.install = user.process.install, install  # type: ignore[method-assign,assignment]
    refused(errno.EMFILE, lambda: device_fd(user))
    assert [driver.is_closed for driver in made] == [True]
    user.process.install = give  # type: ignore[method-assign]
    assert device_fd(user)
