"""Memory as one hart sees it while it runs, and what was translated of it.

Rule 1: a `Tlb` lives for one run.  So what was written into RAM, or into registers,
between two runs is seen by the next one, page tables included, and a log of dirty
pages that was emptied is marked again.

Rule 2: code is copied, and the copy is what is translated.  A page that holds code is
never in the TLB for stores: the first store into it drops the copy.  What a function
is about to do it still does, so that a guest that writes its own code needs FENCE.I
(which ends each block).  Copies are compared with RAM before each run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.riscv.csr import ALL
from vfiomig.vm.riscv.hart import CSR
from vfiomig.vm.riscv.pages import PAGE, Access, physical
from vfiomig.vm.riscv.templates import SIZES
from vfiomig.vm.riscv.translate import Block, translate
from vfiomig.vm.riscv.trap import (
    FETCH_MISALIGNED,
    LOAD_MISALIGNED,
    STORE_MISALIGNED,
    Trap,
)

if TYPE_CHECKING:
    from vfiomig.vm.memory import GuestMemory, Piece
    from vfiomig.vm.riscv.hart import Hart
    from vfiomig.vm.riscv.templates import Kind
    from vfiomig.vm.riscv.translate import Near

_KEPT: Final = 1024  # pages, or views of them
_SATP: Final = CSR["satp"]
_SSTATUS: Final = CSR["sstatus"]
_KIND: Final = {kind: ord(kind) for kind in SIZES}  # below 128: fits beside a page
_MODE_SHIFT: Final = 7


class Frames:
    """Pages of RAM by guest physical address: where they are is for ever."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._pieces: dict[int, Piece] = {}
        self._views: dict[int, memoryview] = {}

    def piece(self, gpa: int) -> Piece:
        """Return the memory of a page; raises ``OSError`` if it is no RAM."""
        found = self._pieces.get(gpa)
        if found is None:
            if len(self._pieces) >= _KEPT:
                self._pieces.clear()
            (found,) = self._memory.pieces(gpa, PAGE)
            self._pieces[gpa] = found
        return found

    def view(self, gpa: int, kind: Kind) -> memoryview:
        """Return a page as elements; raises ``OSError`` if it is no RAM."""
        key = gpa | _KIND[kind]
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= _KEPT:
                self._views.clear()
            block, offset, size = self.piece(gpa)
            found = block.view[offset : offset + size].cast(kind)
            self._views[key] = found
        return found


class CodePages:
    """Copies of the pages that hold translated code, by guest physical address."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._copies: dict[int, bytes] = {}

    def __contains__(self, gpa: int) -> bool:
        return gpa in self._copies

    def copy(self, gpa: int) -> bytes:
        """Return the contents of a page of RAM; from now on it holds code."""
        found = self._copies.get(gpa)
        if found is None:
            found = self._copies[gpa] = self._memory.read(gpa, PAGE)
        return found

    @property
    def is_full(self) -> bool:
        """Whether it is time to forget them all."""
        return len(self._copies) >= _KEPT

    def drop_all(self) -> None:
        """Forget all pages."""
        self._copies.clear()

    def drop(self, gpa: int) -> None:
        """Forget a page, which changes."""
        self._copies.pop(gpa, None)

    def drop_changed(self) -> None:
        """Forget all pages that are not in RAM as they were."""
        for gpa, copy in list(self._copies.items()):
            if self._memory.read(gpa, PAGE) != copy:
                del self._copies[gpa]


class Tlb:
    """What a hart reached in one run: pages to load from and store to, and blocks.

    ``blocks`` are by mode and pc.
    """

    def __init__(
        self, memory: GuestMemory, frames: Frames, code: CodePages, hart: Hart
    ) -> None:
        self._memory = memory
        self._frames = frames
        self._code = code
        self._hart = hart
        self.blocks: tuple[dict[int, Block], ...] = ({}, {})
        self._fetched: dict[int, int] = {}
        self._loads: dict[int, memoryview] = {}
        self._stores: dict[int, memoryview] = {}

    def flush(self) -> None:
        """Forget all: what addresses mean may have changed."""
        self._drop_blocks()
        self._fetched.clear()
        self._loads.clear()
        self._stores.clear()

    def load(self, base: int, imm: int, kind: Kind) -> Near:
        """Return where an element of memory is (`translate.Near`), to load it.

        Raises ``Trap``: misaligned, no page, no RAM.
        """
        address = base + imm & ALL
        page = address & -PAGE
        if address & SIZES[kind] - 1:
            raise Trap(LOAD_MISALIGNED, address)
        key = page | _KIND[kind] | self._hart.mode << _MODE_SHIFT
        found = self._loads.get(key)
        if found is None:
            gpa = self._walk(address, Access.LOAD)
            found = self._loads[key] = self._frames.view(gpa, kind)
        return page - imm, found, address - page

    def store(self, base: int, imm: int, kind: Kind) -> Near:
        """Return where an element of memory is, to store it; the page is dirty now.

        Raises ``Trap``: misaligned, no page, no RAM.
        """
        address = base + imm & ALL
        page = address & -PAGE
        if address & SIZES[kind] - 1:
            raise Trap(STORE_MISALIGNED, address)
        key = page | _KIND[kind] | self._hart.mode << _MODE_SHIFT
        found = self._stores.get(key)
        if found is None:
            gpa = self._walk(address, Access.STORE)
            piece = self._frames.piece(gpa)
            if gpa in self._code:
                self._code.drop(gpa)
                self._drop_blocks()
            self._memory.mark(LogUser.KERNEL, piece.block, piece.offset, PAGE)
            found = self._stores[key] = self._frames.view(gpa, kind)
        return page - imm, found, address - page

    def block(self, pc: int) -> Block:
        """Return the block at ``pc``, and keep it.

        Raises ``Trap``: misaligned, no page, no RAM.
        """
        if pc & 3:
            raise Trap(FETCH_MISALIGNED, pc)
        key = pc & -PAGE | self._hart.mode
        gpa = self._fetched.get(key)
        if gpa is None:
            gpa = self._fetched[key] = self._walk(pc, Access.FETCH)
        if gpa not in self._code:
            self._stores.clear()
            if self._code.is_full:
                self._code.drop_all()
                self._drop_blocks()
        block = translate(self._code.copy(gpa), pc)
        self.blocks[self._hart.mode][pc] = block
        return block

    def _drop_blocks(self) -> None:
        for blocks in self.blocks:
            blocks.clear()

    def _walk(self, address: int, access: Access) -> int:
        """Return the physical address of the page that an address is in.

        Raises ``Trap``: no page, or it is no RAM.
        """
        csr, mode = self._hart.csr, self._hart.mode
        satp, sstatus = csr[_SATP], csr[_SSTATUS]
        gpa = physical(self._entry, satp, sstatus, mode, address, access) & -PAGE
        try:
            self._frames.piece(gpa)
        except OSError:
            raise Trap(access.value[0], address) from None
        return gpa

    def _entry(self, gpa: int) -> int:
        table = gpa & -PAGE
        return self._frames.view(table, "Q")[(gpa - table) // 8]
