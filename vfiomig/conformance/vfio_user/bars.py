"""The BARs of a device, reached as by a guest's driver: decoding is enabled first.

Whoever uses a PCI function has to set the bits of the command register for that, which
a reset takes back; before, accesses are refused.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.uapi.pci import PCI_COMMAND_IO, PCI_COMMAND_MEMORY
from vfiomig.uapi.vfio import VFIO_PCI_CONFIG_REGION_INDEX

if TYPE_CHECKING:
    from vfiomig.client.device import DeviceHandle

_SHIFT: Final = 40  # of a region's index in the offsets of a handle
_COMMAND: Final = (VFIO_PCI_CONFIG_REGION_INDEX << _SHIFT) + 4
_DECODE: Final = PCI_COMMAND_IO | PCI_COMMAND_MEMORY


def enable_bars(device: DeviceHandle) -> None:
    """Let a function answer at its BARs; one without a configuration space does."""
    try:
        said = device.pread(2, _COMMAND)
        command = int.from_bytes(said, "little")
        if len(said) == 2 and command & _DECODE != _DECODE:
            device.pwrite((command | _DECODE).to_bytes(2, "little"), _COMMAND)
    except OSError:
        return  # the access to the BAR tells whether it was needed


def read_bar(device: DeviceHandle, bar: int, offset: int, size: int) -> bytes:
    """Read all of ``size`` bytes; OSError as the device says, EIO where fewer came."""
    data = device.pread(size, (bar << _SHIFT) + offset)
    if len(data) != size:
        raise OSError(errno.EIO, f"{len(data)} bytes of {size} came")
    return data


def write_bar(device: DeviceHandle, bar: int, offset: int, data: bytes) -> None:
    """Write all of ``data``; OSError as `read_bar`, EIO where not all was taken."""
    taken = device.pwrite(data, (bar << _SHIFT) + offset)
    if taken != len(data):
        raise OSError(errno.EIO, f"{taken} bytes of {len(data)} were taken")
