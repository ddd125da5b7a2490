"""The sequence of resuming, with the letters of linux/vfio.h.

For each buffer of the source, in its order and with its size:

    (a) read data_offset: where this buffer goes
    (b) write the buffer there
    (c) write data_size: the driver takes the buffer before the write returns

pending_bytes plays no part, and data_size is never read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.protocol.errors import VendorDriverError
from vfiomig.protocol.v1.registers import REGISTERS_SIZE, Register
from vfiomig.protocol.v1.requests import (
    READ_DATA_OFFSET,
    Request,
    WriteData,
    WriteRegister,
)

if TYPE_CHECKING:
    from collections.abc import Generator


def load_buffer(
    size: int, region_size: int, *, splits: bool = False
) -> Generator[Request, int, None]:
    """Give the driver one buffer of ``size`` bytes, which is more than 0.

    ``splits`` is QEMU's way: a buffer that is larger than this region has room for
    becomes several, each with a data_size of its own, and nobody looks whether
    data_offset lies in the data section.  The specification wants the source's sizes
    (V1-RES-03) and no data in the registers (V1-OFF-03), so without it such a buffer
    is refused.

    Raises:
        VendorDriverError: there is no room for the buffer at data_offset.
    """
    left = size
    while left:
        offset = yield READ_DATA_OFFSET  # (a)
        room = region_size - offset
        has_room = room > 0 if splits else room >= left and offset >= REGISTERS_SIZE
        if not has_room:
            message = (
                f"no room at data_offset {offset:#x} for {left:#x} bytes "
                f"in a region of {region_size:#x}"
            )
            raise VendorDriverError(message)
        piece = min(left, room)
        yield WriteData(offset, piece)  # (b)
        yield WriteRegister(Register.DATA_SIZE, piece)  # (c)
        left -= piece
