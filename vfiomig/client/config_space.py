"""A PCI function's configuration space, as a user application reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.client.region import region_info
from vfiomig.uapi.vfio import VFIO_PCI_CONFIG_REGION_INDEX

if TYPE_CHECKING:
    from vfiomig.client.device import DeviceHandle

CONVENTIONAL: Final = 256
EXPRESS: Final = 4096


def read_config_space(handle: DeviceHandle) -> bytes:
    """Return all of it: 256 bytes, or 4096 of a device that is PCI Express.

    Raises:
        OSError: the device does not answer.
    """
    info = region_info(handle, VFIO_PCI_CONFIG_REGION_INDEX)
    size = EXPRESS if info.size >= EXPRESS else CONVENTIONAL
    return handle.pread(size, info.offset).ljust(size, b"\0")
