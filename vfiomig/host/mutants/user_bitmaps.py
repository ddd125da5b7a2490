"""Mutants that put the right bits to the wrong place in their user's memory.

The kernel's iova_bitmap pins the pages of a user's bitmap and writes through them.
BUG-IOMMU-06 to -09 are of there; 07 and 08 are in what was made to mend 06 and 07.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from vfiomig.host.iommu import Iommu, Mapping, UserBitmap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.protocol.dirty_bitmap import DirtyLog

__all__ = [
    "BeginsAtTheNextPage",
    "CountsFromAddressZero",
    "CountsPagesWithoutTheOffset",
    "ReportsTheFirstMappingOnly",
    "RestartsAtEachPage",
    "WritesAWordTooMany",
    "ZeroesTheHoles",
]

_PAGE: Final = 4096
_ANYWHERE: Final = frozenset({"iommu/get-bitmap/anywhere-in-memory"})


class BeginsAtTheNextPage(Iommu):
    """Leaves out the first, partial page of the user's bitmap (BUG-IOMMU-06)."""

    violates: ClassVar = _ANYWHERE

    def _to_user(
        self, bitmap: UserBitmap, address: int, words: bytes | memoryview
    ) -> None:
        super()._to_user(bitmap, -(-address // _PAGE) * _PAGE, words)


class RestartsAtEachPage(Iommu):
    """Takes each page's bits as if the first page had been a whole one (BUG-IOMMU-07).

    The first mending of BUG-IOMMU-06.
    """

    violates: ClassVar = _ANYWHERE

    def _to_user(
        self, bitmap: UserBitmap, address: int, words: bytes | memoryview
    ) -> None:
        room = _PAGE - address % _PAGE
        super()._to_user(bitmap, address, words[:room])
        for number, start in enumerate(range(room, len(words), _PAGE), start=1):
            length = len(words[start : start + _PAGE])
            wrong = bytes(words[number * _PAGE :][:length]).ljust(length, b"\0")
            super()._to_user(bitmap, address + start, wrong)


class CountsPagesWithoutTheOffset(Iommu):
    """Pins as many pages as the bitmap is long, from where it begins (BUG-IOMMU-08).

    The second mending of BUG-IOMMU-06.
    """

    violates: ClassVar = _ANYWHERE

    def _to_user(
        self, bitmap: UserBitmap, address: int, words: bytes | memoryview
    ) -> None:
        reached = -(-len(words) // _PAGE) * _PAGE - address % _PAGE
        super()._to_user(bitmap, address, words[:reached])


class WritesAWordTooMany(Iommu):
    """Writes a u64 behind the last one of a short bitmap (BUG-IOMMU-09)."""

    violates: ClassVar = frozenset({"iommu/get-bitmap/whole-words-only"})

    def _to_user(
        self, bitmap: UserBitmap, address: int, words: bytes | memoryview
    ) -> None:
        super()._to_user(bitmap, address, bytes(words) + bytes(8))


class ZeroesTheHoles(Iommu):
    """Clears the user's whole buffer before it writes what it knows."""

    violates: ClassVar = frozenset({"iommu/get-bitmap/whole-words-only"})

    def _lay(self, mappings: Sequence[Mapping], base: int, bitmap: UserBitmap) -> None:
        bitmap.memory.write(bitmap.address, bytes(min(bitmap.size, _PAGE)))
        super()._lay(mappings, base, bitmap)


class CountsFromAddressZero(Iommu):
    """Takes the range that is asked for to begin at IOVA 0 (BUG-PDS-01)."""

    violates: ClassVar = frozenset({"iommu/get-bitmap/bit-of-a-page"})

    def _lay_one(self, log: DirtyLog, iova: int, base: int, bitmap: UserBitmap) -> None:
        super()._lay_one(log, iova, 0 * base, bitmap)


class ReportsTheFirstMappingOnly(Iommu):
    """Answers for one mapping in a range that has several (BUG-PDS-02)."""

    violates: ClassVar = frozenset({"iommu/tracking/no-dirt-is-lost"})

    def _lay(self, mappings: Sequence[Mapping], base: int, bitmap: UserBitmap) -> None:
        super()._lay(mappings[:1], base, bitmap)
