"""The sections of devices in a stream, as steps of whoever saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.migration.exchange import Send
from vfiomig.protocol.qemu_stream import framing
from vfiomig.uapi.qemu_stream import QEMU_VM_SECTION_END, QEMU_VM_SECTION_PART

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.client.v1 import Buffer
    from vfiomig.migration.side import MigratingDevice


class SectionWriter:
    """Numbers the devices as they are registered, and frames what they save."""

    def __init__(self, devices: Sequence[MigratingDevice], first: int = 1) -> None:
        self._numbers = {
            device.name: number for number, device in enumerate(devices, first)
        }

    def start(self, device: MigratingDevice) -> Send:
        """Return the whole START section of a device."""
        return Send(framing.start_section(self._numbers[device.name], device.idstr))

    def part(self, device: MigratingDevice, buffer: Buffer | None) -> Send:
        """Return a whole PART section, with one buffer or the sign of none."""
        number = self._numbers[device.name]
        head = framing.section_head(QEMU_VM_SECTION_PART, number)
        foot = self.foot(device)
        if buffer is None:
            return Send(head + framing.data_head(0) + foot)
        return self.buffer(buffer, head=head, foot=foot)

    def end_head(self, device: MigratingDevice) -> bytes:
        """Return what an END section begins with; its buffers follow, and `foot`."""
        number = self._numbers[device.name]
        return framing.section_head(QEMU_VM_SECTION_END, number)

    def buffer(self, buffer: Buffer, *, head: bytes = b"", foot: bytes = b"") -> Send:
        """Return a buffer with what belongs in front of it and behind, in one step."""
        return Send(head + framing.data_head(buffer.size), (*buffer.views, foot))

    def foot(self, device: MigratingDevice) -> bytes:
        """Return what a PART or END section ends with."""
        number = self._numbers[device.name]
        return framing.END_OF_STATE + framing.section_foot(number)

    def config(self, device: MigratingDevice, config: bytearray) -> Send:
        """Return the whole FULL section of a device, with its configuration space."""
        number = self._numbers[device.name]
        return Send(framing.full_section(number, device.idstr, config))
