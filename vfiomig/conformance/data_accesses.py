"""What a user application did with the bytes of a data section, and what it is owed.

Rule 1: while SAVING the driver owes something only for a buffer that was asked for in
sequence: pending_bytes read more than 0, then data_offset was read.  It owes nothing
more in a session in which an access failed or was odd.

Rule 2: what may have gone through a mapping was not seen, so bytes of a sparse mmap
area are never missing.

Rule 3: an errno of the hardware's (EIO, ENODEV ...) is an error of the device, which
a driver may report at any access (V1-SAVE-09).  Only a `REFUSAL` says that the driver
does not take an access of this form.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.position import RANGES_LIMIT, covers

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.position import Buffer, Range

REFUSAL: Final = frozenset(
    {
        errno.E2BIG,
        errno.EACCES,
        errno.EBADF,
        errno.EFAULT,
        errno.EINVAL,
        errno.EMSGSIZE,
        errno.ENOSYS,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.ERANGE,
        errno.ESPIPE,
    }
)


def buffer_in_sequence(moment: Moment) -> Buffer | None:
    """Return the current buffer if the driver owes something for it (rule 1)."""
    position = moment.position
    if not position.is_saving or position.has_failed or not position.pending:
        return None
    return position.buffer


def lies_in(buffer: Buffer, moment: Moment) -> bool:
    """Tell whether an access of data stays within a buffer of known size."""
    if buffer.size is None or moment.offset < buffer.offset:
        return False
    return moment.offset + moment.size <= buffer.offset + buffer.size


def all_moved(moment: Moment, ranges: list[Range], offset: int, size: int) -> bool:
    """Tell whether bytes of the data section were moved, or may have been (rule 2)."""
    if len(ranges) >= RANGES_LIMIT:
        return True  # a position forgets what goes beyond
    if not moment.region.areas:
        return covers(ranges, offset, size)
    return covers([*ranges, *moment.region.areas], offset, size)


def is_mappable(moment: Moment) -> bool:
    """Tell whether an access touches a sparse mmap area."""
    return meets_area(moment, moment.offset, moment.offset + moment.size)


def meets_area(moment: Moment, start: int, end: int) -> bool:
    """Tell whether any of the bytes from ``start`` on lie in a sparse mmap area.

    A loop, for ``any()`` takes longer to begin than most regions have areas.
    """
    for offset, size in moment.region.areas:
        if start < offset + size and offset < end:
            return True
    return False


def starts_in_area(moment: Moment, place: int) -> bool:
    """Tell whether a byte of the data section lies in a sparse mmap area."""
    for offset, size in moment.region.areas:  # noqa: SIM110
        if offset <= place < offset + size:
            return True
    return False


def is_refused(moment: Moment) -> bool:
    """Tell whether the driver does not take an access of this form (rule 3)."""
    if moment.died:
        return False
    return moment.errno in REFUSAL or (not moment.errno and not moment.moved)
