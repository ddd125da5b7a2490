"""A PCI function's configuration space, as a user application reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.client.region import region_info
from vfiomig.uapi.pci import PCI_COMMAND_MASTER, pci_header
from vfiomig.uapi.vfio import VFIO_PCI_CONFIG_REGION_INDEX

if TYPE_CHECKING:
    from vfiomig.client.device import DeviceHandle

CONVENTIONAL: Final = 256
EXPRESS: Final = 4096
COMMAND: Final = slice(
    pci_header.command.offset, pci_header.command.offset + pci_header.command.size
)


def read_config_space(handle: DeviceHandle) -> bytes:
    """Return all of it: 256 bytes, or 4096 of a device that is PCI Express.

    Raises:
        OSError: the device does not answer.
    """
    info = region_info(handle, VFIO_PCI_CONFIG_REGION_INDEX)
    size = EXPRESS if info.size >= EXPRESS else CONVENTIONAL
    return handle.pread(size, info.offset).ljust(size, b"\0")


def write_command(handle: DeviceHandle, command: bytes | bytearray) -> None:
    """Write the command register, two bytes, as QEMU does when it has loaded it.

    Raises:
        OSError: the device does not take it.
    """
    info = region_info(handle, VFIO_PCI_CONFIG_REGION_INDEX)
    handle.pwrite(bytes(command), info.offset + COMMAND.start)


def enable_bus_master(handle: DeviceHandle) -> None:
    """Let the device reach memory, as the guest's driver does before it uses it.

    Raises:
        OSError: the device does not answer.
    """
    command = int.from_bytes(read_config_space(handle)[COMMAND], "little")
    write_command(handle, (command | PCI_COMMAND_MASTER).to_bytes(2, "little"))
