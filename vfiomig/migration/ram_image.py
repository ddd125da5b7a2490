"""RAM out of a stream that somebody else saved, as far as this guest has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.records import RamBlocks, RamEncodedPage, RamPages
from vfiomig.vm.dirty_pages import DirtyPages
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vfiomig.protocol.qemu_stream.records import Located, MappedRam
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.ram_block import RamBlock

_PIECE: Final = 1 << 12  # pages that are unpacked or written in one go


class RamImage:
    """The guest's blocks of RAM as a stream fills them, found by name and size.

    ``left_out`` are the stream's blocks that were not loaded, each with the reason;
    ``pages`` counts pages as they came, ``encoded`` those that only who has the page
    before could read (XBZRLE, compress).
    """

    def __init__(self, memory: GuestMemory | None) -> None:
        self._memory = memory
        self._blocks: dict[str, RamBlock] = {}
        self._came: dict[str, DirtyPages] = {}
        self.left_out: dict[str, str] = {}
        self.pages = 0
        self.encoded = 0

    @property
    def is_loaded(self) -> bool:
        """Whether every block of the guest is in the stream, in its size."""
        memory = self._memory
        return memory is not None and len(self._blocks) == len(memory.blocks)

    @property
    def missing(self) -> int:
        """Pages of the guest that the stream never brought."""
        return sum(came.pages - came.count for came in self._came.values())

    def take(self, located: Located) -> None:
        """Take a record of the section of RAM in.

        Raises:
            StreamError: a page that its block has not.
        """
        record = located.record
        if isinstance(record, RamBlocks):
            self._take_blocks(record)
        elif isinstance(record, RamEncodedPage):
            self.encoded += record.block in self._blocks
        elif isinstance(record, RamPages):
            block = self._blocks.get(record.block)
            if block is not None:
                numbers = (record.addresses // np.uint64(PAGE_SIZE)).astype(np.int64)
                self._write(block, numbers, record.contents, located.offset)

    def _take_blocks(self, record: RamBlocks) -> None:
        own = {} if self._memory is None else {b.idstr: b for b in self._memory.blocks}
        for each in record.blocks:
            block = own.get(each.idstr)
            if block is None:
                why = "there is no [machine]" if self._memory is None else ""
                self.left_out[each.idstr] = why or "the simulated machine has none"
            elif block.size != each.used_length:
                self.left_out[each.idstr] = (
                    f"{each.used_length} bytes, and the simulated machine has "
                    f"{block.size}"
                )
            else:
                self._blocks[each.idstr] = block
                self._came[each.idstr] = DirtyPages(block.pages)
                if each.mapped is not None:
                    self._take_mapped(block, each.mapped)

    def _take_mapped(self, block: RamBlock, mapped: MappedRam) -> None:
        """Take the pages that lie in the file at fixed places; no others come."""
        bits = np.unpackbits(mapped.bitmap, bitorder="little")[: block.pages]
        held = np.flatnonzero(bits)
        for at in range(0, len(held), _PIECE):
            numbers = held[at : at + _PIECE]
            _pages_of(block)[numbers] = mapped.pages[numbers]
        self._came[block.idstr].mark_all()
        self.pages += block.pages

    def _write(
        self,
        block: RamBlock,
        numbers: NDArray[np.int64],
        contents: NDArray[np.uint8] | None,
        position: int,
    ) -> None:
        highest = int(numbers.max())
        if highest >= block.pages:
            message = f"page {highest} of {block.idstr}, which has {block.pages}"
            raise StreamError(message, position=position)
        came = self._came[block.idstr]
        if contents is None:
            # What never came is zero, and clearing it would make it.
            again = numbers[_are_dirty(came, numbers)]
            _pages_of(block)[again] = 0
        else:
            for at in range(0, len(numbers), _PIECE):
                part = slice(at, at + _PIECE)
                _pages_of(block)[numbers[part]] = contents[part]
        came.mark_pages(numbers)
        self.pages += len(numbers)


def _are_dirty(log: DirtyPages, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    words = log.words[numbers >> 6] >> (numbers & 63).astype(np.uint64)
    dirty: NDArray[np.bool_] = (words & np.uint64(1)) != 0
    return dirty


def _pages_of(block: RamBlock) -> NDArray[np.uint8]:
    return block.bytes.reshape(-1, PAGE_SIZE)
