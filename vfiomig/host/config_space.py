"""The configuration space of one function: 256 bytes, some of which a user may write.

Rule 1: a bit is writable or it is not; a write changes the writable ones and is no
error for the others.  Sizing a BAR follows from that: its low bits cannot be written.

Rule 2: it answers as vfio-pci does (``vfio_pci_config_rw()``): an access of any width
and alignment that ends inside the space, EFAULT for one that does not.

What writing brings about is `PciFunction`'s business; here are bytes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.uapi.pci import (
    PCI_BASE_ADDRESS_SPACE_IO,
    PCI_CAP_ID_MSI,
    PCI_CFG_SPACE_SIZE,
    PCI_COMMAND_INTX_DISABLE,
    PCI_COMMAND_IO,
    PCI_COMMAND_MASTER,
    PCI_COMMAND_MEMORY,
    PCI_COMMAND_PARITY,
    PCI_COMMAND_SERR,
    PCI_MSI_FLAGS_64BIT,
    PCI_MSI_FLAGS_ENABLE,
    PCI_MSI_FLAGS_QSIZE,
    PCI_STATUS_CAP_LIST,
    PCI_STATUS_INTERRUPT,
    PCI_STD_HEADER_SIZEOF,
    PCI_STD_NUM_BARS,
    pci_header,
    pci_msi,
)

if TYPE_CHECKING:
    from vfiomig.host.pci import Bar, PciIdentity

_MSI: Final = PCI_STD_HEADER_SIZEOF  # where the capability is, if there is one
_QMASK_SHIFT: Final = 1
_QSIZE_SHIFT: Final = 4

# PCI Local Bus Specification 3.0, 6.2.5.1: the low bits of a BAR are its type.
_TYPE_BITS: Final = {"io": 0x3, "memory": 0xF}
_MAX_SIZE: Final = {"io": 256, "memory": 1 << 31}
_MAX_VECTORS: Final = 32
_MAX_PIN: Final = 4

# What any function lets its user write; I/O and memory space come with the BARs.
_ANY_COMMAND: Final = (
    PCI_COMMAND_MASTER
    | PCI_COMMAND_PARITY
    | PCI_COMMAND_SERR
    | PCI_COMMAND_INTX_DISABLE
)


class ConfigSpace:
    """The space of a function with this identity and these BARs.

    Raises ``ValueError`` for what no PCI function can say.
    """

    def __init__(self, identity: PciIdentity, bars: tuple[Bar, ...]) -> None:
        _check(identity, bars)
        self._queue_most = identity.msi_vectors.bit_length() - 1
        self._bytes = bytearray(PCI_CFG_SPACE_SIZE)
        self._mask = _writable(identity, bars)
        self._header = pci_header.from_buffer(self._bytes)
        self._msi = pci_msi.from_buffer(self._bytes, _MSI)
        self._fill(identity, bars)
        self._power_on = bytes(self._bytes)

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes; OSError(EFAULT) if not all of them are inside."""
        _require_inside(offset, size)
        return bytes(self._bytes[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Put ``data`` into the bits that can be written; EFAULT as in `read`."""
        _require_inside(offset, len(data))
        for place, byte in enumerate(data, offset):
            mask = self._mask[place]
            self._bytes[place] = self._bytes[place] & ~mask | byte & mask
        # As vfio_msi_config_write(): not more vectors than there are.
        flags = self._msi.msi_flags
        if (flags & PCI_MSI_FLAGS_QSIZE) >> _QSIZE_SHIFT > max(self._queue_most, 0):
            most = self._queue_most << _QSIZE_SHIFT
            self._msi.msi_flags = flags & ~PCI_MSI_FLAGS_QSIZE | most

    def reset(self) -> None:
        """Bring back what was there at power-on."""
        self._bytes[:] = self._power_on

    @property
    def command(self) -> int:
        """The command register."""
        return int(self._header.command)

    def show_interrupt(self, *, pending: bool) -> None:
        """Let the status register say whether INTx is asserted."""
        if pending:
            self._header.status |= PCI_STATUS_INTERRUPT
        else:
            self._header.status &= ~PCI_STATUS_INTERRUPT

    def disable_msi(self) -> None:
        """Take back the enable bit that a user wrote."""
        if self._queue_most >= 0:
            self._msi.msi_flags &= ~PCI_MSI_FLAGS_ENABLE

    def _fill(self, identity: PciIdentity, bars: tuple[Bar, ...]) -> None:
        header = self._header
        header.vendor_id, header.device_id = identity.vendor, identity.device
        header.subsystem_vendor_id = identity.subsystem_vendor
        header.subsystem_id = identity.subsystem
        header.revision_id = identity.revision
        header.class_prog = identity.class_code & 0xFF
        header.class_device = identity.class_code >> 8
        header.interrupt_pin = identity.interrupt_pin
        for number, bar in enumerate(bars):
            if bar.size and bar.space == "io":
                header.base_address_0[number] = PCI_BASE_ADDRESS_SPACE_IO
        if identity.msi_vectors:
            header.status |= PCI_STATUS_CAP_LIST
            header.capability_list = _MSI
            self._msi.cap_list_id = PCI_CAP_ID_MSI
            queue = self._queue_most << _QMASK_SHIFT
            self._msi.msi_flags = PCI_MSI_FLAGS_64BIT | queue


def _writable(identity: PciIdentity, bars: tuple[Bar, ...]) -> bytes:
    mask = bytearray(PCI_CFG_SPACE_SIZE)
    header = pci_header.from_buffer(mask)
    header.command = _ANY_COMMAND
    for number, bar in enumerate(bars):
        if bar.size:
            is_io = bar.space == "io"
            header.command |= PCI_COMMAND_IO if is_io else PCI_COMMAND_MEMORY
            address = ~(bar.size - 1) & ~_TYPE_BITS[bar.space]
            header.base_address_0[number] = address & 0xFFFF_FFFF
    header.cache_line_size = header.latency_timer = header.interrupt_line = 0xFF
    if identity.msi_vectors:
        msi = pci_msi.from_buffer(mask, _MSI)
        msi.msi_flags = PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE
        msi.msi_address_lo = 0xFFFF_FFFC  # a message is a write of a DWORD
        msi.msi_address_hi, msi.msi_data_64 = 0xFFFF_FFFF, 0xFFFF
    return bytes(mask)


def _require_inside(offset: int, size: int) -> None:
    if offset < 0 or offset + size > PCI_CFG_SPACE_SIZE:
        message = f"no {size} bytes at {offset:#x} of the configuration space"
        raise OSError(errno.EFAULT, message)


def _check(identity: PciIdentity, bars: tuple[Bar, ...]) -> None:
    widths = {"class_code": 24, "revision": 8}
    names = ("vendor", "device", "subsystem_vendor", "subsystem", *widths)
    for name in names:
        value = getattr(identity, name)
        if not 0 <= value < 1 << widths.get(name, 16):
            message = f"{name} {value:#x} has more than {widths.get(name, 16)} bits"
            raise ValueError(message)
    if not 0 <= identity.interrupt_pin <= _MAX_PIN:
        message = f"interrupt_pin {identity.interrupt_pin} is not from 0 to {_MAX_PIN}"
        raise ValueError(message)
    vectors = identity.msi_vectors
    if vectors and (not 0 < vectors <= _MAX_VECTORS or vectors & vectors - 1):
        message = f"msi_vectors {vectors} is not 0 or a power of 2 to {_MAX_VECTORS}"
        raise ValueError(message)
    if len(bars) > PCI_STD_NUM_BARS:
        message = f"{len(bars)} BARs are more than {PCI_STD_NUM_BARS}"
        raise ValueError(message)
    for number, bar in enumerate(bars):
        _check_bar(number, bar)


def _check_bar(number: int, bar: Bar) -> None:
    if bar.space not in _TYPE_BITS:
        message = f"BAR {number} is in {bar.space!r}: neither io nor memory"
        raise ValueError(message)
    least, most = _TYPE_BITS[bar.space] + 1, _MAX_SIZE[bar.space]
    if bar.size and (not least <= bar.size <= most or bar.size & bar.size - 1):
        message = (
            f"BAR {number} has {bar.size} bytes: not 0 or a power of 2 "
            f"from {least} to {most}"
        )
        raise ValueError(message)
