"""The registers at the start of the v1 migration region."""

from __future__ import annotations

import ctypes
import enum
from typing import Final

from vfiomig.uapi.migration_v1 import vfio_device_migration_info

# "data section": what follows the registers (V1-DISC-05, V1-OFF-03).
REGISTERS_SIZE: Final = ctypes.sizeof(vfio_device_migration_info)


class Register(enum.Enum):
    """A field of the migration region, accessed at its native width (V1-ACC-01)."""

    DEVICE_STATE = "device_state"
    RESERVED = "reserved"
    PENDING_BYTES = "pending_bytes"
    DATA_OFFSET = "data_offset"
    DATA_SIZE = "data_size"

    def __init__(self, field: str) -> None:
        descriptor = getattr(vfio_device_migration_info, field)
        # Plain attributes, not properties: they are read at every access.
        self.offset: int = descriptor.offset
        self.width: int = descriptor.size

    __hash__ = object.__hash__  # an Enum hashes its name anew at each look-up


REGISTER_AT: Final = {
    (register.offset, register.width): register for register in Register
}
