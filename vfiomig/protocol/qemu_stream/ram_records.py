"""What the RAM section of a QEMU migration stream says, as values.

See ``records``, which has all of them under one roof.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from vfiomig.uapi.qemu_stream import (
    RAM_SAVE_FLAG_COMPRESS_PAGE,
    RAM_SAVE_FLAG_PAGE,
    RAM_SAVE_FLAG_XBZRLE,
    RAM_SAVE_FLAG_ZERO,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

View: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MappedRam:
    """Where the capability mapped-ram keeps a block in the file, and what is there.

    The offsets count from the start of the file.  ``bitmap`` has a bit for each page
    of the block (uint8, bit 0 of byte 0 is page 0), in whole 64-bit words; a page
    whose bit is 0 is zero, whatever stands at its place.  ``pages`` is all of them:
    (pages, page size), uint8.
    """

    page_size: int
    bitmap_offset: int
    pages_offset: int
    bitmap: NDArray[np.uint8]
    pages: NDArray[np.uint8]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MappedRam):
            return NotImplemented
        return (
            (self.page_size, self.bitmap_offset, self.pages_offset)
            == (other.page_size, other.bitmap_offset, other.pages_offset)
            and np.array_equal(self.bitmap, other.bitmap)
            and np.array_equal(self.pages, other.pages)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class RamBlock:
    """One block of guest RAM; sizes and addresses in bytes.

    ``page_size`` is sent with postcopy-ram where it is not the host's, ``address``
    (in guest physical memory) with x-ignore-shared, ``mapped`` with mapped-ram.
    """

    idstr: str
    used_length: int
    page_size: int | None = None
    address: int | None = None
    mapped: MappedRam | None = None


@dataclass(frozen=True, slots=True)
class RamBlocks:
    """The list of all blocks, with their sum (MEM_SIZE)."""

    blocks: tuple[RamBlock, ...]


class RamPageKind(enum.IntEnum):
    """How a page is written: the flag of its word, without CONTINUE."""

    ZERO = RAM_SAVE_FLAG_ZERO
    PAGE = RAM_SAVE_FLAG_PAGE
    XBZRLE = RAM_SAVE_FLAG_XBZRLE
    COMPRESS_PAGE = RAM_SAVE_FLAG_COMPRESS_PAGE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RamPages:
    """A run of pages of one block that are written alike: ZERO or PAGE.

    ``addresses`` (uint64, in bytes from the start of the block) has one for each
    page, in the order of the stream.  ``contents`` is (pages, page size), uint8: a
    strided view of the input; ``None`` for ZERO.  ``named``: the first page names
    the block; all others continue the one before.  ``fill`` is the byte behind each
    zero page, 0 since QEMU 0.13.  A run read is as long as can be.
    """

    kind: RamPageKind
    block: str
    addresses: NDArray[np.uint64]
    contents: NDArray[np.uint8] | None = None
    named: bool = False
    fill: int = 0

    def __len__(self) -> int:
        return len(self.addresses)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RamPages):
            return NotImplemented
        return (
            (self.kind, self.block, self.named, self.fill)
            == (other.kind, other.block, other.named, other.fill)
            and np.array_equal(self.addresses, other.addresses)
            and (self.contents is None) == (other.contents is None)
            and (
                self.contents is None
                or other.contents is None
                or np.array_equal(self.contents, other.contents)
            )
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class RamEncodedPage:
    """One page, XBZRLE (changes to what was sent) or COMPRESS_PAGE (zlib)."""

    kind: RamPageKind
    block: str
    address: int
    data: View
    named: bool = False


@dataclass(frozen=True, slots=True)
class RamHook:
    """HOOK: RDMA has something to say beside the stream."""


@dataclass(frozen=True, slots=True)
class RamMultifdFlush:
    """MULTIFD_FLUSH (since 8.1): the other channels are waited for here."""


@dataclass(frozen=True, slots=True)
class RamEndOfState:
    """EOS: the end of the payload of a section of RAM."""
