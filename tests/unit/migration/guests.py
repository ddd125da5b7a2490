"""Small guests for RAM's part in a stream: made by hand, looked at byte for byte."""

from __future__ import annotations

import struct

from vfiomig.migration.parameters import Parameters
from vfiomig.migration.side import MigratingMachine
from vfiomig.vm.machine import Machine, RunState
from vfiomig.vm.memory import GuestMemory

PAGE = 4096
PC_RAM = b"\x06pc.ram"

# Flags of a page's word (migration/ram.c).
ZERO, FULL, EOS, CONTINUE = 0x02, 0x08, 0x10, 0x20


def word(page: int, flags: int) -> bytes:
    return struct.pack(">Q", page * PAGE | flags)


END_OF_STATE = word(0, EOS)


def footer(section: int) -> bytes:
    return b"\x7e" + struct.pack(">I", section)


def content(number: int) -> bytes:
    """Return a page that is not zero and no other number's."""
    return struct.pack("<I", number + 1) * (PAGE // 4)


class SmallGuest:
    """A PC with so many pages of RAM; those that are named have `content`."""

    def __init__(self, pages: int, *filled: int) -> None:
        self.memory = GuestMemory.of_pc(pages * PAGE)
        self.machine = Machine("pc-i440fx-7.2", self.memory, (), RunState.RUNNING)
        self.syncs = 0
        for page in filled:
            self.write(page)

    def write(self, page: int, number: int | None = None) -> None:
        """Let a vCPU write a whole page."""
        self.memory.write(page * PAGE, content(page if number is None else number))

    def page(self, number: int) -> bytes:
        return self.memory.read(number * PAGE, PAGE)

    def migrating(self, **parameters: object) -> MigratingMachine:
        known = Parameters(**parameters)  # type: ignore[arg-type]
        return MigratingMachine(self.machine, known, self._sync_dma)

    def _sync_dma(self) -> int:
        self.syncs += 1
        return 0

    def __enter__(self) -> SmallGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()
