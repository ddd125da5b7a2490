"""How the numbers of VFIO's ioctls are made (linux/vfio.h, asm-generic/ioctl.h).

A VFIO ioctl number carries neither direction nor size: ``_IO(VFIO_TYPE, VFIO_BASE +
n)``.  The same number means different things on container, group and device fds.
"""

from __future__ import annotations

from typing import Final

VFIO_TYPE: Final = ord(";")
VFIO_BASE: Final = 100

_IOC_TYPESHIFT: Final = 8


def _IO(ioctl_type: int, number: int) -> int:  # noqa: N802 -- C's name
    """Return the number of an ioctl without argument size: C's ``_IO()``."""
    return ioctl_type << _IOC_TYPESHIFT | number


def VFIO_DEVICE_GET_INFO() -> int:  # noqa: N802 -- C's name
    """Device fd: fill a ``vfio_device_info``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 7)


def VFIO_DEVICE_GET_REGION_INFO() -> int:  # noqa: N802 -- C's name
    """Device fd: fill a ``vfio_region_info`` and its capability chain."""
    return _IO(VFIO_TYPE, VFIO_BASE + 8)


def VFIO_DEVICE_GET_IRQ_INFO() -> int:  # noqa: N802 -- C's name
    """Device fd: fill a ``vfio_irq_info``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 9)


def VFIO_DEVICE_SET_IRQS() -> int:  # noqa: N802 -- C's name
    """Device fd: take a ``vfio_irq_set``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 10)


def VFIO_DEVICE_RESET() -> int:  # noqa: N802 -- C's name
    """Device fd: reset the device; no argument."""
    return _IO(VFIO_TYPE, VFIO_BASE + 11)
