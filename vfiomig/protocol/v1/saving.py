"""The sequence of saving, with the letters of linux/vfio.h.

The header's sequence for pre-copy and for stop-and-copy:

    (a) read pending_bytes; if it is 0, there is nothing to do now
    (b) read data_offset: the driver makes a buffer ready
    (c) read data_size: the bytes of that buffer
    (d) read the buffer from the data section
    (e) process it: it goes into the stream
    (f) read pending_bytes: the driver may take the buffer back; if it is not 0,
        go on at (b)

In pre-copy a user application comes and goes between (f) and (b); in stop-and-copy
it stays until (f) reads 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import VendorDriverError
from vfiomig.protocol.v1.registers import REGISTERS_SIZE
from vfiomig.protocol.v1.requests import (
    READ_DATA_OFFSET,
    READ_DATA_SIZE,
    READ_PENDING_BYTES,
    ReadData,
    Request,
)

if TYPE_CHECKING:
    from collections.abc import Generator

# No progress in so many buffers one after another: the driver will make none
# (V1-SIZE-03; the number is AMB-06's).
EMPTY_BUFFERS_LIMIT: Final = 16

# So many buffers, so few bytes, and pending_bytes no less: a stopped device that does
# not come to an end (V1-PEND-13).  One that says 1 until it is done (V1-PEND-08) may
# still hand out 64 KiB in single bytes, or any amount in larger buffers.
STALLED_BUFFERS_LIMIT: Final = 1 << 16
STALLED_BYTES_LIMIT: Final = 1 << 20


def save_buffer(region_size: int | None = None) -> Generator[Request, int, int]:
    """Save the current buffer and return its size.

    With ``region_size`` the driver's two answers are held against the region
    (V1-OFF-03, V1-OFF-07) before anything is read there.

    Raises:
        VendorDriverError: the buffer does not lie in the data section.
    """
    offset = yield READ_DATA_OFFSET  # (b)
    size = yield READ_DATA_SIZE  # (c)
    if region_size is not None:
        check_buffer(offset, size, region_size)
    yield ReadData(offset, size)  # (d), (e)
    return size


def save_rest(
    region_size: int | None = None, *, stops_at_empty_buffer: bool = False
) -> Generator[Request, int, int]:
    """Save buffers until the driver has nothing pending; return what is: stop-and-copy.

    ``stops_at_empty_buffer`` is QEMU's way: it leaves at a buffer of size 0, whatever
    is pending.

    Raises:
        VendorDriverError: as `save_buffer`; or buffer after buffer is empty although
            bytes are pending; or tiny buffers come without end.
    """
    empty = stalled = moved = 0
    pending = least = yield READ_PENDING_BYTES  # (a)
    while pending:
        size = yield from save_buffer(region_size)
        empty = 0 if size else empty + 1
        if empty and stops_at_empty_buffer:
            return pending
        if empty == EMPTY_BUFFERS_LIMIT:
            message = (
                f"{empty} buffers of 0 bytes one after another, "
                f"although pending_bytes is {pending:#x}"
            )
            raise VendorDriverError(message)
        pending = yield READ_PENDING_BYTES  # (f)
        stalled, moved = stalled + 1, moved + size
        if pending < least:
            least, stalled, moved = pending, 0, 0
        elif stalled >= STALLED_BUFFERS_LIMIT and moved < STALLED_BYTES_LIMIT:
            message = (
                f"{stalled} buffers had {moved} bytes in all, "
                f"and pending_bytes is still {pending:#x}"
            )
            raise VendorDriverError(message)
    return pending


def check_buffer(offset: int, size: int, region_size: int) -> None:
    """Refuse a buffer that does not lie in the data section.

    Raises:
        VendorDriverError: it begins in the registers or ends outside the region.
    """
    if offset >= REGISTERS_SIZE and offset + size <= region_size:
        return
    message = (
        f"data_offset {offset:#x} and data_size {size:#x} leave the data section "
        f"[{REGISTERS_SIZE:#x}, {region_size:#x})"
    )
    raise VendorDriverError(message)
