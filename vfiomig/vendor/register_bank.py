"""The registers of a migration region, and which access is for which of them.

For driver authors: what every v1 driver has to decode, and nothing of what it decides.
A driver asks the bank, and answers for the state machine itself.
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.v1.registers import REGISTER_AT, Register
from vfiomig.uapi.migration_v1 import vfio_device_migration_info

if TYPE_CHECKING:
    from vfiomig.vendor.data_section import DataSection

_READ_ONLY: Final = (Register.PENDING_BYTES, Register.DATA_OFFSET)


class RegisterBank:
    """The four registers over mapped memory, in front of a data section.

    ``registers`` is the ``struct vfio_device_migration_info``: the driver sets its
    fields, and `read` answers with what they hold.  data_offset is the section's.
    """

    def __init__(self, section: DataSection) -> None:
        self.section = section
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.registers = vfio_device_migration_info.from_buffer(self._memory)
        self.registers.data_offset = section.offset

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read with a register's value or with data.

        Raises:
            OSError: EINVAL for any other width or place (V1-ACC-02).
        """
        if (offset, size) in REGISTER_AT:
            return self._memory[offset : offset + size]
        return self.section.read(offset, size)

    def written(self, offset: int, data: bytes) -> tuple[Register, int] | None:
        """Take a trapped write: data goes into the section, a register is named.

        Returns the register and the value that the user application wants it to have;
        ``None`` where there is nothing left to do: data, or the reserved field.

        Raises:
            OSError: EINVAL for any other width or place, and for a read-only register.
        """
        register = REGISTER_AT.get((offset, len(data)))
        if register is None:
            self.section.write(offset, data)
            return None
        if register in _READ_ONLY:
            raise OSError(errno.EINVAL, f"{register.value} is read only")
        if register is Register.RESERVED:
            return None
        return register, int.from_bytes(data, "little")

    def close(self) -> None:
        """Let registers and data section go."""
        self.registers = vfio_device_migration_info()  # the old one pins the memory
        self._memory.close()
        self.section.close()
