"""Checks of how a device says that it can migrate, and of its region's shape.

Rule 1: the host makes the region's capability chain, so nothing here looks at it: a
history shows the size and the areas of a region, and no driver can break the rest.

Rule 2: a reserved bit that the user application has written is its own; only bits
that a driver sets by itself are the driver's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.ruling import HELD, Broken, witness
from vfiomig.protocol.v1.registers import REGISTERS_SIZE

if TYPE_CHECKING:
    from vfiomig.conformance.moment import Moment
    from vfiomig.conformance.ruling import Remembering, Ruling

_NDMA: Final = 1 << 3  # proposed in December 2021, never merged


def data_section_follows(moment: Moment) -> Ruling | None:
    """Room for data follows the registers.

    Premise: the device was opened (V1-DISC-05).
    """
    size = moment.region.size
    if size > REGISTERS_SIZE:
        return HELD
    return Broken(
        expected=f"a migration region of more than {REGISTERS_SIZE:#x} bytes",
        actual=f"a migration region of {size:#x} bytes",
        witnesses=(witness(moment),),
        because=(
            f"the registers take {REGISTERS_SIZE:#x} bytes, and data follows them;",
            f"however, the region that A offers has {size:#x} bytes: a contradiction.",
        ),
    )


def reset_supported(moment: Moment) -> Ruling | None:
    """VFIO_DEVICE_RESET succeeds.

    Premise: the user application asked for it while it had the device open
    (V1-DISC-07).
    """
    if moment.errno == errno.EBADF:
        return None
    if moment.ok:
        return HELD
    return Broken(
        expected="the reset succeeds",
        actual=moment.text,
        witnesses=(witness(moment),),
        because=(
            "only a reset takes a device out of ERROR, so each device needs one;",
            "however, A failed: a contradiction.",
        ),
    )


def no_ndma_bit() -> Remembering:
    """Bit 3 of device_state reads as zero.

    Premise: the user application never wrote it, nor parts of device_state: what it
    wrote itself may be handed back to it (V1-DISC-08).
    """
    is_written = False
    ruling: Ruling | None = None
    while True:
        moment = yield ruling
        ruling = None
        if moment.kind is not kinds.READ_DEVICE_STATE:
            is_written = is_written or _may_write_ndma(moment)
        elif moment.value is not None and not is_written:
            ruling = _ndma_bit(moment, moment.value)


def _may_write_ndma(moment: Moment) -> bool:
    if moment.kind is kinds.WRITE_ODD:
        return moment.offset < 4  # device_state is the first four bytes
    return moment.value is None or bool(moment.value & _NDMA)


def _ndma_bit(moment: Moment, value: int) -> Ruling:
    if not value & _NDMA:
        return HELD
    return Broken(
        expected="device_state with bit 3 clear",
        actual=f"device_state = {value:#x}",
        witnesses=(witness(moment),),
        because=(
            "the user application never wrote bit 3, which is reserved;",
            f"however, A has device_state = {value:#x}: a contradiction.",
        ),
    )


CHECKS: Final = {
    data_section_follows: (kinds.OPEN,),
    reset_supported: (kinds.RESET,),
    no_ndma_bit: (kinds.READ_DEVICE_STATE, kinds.WRITE_DEVICE_STATE, kinds.WRITE_ODD),
}
