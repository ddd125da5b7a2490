"""Checks of the sparse mmap areas of a data section (specs/v1/sparse_mmap.toml).

Rule 1: pages are of 4096 bytes here.  Where they are larger, what is not a multiple
of 4096 is no multiple of theirs either, so nobody is accused in vain.

Rule 2: what went through a mapping was not seen, and is not judged.
"""

from __future__ import annotations

import errno
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from vfiomig.conformance import kinds
from vfiomig.conformance.data_accesses import (
    is_mappable,
    meets_area,
    starts_in_area,
)
from vfiomig.conformance.moment import during
from vfiomig.conformance.position import SAVING, WITH_BUFFER
from vfiomig.conformance.ruling import HELD, Broken, Remembering, Ruling, witness
from vfiomig.protocol.v1.registers import REGISTERS_SIZE
from vfiomig.protocol.v1.states import DeviceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.moment import Moment
    from vfiomig.protocol.history import RegionShape

_PAGE: Final = 4096

# The user application's own limits, or its host's: no driver can help them.
_SHORTAGES: Final = frozenset(
    {
        errno.ENOMEM,
        errno.EAGAIN,
        errno.EINTR,
        errno.EMFILE,
        errno.ENFILE,
        errno.EBADF,
        errno.EOVERFLOW,
    }
)


def listed_areas_can_be_mapped(moment: Moment) -> Ruling | None:
    """Whole pages inside one listed area can be mapped.

    Premise: the area has whole pages, and the failure is no shortage on the user
    application's side (V1-MMAP-02).
    """
    area = _area_around(moment)
    if area is None or area[0] % _PAGE or area[1] % _PAGE or moment.offset % _PAGE:
        return None
    if moment.ok:
        return HELD
    if not moment.errno or moment.errno in _SHORTAGES:
        return None
    return Broken(
        expected="a mapping",
        actual="an errno",
        witnesses=(witness(moment),),
        because=(
            f"the range of A lies in the listed area {_range(*area)}",
            "however, A failed",
        ),
    )


def _area_around(moment: Moment) -> tuple[int, int] | None:
    start, end = moment.offset, moment.offset + moment.size
    for offset, size in moment.region.areas:
        if moment.size and offset <= start and end <= offset + size:
            return offset, size
    return None


def mapped_chunk_page_aligned(moment: Moment) -> Ruling | None:
    """data_offset is a multiple of the page size where it lies in a listed area.

    Premise: a buffer with bytes in it begins there: in saving, pending_bytes was not
    0 and data_size is read behind data_offset; in RESUMING, data_size is written
    (V1-MMAP-03).
    """
    if not moment.value:
        return None
    position = moment.position
    if moment.kind is kinds.WRITE_DATA_SIZE:
        start = position.load_offset
    elif position.buffer is not None and position.pending:
        # Once a buffer: later reads of data_size say nothing new.
        start = position.buffer.offset if position.buffer.size is None else None
    else:
        start = None
    if start is None or not starts_in_area(moment, start):
        return None
    if not start % _PAGE:
        return HELD
    return Broken(
        expected=f"data_offset = a multiple of {_PAGE:#x}",
        actual=f"data_offset = {start:#x}",
        witnesses=(witness(moment),),
        because=(
            f"A is of a buffer that begins at {start:#x}, in a sparse mmap area",
            f"however, data_offset = {start:#x} is inside a page",
        ),
    )


def reads_work_without_mapping() -> Remembering:
    """Trapped reads work where a buffer could be mapped as well.

    Premise: the current buffer's place and size were read in saving, the read lies
    in it, no fault is armed, and no access of the session failed.  Where such a read
    did succeed before, a later failure is not about mapping (V1-MMAP-05).
    """
    why = "the range of A lies in the current buffer, and some of it in a listed area"
    yield from _readable(is_mappable, why)


def only_listed_areas_mapped(moment: Moment) -> Ruling | None:
    """Nothing is mapped but listed areas (V1-MMAP-06).

    Premise: none; areas that touch each other count as one.
    """
    start, end = moment.offset, moment.offset + moment.size
    for offset, size in sorted(moment.region.areas):
        if offset <= start < offset + size:
            start = offset + size
    if start >= end:
        return HELD
    return Broken(
        expected="a range inside the listed areas",
        actual=_range(moment.offset, moment.size),
        witnesses=(witness(moment),),
        because=(
            "the sparse mmap capability lists "
            + (", ".join(_range(*area) for area in moment.region.areas) or "no area"),
            f"however, A maps {start:#x} as well",
        ),
    )


def areas_well_formed(moment: Moment) -> Ruling | None:
    """Areas are whole pages in the region, apart from each other and the registers.

    Premise: there are areas (V1-MMAP-07).
    """
    if not moment.region.areas:
        return None
    flaw = _flaw_in(moment.region)
    return HELD if flaw is None else _malformed(moment, *flaw)


@lru_cache(maxsize=64)  # one region is opened again and again
def _flaw_in(region: RegionShape) -> tuple[str, str] | None:
    """Return the first area that is not well formed, and what is wrong with it."""
    areas = sorted(region.areas)
    for offset, size in areas:
        if flaw := _flaw_of(offset, size, region.size):
            return _range(offset, size), flaw
    for one, other in pairwise(areas):
        if one[0] + one[1] > other[0]:
            return _range(*other), f"it overlaps {_range(*one)}"
    return None


def _flaw_of(offset: int, size: int, region: int) -> str:
    if not size:
        return "it is empty"
    if offset < REGISTERS_SIZE:
        return "it covers the registers"
    if offset % _PAGE or size % _PAGE:
        return "it is not of whole pages"
    if offset + size > region:
        return f"it leaves the region of {region:#x} bytes"
    return ""


def _malformed(moment: Moment, area: str, flaw: str) -> Broken:
    return Broken(
        expected="areas of whole pages in the data section that do not overlap",
        actual=f"the area {area}",
        witnesses=(witness(moment),),
        because=(f"the region lists the area {area}", f"however, {flaw}"),
    )


def straddling_chunk_readable() -> Remembering:
    """Where a buffer lies partly in an area, its other part can be read.

    Premise: as that of `reads_work_without_mapping`, and the read lies outside of
    the areas (V1-MMAP-08).
    """
    why = "the range of A lies in the current buffer, and another part of it in an area"
    yield from _readable(_is_beside_area, why)


def _readable(is_meant: Callable[[Moment], bool], why: str) -> Remembering:
    ruling: Ruling | None = None
    has_worked = False
    while True:
        moment = yield ruling
        ruling = None
        if not is_meant(moment) or not _reads_buffer(moment):
            continue
        if moment.ok:
            has_worked = True
            ruling = HELD
        elif moment.errno and not has_worked:
            ruling = Broken(
                expected=f"{moment.size} bytes of the buffer",
                actual="an errno",
                witnesses=(witness(moment),),
                because=(why, "however, A failed"),
            )


def _reads_buffer(moment: Moment) -> bool:
    """Tell whether a trapped read is one that the driver owes an answer to."""
    position, buffer = moment.position, moment.position.buffer
    if buffer is None or buffer.size is None or not position.pending:
        return False
    if moment.unseen or position.armed or position.has_failed or not moment.size:
        return False
    end = min(buffer.offset + buffer.size, moment.region.size)
    return buffer.offset <= moment.offset and moment.offset + moment.size <= end


def _is_beside_area(moment: Moment) -> bool:
    buffer = moment.position.buffer
    if buffer is None or buffer.size is None or is_mappable(moment):
        return False
    return meets_area(moment, buffer.offset, buffer.offset + buffer.size)


def _range(offset: int, size: int) -> str:
    return f"{offset:#x} to {offset + size:#x}"


CHECKS: Final = {
    listed_areas_can_be_mapped: (kinds.MMAP,),
    mapped_chunk_page_aligned: (
        *during(WITH_BUFFER, kinds.READ_DATA_SIZE, ok=True),
        *during((DeviceState.RESUMING,), kinds.WRITE_DATA_SIZE, ok=True),
    ),
    reads_work_without_mapping: during(SAVING, kinds.READ_DATA),
    only_listed_areas_mapped: (kinds.MMAP,),
    areas_well_formed: (kinds.OPEN,),
    straddling_chunk_readable: during(SAVING, kinds.READ_DATA),
}
