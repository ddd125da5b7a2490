"""The reference driver for a model that is a PCI function as well.

Rule 1: what does not run does not change (V1-STATE-05): while it is stopped, BARs read
as all ones and writes go nowhere, as with a function that does not answer.

Rule 2: the interrupt line is no state.  After a reset, and whenever the device begins
to run (with a state that came in a stream, or its own), the model drives its line anew:
what the user had heard of it may have been another user, on another host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.vendor.reference import ReferenceDriver

if TYPE_CHECKING:
    from vfiomig.host.pci import Bus
    from vfiomig.protocol.v1.states import DeviceState
    from vfiomig.vendor.device_model import PciModel


class PciReferenceDriver(ReferenceDriver):
    """A vendor driver for one `PciModel`; ``section`` and ``data_section`` as there."""

    def __init__(
        self, model: PciModel, *, section: int, data_section: str = "mapped"
    ) -> None:
        super().__init__(model, section=section, data_section=data_section)
        self._device = model
        self.identity = model.identity
        self.bars = model.bars

    def connect(self, bus: Bus) -> None:
        """Tell the model of the bus."""
        self._device.connect(bus)

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        """Answer one access of the guest."""
        if not self._state.is_running:
            return b"\xff" * size
        return self._device.read_bar(bar, offset, size)

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        """Take one access of the guest."""
        if self._state.is_running:
            self._device.write_bar(bar, offset, data)

    def reset(self) -> None:
        """Go back to power-on, and to what the interrupt line is then."""
        super().reset()
        self._device.drive_interrupt()

    def _enter(self, target: DeviceState) -> None:
        was_running = self._state.is_running
        super()._enter(target)
        if target.is_running and not was_running:
            self._device.drive_interrupt()
