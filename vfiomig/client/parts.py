"""How a range of the data section is reached: mapped parts, and pieces of the rest.

These are QEMU's rules (get_data_section_size and vfio_mig_rw of 7.2), as arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vfiomig.protocol.region import SparseMmapArea


class Part(NamedTuple):
    """``size`` bytes at ``offset`` of the region, all in ``area`` or all trapped."""

    area: SparseMmapArea | None
    offset: int
    size: int


def parts_of(offset: int, size: int, areas: Iterable[SparseMmapArea]) -> Iterator[Part]:
    """Split a range where an area begins or ends, in the order of its bytes.

    Where areas overlap, the one that is listed first counts.
    """
    end = offset + size
    while offset < end:
        area = _area_at(offset, areas)
        if area is not None:
            stop = min(end, area.offset + area.size)
        else:
            stop = min([end, *(a.offset for a in areas if a.offset > offset)])
        yield Part(area, offset, stop - offset)
        offset = stop


def pieces_of(position: int, size: int, widths: tuple[int, ...]) -> list[int]:
    """Return the widths in which ``size`` bytes at ``position`` of the fd are moved.

    Each is the widest of ``widths`` that fits what is left and divides the position;
    without widths it is one piece.
    """
    if not widths:
        return [size]
    widest = widths[0]
    lead = min(-position % widest, size)
    many, rest = divmod(size - lead, widest)
    return [
        *_narrow(position, lead, widths),
        *[widest] * many,
        *_narrow(0, rest, widths),  # behind the widest any position divides
    ]


def _narrow(position: int, size: int, widths: tuple[int, ...]) -> Iterator[int]:
    while size:
        width = next(w for w in widths if size >= w and position % w == 0)
        yield width
        position += width
        size -= width


def _area_at(offset: int, areas: Iterable[SparseMmapArea]) -> SparseMmapArea | None:
    for area in areas:
        if area.offset <= offset < area.offset + area.size:
            return area
    return None
