"""Reads the payload of the RAM section: words, and what hangs on them.

Each word is a page's address with flags in its low bits.  A run of pages that are
written alike has its words at a constant distance, so it is found by looking at all
of them at once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.protocol.qemu_stream.ram_records import (
    MappedRam,
    RamBlock,
    RamBlocks,
    RamEncodedPage,
    RamEndOfState,
    RamHook,
    RamMultifdFlush,
    RamPageKind,
    RamPages,
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
    from typing import TypeAlias

    from numpy.typing import NDArray

    from vfiomig.protocol.qemu_stream.cursor import Cursor

    RamRecord: TypeAlias = (
        RamBlocks
        | RamPages
        | RamEncodedPage
        | RamHook
        | RamMultifdFlush
        | RamEndOfState
    )

WORD: Final = 8
MAPPED_RAM_HEADER: Final = struct.Struct(">IQQQ")
BITMAP_WORD: Final = 8
_MARKS: Final[dict[int, type[RamEndOfState | RamHook | RamMultifdFlush]]] = {
    RAM_SAVE_FLAG_EOS: RamEndOfState,
    RAM_SAVE_FLAG_HOOK: RamHook,
    RAM_SAVE_FLAG_MULTIFD_FLUSH: RamMultifdFlush,
}
_FIRST_LOOK = 32  # words that are looked at before it is clear that a run is long
_LONGEST_LOOK = 1 << 16
_MAPPED_PAGE_SIZES = range(512, (1 << 30) + 1)


class RamReader:
    """What is known of RAM over all its sections of one stream.

    ``page_size`` is the target's.  ``page_sizes`` is what POSTCOPY_ADVISE said;
    ``addressed`` and ``mapped`` are the capabilities x-ignore-shared and mapped-ram,
    which add to the block list.
    """

    def __init__(self, source: Cursor, page_size: int) -> None:
        self._source = source
        self._page_size = page_size
        self._lengths: dict[str, int] = {}
        self._block: str | None = None
        self.page_sizes = 0
        self.addressed = False
        self.mapped = False

    def read(self) -> Iterator[RamRecord]:
        """Yield the records of one payload; the last one is its end."""
        while True:
            record = self._next()
            yield record
            if isinstance(record, RamEndOfState):
                return

    def _next(self) -> RamRecord:
        source = self._source
        word = source.peek_be64()
        if word is None:
            raise source.cut("a section of RAM")
        flags = word & (self._page_size - 1)
        address = word - flags
        if flags == RAM_SAVE_FLAG_MEM_SIZE:
            return self._block_list(address)
        if flags in _MARKS and not address:
            source.position += WORD
            return _MARKS[flags]()
        kind = _KINDS.get(flags & ~RAM_SAVE_FLAG_CONTINUE)
        if kind is None:
            raise source.error(f"RAM has no word {word:#x}")
        return self._pages(kind, address, named=not flags & RAM_SAVE_FLAG_CONTINUE)

    def _block_list(self, total: int) -> RamBlocks:
        source = self._source
        source.position += WORD
        blocks = []
        while total:
            began = source.position
            block = self._one_block()
            total -= block.used_length
            if total < 0:
                raise source.error("the blocks of RAM are larger than their sum", began)
            self._lengths[block.idstr] = block.used_length
            blocks.append(block)
        return RamBlocks(tuple(blocks))

    def _one_block(self) -> RamBlock:
        source = self._source
        what = "the list of RAM blocks"
        idstr = source.counted_string(what)
        used_length = source.be64(what)
        return RamBlock(
            idstr=idstr,
            used_length=used_length,
            page_size=source.be64(what) if self._page_size_follows() else None,
            address=source.be64(what) if self.addressed else None,
            mapped=self._mapped_ram(used_length) if self.mapped else None,
        )

    def _page_size_follows(self) -> bool:
        """Tell a block's page size from what else may follow: a name, or a word.

        Which blocks have one only their owner knows.  A name has a length, so its
        first byte is not 0; the words that may follow are no page sizes.
        """
        word = self._source.peek_be64()
        return (
            bool(self.page_sizes)
            and word is not None
            and word.bit_count() == 1
            and word >= self._page_size
        )

    def _mapped_ram(self, used_length: int) -> MappedRam:
        source = self._source
        what = "the header of a block of mapped-ram"
        began = source.position
        header = MAPPED_RAM_HEADER.unpack(source.take(MAPPED_RAM_HEADER.size, what))
        version, page_size, bitmap_offset, pages_offset = header
        if version != MAPPED_RAM_HDR_VERSION:
            raise source.error(f"mapped-ram has no version {version}", began)
        if page_size not in _MAPPED_PAGE_SIZES or page_size.bit_count() != 1:
            raise source.error(f"no target has pages of {page_size} bytes", began)
        if bitmap_offset != source.position:
            raise source.error("the bitmap of mapped-ram is not behind its header")
        pages = used_length // page_size
        bitmap = source.take(bitmap_size(pages), "a bitmap of mapped-ram")
        if pages_offset < source.position:
            raise source.error("the pages of mapped-ram overlap its bitmap", began)
        gap = source.take(pages_offset - source.position, "a gap of mapped-ram")
        if np.frombuffer(gap, np.uint8).any():
            raise source.error("the gap before the pages of mapped-ram is not zero")
        contents = source.take(used_length, "the pages of mapped-ram")
        whole = contents[: pages * page_size]
        if len(whole) != len(contents):
            raise source.error("a block of mapped-ram ends within a page", began)
        return MappedRam(
            page_size=page_size,
            bitmap_offset=bitmap_offset,
            pages_offset=pages_offset,
            bitmap=np.frombuffer(bitmap, np.uint8),
            pages=np.frombuffer(whole, np.uint8).reshape(pages, page_size),
        )

    def _pages(
        self, kind: RamPageKind, address: int, *, named: bool
    ) -> RamPages | RamEncodedPage:
        source = self._source
        began = source.position
        source.position += WORD
        block = source.counted_string("a RAM page") if named else self._block
        if block is None:
            raise source.error("a RAM page continues a block that none named", began)
        length = self._lengths.get(block)
        if length is None:
            raise source.error(f"a RAM page of {block!r}, which is no block", began)
        if address >= length:
            reason = f"RAM block {block!r} has no page at {address:#x}"
            raise source.error(reason, began)
        read: RamPages | RamEncodedPage
        if kind in (RamPageKind.ZERO, RamPageKind.PAGE):
            read = self._run(kind, block, address, length, named=named)
        else:
            read = self._encoded(kind, block, address, named=named)
        self._block = block
        return read

    def _encoded(
        self, kind: RamPageKind, block: str, address: int, *, named: bool
    ) -> RamEncodedPage:
        source = self._source
        what = "an encoded RAM page"
        if kind is RamPageKind.XBZRLE:
            encoding = source.u8(what)
            if encoding != ENCODING_FLAG_XBZRLE:
                raise source.error(f"no encoding of a RAM page is {encoding:#x}")
            size = source.be16(what)
        else:
            size = source.be32(what)
        data = source.take(size, what)
        return RamEncodedPage(
            kind=kind, block=block, address=address, data=data, named=named
        )

    def _run(
        self, kind: RamPageKind, block: str, address: int, length: int, *, named: bool
    ) -> RamPages:
        """Read the first page's body, and all pages that continue it alike."""
        source = self._source
        zero = kind is RamPageKind.ZERO
        size = 1 if zero else self._page_size
        body = source.position
        first = source.take(size, "a RAM page")
        fill = first[0] if zero else 0
        flags = kind | RAM_SAVE_FLAG_CONTINUE
        addresses = np.array([address], np.uint64)
        if self._continues(flags):
            rest = self._continued(flags, size, length, fill if zero else None)
            source.position += len(rest) * (WORD + size)
            addresses = np.concatenate((addresses, rest))
        return RamPages(
            kind=kind,
            block=block,
            addresses=addresses,
            contents=None if zero else self._contents(body, len(addresses)),
            named=named,
            fill=fill,
        )

    def _continues(self, flags: int) -> bool:
        """Tell cheaply whether there may be more: many runs have one page."""
        word = self._source.peek_be64()
        return word is not None and word & (self._page_size - 1) == flags

    def _contents(self, body: int, count: int) -> NDArray[np.uint8]:
        return np.ndarray(
            (count, self._page_size),
            np.uint8,
            buffer=self._source.data,
            offset=body,
            strides=(WORD + self._page_size, 1),
        )

    def _continued(
        self, flags: int, size: int, length: int, fill: int | None
    ) -> NDArray[np.uint64]:
        """Return the addresses of the pages that go on here; none is cut."""
        source = self._source
        stride = WORD + size
        mask = np.uint64(self._page_size - 1)
        place = source.position
        left = source.remaining // stride
        look = _FIRST_LOOK
        found: list[NDArray[np.uint64]] = []
        while left:
            count = min(look, left)
            words = _column(source.data, ">u8", place, count, stride)
            words = words.astype(np.uint64)
            alike = (words & mask) == flags
            alike &= words < length
            if fill is not None:
                alike &= _column(source.data, "u1", place + WORD, count, stride) == fill
            good = count if alike.all() else int(alike.argmin())
            found.append(words[:good] - np.uint64(flags))
            if good < count:
                break
            place += count * stride
            left -= count
            look = min(look * 4, _LONGEST_LOOK)
        return np.concatenate(found) if found else np.empty(0, np.uint64)


_KINDS: Final = {int(kind): kind for kind in RamPageKind}


def bitmap_size(pages: int) -> int:
    """Return the bytes of a mapped-ram bitmap: whole 64-bit words."""
    return -(-pages // (BITMAP_WORD * 8)) * BITMAP_WORD


def _column(
    data: memoryview, dtype: str, offset: int, count: int, stride: int
) -> NDArray[np.uint64]:
    return np.ndarray((count,), dtype, buffer=data, offset=offset, strides=(stride,))
