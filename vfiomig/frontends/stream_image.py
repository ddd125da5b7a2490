"""A RAM block as a sparse file: what the destination has when all pages are loaded.

Pages are taken in the order of the stream: the last of an address counts.  What was
never sent is zero, as fresh memory is.
"""

from __future__ import annotations

import itertools
import os
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from vfiomig.frontends.plain_text import quoted
from vfiomig.migration.qemu_image import ImageError
from vfiomig.protocol.qemu_stream.records import (
    MappedRam,
    RamBlocks,
    RamEncodedPage,
    RamPageKind,
    RamPages,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vfiomig.protocol.qemu_stream.records import Located, RamBlock, View

_BATCH: Final = 256  # pages that are written at once
_CONTINUED: Final = 0x80  # a byte of a number of XBZRLE that is not its last
_LONGEST_NUMBER: Final = 4
_PAGE_SIZE: Final = 4096  # until a page tells another
_LARGEST: Final = (1 << 63) - 1  # of any file


class RamImage:
    """Writes the pages of one block to a file; ``pages`` counts all that it took."""

    def __init__(self, name: str, block: RamBlock, file: BinaryIO) -> None:
        if block.used_length > _LARGEST:
            reason = f"block {quoted(block.idstr)} has {block.used_length:#x} bytes"
            raise ImageError(name, reason)
        self.pages = 0
        self._name = name
        self._block = block
        self._file = file.fileno()
        self._page_size = _PAGE_SIZE
        os.ftruncate(self._file, block.used_length)

    def take(self, located: Located) -> None:
        """Write what a record has of this block.

        Raises:
            ImageError: it has a page that is not in the block, or cannot be decoded.
            OSError: there is no room.
        """
        match located.record:
            case RamPages() as run if run.block == self._block.idstr:
                self._check(located, run.addresses)
                self._write_run(run)
            case RamEncodedPage() as page if page.block == self._block.idstr:
                self._check(located, np.array([page.address], np.uint64))
                self._write_encoded(page, located)
            case RamBlocks(blocks):
                for block in blocks:
                    if block.idstr == self._block.idstr and block.mapped is not None:
                        self._write_mapped(block.mapped)
            case _:
                pass

    def _check(self, located: Located, addresses: NDArray[np.uint64]) -> None:
        if isinstance(located.record, RamPages) and located.record.contents is not None:
            self._page_size = located.record.contents.shape[1]
        if int(addresses.max()) >= self._block.used_length:
            reason = (
                f"a page at {int(addresses.max()):#x} of a block that has "
                f"{self._block.used_length:#x} bytes"
            )
            raise ImageError(self._name, reason, located.offset)

    def _write_run(self, run: RamPages) -> None:
        self.pages += len(run)
        for start, end in _neighbours(run.addresses, self._page_size):
            address = int(run.addresses[start])
            if run.contents is None:
                self._fill(address, (end - start) * self._page_size, run.fill)
                continue
            for first in range(start, end, _BATCH):
                pages = run.contents[first : min(first + _BATCH, end)]
                place = address + (first - start) * self._page_size
                self._write(place, np.ascontiguousarray(pages).data.cast("B"))

    def _fill(self, address: int, size: int, fill: int) -> None:
        """Make pages one byte; those of zeros become a hole where data was."""
        size = min(size, self._block.used_length - address)
        if fill:
            page = bytes([fill]) * self._page_size
            for place in range(address, address + size, self._page_size):
                self._write(place, page)
            return
        end = address + size
        while (address := self._data_from(address)) < end:
            count = min(self._page_size - address % self._page_size, end - address)
            self._write(address, bytes(count))
            address += count

    def _data_from(self, address: int) -> int:
        """Return where the next data of the file is, from ``address`` on."""
        try:
            return os.lseek(self._file, address, os.SEEK_DATA)
        except OSError:  # ENXIO: only holes follow
            return self._block.used_length

    def _write_mapped(self, mapped: MappedRam) -> None:
        self._page_size = mapped.page_size
        for number in np.flatnonzero(mapped.bitmap):  # bytes of 8 pages each
            for bit in range(8):
                page = int(number) * 8 + bit
                if mapped.bitmap[number] >> bit & 1 and page < len(mapped.pages):
                    self._write(page * mapped.page_size, mapped.pages[page].data)
                    self.pages += 1

    def _write_encoded(self, page: RamEncodedPage, located: Located) -> None:
        self.pages += 1
        content: View | None
        if page.kind is RamPageKind.COMPRESS_PAGE:
            content = _inflated(page.data, self._page_size)
        else:
            before = bytearray(os.pread(self._file, self._page_size, page.address))
            content = _patched(before, page.data)
        if content is None:
            reason = f"a {page.kind.name} page that cannot be decoded"
            raise ImageError(self._name, reason, located.offset)
        self._write(page.address, content)

    def _write(self, address: int, data: View) -> None:
        # The last page of a block may reach over its end.
        rest = memoryview(data)[: self._block.used_length - address]
        while rest:
            written = os.pwrite(self._file, rest, address)
            rest, address = rest[written:], address + written


def _neighbours(addresses: NDArray[np.uint64], step: int) -> list[tuple[int, int]]:
    """Return the runs (start, end) of pages that follow one another in memory."""
    breaks = np.flatnonzero(np.diff(addresses.astype(np.int64)) != step) + 1
    edges = [0, *breaks.tolist(), len(addresses)]
    return list(itertools.pairwise(edges))


def _inflated(data: View, size: int) -> View | None:
    """Return a page of zlib data; ``None`` if it is none."""
    try:
        page = zlib.decompressobj().decompress(data, size)
    except zlib.error:
        return None
    return page if len(page) == size else None


def _patched(page: bytearray, data: View) -> View | None:
    """Change a page as XBZRLE says; ``None`` if it says what cannot be.

    Pairs of a number of bytes that stay and a number of bytes that follow, and these
    (docs/xbzrle.txt of QEMU: both numbers in ULEB128).
    """
    place = position = 0
    while position < len(data):
        for is_new in (False, True):
            found = _number_at(data, position)
            if found is None:
                return None
            count, position = found
            if is_new:
                new = data[position : position + count]
                if len(new) != count or place + count > len(page):
                    return None
                page[place : place + count] = new
                position += count
            place += count
            if position == len(data):
                break  # nothing changed behind the last byte that stays
    return memoryview(page) if place <= len(page) else None


def _number_at(data: View, position: int) -> tuple[int, int] | None:
    """Return a number of 7 bits a byte, the lowest first, and where it ends."""
    number = 0
    for index, byte in enumerate(data[position : position + _LONGEST_NUMBER]):
        number |= (byte & ~_CONTINUED) << 7 * index
        if not byte & _CONTINUED:
            return number, position + index + 1
    return None
