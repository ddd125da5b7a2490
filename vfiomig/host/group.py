"""A group, /dev/vfio/NUMBER: devices that go into a container together, or not at all.

Rule 1: it has one opener at a time, and so it is its own file.

Rule 2: it stays in its container as long as its fd or one of its devices is open.
Until then nobody else can open it.
"""

from __future__ import annotations

import errno
from ctypes import sizeof
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from vfiomig.host.container import Container, UnloggedDma
from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.uapi import ioctl
from vfiomig.uapi.vfio import (
    VFIO_GROUP_FLAGS_CONTAINER_SET,
    VFIO_GROUP_FLAGS_VIABLE,
    vfio_group_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.pci import Dma
    from vfiomig.host.user_memory import UserMemory
    from vfiomig.host.user_process import HostFile, UserProcess

# What a process gets in place of a device fd: of the device so called, and its driver.
Wrap: TypeAlias = "Callable[[str, DeviceFd, TrappedDriver], HostFile]"

_PAGE: Final = 4096  # a device's name is shorter
_STATUS_SIZE: Final = sizeof(vfio_group_status)
_FD_SIZE: Final = 4


class Group:
    """One group, with a factory of drivers for each device by its name.

    What its devices write by DMA goes to the container's dirty log, unless it is not
    ``is_logged``: then they are behind a hardware IOMMU.  A process that opens a device
    gets the file that ``wrap`` makes of it.
    """

    def __init__(
        self,
        devices: Mapping[str, Callable[[], TrappedDriver]],
        *,
        is_logged: bool = True,
        wrap: Wrap | None = None,
    ) -> None:
        self._devices = devices
        self._is_logged = is_logged
        self._wrap = wrap
        self._is_open = False
        self._container: Container | None = None
        self._opened: set[str] = set()
        self._ioctls: dict[int, Callable[[int, UserProcess], int]] = {
            ioctl.VFIO_GROUP_GET_STATUS(): self._get_status,
            ioctl.VFIO_GROUP_SET_CONTAINER(): self._set_container,
            ioctl.VFIO_GROUP_UNSET_CONTAINER(): self._unset_container,
            ioctl.VFIO_GROUP_GET_DEVICE_FD(): self._get_device_fd,
        }

    # -- the file ------------------------------------------------------------------

    def open(self) -> Group:
        """Open it; it is its own file.

        Raises:
            OSError: EBUSY if it is open, or was and a device still is.
        """
        if self._is_open or self._container is not None:
            _refuse(errno.EBUSY, "the group, or a device of it, is still open")
        self._is_open = True
        return self

    def user_ioctl(self, request: int, argument: int, user: UserProcess) -> int:
        """Perform an ioctl.

        Raises:
            OSError: EBADF when closed, ENOTTY, or what that ioctl says.
            DriverDiedError: a factory raised something else.
        """
        self._require_open()
        if request not in self._ioctls:
            _refuse(errno.ENOTTY, f"unknown ioctl {request:#x}")
        return self._ioctls[request](argument, user)

    def pread(self, size: int, offset: int) -> bytes:
        """Refuse: OSError(EINVAL)."""
        self._require_open()
        _refuse(errno.EINVAL, f"no {size} bytes at {offset:#x} of a group")

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Refuse: OSError(EINVAL)."""
        self._require_open()
        _refuse(errno.EINVAL, f"no {len(data)} bytes to {offset:#x} of a group")

    def close(self) -> None:
        """Let go of it; it leaves its container with its last device."""
        self._require_open()
        self._is_open = False
        self._leave_if_unused()

    # -- the ioctls ----------------------------------------------------------------

    def _get_status(self, argument: int, user: UserProcess) -> int:
        asked = user.memory.read(argument, _STATUS_SIZE)
        status = vfio_group_status.from_buffer_copy(asked)
        if status.argsz < _STATUS_SIZE:
            _refuse(errno.EINVAL, f"argsz {status.argsz} is less than {_STATUS_SIZE}")
        status.flags = VFIO_GROUP_FLAGS_VIABLE
        if self._container is not None:
            status.flags |= VFIO_GROUP_FLAGS_CONTAINER_SET
        user.memory.write(argument, bytes(status))
        return 0

    def _set_container(self, argument: int, user: UserProcess) -> int:
        """EINVAL for a group that has one, and for an fd of anything else; EBADF."""
        word = user.memory.read(argument, _FD_SIZE)
        number = int.from_bytes(word, "little", signed=True)
        if number < 0 or self._container is not None:
            _refuse(errno.EINVAL, f"fd {number}, or the group has a container")
        container = user.file(number)
        if not isinstance(container, Container):
            _refuse(errno.EINVAL, f"fd {number} is no container")
        container.attach(self, is_logged=self._is_logged)
        self._container = container
        return 0

    def _unset_container(self, _: int, __: UserProcess) -> int:
        """EINVAL without a container, EBUSY while a device is open."""
        if self._container is None:
            _refuse(errno.EINVAL, "the group has no container")
        if self._opened:
            _refuse(errno.EBUSY, f"open devices: {', '.join(sorted(self._opened))}")
        self._leave()
        return 0

    def _get_device_fd(self, argument: int, user: UserProcess) -> int:
        """EINVAL without an IOMMU, ENODEV for a name that no device has.

        EBUSY for a device that is open: a driver is of one session.
        """
        name = _string(user.memory, argument)
        if self._container is None or not self._container.has_iommu:
            _refuse(errno.EINVAL, "the group has no container with an IOMMU")
        if name not in self._devices:
            _refuse(errno.ENODEV, f"no device of the group is called {name!r}")
        if name in self._opened:
            _refuse(errno.EBUSY, f"the device {name} is open")
        device = self._opened_device(name, self._container)
        try:
            return user.install(device)
        except OSError:
            device.close()
            raise

    # -- its devices ---------------------------------------------------------------

    def _opened_device(self, name: str, container: Container) -> HostFile:
        dma: Dma = container if self._is_logged else UnloggedDma(container)
        driver = _made(self._devices[name])
        device = DeviceFd(driver, dma=dma, on_close=partial(self._device_closed, name))
        self._opened.add(name)
        if self._wrap is None:
            return device
        try:
            return self._wrap(name, device, driver)
        except BaseException:
            device.close()
            raise

    def _device_closed(self, name: str) -> None:
        self._opened.discard(name)
        self._leave_if_unused()

    def _leave_if_unused(self) -> None:
        if not self._is_open and not self._opened and self._container is not None:
            self._leave()

    def _leave(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.detach(self)

    def _require_open(self) -> None:
        if not self._is_open:
            _refuse(errno.EBADF, "the group fd is closed")


def _made(make_driver: Callable[[], TrappedDriver]) -> TrappedDriver:
    """Make a driver; what has no errno kills it, as it does later on."""
    try:
        return make_driver()
    except (OSError, DriverDiedError):
        raise
    except Exception as error:
        raise DriverDiedError.of(make_driver, "open", error) from error


def _string(memory: UserMemory, address: int) -> str:
    """Read a C string.

    Raises:
        OSError: EFAULT; EINVAL for one that does not end within a page's length.
    """
    text = bytearray()
    while len(text) < _PAGE:
        piece = _as_far_as_there_is(memory, address + len(text))
        end = piece.find(b"\0")
        if end >= 0:
            return (bytes(text) + piece[:end]).decode("utf-8", "replace")
        text += piece
    raise OSError(errno.EINVAL, f"the string at {address:#x} has no end")


def _as_far_as_there_is(memory: UserMemory, address: int) -> bytes:
    """Read to the end of a page, or a byte where not all of that is there."""
    try:
        return memory.read(address, _PAGE - address % _PAGE)
    except OSError:
        return memory.read(address, 1)


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
