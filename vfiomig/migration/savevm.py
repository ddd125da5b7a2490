"""savevm and loadvm: a VM's devices in one stream, with nobody at its other end.

The order is that of QEMU 7.2 (save_snapshot, qemu_savevm_state, load_snapshot): the VM
is stopped first, so nothing is pre-copied while it runs; what is saved before
completion goes into PART sections all the same, and nobody asks for pending_bytes but
the device's own iteration.  The stream is that of a migration.  Devices are stopped
and reset from the last to the first (vm_state_notify, qbus_walk_children).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.migration.clock import VirtualClock
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Send, Steps
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.recovery import Recovery
from vfiomig.migration.sections import SectionWriter
from vfiomig.migration.side import Ending, MigratingDevice
from vfiomig.protocol.errors import (
    DriverDiedError,
    VendorDriverError,
    VfiomigError,
)
from vfiomig.protocol.qemu_stream import framing
from vfiomig.protocol.v1.saving import EMPTY_BUFFERS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.client.v1 import Buffer

# A stopped device that has more to say after so many buffers has no end (V1-PEND-13).
_BUFFERS_LIMIT: Final = 1 << 20


def save_vm(devices: Sequence[MigratingDevice]) -> Steps[Ending]:
    """Stop the VM, save its devices into the stream, and let it go on if it ran.

    Only `Send` steps are made.  Whatever fails, the VM goes on as well.
    """
    return (yield from _Saving(devices).run())


def load_vm(
    devices: Sequence[MigratingDevice], *, metrics: Metrics | None = None
) -> Steps[Ending]:
    """Stop the VM, reset its devices, load them, and let it go on if it ran.

    Only `Receive` steps are made.  When it fails the VM stays stopped, and a device
    stays in the state that it came to.
    """
    destination = Destination(
        devices,
        clock=VirtualClock(),
        metrics=metrics or Metrics(),
        starts_vm=any(device.client.vm_is_running for device in devices),
    )
    try:
        for device in reversed(devices):
            device.client.vm_state_change(running=False)
        for device in reversed(devices):
            with contextlib.suppress(OSError):  # QEMU only complains
                device.client.reset()
        yield from destination.load_stream()
    except (OSError, VfiomigError) as error:
        return destination.give_up(error)
    return Ending(Outcome.COMPLETED)


class _Saving:
    def __init__(self, devices: Sequence[MigratingDevice]) -> None:
        self._devices = devices
        self._sections = SectionWriter(devices)
        self._ran = [device for device in devices if device.client.vm_is_running]
        self._busy_with = ""
        self._buffers = self._empty_buffers = 0

    def run(self) -> Steps[Ending]:
        error: Exception | None = None
        try:
            self._stop_vm()
            yield Send(framing.STREAM_HEAD)
            yield from self._set_up()
            yield from self._iterate()
            yield from self._complete()
            yield Send(framing.STREAM_END)
        except (OSError, VfiomigError) as failure:
            error = failure
        return self._end(error)

    def _stop_vm(self) -> None:
        for device in reversed(self._devices):
            self._busy_with = device.name
            device.client.vm_state_change(running=False, for_savevm=True)

    def _set_up(self) -> Steps[None]:
        for device in self._devices:
            self._busy_with = device.name
            device.client.save_setup()
            yield self._sections.start(device)

    def _iterate(self) -> Steps[None]:
        """Iterate until every device says in one pass that nothing is pending."""
        is_pending = True
        while is_pending:
            is_pending = False
            for device in self._devices:
                self._busy_with = device.name
                for buffer in device.client.save_iterate():
                    is_pending = True
                    self._require_progress(device, buffer)
                    yield self._sections.part(device, buffer)
                if is_pending:
                    break
                yield self._sections.part(device, None)

    def _require_progress(self, device: MigratingDevice, buffer: Buffer) -> None:
        self._buffers += 1
        if self._buffers == _BUFFERS_LIMIT:
            message = f"{device.name} has no end: {self._buffers} buffers while stopped"
            raise VendorDriverError(message)
        self._empty_buffers = 0 if buffer.size else self._empty_buffers + 1
        if self._empty_buffers == EMPTY_BUFFERS_LIMIT:
            message = (
                f"{device.name}: {self._empty_buffers} buffers of 0 bytes in a row"
            )
            raise VendorDriverError(message)

    def _complete(self) -> Steps[None]:
        for device in self._devices:
            self._busy_with = device.name
            yield Send(self._sections.end_head(device))
            for buffer in device.client.save_complete_precopy():
                self._require_progress(device, buffer)
                yield self._sections.buffer(buffer)
            yield Send(self._sections.foot(device))

    def _end(self, error: Exception | None) -> Ending:
        """Unmap, and let the VM go on if it ran (QEMU: vm_start, no notifier)."""
        recovery = Recovery(error, self._busy_with)
        for device in self._devices:
            device.client.save_cleanup()
        try:
            if isinstance(error, ApplicationAbortedError):
                raise error
            for device in self._devices:
                device.client.give_up_saving()
                if device in self._ran:
                    recovery.attempt(device, lambda c: c.vm_state_change(running=True))
                elif error is not None and device.client.conduct.ends_failed_savevm:
                    recovery.attempt(device, lambda c: c.migration_failed())
        except ApplicationAbortedError as abort:
            recovery.lose_all(self._devices, abort)
        lost = tuple(recovery.lost.items())
        if error is None:
            return Ending(Outcome.COMPLETED, lost=lost)
        died = isinstance(error, DriverDiedError)
        outcome = Outcome.DIED if died else Outcome.FAILED
        return Ending(outcome, error, self._busy_with, lost)
