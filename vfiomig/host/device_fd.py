"""One opened device: what the kernel does between its fd and the vendor driver.

Rule 1: accesses of any width, at any place, go to the driver as they came.  The
kernel does not decode the migration region, so neither does this file; judging is
the suite's.

Rule 2: what a driver raises reaches the user application as an errno.  What has no
errno kills the driver: `DriverDiedError`, with the access and the line of its source.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import mmap as _mmap
import os
from ctypes import sizeof
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.host.region import (
    MIGRATION_INDEX,
    NUM_REGIONS,
    OFFSET_MASK,
    OFFSET_SHIFT,
    absent_region_info,
    migration_region_info,
)
from vfiomig.protocol.errors import DriverDiedError, class_of
from vfiomig.uapi.ioctl import (
    VFIO_DEVICE_GET_INFO,
    VFIO_DEVICE_GET_IRQ_INFO,
    VFIO_DEVICE_GET_REGION_INFO,
    VFIO_DEVICE_RESET,
)
from vfiomig.uapi.vfio import (
    VFIO_DEVICE_FLAGS_PCI,
    VFIO_DEVICE_FLAGS_RESET,
    VFIO_PCI_NUM_IRQS,
    VFIO_PCI_VGA_REGION_INDEX,
    vfio_device_info,
    vfio_irq_info,
    vfio_region_info,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.region import MigrationRegion

# The numbers once: an ioctl compares with each of them.
_GET_INFO: Final = VFIO_DEVICE_GET_INFO()
_GET_REGION_INFO: Final = VFIO_DEVICE_GET_REGION_INFO()
_GET_IRQ_INFO: Final = VFIO_DEVICE_GET_IRQ_INFO()
_RESET: Final = VFIO_DEVICE_RESET()

_REGION_INFO_SIZE: Final = sizeof(vfio_region_info)
_INDEX: Final = slice(vfio_region_info.index.offset, vfio_region_info.cap_offset.offset)
_CAP_OFFSET: Final = slice(
    vfio_region_info.cap_offset.offset, vfio_region_info.size.offset
)

# The part of vfio_device_info that the first kernels had: up to num_irqs.
_DEVICE_INFO_MIN: Final = vfio_device_info.cap_offset.offset


class DeviceFd:
    """A device that a user application has open.

    It answers the calls that a file descriptor of /dev/vfio answers, with the errnos
    of the kernel.  ``on_close`` is called once, after the driver's ``close``.
    """

    def __init__(
        self, driver: TrappedDriver, *, on_close: Callable[[], None] | None = None
    ) -> None:
        self._driver = driver
        self._on_close = on_close
        self._is_open = True
        self._read: Callable[[int, int], bytes] = driver.read
        self._write: Callable[[int, bytes], None] = driver.write

    def pread(self, size: int, offset: int) -> bytes:
        """Read ``size`` bytes at ``offset`` of the fd; fewer are a short read.

        Raises:
            OSError: the driver's errno; EINVAL where no region is; EBADF when closed.
            DriverDiedError: the driver raised something else.
        """
        if offset >> OFFSET_SHIFT != MIGRATION_INDEX:
            self._refuse_offset(offset)
        try:
            data = self._read(offset & OFFSET_MASK, size)
        except BaseException as error:
            what = f"read of {size} bytes at {offset & OFFSET_MASK:#x}"
            self._reraise(error, what, "read")
        if data.__class__ is not bytes or len(data) > size:
            data = self._checked(data, size, offset & OFFSET_MASK)
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write ``data`` at ``offset`` of the fd and return the bytes taken: all.

        Raises:
            OSError: the driver's errno; EINVAL where no region is; EBADF when closed.
            DriverDiedError: the driver raised something else.
        """
        if offset >> OFFSET_SHIFT != MIGRATION_INDEX:
            self._refuse_offset(offset)
        payload = bytes(data)
        try:
            self._write(offset & OFFSET_MASK, payload)
        except BaseException as error:
            what = f"write of {len(payload)} bytes at {offset & OFFSET_MASK:#x}"
            self._reraise(error, what, "write")
        return len(payload)

    def mmap(
        self,
        length: int,
        offset: int,
        *,
        flags: int = _mmap.MAP_SHARED,
        prot: int = _mmap.PROT_READ | _mmap.PROT_WRITE,
    ) -> _mmap.mmap:
        """Map ``length`` bytes at ``offset`` of the fd, inside one sparse area.

        Raises:
            OSError: EINVAL for a range that is not page aligned, not shared, or not
                inside an area (ABI-MMAP-01, ABI-MMAP-02); EBADF when closed.
            DriverDiedError: the driver raised something else, or gave no file, or
                one that is shorter than its area.
        """
        self._require_open()
        start = offset & OFFSET_MASK
        if (
            offset >> OFFSET_SHIFT != MIGRATION_INDEX
            or start % _mmap.PAGESIZE
            or length <= 0
            or not flags & _mmap.MAP_SHARED
        ):
            _refuse(errno.EINVAL, f"no mapping of {length:#x} bytes at {offset:#x}")
        what = f"mmap of {length:#x} bytes at {start:#x}"
        for area in self._region(what).areas:
            if area.offset <= start and start + length <= area.offset + area.size:
                break
        else:
            _refuse(errno.EINVAL, f"no sparse area has {length:#x} bytes at {start:#x}")
        try:
            fd, place = self._driver.mmap(area)  # type: ignore[attr-defined]
            if fd < 0 or not _is_open(fd):
                message = f"{fd} is no open file descriptor"
                raise ValueError(message)
            within = place + start - area.offset
            return _mmap.mmap(fd, length, flags=flags, prot=prot, offset=within)
        except BaseException as error:
            self._reraise(error, what, "mmap")

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        """Perform one ioctl; ``argument`` is the user's structure, changed in place.

        Raises:
            OSError: ENOTTY for an unknown request; EFAULT where the argument is
                missing or shorter than it says; EINVAL as the kernel has it.
            DriverDiedError: the driver raised something without an errno in reset.
        """
        self._require_open()
        if request == _GET_REGION_INFO:
            self._get_region_info(_structure(argument, _REGION_INFO_SIZE))
        elif request == _RESET:
            self._reset()
        elif request == _GET_INFO:
            self._get_info(_structure(argument, _DEVICE_INFO_MIN))
        elif request == _GET_IRQ_INFO:
            self._get_irq_info(_structure(argument, sizeof(vfio_irq_info)))
        else:
            _refuse(errno.ENOTTY, f"unknown ioctl {request:#x}")
        return 0

    def close(self) -> None:
        """Let go of the device; a second close is EBADF."""
        self._require_open()
        self._is_open = False
        self._read = self._write = _closed
        try:
            self._driver.close()
        except BaseException as error:
            self._reraise(error, "close", "close")
        finally:
            if self._on_close is not None:
                self._on_close()

    # -- the ioctls ----------------------------------------------------------------

    def _reset(self) -> None:
        try:
            self._driver.reset()
        except BaseException as error:
            self._reraise(error, "VFIO_DEVICE_RESET", "reset")

    def _get_info(self, argument: bytearray) -> None:
        info = vfio_device_info(
            argsz=_argsz(argument),
            flags=VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
            num_regions=NUM_REGIONS,
            num_irqs=VFIO_PCI_NUM_IRQS,
        )
        room = min(_argsz(argument), sizeof(info))  # ABI-INFO-06
        argument[:room] = bytes(info)[:room]

    def _get_region_info(self, argument: bytearray) -> None:
        argsz = argument[:4]
        index = int.from_bytes(argument[_INDEX], "little")
        if index >= NUM_REGIONS or index == VFIO_PCI_VGA_REGION_INDEX:
            _refuse(errno.EINVAL, f"no region has the index {index}")
        answer = self._region_info(index)
        if len(answer) > _argsz(argument):
            # ABI-INFO-03: say how much it takes, and give no chain.
            argument[:_REGION_INFO_SIZE] = answer[:_REGION_INFO_SIZE]
            argument[_CAP_OFFSET] = bytes(4)
        else:
            argument[: len(answer)] = answer
            argument[:4] = argsz

    def _region_info(self, index: int) -> bytes:
        if index != MIGRATION_INDEX:
            return absent_region_info(index)
        what = "VFIO_DEVICE_GET_REGION_INFO"
        region = self._region(what)
        try:
            return migration_region_info(region)
        except BaseException as error:
            self._reraise(error, what, "migration_region")

    def _region(self, access: str) -> MigrationRegion:
        try:
            return self._driver.migration_region
        except BaseException as error:
            self._reraise(error, access, "migration_region")

    def _get_irq_info(self, argument: bytearray) -> None:
        info = vfio_irq_info.from_buffer_copy(argument)
        if info.index >= VFIO_PCI_NUM_IRQS:
            _refuse(errno.EINVAL, f"no interrupt has the index {info.index}")
        info.flags = info.count = 0
        argument[: sizeof(info)] = bytes(info)

    # -- what goes wrong -----------------------------------------------------------

    def _require_open(self) -> None:
        if not self._is_open:
            _closed()

    def _refuse_offset(self, offset: int) -> NoReturn:
        self._require_open()
        _refuse(errno.EINVAL, f"no region of this device lies at {offset:#x}")

    def _checked(self, data: object, size: int, position: int) -> bytes:
        """Take any kind of bytes for an answer, but never more than were asked for."""
        got = f"it answered with {type(data).__name__}"
        if isinstance(data, bytes | bytearray | memoryview):
            answer = bytes(data)
            if len(answer) <= size:
                return answer
            got = f"it answered with {len(answer)} bytes"
        access = f"read of {size} bytes at {position:#x}"
        raise DriverDiedError(access, _place_of(self._driver, "read"), got)

    def _reraise(self, error: BaseException, access: str, member: str) -> NoReturn:
        """Let through what a driver may raise; anything else is its death.

        ``member`` is what this access asked of the driver.
        """
        if isinstance(error, KeyboardInterrupt | DriverDiedError):
            raise error
        if isinstance(error, OSError) and _is_errno(error.errno):
            raise error
        if isinstance(error, OSError) and _is_lone_errno(error.args):
            code = error.args[0]
            raise OSError(code, errno.errorcode.get(code, "")) from error
        died = DriverDiedError.of(self._driver, access, error)
        if error.__traceback__ is None or error.__traceback__.tb_next is None:
            where = _place_of(self._driver, member)  # the driver was not even entered
            died = DriverDiedError(access, where, died.error)
        raise died from error


def _is_lone_errno(arguments: tuple[object, ...]) -> bool:
    """Tell ``OSError(errno.EINVAL)``, which Python takes for a message."""
    return len(arguments) == 1 and _is_errno(arguments[0])


def _is_open(fd: int) -> bool:
    """Tell whether a driver gave an open file.

    To Python -1 is memory without a file, which nobody would share; and EBADF would
    read as if the user application's own fd were closed.
    """
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)


def _closed(*_: object) -> NoReturn:
    _refuse(errno.EBADF, "the device fd is closed")


def _argsz(argument: bytearray) -> int:
    return int.from_bytes(argument[:4], "little")


def _structure(argument: bytearray | None, minimum: int) -> bytearray:
    """Return the user's structure if it has the size that it says it has."""
    if argument is None or len(argument) < 4:
        _refuse(errno.EFAULT, "the argument is not there")
    argsz = _argsz(argument)
    if argsz < minimum:
        _refuse(errno.EINVAL, f"argsz {argsz} is less than {minimum}")
    if len(argument) < argsz:
        _refuse(errno.EFAULT, f"argsz {argsz} of {len(argument)} bytes")
    return argument


def _is_errno(code: object) -> bool:
    # A negative one is a habit of C: nobody above would know it.
    return isinstance(code, int) and code > 0


def _place_of(driver: object, member: str) -> str:
    """Name the line where a driver defines a member, or else its class."""
    for place in (getattr(type(driver), member, None), type(driver)):
        with contextlib.suppress(OSError, TypeError):  # not there, or not in Python
            line = inspect.getsourcelines(place)[1]  # type: ignore[arg-type]
            return f"{inspect.getsourcefile(place)}:{line}"  # type: ignore[arg-type]
    return class_of(driver)
