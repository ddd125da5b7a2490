"""One opened device: what the kernel does between its fd and the vendor driver.

Rule 1: accesses of any width, at any place, go to the driver as they came.  The
kernel does not decode the migration region, so neither does this file; judging is
the suite's.

Rule 2: what a driver raises reaches the user application as an errno.  What has no
errno kills the driver: see `driver_death`.

Rule 3: an ioctl is one thing, whoever calls: `DeviceFd.ioctl` for a structure of this
process, `DeviceFd.user_ioctl` for a pointer into the memory of any other.

The PCI part is made when it is first asked for, since most conversations of the suite
never do; at once for a driver that wants to know its bus.
"""

from __future__ import annotations

import errno
import mmap as _mmap
import os
from typing import TYPE_CHECKING, NoReturn

from vfiomig.host import device_info
from vfiomig.host.device_info import MINIMUM, argsz_of
from vfiomig.host.driver_death import answer_of, reraise
from vfiomig.host.pci_function import NO_BAR, PciFunction
from vfiomig.host.region import (
    MIGRATION_INDEX,
    OFFSET_MASK,
    OFFSET_SHIFT,
    migration_region_info,
)
from vfiomig.uapi.pci import PCI_STD_NUM_BARS
from vfiomig.uapi.vfio import VFIO_PCI_CONFIG_REGION_INDEX, vfio_irq_set

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.host.pci import Bar, Dma
    from vfiomig.host.user_process import UserProcess
    from vfiomig.protocol.region import MigrationRegion, SparseMmapArea


class DeviceFd:
    """A device that a user application has open.

    It answers the calls that a file descriptor of /dev/vfio answers, with the errnos
    of the kernel.  ``on_close`` is called once, after the driver's ``close``.
    ``dma`` is the memory that the device can reach; without one it reaches none.

    Raises what the driver raises when it is told its bus: OSError, `DriverDiedError`.
    """

    def __init__(
        self,
        driver: TrappedDriver,
        *,
        on_close: Callable[[], None] | None = None,
        dma: Dma | None = None,
    ) -> None:
        self._driver = driver
        self._on_close = on_close
        self._is_open = True
        self._read: Callable[[int, int], bytes] = driver.read
        self._write: Callable[[int, bytes], None] = driver.write
        self._dma = dma
        self._made_function: PciFunction | None = None
        if hasattr(driver, "connect"):
            self._function.connect()

    def pread(self, size: int, offset: int) -> bytes:
        """Read ``size`` bytes at ``offset`` of the fd; fewer are a short read.

        Raises:
            OSError: the driver's errno; EINVAL where no region is; EBADF when closed;
                in configuration space and BARs as `PciFunction` has it.
            DriverDiedError: the driver raised something else.
        """
        if offset >> OFFSET_SHIFT != MIGRATION_INDEX:
            return self._read_elsewhere(size, offset)
        try:
            data = self._read(offset & OFFSET_MASK, size)
        except BaseException as error:
            what = f"read of {size} bytes at {offset & OFFSET_MASK:#x}"
            reraise(self._driver, error, what, "read")
        if data.__class__ is not bytes or len(data) > size:
            what = f"read of {size} bytes at {offset & OFFSET_MASK:#x}"
            data = answer_of(self._driver, data, size, what)
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write ``data`` at ``offset`` of the fd and return the bytes taken.

        That is all of them, except where a BAR ends.

        Raises:
            OSError, DriverDiedError: as `pread`.
        """
        if offset >> OFFSET_SHIFT != MIGRATION_INDEX:
            return self._write_elsewhere(bytes(data), offset)
        payload = bytes(data)
        try:
            self._write(offset & OFFSET_MASK, payload)
        except BaseException as error:
            what = f"write of {len(payload)} bytes at {offset & OFFSET_MASK:#x}"
            reraise(self._driver, error, what, "write")
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
        fd, place = self._place_of(area, what)
        within = place + start - area.offset
        try:
            return _mmap.mmap(fd, length, flags=flags, prot=prot, offset=within)
        except BaseException as error:
            reraise(self._driver, error, what, "mmap")

    def area_file(self, area: SparseMmapArea) -> tuple[int, int]:
        """Return the file behind an area, which stays the driver's, and its place.

        Raises:
            OSError, DriverDiedError: as `mmap`.
        """
        self._require_open()
        return self._place_of(area, f"mmap of {area.size:#x} bytes at {area.offset:#x}")

    def _place_of(self, area: SparseMmapArea, what: str) -> tuple[int, int]:
        try:
            fd, place = self._driver.mmap(area)  # type: ignore[attr-defined]
            if fd < 0 or place < 0 or not _is_open(fd):
                message = f"{fd} is no open file descriptor, or {place} no offset"
                raise ValueError(message)
        except BaseException as error:
            reraise(self._driver, error, what, "mmap")
        return fd, place

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        """Perform one ioctl; ``argument`` is the user's structure, changed in place.

        The fds in it are those of this process.

        Raises:
            OSError: ENOTTY for an unknown request; EFAULT where the argument is
                missing or shorter than it says; EINVAL as the kernel has it.
            DriverDiedError: the driver raised something without an errno in reset.
        """
        self._require_open()
        if request == device_info.RESET:
            return self._reset()
        minimum = _minimum_of(request)
        structure = _structure(argument, minimum)
        answer = self._perform(
            request,
            bytes(structure[:minimum]),
            lambda size: bytes(structure[minimum : minimum + size]),
            os.dup,
        )
        structure[: len(answer)] = answer
        return 0

    def user_ioctl(self, request: int, argument: int, user: UserProcess) -> int:
        """Perform one ioctl of a process; ``argument`` is an address in its memory.

        What is copied is bounded, whatever argsz says: the head of the structure,
        and the data of interrupts that the device has.

        Raises:
            OSError: as `ioctl`, and EFAULT where the process has no memory.
            DriverDiedError: as `ioctl`.
        """
        self._require_open()
        if request == device_info.RESET:
            return self._reset()
        minimum = _minimum_of(request)
        head = user.memory.read(argument, minimum)
        if argsz_of(head) < minimum:
            _refuse(errno.EINVAL, f"argsz {argsz_of(head)} is less than {minimum}")
        answer = self._perform(
            request,
            head,
            lambda size: user.memory.read(argument + minimum, size),
            user.duplicate,
        )
        if answer:
            user.memory.write(argument, answer)
        return 0

    def close(self) -> None:
        """Let go of the device; a second close is EBADF."""
        self._require_open()
        self._is_open = False
        self._read = self._write = _closed
        try:
            self._driver.close()
        except BaseException as error:
            reraise(self._driver, error, "close", "close")
        finally:
            if self._made_function is not None:
                self._made_function.close()
            if self._on_close is not None:
                self._on_close()

    # -- the ioctls ----------------------------------------------------------------

    def _perform(
        self,
        request: int,
        head: bytes,
        rest: Callable[[int], bytes],
        duplicate: Callable[[int], int],
    ) -> bytes:
        """Answer a request that has an argument with what is to be copied back to it.

        ``head`` is as much of it as the request needs, ``rest(n)`` the n bytes that
        follow, and ``duplicate`` makes an fd of ours of one of the caller's.
        """
        if request == device_info.GET_REGION_INFO:
            return device_info.region_info(head, self._migration_info, self._bar)
        if request == device_info.GET_INFO:
            return device_info.device_info(head)
        if request == device_info.GET_IRQ_INFO:
            return device_info.irq_info(head, self._function.interrupts)
        if request == device_info.SET_IRQS:
            header = vfio_irq_set.from_buffer_copy(head)
            interrupts = self._function.interrupts
            data = rest(interrupts.data_size(header))
            interrupts.set(header, data, duplicate)
            return b""
        if request == device_info.FEATURE:
            device_info.refuse_feature(head)
        return device_info.refuse_hot_reset(request, head)

    def _reset(self) -> int:
        try:
            self._driver.reset()
        except BaseException as error:
            reraise(self._driver, error, "VFIO_DEVICE_RESET", "reset")
        if self._made_function is not None:
            self._made_function.reset()
        return 0

    def _migration_info(self) -> bytes:
        what = "VFIO_DEVICE_GET_REGION_INFO"
        region = self._region(what)
        try:
            return migration_region_info(region)
        except BaseException as error:
            reraise(self._driver, error, what, "migration_region")

    def _region(self, access: str) -> MigrationRegion:
        try:
            return self._driver.migration_region
        except BaseException as error:
            reraise(self._driver, error, access, "migration_region")

    # -- the PCI function ----------------------------------------------------------

    @property
    def _function(self) -> PciFunction:
        if self._made_function is None:
            self._made_function = PciFunction(self._driver, self._dma)
        return self._made_function

    def _bar(self, number: int) -> Bar:
        if self._made_function is None and not hasattr(self._driver, "bars"):
            return NO_BAR
        return self._function.bar(number)

    def _read_elsewhere(self, size: int, offset: int) -> bytes:
        index, place = self._region_at(offset)
        if size == 0:
            return b""
        if index == VFIO_PCI_CONFIG_REGION_INDEX:
            return self._function.read_config(place, size)
        return self._function.read_bar(index, place, size)

    def _write_elsewhere(self, data: bytes, offset: int) -> int:
        index, place = self._region_at(offset)
        if index == VFIO_PCI_CONFIG_REGION_INDEX:
            self._function.write_config(place, data)
            return len(data)
        return self._function.write_bar(index, place, data) if data else 0

    def _region_at(self, offset: int) -> tuple[int, int]:
        self._require_open()
        index = offset >> OFFSET_SHIFT
        if not 0 <= index < PCI_STD_NUM_BARS and index != VFIO_PCI_CONFIG_REGION_INDEX:
            _refuse(errno.EINVAL, f"no region of this device lies at {offset:#x}")
        return index, offset & OFFSET_MASK

    def _require_open(self) -> None:
        if not self._is_open:
            _closed()


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


def _minimum_of(request: int) -> int:
    minimum = MINIMUM.get(request)
    if minimum is None:
        _refuse(errno.ENOTTY, f"unknown ioctl {request:#x}")
    return minimum


def _structure(argument: bytearray | None, minimum: int) -> bytearray:
    """Return the user's structure if it has the size that it says it has."""
    if argument is None or len(argument) < 4:
        _refuse(errno.EFAULT, "the argument is not there")
    argsz = argsz_of(argument)
    if argsz < minimum:
        _refuse(errno.EINVAL, f"argsz {argsz} is less than {minimum}")
    if len(argument) < argsz:
        _refuse(errno.EFAULT, f"argsz {argsz} of {len(argument)} bytes")
    return argument
