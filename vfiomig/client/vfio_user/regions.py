"""What a server says of its regions, asked for once, and the files that it passes.

Offsets on the handle are the region's index shifted, as vfio-pci has it; the server's
own ``offset`` is the region's place in its file, and stays here.
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.client.region import areas_of
from vfiomig.client.vfio_user import requests
from vfiomig.client.vfio_user.channel import close_all
from vfiomig.protocol.errors import VendorDriverError
from vfiomig.protocol.vfio_user.messages import REGION_INFO_SIZE, RegionInfo

if TYPE_CHECKING:
    from vfiomig.client.vfio_user.session import Session
    from vfiomig.protocol.region import SparseMmapArea

OFFSET_SHIFT: Final = 40
OFFSET_MASK: Final = (1 << OFFSET_SHIFT) - 1
END_OF_OFFSETS: Final = 1 << 63

# More than any chain takes: so a region costs one round trip.
_ROOM: Final = 4096
_MOST_ROOM: Final = 32 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A region: its info as an ioctl tells it, and its file, which is ours.

    ``info`` has its chain, and the handle's offset; ``start`` is that of the region in
    ``fd``, which is -1 where the server gave no file.
    """

    info: bytes
    areas: tuple[SparseMmapArea, ...]
    fd: int
    start: int

    def file_of(self, length: int, place: int) -> tuple[int, int]:
        """Return the file behind a part of an area, and the part's place in it.

        Raises:
            OSError: EINVAL: it is not in one area, or not aligned to pages, or the
                file ends before it; who touched that would be killed.  ENODEV: there is
                no file.
        """
        what = f"{length:#x} bytes at {place:#x}"
        if length <= 0 or place % mmap.PAGESIZE:
            _refuse(f"no mapping of {what}")
        if not any(
            area.offset <= place and place + length <= area.offset + area.size
            for area in self.areas
        ):
            _refuse(f"no area that can be mapped has {what}")
        if self.fd < 0:
            message = f"the server gave no file to map {what} of"
            raise OSError(errno.ENODEV, message)
        end = self.start + place + length
        if os.fstat(self.fd).st_size < end:
            _refuse(f"the server's file ends before {what} of the region")
        return self.fd, self.start + place


class Regions:
    """The regions of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[int, Region] = {}

    def region(self, index: int, access: str) -> Region:
        """Return a region; ``access`` is what it is needed for.

        Raises:
            OSError: the server's errno.
            DriverLostError: the session is over.
        """
        self._session.require_open()
        known = self._known.get(index)
        if known is None:
            known = self._known[index] = self._ask(index, access)
        return known

    def forget(self, index: int) -> None:
        """See that a region is asked for again when it is needed."""
        known = self._known.pop(index, None)
        if known is not None and known.fd >= 0:
            close_all((known.fd,))

    def close(self) -> None:
        """Close the files; a mapping keeps its own."""
        close_all(region.fd for region in self._known.values() if region.fd >= 0)
        self._known.clear()

    def _ask(self, index: int, access: str) -> Region:
        ask = self._session.ask
        info, fd = ask(requests.region_info(index, _ROOM, access, most=_MOST_ROOM))
        if info.argsz > _ROOM:
            if fd is not None:
                close_all((fd,))
            room = info.argsz
            info, fd = ask(requests.region_info(index, room, access, most=room))
        if info.size <= OFFSET_MASK + 1:
            return _region(info, fd)
        if fd is not None:
            close_all((fd,))
        message = f"region {index} has {info.size:#x} bytes: no offset leads to all"
        raise OSError(errno.EOVERFLOW, message)


def split_offset(offset: int) -> tuple[int, int]:
    """Return region and place of an offset of the handle; OSError(EINVAL) for none."""
    if not 0 <= offset < END_OF_OFFSETS:
        _refuse(f"no region lies at {offset:#x}")
    return offset >> OFFSET_SHIFT, offset & OFFSET_MASK


def _region(info: RegionInfo, fd: int | None) -> Region:
    told = replace(
        info,
        argsz=REGION_INFO_SIZE + len(info.capabilities),
        offset=info.index << OFFSET_SHIFT,
    )
    areas = _areas_of(told)
    if fd is not None and not areas:
        close_all((fd,))
        fd = None
    return Region(
        info=told.encode(),
        areas=areas,
        fd=-1 if fd is None else fd,
        start=info.offset,
    )


def _areas_of(info: RegionInfo) -> tuple[SparseMmapArea, ...]:
    """List what can be mapped; nothing, where the chain cannot be followed.

    Who looks for the migration region is told so by what `ioctl` gives.
    """
    try:
        return areas_of(info.encode())
    except VendorDriverError:
        return ()


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
