"""The memory behind the areas of a data section, for a program to map.

Shared: the program maps the driver's own file, and nothing is ever copied.  It must be
one file, laid out as the region is or with more in front, and sealed, so that a hostile
program cannot truncate it under the driver.

Mirrored: for all others a file of ours, laid out as the region is.  What is pending is
copied into it when data_size is read, and out of it when data_size is written: only
then, by the protocol, must each side see what the other wrote (V1-SAVE, V1-RES).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

_SIZE_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class Place(NamedTuple):
    """Where the memory of an area is: a file of the driver, and the offset there."""

    area: SparseMmapArea
    fd: int
    offset: int


class MappedAreas(Protocol):
    """What a program maps; ``base`` is where the region begins in the file ``fd``."""

    @property
    def fd(self) -> int:
        """The file that the program gets."""

    @property
    def base(self) -> int:
        """The offset of the region in it."""

    def before_data_is_read(self, offset: int, size: int) -> None:
        """Show the program what the driver has put there."""

    def before_data_is_taken(self, offset: int, size: int) -> None:
        """Show the driver what the program has put there."""

    def written(self, offset: int, data: bytes) -> None:
        """Note what went to the driver by a trapped write."""

    def close(self) -> None:
        """Let the file go."""


def mapped_areas(region: MigrationRegion, places: Sequence[Place]) -> MappedAreas:
    """Return what can be had, of one region with areas."""
    return _shared(places) or MirroredAreas(region, places)


class SharedAreas:
    """The driver's own file, under an fd of ours."""

    def __init__(self, fd: int, base: int) -> None:
        self.fd = os.dup(fd)
        self.base = base

    def before_data_is_read(self, offset: int, size: int) -> None:
        """Nothing to do: it is the same memory."""

    def before_data_is_taken(self, offset: int, size: int) -> None:
        """Nothing to do: it is the same memory."""

    def written(self, offset: int, data: bytes) -> None:
        """Nothing to do: it is the same memory."""

    def close(self) -> None:
        """Let the file go."""
        os.close(self.fd)


def _shared(places: Sequence[Place]) -> SharedAreas | None:
    """Return the driver's file if a program may have it."""
    identities = {
        (os.fstat(each.fd).st_dev, os.fstat(each.fd).st_ino) for each in places
    }
    bases = {each.offset - each.area.offset for each in places}
    if len(identities) > 1 or len(bases) > 1 or min(bases) < 0:
        return None
    fd = places[0].fd
    try:
        # Refused where the file takes no seals; those that it has are no trouble.
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SIZE_SEALS != _SIZE_SEALS:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except OSError:
        return None
    end = max(each.offset + each.area.size for each in places)
    return SharedAreas(fd, bases.pop()) if os.fstat(fd).st_size >= end else None


class MirroredAreas:
    """A file of ours, and the driver's memory beside it."""

    base = 0

    def __init__(self, region: MigrationRegion, places: Sequence[Place]) -> None:
        self.fd = os.memfd_create("vfiomig", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._ours: list[mmap.mmap] = []
        self._theirs: list[mmap.mmap] = []
        self._areas = [each.area for each in places]
        try:
            os.ftruncate(self.fd, -(-region.size // mmap.PAGESIZE) * mmap.PAGESIZE)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
            for area, fd, place in places:
                self._ours.append(mmap.mmap(self.fd, area.size, offset=area.offset))
                self._theirs.append(mmap.mmap(fd, area.size, offset=place))
        except BaseException:
            self.close()
            raise

    def before_data_is_read(self, offset: int, size: int) -> None:
        """Copy a range from the driver's memory into ours."""
        for number, part in self._parts(offset, size):
            self._ours[number][part] = self._theirs[number][part]

    def before_data_is_taken(self, offset: int, size: int) -> None:
        """Copy a range from our memory into the driver's."""
        for number, part in self._parts(offset, size):
            self._theirs[number][part] = self._ours[number][part]

    def written(self, offset: int, data: bytes) -> None:
        """Keep our memory equal where the driver took a trapped write."""
        for number, part in self._parts(offset, len(data)):
            start = self._areas[number].offset + part.start - offset
            self._ours[number][part] = data[start : start + part.stop - part.start]

    def close(self) -> None:
        """Let file and mappings go."""
        for each in (*self._ours, *self._theirs):
            with contextlib.suppress(BufferError):
                each.close()
        os.close(self.fd)

    def _parts(self, offset: int, size: int) -> Iterator[tuple[int, slice]]:
        """Yield each area that a range of the region touches, and where in it."""
        for number, area in enumerate(self._areas):
            start = max(offset, area.offset)
            end = min(offset + size, area.offset + area.size)
            if start < end:
                yield number, slice(start - area.offset, end - area.offset)
