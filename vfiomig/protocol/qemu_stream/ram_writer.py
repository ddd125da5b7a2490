"""Writes the records of the RAM section."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.protocol.qemu_stream.cursor import encode_counted
from vfiomig.protocol.qemu_stream.ram import MAPPED_RAM_HEADER, WORD
from vfiomig.protocol.qemu_stream.ram_records import (
    RamEndOfState,
    RamHook,
    RamMultifdFlush,
    RamPageKind,
)
from vfiomig.uapi.qemu_stream import (
    ENCODING_FLAG_XBZRLE,
    MAPPED_RAM_HDR_VERSION,
    RAM_SAVE_FLAG_CONTINUE,
    RAM_SAVE_FLAG_EOS,
    RAM_SAVE_FLAG_HOOK,
    RAM_SAVE_FLAG_MEM_SIZE,
    RAM_SAVE_FLAG_MULTIFD_FLUSH,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.protocol.qemu_stream.ram_records import (
        MappedRam,
        RamBlocks,
        RamEncodedPage,
        RamPages,
        View,
    )

_WORD: Final = struct.Struct(">Q")
_XBZRLE_HEAD: Final = struct.Struct(">BH")
_COMPRESS_HEAD: Final = struct.Struct(">I")
_WRITTEN_AT_ONCE = 1 << 20  # bytes
_MARKS: Final = {
    RamEndOfState: _WORD.pack(RAM_SAVE_FLAG_EOS),
    RamHook: _WORD.pack(RAM_SAVE_FLAG_HOOK),
    RamMultifdFlush: _WORD.pack(RAM_SAVE_FLAG_MULTIFD_FLUSH),
}


def encode_mark(record: RamEndOfState | RamHook | RamMultifdFlush) -> bytes:
    """Return a word that says nothing but its flag."""
    return _MARKS[type(record)]


def encode_blocks(record: RamBlocks) -> Iterator[View]:
    """Yield the word with the sum, and the list of blocks."""
    total = sum(block.used_length for block in record.blocks)
    if total & RAM_SAVE_FLAG_MEM_SIZE:
        raise ValueError("the blocks of RAM are no whole pages")
    yield _WORD.pack(total | RAM_SAVE_FLAG_MEM_SIZE)
    for block in record.blocks:
        yield encode_counted(block.idstr) + _WORD.pack(block.used_length)
        for extra in (block.page_size, block.address):
            if extra is not None:
                yield _WORD.pack(extra)
        if block.mapped is not None:
            yield from _encode_mapped(block.mapped)


def _encode_mapped(mapped: MappedRam) -> Iterator[View]:
    yield MAPPED_RAM_HEADER.pack(
        MAPPED_RAM_HDR_VERSION,
        mapped.page_size,
        mapped.bitmap_offset,
        mapped.pages_offset,
    )
    yield mapped.bitmap.data
    gap = mapped.pages_offset - mapped.bitmap_offset - mapped.bitmap.nbytes
    if gap < 0:
        raise ValueError("the pages of mapped-ram overlap its bitmap")
    yield bytes(gap)
    yield np.ascontiguousarray(mapped.pages).reshape(-1).data


def encode_page(record: RamEncodedPage) -> Iterator[View]:
    """Yield a page that is written as XBZRLE or COMPRESS_PAGE."""
    word = record.address | record.kind
    if record.named:
        yield _WORD.pack(word) + encode_counted(record.block)
    else:
        yield _WORD.pack(word | RAM_SAVE_FLAG_CONTINUE)
    if record.kind is RamPageKind.XBZRLE:
        yield _XBZRLE_HEAD.pack(ENCODING_FLAG_XBZRLE, len(record.data))
    elif record.kind is RamPageKind.COMPRESS_PAGE:
        yield _COMPRESS_HEAD.pack(len(record.data))
    else:
        raise ValueError(f"a page of kind {record.kind.name} is not encoded")
    yield record.data


def encode_pages(record: RamPages) -> Iterator[View]:
    """Yield a run of pages: words and pages in turns, copied together."""
    bodies = _bodies(record)
    first = 0
    if record.named:
        word = int(record.addresses[0]) | record.kind
        yield _WORD.pack(word) + encode_counted(record.block)
        yield np.ascontiguousarray(bodies[0]).data
        first = 1
    flags = np.uint64(record.kind | RAM_SAVE_FLAG_CONTINUE)
    width = WORD + bodies.shape[1]
    step = max(_WRITTEN_AT_ONCE // width, 1)
    for start in range(first, len(record), step):
        words = record.addresses[start : start + step] | flags
        piece = np.empty((len(words), width), np.uint8)
        piece[:, :WORD] = words.astype(">u8").view(np.uint8).reshape(-1, WORD)
        piece[:, WORD:] = bodies[start : start + step]
        yield piece.reshape(-1).data


def _bodies(record: RamPages) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return what stands behind the words: (pages, bytes)."""
    if record.kind is RamPageKind.ZERO and record.contents is None:
        fill = np.array([[record.fill]], np.uint8)
        return np.broadcast_to(fill, (len(record), 1))
    if record.kind is not RamPageKind.PAGE or record.contents is None:
        raise ValueError(f"a run of kind {record.kind.name} has other contents")
    if record.contents.shape[:1] != record.addresses.shape:
        raise ValueError("a run of pages has not one address a page")
    return record.contents
