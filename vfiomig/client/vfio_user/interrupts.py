"""VFIO_DEVICE_SET_IRQS over a socket: eventfds travel beside the message.

An s32 of -1 takes an eventfd away, and cannot travel: so a message has either eventfds
or none of them, and never more than the server takes.  One call may be several.
"""

from __future__ import annotations

import errno
import struct
from ctypes import sizeof
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.client.vfio_user import requests
from vfiomig.protocol.vfio_user.messages import SetIrqs
from vfiomig.uapi.vfio import (
    VFIO_IRQ_SET_DATA_BOOL,
    VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_TYPE_MASK,
    vfio_irq_set,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD: Final = sizeof(vfio_irq_set)
_FD: Final = struct.Struct("=i")


def set_irqs_requests(
    structure: bytes, max_msg_fds: int
) -> Iterator[requests.Request[None]]:
    """Yield what a ``struct vfio_irq_set`` with its data asks for, in its order.

    Raises:
        OSError: EINVAL: the data are fewer than its count says, or eventfds and the
            server takes none.
    """
    head = vfio_irq_set.from_buffer_copy(structure)
    data = structure[_HEAD:]
    kind = head.flags & VFIO_IRQ_SET_DATA_TYPE_MASK
    if kind == VFIO_IRQ_SET_DATA_EVENTFD:
        _require(data, head.count * _FD.size)
        fds = [fd for (fd,) in _FD.iter_unpack(data[: head.count * _FD.size])]
        yield from _with_eventfds(head, fds, max_msg_fds)
        return
    size = head.count if kind == VFIO_IRQ_SET_DATA_BOOL else 0
    _require(data, size)
    irqs = SetIrqs(
        _HEAD + size, head.flags, head.index, head.start, head.count, data[:size]
    )
    yield requests.set_irqs(irqs)


def _with_eventfds(
    head: vfio_irq_set, fds: list[int], max_msg_fds: int
) -> Iterator[requests.Request[None]]:
    if not max_msg_fds and any(fd >= 0 for fd in fds):
        _refuse("the server takes no file descriptors")
    done = 0
    while True:
        run = _run(fds[done:], max_msg_fds)
        irqs = SetIrqs(_HEAD, head.flags, head.index, head.start + done, len(run))
        yield requests.set_irqs(irqs, [fd for fd in run if fd >= 0])
        done += len(run)
        if done >= len(fds):
            return


def _run(fds: list[int], max_msg_fds: int) -> list[int]:
    """Return the first of them that may travel in one message."""
    if not fds:
        return []
    are_fds = fds[0] >= 0
    count = 0
    for fd in fds[:max_msg_fds] if are_fds else fds:
        if (fd >= 0) != are_fds:
            break
        count += 1
    return fds[:count]


def _require(data: bytes, size: int) -> None:
    if len(data) < size:
        _refuse(f"{len(data)} bytes of data, less than {size}")


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
