"""Devices that write to guest memory: the reference device, with a bus.

`Writer` writes below 4 GiB and above, at addresses of its own; where a guest has no
RAM there it gets EFAULT, and goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.host.pci import Bar, PciIdentity
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

if TYPE_CHECKING:
    from vfiomig.host.pci import Bus

PAGE: Final = 4096
BELOW: Final = 0x40_0000
ABOVE: Final = 0x1_0000_0000
SPAN: Final = 64  # pages that it writes to, at each of the two


class Writer(ReferenceDriver):
    """A device that leaves a number on a page for each unit of work."""

    identity = PciIdentity(
        vendor=0x1AF4,
        device=0x10F1,
        subsystem_vendor=0x1AF4,
        subsystem=1,
        class_code=0x118000,
    )
    bars: tuple[Bar, ...] = ()
    places: tuple[int, ...] = (BELOW, ABOVE)

    def __init__(self) -> None:
        super().__init__(ScratchpadModel(4 * PAGE), section=4 * PAGE)
        self._bus: Bus | None = None
        self._written = 0

    def connect(self, bus: Bus) -> None:
        self._bus = bus

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        raise AssertionError((bar, offset, size))

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        raise AssertionError((bar, offset, data))

    def work(self, amount: int) -> None:
        super().work(amount)
        assert self._bus is not None
        for _ in range(amount):
            self._written += 1
            page = self._written * 7 % SPAN
            number = self._written.to_bytes(8, "little")
            for place in self.places:
                self._bus.dma_write(place + page * PAGE + 8, number)


class WriterBelow(Writer):
    """One for a guest that has no RAM above 4 GiB."""

    places = (BELOW,)
