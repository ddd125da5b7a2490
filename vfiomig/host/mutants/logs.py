"""Mutants whose log has not the pages that were written, or not in their place."""

from __future__ import annotations

from typing import ClassVar

from vfiomig.host.iommu import Iommu
from vfiomig.protocol.dirty_bitmap import DirtyLog, bitmap_size

__all__ = [
    "CountsBytesNotPages",
    "ForgetsTheWordItShares",
    "LosesTheLastByte",
    "LosesTheLastPage",
    "LosesWhatIsShiftedOut",
    "WordsInBigEndian",
]


class _CountsBytes(DirtyLog):
    def mark(self, offset: int, size: int) -> None:
        first, count = offset >> self._shift, size >> self._shift
        for page in range(first, first + count):
            self._set(page, page)


class CountsBytesNotPages(Iommu):
    """Logs as many pages as the bytes written make, wherever they begin.

    BUG-IOMMU-01, and again in libvfio-user: less than a page is no page, and a write
    over an edge is one page short.
    """

    violates: ClassVar = frozenset({"iommu/tracking/no-dirt-is-lost"})
    make_log = _CountsBytes


class _LastByte(DirtyLog):
    def mark(self, offset: int, size: int) -> None:
        super().mark(offset, max(size - 1, 1))


class LosesTheLastByte(Iommu):
    """Takes the inclusive end of a write for an exclusive one (BUG-MLX5-01)."""

    violates: ClassVar = frozenset({"iommu/tracking/no-dirt-is-lost"})
    make_log = _LastByte


class _LastPage(DirtyLog):
    def _set(self, first: int, last: int) -> None:
        if first < self._pages - 1:
            super()._set(first, min(last, self._pages - 2))


class LosesTheLastPage(Iommu):
    """Tracks a mapping to its last page, and not that one (BUG-MLX5-01)."""

    violates: ClassVar = frozenset({"iommu/tracking/no-dirt-is-lost"})
    make_log = _LastPage


class _BigEndian(DirtyLog):
    def laid_at(self, bit: int, word: bytes) -> memoryview:
        words = bytes(super().laid_at(bit, word))
        swapped = (words[at : at + 8][::-1] for at in range(0, len(words), 8))
        return memoryview(b"".join(swapped))


class WordsInBigEndian(Iommu):
    """Writes the words of a bitmap in the byte order of another machine."""

    violates: ClassVar = frozenset({"iommu/get-bitmap/bit-of-a-page"})
    make_log = _BigEndian


class _AloneInItsWord(DirtyLog):
    def laid_at(self, bit: int, word: bytes) -> memoryview:
        return super().laid_at(bit, bytes(len(word)))


class ForgetsTheWordItShares(Iommu):
    """Overwrites the bits below a mapping that begins in the middle of a word."""

    violates: ClassVar = frozenset(
        {"iommu/get-bitmap/whole-words-only", "iommu/tracking/no-dirt-is-lost"}
    )
    make_log = _AloneInItsWord


class _ShiftedOut(DirtyLog):
    def laid_at(self, bit: int, word: bytes) -> memoryview:
        return super().laid_at(bit, word)[: bitmap_size(self._pages)]


class LosesWhatIsShiftedOut(Iommu):
    """Writes as many words as a mapping has alone, although it begins within one.

    The way of BUG-IOMMU-08: counted from the length, and not from where it begins.
    """

    violates: ClassVar = frozenset({"iommu/tracking/no-dirt-is-lost"})
    make_log = _ShiftedOut
