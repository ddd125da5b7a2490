"""The device behind the target `reference`: memory that the guest scribbles on.

The smallest device that has all that a migration can ask for: memory in pages that
goes in pre-copy and again where it changed, and a head that waits for stop-and-copy.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from vfiomig.vendor.paged_memory import PAGE_SIZE, PagedMemory
from vfiomig.vendor.pseudo_random import following

_HEAD_PAGES: Final = 1


class ScratchpadHead(ctypes.Structure):
    """What decides where the guest writes next; it fills the head page."""

    _fields_ = (
        ("generator", ctypes.c_uint64),
        ("writes", ctypes.c_uint64),
        ("reserved", ctypes.c_uint8 * (_HEAD_PAGES * PAGE_SIZE - 16)),
    )


class ScratchpadModel:
    """``state`` bytes of memory, one or more whole pages; a `DeviceModel`."""

    kind: Final = int.from_bytes(b"SCRA", "big")

    def __init__(self, state: int = 64 * 1024) -> None:
        if state <= 0 or state % PAGE_SIZE:
            message = f"{state} bytes are not one or more pages of {PAGE_SIZE}"
            raise ValueError(message)
        self.shape = state
        self._memory = memory = PagedMemory(
            head_pages=_HEAD_PAGES, memory_pages=state // PAGE_SIZE
        )
        self.snapshot = memory.snapshot
        self.power_on = memory.power_on
        self.begin_saving = memory.begin_saving
        self.pending = memory.pending
        self.save = memory.save
        self.requeue = memory.requeue
        self.end_saving = memory.end_saving
        self.begin_loading = memory.begin_loading
        self.load = memory.load
        self.drop_loading = memory.drop_loading
        self.close = memory.close

    def work(self, amount: int) -> None:
        """Write ``amount`` pseudo-random bytes, each to a pseudo-random address."""
        if amount <= 0:
            return
        self._memory.touch()
        view = self._memory.view
        mark = self._memory.dirty.mark
        head = ScratchpadHead.from_buffer(view)
        generator = int(head.generator)
        for _ in range(amount):
            generator = following(generator)
            address = _HEAD_PAGES * PAGE_SIZE + (generator >> 32) % self.shape
            view[address] = generator >> 56
            mark(address // PAGE_SIZE)
        head.generator = generator
        head.writes += amount
        mark(0)

    def finish_loading(self) -> None:
        """Make what came the device's state.

        Raises ``OSError(EINVAL)`` if a page never came or a reserved byte is set.
        """
        self._memory.finish_loading(_check_head)


def _check_head(page: memoryview) -> None:
    if any(bytes(ScratchpadHead.from_buffer(page).reserved)):
        raise OSError(errno.EINVAL, "a reserved byte of the head is set")
