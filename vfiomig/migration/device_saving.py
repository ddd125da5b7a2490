"""A VFIO device's part in the stream at the source: hw/vfio/migration.c of 7.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.exchange import Send, Steps
from vfiomig.migration.loop_rules import QEMU_7_2, LoopRules
from vfiomig.protocol.errors import VendorDriverError

if TYPE_CHECKING:
    from vfiomig.client.v1 import Buffer
    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.metrics import Metrics, Round
    from vfiomig.migration.observer import Observer
    from vfiomig.migration.sections import SectionWriter
    from vfiomig.migration.side import MigratingDevice, StateNotes

# A device that has more to say after so many buffers has no end (V1-PEND-13): a
# mebibyte in buffers of one byte is still let through.
_BUFFERS_LIMIT: Final = 1 << 20


class DeviceSaving:
    """One device, a `SaveHandler`."""

    def __init__(
        self,
        device: MigratingDevice,
        sections: SectionWriter,
        *,
        clock: VirtualClock,
        metrics: Metrics,
        observer: Observer,
        states: StateNotes,
        rules: LoopRules = QEMU_7_2,
    ) -> None:
        self._device = device
        self._client = device.client
        self._sections = sections
        self._clock = clock
        self._metrics = metrics
        self._observer = observer
        self._states = states
        self._rules = rules
        self.name = device.name

    def save_setup(self) -> Steps[None]:
        """Bring the device to pre-copy, and open its section."""
        self._client.save_setup()
        self._states.note(self._device)
        sent = yield self._sections.start(self._device)
        self._metrics.stream_bytes += sent

    def pending_estimate(self) -> int:
        """Return pending_bytes as often as this QEMU counts it in its estimate."""
        if not self._rules.in_estimate:
            return 0
        return self._client.save_pending() * self._rules.in_estimate

    def pending_exact(self, threshold: int) -> int:
        """Return pending_bytes as often as this QEMU counts it in the end."""
        return self._client.save_pending() * self._rules.in_exact

    def save_iterate(self, current: Round) -> Steps[bool]:
        """Save one buffer; True when there was none."""
        metrics, device = self._metrics, self._device
        is_done = True
        for buffer in self._client.save_iterate():
            is_done = False
            size = buffer.size  # the views are good until the next access
            sent = yield self._sections.part(device, buffer)
            metrics.stream_bytes += sent
            self._observer.buffer_sent(self.name, size, self._clock.now)
            current.buffers += 1
            current.device_bytes += size
            current.is_idle = not size
            metrics.precopy_device_bytes += size
        if is_done:
            sent = yield self._sections.part(device, None)
            metrics.stream_bytes += sent
        return is_done

    def save_complete_precopy(self) -> Steps[None]:
        """Save all buffers that are left, then let the device stop.

        Raises:
            VendorDriverError: it has no end.
        """
        head = self._sections.end_head(self._device)
        for number, buffer in enumerate(self._client.save_complete_precopy()):
            if number == _BUFFERS_LIMIT:
                message = f"{self.name} has no end: {number} buffers while stopped"
                raise VendorDriverError(message)
            yield from self._send_last(buffer, head)
            head = b""
        self._states.note(self._device)
        foot = self._sections.foot(self._device)
        sent = yield Send(head + foot)
        self._metrics.stream_bytes += sent

    def _send_last(self, buffer: Buffer, head: bytes) -> Steps[None]:
        size = buffer.size
        sent = yield self._sections.buffer(buffer, head=head)
        self._metrics.stream_bytes += sent
        self._observer.buffer_sent(self.name, size, self._clock.now)
        self._metrics.stop_and_copy_device_bytes += size

    def save_state(self) -> Steps[None]:
        """Send the device's configuration space, where the machine has one."""
        if self._device.config is not None:
            sent = yield self._sections.config(self._device, self._device.config)
            self._metrics.stream_bytes += sent
            self._metrics.config_bytes += sent
