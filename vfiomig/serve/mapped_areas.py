"""The memory behind the areas of a data section, for a program to map.

Shared: the program maps the driver's own file, and nothing is ever copied.  It must be
one file, laid out as the region is or with more in front, and there must be nothing in
it but the areas, for a program can reach all of it.  It is sealed, so that a hostile
program cannot truncate it under the driver, or forbid the driver to write.

Mirrored: for all others a file of ours, laid out as the region is.  What is pending is
copied into it when data_size is read, and out of it when data_size is written: only
then, by the protocol, must each side see what the other wrote (V1-SAVE, V1-RES).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from vfiomig.protocol.errors import DriverDiedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

# The last forbids more of them: one against writing would hit the driver.
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


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
    """Return what can be had, of one region with areas.

    Raises:
        DriverDiedError: there is no such file, or not all of an area in it.
    """
    for area, fd, offset in places:
        if os.fstat(fd).st_size < offset + area.size:
            access = f"mmap of {area.size:#x} bytes at {area.offset:#x}"
            raise DriverDiedError(access, "the file it gave", "the file is shorter")
    return _shared(places) or MirroredAreas(region, places)


class SharedAreas:
    """The driver's own file; ``fd`` is ours from now on."""

    def __init__(self, fd: int, base: int) -> None:
        self.fd = fd
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
    try:
        fd = _reopened(places[0].fd)
    except OSError:
        return None
    if _is_sealed(fd) and _holds_nothing_else(fd, places):
        return SharedAreas(fd, bases.pop())
    os.close(fd)
    return None


def _reopened(fd: int) -> int:
    """Open a file once more: a program could move the position of the driver's own."""
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    return os.open(f"/proc/self/fd/{fd}", mode | os.O_CLOEXEC)


def _is_sealed(fd: int) -> bool:
    """Seal a file if it is not; some refuse."""
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        return False
    return True


def _holds_nothing_else(fd: int, places: Sequence[Place]) -> bool:
    """Tell whether all that there is of a file lies in areas, and holes between."""
    end = 0
    for start, stop in sorted((at, at + area.size) for area, _, at in places):
        if _next_data(fd, end) < start:
            return False
        end = stop
    return os.fstat(fd).st_size <= end


def _next_data(fd: int, offset: int) -> int:
    """Return where the next byte is that is not in a hole; the end for none."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError:  # ENXIO
        return os.fstat(fd).st_size


class MirroredAreas:
    """A file of ours, and the driver's memory beside it."""

    base = 0

    def __init__(self, region: MigrationRegion, places: Sequence[Place]) -> None:
        self.fd = os.memfd_create("vfiomig", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._ours: list[mmap.mmap] = []
        self._theirs: list[int] = []
        self._places = places
        try:
            os.ftruncate(self.fd, -(-region.size // mmap.PAGESIZE) * mmap.PAGESIZE)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            for area, fd, _ in places:
                self._ours.append(_mapped(self.fd, area))
                self._theirs.append(os.dup(fd))
        except BaseException:
            self.close()
            raise

    def before_data_is_read(self, offset: int, size: int) -> None:
        """Copy a range from the driver's memory into ours."""
        for number, part in self._parts(offset, size):
            at = self._places[number].offset + part.start
            with memoryview(self._ours[number]) as ours, ours[part] as room:
                _require_all(os.preadv(self._theirs[number], [room], at), part)

    def before_data_is_taken(self, offset: int, size: int) -> None:
        """Copy a range from our memory into the driver's."""
        for number, part in self._parts(offset, size):
            at = self._places[number].offset + part.start
            with memoryview(self._ours[number]) as ours, ours[part] as data:
                _require_all(os.pwrite(self._theirs[number], data, at), part)

    def written(self, offset: int, data: bytes) -> None:
        """Keep our memory equal where the driver took a trapped write."""
        for number, part in self._parts(offset, len(data)):
            start = self._places[number].area.offset + part.start - offset
            self._ours[number][part] = data[start : start + part.stop - part.start]

    def close(self) -> None:
        """Let files and mappings go."""
        for each in self._ours:
            each.close()
        for fd in (*self._theirs, self.fd):
            os.close(fd)

    def _parts(self, offset: int, size: int) -> Iterator[tuple[int, slice]]:
        """Yield each area that a range of the region touches, and where in it."""
        for number, (area, _, _) in enumerate(self._places):
            start = max(offset, area.offset)
            end = min(offset + size, area.offset + area.size)
            if start < end:
                yield number, slice(start - area.offset, end - area.offset)


def _mapped(fd: int, area: SparseMmapArea) -> mmap.mmap:
    try:
        return mmap.mmap(fd, area.size, offset=area.offset)
    except (ValueError, OverflowError, OSError) as error:
        access = f"mmap of {area.size:#x} bytes at {area.offset:#x}"
        why = f"{type(error).__name__}: {error}"
        raise DriverDiedError(access, "its migration_region", why) from error


def _require_all(moved: int, part: slice) -> None:
    """Raise OSError(EIO) unless all of a part was copied: the file was truncated."""
    if moved < part.stop - part.start:
        raise OSError(errno.EIO, "the file behind the data section is shorter")
