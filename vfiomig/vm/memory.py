"""Guest RAM: blocks at guest physical addresses, and a dirty log per user.

Rule 1: a log that is off holds nothing.  Turning one on empties it.

Rule 2: who writes marks the log of its user, if that is on: a vCPU the kernel's, a
device that does DMA the DMA log, QEMU itself (an emulated device) the migration's.
`sync` takes the kernel's and the DMA log into the migration's; `merge` takes in what a
VFIO container tells.

Rule 3: one thread at a time.
"""

from __future__ import annotations

import bisect
import errno
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from vfiomig.protocol.dirty_bitmap import WORD_BITS, bitmap_size
from vfiomig.protocol.page_ranges import (
    dirty_ranges,
    from_page,
    in_pages_of,
    up_to_page,
    words_of,
)
from vfiomig.vm import atomic
from vfiomig.vm.dirty_pages import DirtyPages, LogUser
from vfiomig.vm.layout import ABOVE_4G, pc_slots, virt_slots
from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock
from vfiomig.vm.zero_pages import digest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from vfiomig.protocol.page_ranges import Words
    from vfiomig.vm.atomic import Swap
    from vfiomig.vm.layout import Slot

_TAKE: Final = 1 << 14  # words of a container's bitmap that are merged in one go
_HIGHEST: Final = 1 << 62  # addresses that numpy's i64 can be reckoned with


class Piece(NamedTuple):
    """``size`` bytes of a block, from ``offset`` on."""

    block: RamBlock
    offset: int
    size: int


class GuestMemory:
    """All RAM of a guest: ``blocks`` in the order of the stream, ``slots`` by address.

    ``size`` is that of the blocks together.  It closes its blocks.  ``generation``
    grows when slots change or a log goes on or off: who keeps where an address was, or
    whether a log was on, asks again then.

    Raises:
        ValueError: slots overlap, are not whole pages or show what no block holds; or
            two blocks have one name.
    """

    def __init__(self, blocks: Iterable[RamBlock], slots: Iterable[Slot]) -> None:
        self.blocks: tuple[RamBlock, ...] = tuple(blocks)
        self.slots: tuple[Slot, ...] = ()
        self.size = sum(block.size for block in self.blocks)
        self.generation = 0
        self._named = {block.idstr: block for block in self.blocks}
        self._starts: list[int] = []
        self._logs: dict[LogUser, dict[str, DirtyPages]] = {}
        self._replaced: list[RamBlock] = []  # whoever pinned one still writes to it
        if len(self._named) < len(self.blocks):
            message = "two blocks have one name"
            raise ValueError(message)
        self.set_slots(slots)

    @classmethod
    def of_pc(cls, size: int, machine: str = "pc", above: int = ABOVE_4G) -> Self:
        """Return ``size`` bytes of ``pc.ram`` as QEMU's PCs lay it out (`pc_slots`)."""
        block = RamBlock("pc.ram", size)
        try:
            return cls([block], pc_slots(block, machine, above))
        except BaseException:
            block.close()
            raise

    @classmethod
    def of_virt(cls, size: int) -> Self:
        """Return ``size`` bytes of RAM as QEMU's RISC-V ``virt`` machine lays it out.

        The block is ``riscv_virt_board.ram``, from `VIRT_RAM` on.
        """
        block = RamBlock("riscv_virt_board.ram", size)
        try:
            return cls([block], virt_slots(block))
        except BaseException:
            block.close()
            raise

    def block(self, idstr: str) -> RamBlock:
        """Return the block of a name; raises ``KeyError``."""
        return self._named[idstr]

    # -- addresses

    def set_slots(self, slots: Iterable[Slot]) -> None:
        """Show these slots from now on, instead of those before.

        Raises ``ValueError`` as the constructor; nothing changes then.
        """
        placed = tuple(sorted(slots, key=lambda slot: slot.gpa))
        self._check_layout(placed)
        self.slots, self._starts = placed, [slot.gpa for slot in placed]
        self.generation += 1

    def replace_block(self, idstr: str) -> RamBlock:
        """Put other memory, with the same contents, behind a block; return it.

        As a host does that moves a page.  Addresses and logs stay as they are.
        Raises ``KeyError`` for no such block.
        """
        old = self._named[idstr]
        new = RamBlock(idstr, old.size)
        new.view[:] = old.view
        self._named[idstr] = new
        self.blocks = tuple(self._named.values())
        self._replaced.append(old)
        self.set_slots(
            slot._replace(block=new) if slot.block is old else slot
            for slot in self.slots
        )
        return new

    def pieces(self, gpa: int, size: int) -> list[Piece]:
        """Return where the bytes of a range of guest physical addresses are.

        Raises ``OSError(EFAULT)`` if one of them is no RAM.
        """
        found = []
        at, end = gpa, gpa + size
        while at < end:
            number = bisect.bisect_right(self._starts, at) - 1
            slot = self.slots[number] if number >= 0 else None
            if slot is None or at >= slot.gpa + slot.size:
                message = f"no RAM at {at:#x} (of {size:#x} bytes at {gpa:#x})"
                raise OSError(errno.EFAULT, message)
            inside = at - slot.gpa
            length = min(end - at, slot.size - inside)
            found.append(Piece(slot.block, slot.offset + inside, length))
            at += length
        return found

    def read(self, gpa: int, size: int) -> bytes:
        """Return bytes; raises ``OSError(EFAULT)`` if one is no RAM."""
        pieces = self.pieces(gpa, size)
        return b"".join(
            block.view[offset : offset + length] for block, offset, length in pieces
        )

    def write(
        self,
        gpa: int,
        data: bytes | bytearray | memoryview,
        user: LogUser = LogUser.KERNEL,
    ) -> None:
        """Write bytes and mark them in the user's log, if it is on.

        Raises ``OSError(EFAULT)``, and writes nothing, if one is no RAM.
        """
        rest = memoryview(data).cast("B")
        for block, offset, length in self.pieces(gpa, len(rest)):
            block.view[offset : offset + length] = rest[:length]
            rest = rest[length:]
            self.mark(user, block, offset, length)

    # -- in one step, while others write

    def compare_and_swap(
        self,
        gpa: int,
        size: int,
        expected: int,
        desired: int,
        user: LogUser = LogUser.KERNEL,
    ) -> Swap:
        """Write ``desired`` if ``expected`` is there; mark the log if it was.

        A word of 1, 2, 4 or 8 bytes, little-endian as this machine is.

        Raises:
            OSError: EFAULT for no RAM; EINVAL for no such size, or an address that is
                no multiple of it; ENOENT where libatomic is missing.
        """
        block, offset = self._word(gpa, size)
        swap = atomic.compare_and_swap(block.address + offset, size, expected, desired)
        if swap.is_done:
            # Behind the change: who took the log before it would miss it.
            self.mark(user, block, offset, size)
        return swap

    def fetch_or(
        self, gpa: int, size: int, bits: int, user: LogUser = LogUser.KERNEL
    ) -> int:
        """Set bits of a word, mark the log; return what was there before.

        Raises as `compare_and_swap`.
        """
        block, offset = self._word(gpa, size)
        old = atomic.fetch_or(block.address + offset, size, bits)
        self.mark(user, block, offset, size)
        return old

    def fetch_and(
        self, gpa: int, size: int, mask: int, user: LogUser = LogUser.KERNEL
    ) -> int:
        """Clear what is not in ``mask``, as `fetch_or` sets bits."""
        block, offset = self._word(gpa, size)
        old = atomic.fetch_and(block.address + offset, size, mask)
        self.mark(user, block, offset, size)
        return old

    def _word(self, gpa: int, size: int) -> tuple[RamBlock, int]:
        """Return block and offset of a word, whose bytes lie side by side."""
        if size not in atomic.SIZES or gpa % size:
            message = f"{size} bytes at {gpa:#x} cannot be changed in one step"
            raise OSError(errno.EINVAL, message)
        # Slots are whole pages, so an aligned word is in one of them.
        block, offset, _ = self.pieces(gpa, size)[0]
        return block, offset

    # -- logs

    def start_log(self, user: LogUser) -> None:
        """Turn a user's log on, empty."""
        logs = {block.idstr: DirtyPages(block.pages) for block in self.blocks}
        self._logs[user] = logs
        self.generation += 1

    def stop_log(self, user: LogUser) -> None:
        """Turn a user's log off; what it held is gone."""
        self._logs.pop(user, None)
        self.generation += 1

    def log(self, user: LogUser, block: RamBlock) -> DirtyPages | None:
        """Return the log of a user for a block, or None if it is off."""
        logs = self._logs.get(user)
        return None if logs is None else logs[block.idstr]

    def mark(self, user: LogUser, block: RamBlock, offset: int, size: int) -> None:
        """Mark what was written behind our back (``fd``, ``mapping``), if it is on.

        Raises ``IndexError`` for what is not in the block.
        """
        log = self.log(user, block)
        if log is not None and size:
            first = offset // PAGE_SIZE
            log.mark(first, (offset + size - 1) // PAGE_SIZE - first + 1)

    def sync(self, user: LogUser) -> int:
        """Move the log of a user into the migration's.

        Return how many pages became dirty in it (QEMU: num_dirty_pages_period); 0 if
        one of the two is off.  Raises ``ValueError`` for the migration's own.
        """
        if user is LogUser.MIGRATION:
            message = "the migration's log cannot be moved into itself"
            raise ValueError(message)
        taken, into = self._logs.get(user), self._logs.get(LogUser.MIGRATION)
        if taken is None or into is None:
            return 0
        return sum(into[idstr].take(log) for idstr, log in taken.items())

    def merge(
        self,
        bitmap: bytes | bytearray | memoryview,
        gpa: int,
        size: int,
        page_size: int,
    ) -> int:
        """Take a VFIO container's dirty bitmap into the migration's log.

        The bitmap is of ``size`` bytes from ``gpa`` on (iova = gpa) in pages of
        ``page_size``, a power of two that may be other than ours.  What it says of
        addresses without RAM, or behind ``size``, is ignored.  Return how many pages
        became dirty; 0 if the log is off.

        Raises:
            ValueError: not whole words, too short, a page size that is none, or
                addresses that are none.
        """
        words = words_of(bitmap)
        _check_told(words.nbytes, gpa, size, page_size)
        told = _Told(words, gpa, page_size)
        fresh = 0
        for slot in self.slots:
            log = self.log(LogUser.MIGRATION, slot.block)
            begin, end = max(slot.gpa, gpa), min(slot.gpa + slot.size, gpa + size)
            if log is None or begin >= end:
                continue
            fresh += told.mark(log, begin, end, slot.offset - slot.gpa)
        return fresh

    @property
    def dirty_pages(self) -> int:
        """How many pages the migration's log holds; 0 if it is off."""
        logs = self._logs.get(LogUser.MIGRATION, {})
        return sum(log.count for log in logs.values())

    # -- as a whole

    def digest(self) -> str:
        """Return a digest of all that is not zero (`zero_pages.digest`)."""
        return digest(self.blocks)

    def close(self) -> None:
        """Free the blocks."""
        for block in (*self.blocks, *self._replaced):
            block.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_layout(self, slots: Iterable[Slot]) -> None:
        free = 0
        for slot in slots:
            where = f"slot at {slot.gpa:#x}"
            if (slot.gpa | slot.size | slot.offset) % PAGE_SIZE or slot.size <= 0:
                message = f"{where}: not whole pages"
                raise ValueError(message)
            if self._named.get(slot.block.idstr) is not slot.block:
                message = f"{where}: {slot.block.idstr} is none of the blocks"
                raise ValueError(message)
            if not 0 <= slot.offset <= slot.block.size - slot.size:
                message = f"{where}: {slot.block.idstr} does not hold it"
                raise ValueError(message)
            if slot.gpa < free:
                message = f"{where}: overlaps the one before"
                raise ValueError(message)
            free = slot.gpa + slot.size


class _Told(NamedTuple):
    """A container's bitmap: its pages are of ``page_size`` from address ``gpa`` on."""

    words: Words
    gpa: int
    page_size: int

    def mark(self, log: DirtyPages, begin: int, end: int, to_block: int) -> int:
        """Mark what it says of the addresses from ``begin`` to ``end``.

        They and ``to_block``, what leads from them to offsets in the block, are whole
        pages of RAM, but for the ends of the bitmap.  Return what was not dirty.
        """
        first, last = (begin + to_block) // PAGE_SIZE, (end + to_block - 1) // PAGE_SIZE
        if self.page_size == PAGE_SIZE and self.gpa % PAGE_SIZE == 0:
            bit = (begin - self.gpa) // PAGE_SIZE
            return log.mark_copied(first, self.words, bit, last - first + 1)
        fresh = 0
        lowest = (begin - self.gpa) // self.page_size
        behind = (end - self.gpa - 1) // self.page_size + 1
        for at in range(lowest // WORD_BITS, -(-behind // WORD_BITS), _TAKE):
            told = dirty_ranges(self.words[at : at + _TAKE])
            told[:, 0] += at * WORD_BITS
            told = up_to_page(from_page(told, lowest), behind)
            ranges = in_pages_of(told, self.gpa + to_block, self.page_size, PAGE_SIZE)
            # A large page may begin before, and end behind, what is asked for.
            fresh += log.mark_ranges(up_to_page(from_page(ranges, first), last + 1))
        return fresh


def _check_told(length: int, gpa: int, size: int, page_size: int) -> None:
    """Raise ``ValueError`` if no bitmap of ``length`` bytes can be of that."""
    if page_size <= 0 or page_size & (page_size - 1):
        message = f"a page size of {page_size} is no power of two"
        raise ValueError(message)
    pages = -(-size // page_size)
    if gpa < 0 or size < 0 or gpa + pages * page_size > _HIGHEST:
        message = f"{size:#x} bytes at {gpa:#x} are no guest physical addresses"
        raise ValueError(message)
    if bitmap_size(pages) > length:
        message = f"a bitmap of {length} bytes does not hold {pages} pages"
        raise ValueError(message)
