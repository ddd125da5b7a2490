"""The fixed parts of a QEMU migration stream, as bytes.

A stream is a header, sections, and an end.  A device's sections share one id: START
names it, PART carries a buffer of pre-copy, END all of stop-and-copy::

    section:  type | be32 id | [START: idlen, name, be32 instance, be32 version]
              payload | footer: 0x7e | be32 id
    payload:  START  SETUP EOS
              PART   DATA be64 size, the buffer, EOS
              END    { DATA be64 size, the buffer }* EOS

Every field has one value that is right, so a damaged frame never passes for a whole
one: who reads holds each against what this file writes.
"""

from __future__ import annotations

import struct
from typing import Final

from vfiomig.uapi.qemu_stream import (
    MIG_RP_MSG_SHUT,
    QEMU_VM_CONFIGURATION,
    QEMU_VM_EOF,
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    QEMU_VM_SECTION_FOOTER,
    QEMU_VM_SECTION_FULL,
    QEMU_VM_SECTION_START,
    QEMU_VM_VMDESCRIPTION,
    VFIO_MIG_FLAG_DEV_CONFIG_STATE,
    VFIO_MIG_FLAG_DEV_DATA_STATE,
    VFIO_MIG_FLAG_DEV_SETUP_STATE,
    VFIO_MIG_FLAG_END_OF_STATE,
)

SECTION_HEAD: Final = struct.Struct(">BI")
TAG: Final = struct.Struct(">Q")
DATA_HEAD: Final = struct.Struct(">QQ")
SECTION_ID: Final = struct.Struct(">I")
# What follows the type of a PART section: its id, and the head of its one buffer.
PART_HEAD: Final = struct.Struct(">IQQ")
# And of an END section: its id, and the tag of what comes first.
END_HEAD: Final = struct.Struct(">IQ")
_INSTANCE_AND_VERSION: Final = struct.Struct(">II")
_RETURN_PATH: Final = struct.Struct(">HHI")

STREAM_HEAD: Final = struct.pack(">II", QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION)
STREAM_END: Final = bytes([QEMU_VM_EOF])
END_OF_STATE: Final = TAG.pack(VFIO_MIG_FLAG_END_OF_STATE)

# What a vfio device registers with the migration core: instance and version.
_VFIO_INSTANCE: Final = 0
_VFIO_VERSION: Final = 1
VFIO_SUFFIX: Final = "/vfio"

# PCIDevice's version in front of the configuration space, and behind it the levels of
# INTA to INTD, none of which is asserted.
_PCI_DEVICE_VERSION: Final = (2).to_bytes(4, "big")
_NO_INTERRUPTS: Final = bytes(16)
# What QEMU holds against its own (cmask): identity, class, header type, capabilities.
_CHECKED_CONFIG: Final = (*range(4), *range(0x08, 0x0C), 0x0E, 0x34)

RETURN_PATH_SIZE: Final = _RETURN_PATH.size


def section_head(section_type: int, section_id: int) -> bytes:
    """Return the head of a PART or END section."""
    return SECTION_HEAD.pack(section_type, section_id)


def section_foot(section_id: int) -> bytes:
    """Return the footer of a section."""
    return SECTION_HEAD.pack(QEMU_VM_SECTION_FOOTER, section_id)


def start_section(section_id: int, idstr: str) -> bytes:
    """Return the whole START section of a VFIO device."""
    return b"".join(
        (
            SECTION_HEAD.pack(QEMU_VM_SECTION_START, section_id),
            start_rest(idstr),
            section_foot(section_id),
        )
    )


def start_rest(idstr: str) -> bytes:
    """Return what stands between head and footer of a START section."""
    return b"".join(
        (
            counted(idstr),
            _INSTANCE_AND_VERSION.pack(_VFIO_INSTANCE, _VFIO_VERSION),
            TAG.pack(VFIO_MIG_FLAG_DEV_SETUP_STATE),
            END_OF_STATE,
        )
    )


def full_section(section_id: int, idstr: str, config: bytes | bytearray) -> bytes:
    """Return the FULL section of a VFIO device, with its configuration space."""
    head = SECTION_HEAD.pack(QEMU_VM_SECTION_FULL, section_id)
    return b"".join((head, full_rest(idstr), config, config_rest(section_id)))


def full_rest(idstr: str) -> bytes:
    """Return what stands between the id of a FULL section and the configuration."""
    return b"".join(
        (
            counted(idstr),
            _INSTANCE_AND_VERSION.pack(_VFIO_INSTANCE, _VFIO_VERSION),
            TAG.pack(VFIO_MIG_FLAG_DEV_CONFIG_STATE),
            _PCI_DEVICE_VERSION,
        )
    )


def config_rest(section_id: int) -> bytes:
    """Return what stands behind the configuration space: no MSI-X, and the footer."""
    return _NO_INTERRUPTS + END_OF_STATE + section_foot(section_id)


def config_state_size(config: bytes | bytearray) -> int:
    """Return the bytes of the payload of that FULL section."""
    frame = 2 * TAG.size + len(_PCI_DEVICE_VERSION) + len(_NO_INTERRUPTS)
    return frame + len(config)


def first_difference(config: bytes | bytearray, own: bytes | bytearray) -> int | None:
    """Return the first byte with which QEMU would refuse a configuration space."""
    return next((at for at in _CHECKED_CONFIG if config[at] != own[at]), None)


def configuration(machine_type: str) -> bytes:
    """Return the CONFIGURATION record without subsections."""
    name = machine_type.encode()
    return struct.pack(">BI", QEMU_VM_CONFIGURATION, len(name)) + name


def vm_description(document: bytes) -> bytes:
    """Return the VMDESCRIPTION record."""
    return struct.pack(">BI", QEMU_VM_VMDESCRIPTION, len(document)) + document


def data_head(size: int) -> bytes:
    """Return what stands before a buffer of ``size`` bytes."""
    return DATA_HEAD.pack(VFIO_MIG_FLAG_DEV_DATA_STATE, size)


def return_path_shut(error: int) -> bytes:
    """Return the destination's last word: 0 when its VM runs, else not."""
    return _RETURN_PATH.pack(MIG_RP_MSG_SHUT, 4, error)


def counted(text: str) -> bytes:
    """Return text behind a byte with its length, as names stand in the stream."""
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded
