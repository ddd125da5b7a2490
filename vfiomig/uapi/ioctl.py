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


def VFIO_GET_API_VERSION() -> int:  # noqa: N802 -- C's name
    """Container fd: return VFIO_API_VERSION; no argument."""
    return _IO(VFIO_TYPE, VFIO_BASE + 0)


def VFIO_CHECK_EXTENSION() -> int:  # noqa: N802 -- C's name
    """Container fd: return whether it has an extension, given by number."""
    return _IO(VFIO_TYPE, VFIO_BASE + 1)


def VFIO_SET_IOMMU() -> int:  # noqa: N802 -- C's name
    """Container fd: take an IOMMU of a type, given by number."""
    return _IO(VFIO_TYPE, VFIO_BASE + 2)


def VFIO_GROUP_GET_STATUS() -> int:  # noqa: N802 -- C's name
    """Group fd: fill a ``vfio_group_status``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 3)


def VFIO_GROUP_SET_CONTAINER() -> int:  # noqa: N802 -- C's name
    """Group fd: join a container; the argument points to its fd, an s32."""
    return _IO(VFIO_TYPE, VFIO_BASE + 4)


def VFIO_GROUP_UNSET_CONTAINER() -> int:  # noqa: N802 -- C's name
    """Group fd: leave the container; no argument."""
    return _IO(VFIO_TYPE, VFIO_BASE + 5)


def VFIO_GROUP_GET_DEVICE_FD() -> int:  # noqa: N802 -- C's name
    """Group fd: return an fd of a device, given by a string."""
    return _IO(VFIO_TYPE, VFIO_BASE + 6)


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


def VFIO_DEVICE_GET_PCI_HOT_RESET_INFO() -> int:  # noqa: N802 -- C's name
    """Device fd: fill a ``vfio_pci_hot_reset_info``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 12)


def VFIO_DEVICE_PCI_HOT_RESET() -> int:  # noqa: N802 -- C's name
    """Device fd: take a ``vfio_pci_hot_reset``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 13)


def VFIO_DEVICE_FEATURE() -> int:  # noqa: N802 -- C's name
    """Device fd: take or fill a ``vfio_device_feature``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 17)


def VFIO_IOMMU_GET_INFO() -> int:  # noqa: N802 -- C's name
    """Container fd: fill a ``vfio_iommu_type1_info`` and its capability chain."""
    return _IO(VFIO_TYPE, VFIO_BASE + 12)


def VFIO_IOMMU_MAP_DMA() -> int:  # noqa: N802 -- C's name
    """Container fd: take a ``vfio_iommu_type1_dma_map``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 13)


def VFIO_IOMMU_UNMAP_DMA() -> int:  # noqa: N802 -- C's name
    """Container fd: take a ``vfio_iommu_type1_dma_unmap``, and say how much it was."""
    return _IO(VFIO_TYPE, VFIO_BASE + 14)


def VFIO_IOMMU_DIRTY_PAGES() -> int:  # noqa: N802 -- C's name
    """Container fd: take a ``vfio_iommu_type1_dirty_bitmap``."""
    return _IO(VFIO_TYPE, VFIO_BASE + 17)
