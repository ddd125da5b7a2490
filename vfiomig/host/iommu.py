"""The IO address space of a container: what devices reach by IOVA, and what they wrote.

Rule 1: a mapping leads to the memory of the process that made it, at the address that
it gave.  Whether there is memory shows when a device goes there, not before.

Rule 2: while there is tracking, each mapping has a log, and what was written is logged
even if the write failed half-way.  A page too many is allowed, one too few is not
(DIRTY-SEM-01).

Rule 3: a request that fails changes nothing.  So all that can be refused is refused
first, then bitmaps go to the user, and only then are logs cleared or mappings removed.
The kernel does the last two mapping by mapping, and so may lose the log of earlier
ones when a later one's bitmap cannot be written.

There are no pinned pages: devices come by `dma_read` and `dma_write` alone.
"""

from __future__ import annotations

import errno
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, NoReturn

from vfiomig.protocol.dirty_bitmap import (
    MAX_PAGES,
    WORD_BYTES,
    DirtyLog,
    bitmap_size,
    holds,
    place_of,
    smallest_page,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vfiomig.host.user_memory import UserMemory

_ADDRESSES: Final = 1 << 64


class IovaRange(NamedTuple):
    """IOVAs that can be mapped, both ends included."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IommuLimits:
    """What an IOMMU can do.

    ``page_sizes`` has a bit for each size in bytes; only the smallest counts.  The
    defaults are those of an x86 with 48 bits: the hole is where its interrupts go.
    ``max_log_bytes`` are for the logs of all mappings together: a user may map far more
    than there is, and they are our memory.  The default is enough for 16 TiB.
    """

    page_sizes: int = 0xFFFF_FFFF_FFFF_F000
    iova_ranges: tuple[IovaRange, ...] = (
        IovaRange(0, 0xFEDF_FFFF),
        IovaRange(0xFEF0_0000, (1 << 48) - 1),
    )
    max_mappings: int = 65535
    max_log_bytes: int = 512 << 20


DEFAULT_LIMITS: Final = IommuLimits()


@dataclass(slots=True, kw_only=True, eq=False)
class Mapping:
    """A range of IOVAs and the memory behind it; with a log while there is tracking."""

    iova: int
    size: int
    vaddr: int
    memory: UserMemory
    is_readable: bool
    is_writable: bool
    log: DirtyLog | None = None

    @property
    def end(self) -> int:
        """The IOVA behind its last byte."""
        return self.iova + self.size


class UserBitmap(NamedTuple):
    """Where a user has room for a bitmap: ``struct vfio_bitmap`` in its memory."""

    memory: UserMemory
    pgsize: int
    size: int  # in bytes
    address: int


class Iommu:
    """The mappings of one container.

    Without ``is_v2`` unmapping is as vague as that of VFIO_TYPE1_IOMMU.  ``make_log``
    is there to be another in a mutant.
    """

    make_log: ClassVar[type[DirtyLog]] = DirtyLog

    def __init__(self, limits: IommuLimits = DEFAULT_LIMITS, *, is_v2: bool) -> None:
        self.limits = limits
        self.is_v2 = is_v2
        self.is_tracking = False
        self._mappings: list[Mapping] = []  # by iova, as are their starts beside them
        self._starts: list[int] = []
        self._silent_groups = 0

    # -- what there is -------------------------------------------------------------

    @property
    def page_size(self) -> int:
        """The smallest page size: that of alignment and of dirty bitmaps."""
        return smallest_page(self.limits.page_sizes)

    @property
    def available(self) -> int:
        """How many more mappings there can be."""
        return self.limits.max_mappings - len(self._mappings)

    @property
    def log_bytes(self) -> int:
        """Memory that all logs take."""
        return sum(each.log.nbytes for each in self._mappings if each.log is not None)

    def attach(self, *, is_logged: bool) -> None:
        """Let a group in; one that is not logged writes behind the host's back."""
        self._silent_groups += not is_logged

    def detach(self, *, is_logged: bool) -> None:
        """Let go of a group; what one that is not logged wrote may be anything."""
        self._silent_groups -= not is_logged
        if not is_logged:
            self._mark_everything()

    # -- mapping -------------------------------------------------------------------

    def map(self, mapping: Mapping) -> None:
        """Add a mapping (DIRTY-MAP-01); it is tracked from now on if there is tracking.

        Raises:
            OSError: EINVAL, EEXIST, ENOSPC.
        """
        self._require_mappable(mapping)
        self._require_free(mapping)
        if self.available <= 0:
            _refuse(errno.ENOSPC, f"no more than {self.limits.max_mappings} mappings")
        self._require_in_a_range(mapping)
        if self.is_tracking:
            mapping.log = self._new_log(mapping, self.log_bytes)
        index = self._first_behind(mapping.iova)
        self._mappings.insert(index, mapping)
        self._starts.insert(index, mapping.iova)

    def unmap(self, iova: int, size: int, bitmap: UserBitmap | None = None) -> int:
        """Remove the mappings in a range and return their bytes; 0 if none is there.

        Their logs are laid into ``bitmap`` before (DIRTY-UNMAP-01, DIRTY-UNMAP-02).

        Raises:
            OSError: EINVAL; EFAULT for a bitmap that cannot be written.
        """
        self._require_pages(iova, size)
        if iova + size > _ADDRESSES:
            _refuse(errno.EINVAL, f"{size:#x} bytes from {iova:#x} on wrap")
        if bitmap is not None:
            self._require_bitmap(bitmap, size)
        going = self._whole(iova, size) if self.is_v2 else self._begun_in(iova, size)
        if bitmap is not None:
            self._lay(going, iova, bitmap)
        return self._remove(going)

    def unmap_all(self) -> int:
        """Remove every mapping and return their bytes."""
        return self._remove(tuple(self._mappings))

    # -- dirty tracking ------------------------------------------------------------

    def start_tracking(self) -> None:
        """Give each mapping a log; nothing happens if they have one (DIRTY-OP-03).

        Raises:
            OSError: EINVAL for a mapping of too many pages, ENOMEM.
        """
        if self.is_tracking:
            return
        logs: list[DirtyLog] = []
        taken = 0
        for mapping in self._mappings:
            logs.append(self._new_log(mapping, taken))
            taken += logs[-1].nbytes
        for mapping, log in zip(self._mappings, logs, strict=True):
            mapping.log = log
        self.is_tracking = True

    def stop_tracking(self) -> None:
        """Forget every log; nothing happens if there is none (DIRTY-OP-04)."""
        for mapping in self._mappings:
            mapping.log = None
        self.is_tracking = False

    def get_bitmap(self, iova: int, size: int, bitmap: UserBitmap) -> None:
        """Lay the logs of a range into a bitmap, and clear them (DIRTY-GET-01 to -08).

        Raises:
            OSError: EINVAL; EFAULT for a bitmap that cannot be written.
        """
        self._require_end(iova, size)
        self._require_bitmap(bitmap, size)
        self._require_pages(iova, size)
        mappings = self._whole(iova, size)
        self._lay(mappings, iova, bitmap)
        self._clear(mappings)

    # -- what devices do -----------------------------------------------------------

    def dma_read(self, iova: int, size: int) -> bytes:
        """Return ``size`` bytes, over mappings that touch.

        Raises:
            OSError: EFAULT where nothing is mapped to be read, or no memory is.
        """
        pieces = []
        for mapping, offset, length in self._pieces(iova, size):
            if not mapping.is_readable:
                _refuse(errno.EFAULT, f"{_range(mapping)} is mapped to be written only")
            pieces.append(mapping.memory.read(mapping.vaddr + offset, length))
        return b"".join(pieces)

    def dma_write(
        self, iova: int, data: bytes | memoryview, *, is_logged: bool = True
    ) -> None:
        """Put ``data`` there, over mappings that touch, and log it.

        What lies before the place that fails has been written, and is logged.

        Raises:
            OSError: EFAULT where nothing is mapped to be written, or no memory is.
        """
        view = memoryview(data).cast("B")
        done = 0
        for mapping, offset, length in self._pieces(iova, len(view)):
            if not mapping.is_writable:
                _refuse(errno.EFAULT, f"{_range(mapping)} is mapped to be read only")
            try:
                mapping.memory.write(mapping.vaddr + offset, view[done : done + length])
            finally:
                if is_logged and mapping.log is not None:
                    mapping.log.mark(offset, length)
            done += length

    def _pieces(self, iova: int, size: int) -> Iterator[tuple[Mapping, int, int]]:
        """Cut a range where mappings end: mapping, offset in it, bytes."""
        while size > 0:
            index = self._first_behind(iova)
            if index == len(self._mappings) or self._starts[index] > iova:
                _refuse(errno.EFAULT, f"nothing is mapped at {iova:#x}")
            mapping = self._mappings[index]
            length = min(size, mapping.end - iova)
            yield mapping, iova - mapping.iova, length
            iova += length
            size -= length

    # -- which mappings ------------------------------------------------------------

    def _first_behind(self, iova: int) -> int:
        """Return the index of the first mapping that ends behind an IOVA."""
        index = bisect_right(self._starts, iova)
        if index and self._mappings[index - 1].end > iova:
            return index - 1
        return index

    def _overlapping(self, iova: int, size: int) -> Sequence[Mapping]:
        end = bisect_left(self._starts, iova + size)
        return self._mappings[self._first_behind(iova) : end]

    def _whole(self, iova: int, size: int) -> Sequence[Mapping]:
        """Return the mappings in a range that cuts none in two (DIRTY-GET-05)."""
        found = self._overlapping(iova, size)
        if found and (found[0].iova < iova or found[-1].end > iova + size):
            _refuse(errno.EINVAL, f"{size:#x} bytes from {iova:#x} on cut a mapping")
        return found

    def _begun_in(self, iova: int, size: int) -> Sequence[Mapping]:
        """Return what v1 unmaps: all that begin in the range, if the first does."""
        found = self._overlapping(iova, size)
        return found if found and found[0].iova >= iova else ()

    def _remove(self, going: Sequence[Mapping]) -> int:
        """Remove mappings that are neighbours, and return their bytes."""
        if going:
            index = bisect_left(self._starts, going[0].iova)
            gone = slice(index, index + len(going))
            del self._mappings[gone], self._starts[gone]
        return sum(mapping.size for mapping in going)

    # -- logs ----------------------------------------------------------------------

    def _new_log(self, mapping: Mapping, taken: int) -> DirtyLog:
        pages = mapping.size // self.page_size
        room = self.limits.max_log_bytes - taken
        if pages <= MAX_PAGES and bitmap_size(pages) > room:
            _refuse(errno.ENOMEM, f"no log for {_range(mapping)}: {room} bytes left")
        try:
            return self.make_log(mapping.size, self.page_size)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from None
        except MemoryError:
            raise OSError(errno.ENOMEM, f"no log for {_range(mapping)}") from None

    def _clear(self, mappings: Sequence[Mapping]) -> None:
        for mapping in mappings:
            if mapping.log is not None:
                mapping.log.clear()

    def _mark_everything(self) -> None:
        for mapping in self._mappings:
            if mapping.log is not None:
                mapping.log.mark_all()

    def _lay(self, mappings: Sequence[Mapping], base: int, bitmap: UserBitmap) -> None:
        for mapping in mappings:
            if mapping.log is None:
                continue
            if self._silent_groups:
                mapping.log.mark_all()  # DIRTY-GET-09
            self._lay_one(mapping.log, mapping.iova, base, bitmap)

    def _lay_one(self, log: DirtyLog, iova: int, base: int, bitmap: UserBitmap) -> None:
        place = place_of(iova, base, self.page_size)
        address = bitmap.address + place.byte
        word = bitmap.memory.read(address, WORD_BYTES) if place.bit else b""
        self._to_user(bitmap, address, log.laid_at(place.bit, word))

    def _to_user(
        self, bitmap: UserBitmap, address: int, words: bytes | memoryview
    ) -> None:
        bitmap.memory.write(address, words)

    # -- what is refused -----------------------------------------------------------

    def _require_mappable(self, mapping: Mapping) -> None:
        self._require_pages(mapping.iova | mapping.vaddr, mapping.size)
        for start in (mapping.iova, mapping.vaddr):
            if start + mapping.size > _ADDRESSES:
                _refuse(errno.EINVAL, f"{mapping.size:#x} bytes from {start:#x} wrap")

    def _require_pages(self, start: int, size: int) -> None:
        if not size or (start | size) % self.page_size:
            what = f"{size:#x} bytes from {start:#x} on"
            _refuse(errno.EINVAL, f"{what}: not pages of {self.page_size:#x} bytes")

    def _require_in_a_range(self, mapping: Mapping) -> None:
        for start, end in self.limits.iova_ranges:
            if start <= mapping.iova and mapping.end - 1 <= end:
                return
        _refuse(errno.EINVAL, f"{_range(mapping)} is not in a range for IOVAs")

    def _require_free(self, mapping: Mapping) -> None:
        if self._overlapping(mapping.iova, mapping.size):
            _refuse(errno.EEXIST, f"something is mapped in {_range(mapping)}")

    def _require_end(self, iova: int, size: int) -> None:
        """Refuse a range whose end is no u64: also one up to the very last byte."""
        if iova + size >= _ADDRESSES:
            _refuse(errno.EINVAL, f"{size:#x} bytes from {iova:#x} on wrap")

    def _require_bitmap(self, bitmap: UserBitmap, size: int) -> None:
        self._require_tracking()
        if bitmap.pgsize != self.page_size:  # before anything is divided by it
            _refuse(errno.EINVAL, f"pages of {bitmap.pgsize:#x} bytes are not tracked")
        self._require_room(bitmap, size)

    def _require_tracking(self) -> None:
        if not self.is_tracking:
            _refuse(errno.EINVAL, "there is no dirty tracking")

    def _require_room(self, bitmap: UserBitmap, size: int) -> None:
        if not holds(bitmap.size, size, bitmap.pgsize):
            _refuse(errno.EINVAL, f"a bitmap of {bitmap.size} bytes for {size:#x}")
        if bitmap.address + bitmap.size > _ADDRESSES:
            _refuse(errno.EINVAL, f"a bitmap at {bitmap.address:#x} wraps")


def _range(mapping: Mapping) -> str:
    return f"{mapping.iova:#x}..{mapping.end - 1:#x}"


def _refuse(code: int, why: str) -> NoReturn:
    raise OSError(code, why)
