"""The ioctls of a device fd, as requests to a server.

What argsz means is the kernel's: too little is EINVAL, and a region whose chain does
not fit tells how much it takes, and no chain.
"""

from __future__ import annotations

import errno
import struct
from ctypes import sizeof
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.client.vfio_user import requests
from vfiomig.client.vfio_user.interrupts import set_irqs_requests
from vfiomig.protocol.vfio_user.messages import (
    DEVICE_INFO_SIZE,
    IRQ_INFO_SIZE,
    REGION_INFO_SIZE,
)
from vfiomig.uapi.ioctl import (
    VFIO_DEVICE_GET_INFO,
    VFIO_DEVICE_GET_IRQ_INFO,
    VFIO_DEVICE_GET_REGION_INFO,
    VFIO_DEVICE_RESET,
    VFIO_DEVICE_SET_IRQS,
)
from vfiomig.uapi.vfio import (
    VFIO_DEVICE_FLAGS_CAPS,
    vfio_device_info,
    vfio_irq_info,
    vfio_irq_set,
    vfio_region_info,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vfiomig.client.vfio_user.regions import Regions
    from vfiomig.client.vfio_user.session import Session

_GET_INFO: Final = VFIO_DEVICE_GET_INFO()
_GET_REGION_INFO: Final = VFIO_DEVICE_GET_REGION_INFO()
_GET_IRQ_INFO: Final = VFIO_DEVICE_GET_IRQ_INFO()
_SET_IRQS: Final = VFIO_DEVICE_SET_IRQS()
_RESET: Final = VFIO_DEVICE_RESET()

# How much of its structure each needs; cap_offset of a vfio_device_info came later.
_MINIMUM: Final[Mapping[int, int]] = {
    _GET_INFO: DEVICE_INFO_SIZE,
    _GET_REGION_INFO: REGION_INFO_SIZE,
    _GET_IRQ_INFO: IRQ_INFO_SIZE,
    _SET_IRQS: sizeof(vfio_irq_set),
}
_ARGSZ: Final = struct.Struct("<I")
_CAP_OFFSET: Final = slice(
    vfio_region_info.cap_offset.offset, vfio_region_info.size.offset
)


class Ioctls:
    """The ioctls of one device, whose server takes ``max_msg_fds`` with a message."""

    def __init__(self, session: Session, regions: Regions, max_msg_fds: int) -> None:
        self._session = session
        self._regions = regions
        self._max_msg_fds = max_msg_fds

    def perform(self, request: int, argument: bytearray | None) -> int:
        """Perform one; ``argument`` is changed in place.

        Raises:
            OSError: ENOTTY for an unknown one; EFAULT where the argument is missing or
                shorter than it says; EINVAL for too small an argsz; the server's errno.
            DriverLostError: the session is over.
        """
        self._session.require_open()
        if request == _RESET:
            self._session.ask(requests.reset())
            return 0
        structure = _structure(request, argument)
        (argsz,) = _ARGSZ.unpack_from(structure)
        answer = self._answer(request, bytes(structure[:argsz]))
        structure[: len(answer)] = answer
        return 0

    def _answer(self, request: int, given: bytes) -> bytes:
        """Return what is to be copied back: no more bytes than were given."""
        if request == _GET_REGION_INFO:
            index = vfio_region_info.from_buffer_copy(given).index
            region = self._regions.region(index, "VFIO_DEVICE_GET_REGION_INFO")
            return _fitted(region.info, given)
        if request == _GET_INFO:
            return self._device_info(given)
        if request == _GET_IRQ_INFO:
            info = vfio_irq_info.from_buffer_copy(given)
            told = self._session.ask(requests.irq_info(info.index))
            info.flags, info.count = told.flags, told.count
            return bytes(info)
        for each in set_irqs_requests(given, self._max_msg_fds):
            self._session.ask(each)
        return b""

    def _device_info(self, given: bytes) -> bytes:
        told = self._session.ask(requests.device_info())
        (argsz,) = _ARGSZ.unpack_from(given)
        info = vfio_device_info(
            argsz=argsz,
            flags=told.flags & ~VFIO_DEVICE_FLAGS_CAPS,  # none is passed on
            num_regions=told.num_regions,
            num_irqs=told.num_irqs,
        )
        return bytes(info)[: len(given)]


def _structure(request: int, argument: bytearray | None) -> bytearray:
    """Return the structure of an ioctl, if it has the size that it says it has."""
    minimum = _MINIMUM.get(request)
    if minimum is None:
        _refuse(errno.ENOTTY, f"unknown ioctl {request:#x}")
    if argument is None or len(argument) < _ARGSZ.size:
        _refuse(errno.EFAULT, "the argument is not there")
    (argsz,) = _ARGSZ.unpack_from(argument)
    if argsz < minimum:
        _refuse(errno.EINVAL, f"argsz {argsz} is less than {minimum}")
    if len(argument) < argsz:
        _refuse(errno.EFAULT, f"argsz {argsz} of {len(argument)} bytes")
    return argument


def _fitted(info: bytes, given: bytes) -> bytes:
    """Return the info of a region, cut to what was given."""
    if len(info) <= len(given):
        return given[: _ARGSZ.size] + info[_ARGSZ.size :]
    short = bytearray(info[:REGION_INFO_SIZE])
    short[_CAP_OFFSET] = bytes(_CAP_OFFSET.stop - _CAP_OFFSET.start)
    return bytes(short)


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
