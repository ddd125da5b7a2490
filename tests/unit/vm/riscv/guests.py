"""Small guests: a text at the beginning of RAM, and a hart that stands there."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, Self

from vfiomig.vm.layout import VIRT_RAM
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.riscv.assembler import REGISTERS, assemble
from vfiomig.vm.riscv.execute import Engine
from vfiomig.vm.riscv.hart import CSR, Hart
from vfiomig.vm.riscv.pages import A, D, R, U, V, W, X

if TYPE_CHECKING:
    from collections.abc import Mapping

RAM: Final = 1 << 20
CODE: Final = VIRT_RAM
DATA: Final = VIRT_RAM + 0x8000
HANDLER: Final = VIRT_RAM + 0x4000  # stvec of every hart here: a loop
TABLES: Final = VIRT_RAM + 0x1_0000
KERNEL_PAGE: Final = V | R | W | X | A | D
USER_PAGE: Final = KERNEL_PAGE | U
SV39: Final = 8 << 60
SYMBOLS: Final = {"data": DATA, "handler": HANDLER, "ram_end": VIRT_RAM + RAM}


class Guest:
    """One hart (and others that stand still) with a text; ``now`` is the time."""

    def __init__(self, text: str = "", *, at: int = CODE, harts: int = 1) -> None:
        self.memory = GuestMemory.of_virt(RAM)
        self.now = 0
        self.labels: dict[str, int] = {}
        self.harts = [Hart(hart_id=number, pc=at) for number in range(harts)]
        for hart in self.harts:
            hart.is_stopped = hart.hart_id > 0
            hart.csr[CSR["stvec"]] = HANDLER
        self.hart = self.harts[0]
        self.engine = Engine(self.memory, self.harts, lambda: self.now)
        self.put("j 0", HANDLER)
        self.put(text, at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()

    def put(self, text: str, at: int, symbols: Mapping[str, int] | None = None) -> None:
        """Assemble a text into RAM."""
        words, labels = assemble(text, at, {**SYMBOLS, **(symbols or {})})
        self.labels |= labels
        self.memory.write(at, b"".join(word.to_bytes(4, "little") for word in words))

    def run(self, budget: int) -> int:
        return self.engine.run(self.hart, budget)

    def run_to(self, label: str, limit: int = 100_000) -> None:
        """Run one instruction at a time, about, until the pc is at a label."""
        for _ in range(limit):
            if self.hart.pc == self.labels[label]:
                return
            self.run(1)
        raise AssertionError(hex(self.hart.pc))

    def register(self, name: str) -> int:
        return self.hart.x[REGISTERS[name]]

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self.hart.x[REGISTERS[name]] = value % (1 << 64)

    def csr(self, name: str) -> int:
        return self.hart.csr[CSR[name]]

    def set_csr(self, **values: int) -> None:
        for name, value in values.items():
            self.hart.csr[CSR[name]] = value

    def trapped(self) -> tuple[int, int, int]:
        """Return scause, sepc and stval; the hart stands at its handler."""
        assert self.hart.pc == HANDLER
        return self.csr("scause"), self.csr("sepc"), self.csr("stval")

    def trap(self, limit: int = 1000) -> tuple[int, int, int]:
        """Run up to the first trap, and return what `trapped` tells of it."""
        for _ in range(limit):
            self.run(1)
            if self.hart.pc == HANDLER:
                break
        return self.trapped()

    def word(self, gpa: int, size: int = 8) -> int:
        return int.from_bytes(self.memory.read(gpa, size), "little")

    def set_word(self, gpa: int, value: int, size: int = 8) -> None:
        self.memory.write(gpa, value.to_bytes(size, "little"))

    def map(self, pages: Mapping[int, int], root: int = TABLES) -> None:
        """Build tables of 4 KiB pages: address -> physical address | flags."""
        free = itertools.count(root + 0x1000, 0x1000)
        tables: dict[tuple[int, ...], int] = {(): root}
        self.memory.write(root, bytes(0x1_0000))
        for address, leaf in pages.items():
            path = tuple(address >> shift & 0x1FF for shift in (30, 21, 12))
            for depth in (1, 2):
                if path[:depth] not in tables:
                    tables[path[:depth]] = next(free)
                entry = tables[path[:depth]] >> 12 << 10 | V
                self.set_word(tables[path[: depth - 1]] + 8 * path[depth - 1], entry)
            flags = leaf & 0xFFF
            self.set_word(tables[path[:2]] + 8 * path[2], leaf >> 12 << 10 | flags)
        self.set_csr(satp=SV39 | root >> 12)
