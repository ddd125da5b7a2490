"""vfio-user's structures, field by field: no installed header has them.

Offsets and widths are those of the protocol's tables; the sum is the size.
"""

from __future__ import annotations

import ctypes
import struct

import pytest

from vfiomig.uapi import vfio_user

# struct's letters, in the order of the fields: nothing is padded.
LAYOUTS = {
    "vfio_user_header": ("HHIII", 16),
    "vfio_user_version": ("HH", 4),
    "vfio_user_dma_map": ("IIQQQ", 32),
    "vfio_user_dma_unmap": ("IIQQ", 24),
    "vfio_user_bitmap": ("QQ", 16),
    "vfio_user_bitmap_range": ("QQ16s", 32),
    "vfio_user_dirty_pages": ("II", 8),
    "vfio_user_device_info": ("IIII", 16),
    "vfio_user_region_io_fds": ("IIII", 16),
    "vfio_user_region_access": ("QII", 16),
    "vfio_user_dma_region_access": ("QQ", 16),
}

WIDTHS = {"H": 2, "I": 4, "Q": 8, "s": 16}

COMMANDS = {
    "VERSION": 1,
    "DMA_MAP": 2,
    "DMA_UNMAP": 3,
    "DEVICE_GET_INFO": 4,
    "DEVICE_GET_REGION_INFO": 5,
    "DEVICE_GET_REGION_IO_FDS": 6,
    "DEVICE_GET_IRQ_INFO": 7,
    "DEVICE_SET_IRQS": 8,
    "REGION_READ": 9,
    "REGION_WRITE": 10,
    "DMA_READ": 11,
    "DMA_WRITE": 12,
    "DEVICE_RESET": 13,
    "DIRTY_PAGES": 14,
}


def structures() -> dict[str, type[ctypes.Structure]]:
    return {
        name: value
        for name, value in vars(vfio_user).items()
        if isinstance(value, type) and issubclass(value, ctypes.Structure)
    }


def test_every_structure_is_held_against_its_layout() -> None:
    assert structures().keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_follow_one_another_without_a_gap(name: str) -> None:
    letters, size = LAYOUTS[name]
    structure = structures()[name]
    assert ctypes.sizeof(structure) == size == struct.calcsize(f"<{letters}")
    place = 0
    widths = [WIDTHS[letter] for letter in letters.replace("16s", "s")]
    for (field, *_), width in zip(structure._fields_, widths, strict=True):
        descriptor = getattr(structure, field)
        assert (descriptor.offset, descriptor.size) == (place, width), field
        place += width


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_have_their_numbers(name: str) -> None:
    assert getattr(vfio_user, f"VFIO_USER_{name}") == COMMANDS[name]


def test_flags_and_defaults_have_their_values() -> None:
    assert (vfio_user.VFIO_USER_MAJOR, vfio_user.VFIO_USER_MINOR) == (0, 2)
    assert vfio_user.VFIO_USER_F_TYPE_MASK == 0xF
    assert vfio_user.VFIO_USER_F_TYPE_COMMAND == 0
    assert vfio_user.VFIO_USER_F_TYPE_REPLY == 1
    assert vfio_user.VFIO_USER_F_NO_REPLY == 0x10
    assert vfio_user.VFIO_USER_F_ERROR == 0x20
    assert vfio_user.VFIO_USER_F_DMA_REGION_READ == 1
    assert vfio_user.VFIO_USER_F_DMA_REGION_WRITE == 2
    assert vfio_user.VFIO_USER_DEFAULT_MAX_MSG_FDS == 1
    assert vfio_user.VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE == 1048576
