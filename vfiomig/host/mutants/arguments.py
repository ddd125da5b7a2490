"""Mutants that believe what their user says, or use it before they look at it."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, ClassVar

from vfiomig.host.container import Container
from vfiomig.host.iommu import Iommu, Mapping, UserBitmap
from vfiomig.host.iommu_info import iommu_info

if TYPE_CHECKING:
    from vfiomig.host.user_memory import UserMemory
    from vfiomig.protocol.dirty_bitmap import DirtyLog

__all__ = [
    "AnnouncesEveryPageSize",
    "AnyRoomWillDo",
    "AnyTypeTracks",
    "BitmapOfAll",
    "BitmapWithoutTracking",
    "DividesByAllPages",
    "EndsAnywhere",
    "HugeLogs",
    "PageSizeInAnInt",
    "PageSizeIsScaled",
    "RefusesTooLittleRoom",
    "ShiftsBeforeItLooks",
    "TakesTheLowestOperation",
]

_U64 = (1 << 64) - 1


class PageSizeInAnInt(Iommu):
    """Makes the page size by shifting an int of 32 bits (BUG-IOMMU-04)."""

    violates: ClassVar = frozenset({"iommu/information/dirty-tracking-is-announced"})

    @property
    def page_size(self) -> int:
        """The smallest page size, as x86 shifts it."""
        shift = super().page_size.bit_length() - 1
        return ctypes.c_int(1 << shift % 32).value


class ShiftsBeforeItLooks(Iommu):
    """Shifts by the page size that it is given, and then looks at it (BUG-IOMMU-05).

    A page size of 0 is shifted by -1.
    """

    violates: ClassVar = frozenset(
        {"iommu/get-bitmap/smallest-page-size-only", "iommu/unmapping/bitmap-fits"}
    )

    def _require_bitmap(self, bitmap: UserBitmap, size: int) -> None:
        _ = size >> (bitmap.pgsize & -bitmap.pgsize).bit_length() - 1
        super()._require_bitmap(bitmap, size)


class DividesByAllPages(Iommu):
    """Divides by the bytes that a word covers, as a u64 (BUG-IOMMU-10).

    They are 0 for pages of 2^58 bytes.
    """

    violates: ClassVar = frozenset({"iommu/get-bitmap/smallest-page-size-only"})

    def _require_bitmap(self, bitmap: UserBitmap, size: int) -> None:
        _ = size // (64 * max(bitmap.pgsize, 1) & _U64)
        super()._require_bitmap(bitmap, size)


class PageSizeIsScaled(Iommu):
    """Takes any page size, and answers in its own (BUG-QV1-05, the other side)."""

    violates: ClassVar = frozenset(
        {"iommu/get-bitmap/smallest-page-size-only", "iommu/unmapping/bitmap-fits"}
    )

    def _require_bitmap(self, bitmap: UserBitmap, size: int) -> None:
        super()._require_bitmap(bitmap._replace(pgsize=self.page_size), size)


class AnyRoomWillDo(Iommu):
    """Writes the bitmap that there is into whatever room there is (BUG-QV2-05)."""

    violates: ClassVar = frozenset(
        {"iommu/get-bitmap/room-is-enough", "iommu/unmapping/bitmap-fits"}
    )

    def _require_room(self, bitmap: UserBitmap, size: int) -> None:
        pass


class EndsAnywhere(Iommu):
    """Takes a range that wraps."""

    violates: ClassVar = frozenset({"iommu/get-bitmap/argsz-and-end"})

    def _require_end(self, iova: int, size: int) -> None:
        pass


class BitmapWithoutTracking(Iommu):
    """Answers that nothing is dirty when nothing is tracked."""

    violates: ClassVar = frozenset(
        {"iommu/get-bitmap/needs-tracking", "iommu/unmapping/bitmap-needs-tracking"}
    )

    def _require_tracking(self) -> None:
        pass


class HugeLogs(Iommu):
    """Tracks a mapping of any size, in a log of as many pages as an int has."""

    violates: ClassVar = frozenset({"iommu/tracking/too-many-pages"})

    def _new_log(self, mapping: Mapping, taken: int) -> DirtyLog:
        pages = mapping.size // self.page_size & (1 << 31) - 1
        return self.make_log(pages * self.page_size, self.page_size)


class AnyTypeTracks(Container):
    """Tracks dirty pages for the first type as well."""

    violates: ClassVar = frozenset({"iommu/tracking/only-type1v2"})

    def _require_v2(self, iommu: Iommu) -> None:
        pass


class TakesTheLowestOperation(Container):
    """Does one operation of several that are asked for."""

    violates: ClassVar = frozenset({"iommu/tracking/one-operation"})

    def _operation(self, flags: int) -> int:
        return super()._operation(flags & -flags)


class BitmapOfAll(Container):
    """Unmaps all, and forgets that a bitmap was asked for."""

    violates: ClassVar = frozenset({"iommu/unmapping/bitmap-is-of-a-range"})

    def _require_range(self, flags: int) -> None:
        pass


class AnnouncesEveryPageSize(Container):
    """Announces every page size of the IOMMU for dirty bitmaps."""

    violates: ClassVar = frozenset({"iommu/information/dirty-tracking-is-announced"})

    def _info(self, iommu: Iommu) -> bytes:
        sizes = iommu.limits.page_sizes
        return iommu_info(iommu.limits, page_size=sizes, available=iommu.available)


class RefusesTooLittleRoom(Container):
    """Refuses an argsz without room for the chain, and does not say how much it is."""

    violates: ClassVar = frozenset({"iommu/information/argsz-grows"})

    def _get_info(self, iommu: Iommu, argument: int, memory: UserMemory) -> None:
        argsz = int.from_bytes(memory.read(argument, 4), "little")
        if argsz < len(self._info(iommu)):
            raise OSError(errno.ENOSPC, f"argsz {argsz}")
        super()._get_info(iommu, argument, memory)
