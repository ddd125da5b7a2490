"""The source: pre-copy rounds, the switch-over, stop-and-copy; or going on unharmed.

The loop is QEMU's, in `pre_copy`.  Whatever fails, this side ends with its devices
RUNNING again and their state whole, or says which of them it could not bring back.
Where the user application aborts, as QEMU does at a device in ERROR, none is touched
any more and all are lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.migration.device_saving import DeviceSaving
from vfiomig.migration.exchange import Finish, Receive, Send, Steps
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.observer import Guest, IdleGuest, Observer, Unobserved
from vfiomig.migration.pace import Unpaced
from vfiomig.migration.pre_copy import PreCopy
from vfiomig.migration.recovery import Recovery
from vfiomig.migration.sections import SectionWriter
from vfiomig.migration.side import Ending, MigratingDevice, StateNotes
from vfiomig.protocol.errors import DriverDiedError, VfiomigError
from vfiomig.protocol.qemu_stream import framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.convergence import DowntimeEstimate, Limits


class Source:
    """One side of a migration: `migrate` is what it does, step by step.

    The devices run when it begins, or their VM was stopped before; then it is left
    so.  ``metrics`` is filled while it goes on, and says
    how far it came whatever happens.
    """

    def __init__(
        self,
        devices: Sequence[MigratingDevice],
        *,
        clock: VirtualClock,
        estimate: DowntimeEstimate,
        limits: Limits,
        metrics: Metrics,
        guest: Guest | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._devices = devices
        self._clock = clock
        self._metrics = metrics
        self._observer = observer or Unobserved()
        self._states = StateNotes("source", clock, metrics, self._observer)
        self._stopped: list[MigratingDevice] = []  # by us, to run again if it fails
        sections = SectionWriter(devices)
        self._handlers = [
            DeviceSaving(
                device,
                sections,
                clock=clock,
                metrics=metrics,
                observer=self._observer,
                states=self._states,
            )
            for device in devices
        ]
        self._loop = PreCopy(
            self._handlers,
            clock=clock,
            pace=Unpaced(estimate),
            limits=limits,
            metrics=metrics,
            guest=guest or IdleGuest(),
            observer=self._observer,
        )

    def migrate(self) -> Steps[Ending]:
        """Move all devices; return how it ended, with the source in order again."""
        try:
            sent = yield Send(framing.STREAM_HEAD)
            self._metrics.stream_bytes += sent
            yield from self._loop.set_up()
            yield from self._loop.iterate()
            yield from self._stop_and_copy()
            yield from self._wait_for_destination()
        except (OSError, VfiomigError) as error:
            return self._end_badly(error)
        for device in self._devices:
            device.client.save_cleanup()
        self._metrics.ended_at = self._clock.now
        return Ending(Outcome.COMPLETED)

    # -- switch-over and stop-and-copy -----------------------------------------------

    def _stop_and_copy(self) -> Steps[None]:
        self._stop_vm()
        yield from self._loop.complete()
        sent = yield Send(framing.STREAM_END)
        self._metrics.stream_bytes += sent
        # A damaged length makes the destination wait for bytes that never come.
        yield Finish()

    def _stop_vm(self) -> None:
        """Stop the guest and each device.

        QEMU's handler cannot fail the stop: it notes the error, and the first device
        is asked to stop once more before the migration fails.  The last device stops
        first (vm_state_notify).
        """
        self._stopped = [d for d in self._devices if d.client.vm_is_running]
        self._metrics.stopped_at = self._clock.now
        failures = []
        for device in reversed(self._devices):
            self._loop.busy_with = device.name
            try:
                device.client.vm_state_change(running=False)
            except OSError as failure:
                failures.append(failure)
            else:
                self._observer.source_stopped(device.name)
                self._states.note(device)
        if failures:
            first = self._devices[0]
            self._loop.busy_with = first.name
            for _ in first.client.save_complete_precopy(stream_failed=True):
                pass
            raise failures[0]
        self._observer.source_stops_copying()

    def _wait_for_destination(self) -> Steps[None]:
        """Read the destination's last word, which it only says when its VM runs.

        Once all of it was sent the destination goes on running, so all of it means
        that the devices have moved, damaged or not: this side must not run as well.
        Where a part is missing the destination knows, and has given up.
        """
        answer = bytearray(framing.RETURN_PATH_SIZE)
        with memoryview(answer) as view:
            got = yield Receive(view)
        if got < len(answer):
            message = "the destination went away before it ran"
            raise ConnectionResetError(message)

    # -- when it does not go well ----------------------------------------------------

    def _end_badly(self, error: Exception) -> Ending:
        """Bring the source back to where it runs (QEMU: migration_fd_cleanup)."""
        recovery = Recovery(error, self._loop.busy_with)
        if isinstance(error, DriverDiedError):
            outcome = Outcome.DIED
        else:
            outcome = getattr(error, "outcome", Outcome.FAILED)
        try:
            if isinstance(error, ApplicationAbortedError):
                raise error
            self._bring_back(recovery)
        except ApplicationAbortedError as abort:
            recovery.lose_all(self._devices, abort)
        for device in self._devices:
            device.client.save_cleanup()
        self._metrics.ended_at = self._clock.now
        lost = tuple(recovery.lost.items())
        return Ending(outcome, error, self._loop.busy_with, lost)

    def _bring_back(self, recovery: Recovery) -> None:
        """Let every device run again that can.

        Raises:
            ApplicationAbortedError: one of them went to ERROR.
        """
        for device in self._devices:
            self._observer.source_will_continue(device.name)
            device.client.give_up_saving()
        for device in self._stopped:
            recovery.attempt(device, lambda c: c.vm_state_change(running=True))
        for device in self._devices:
            device.client.save_cleanup()
        for device in reversed(self._devices):  # QEMU's list of notifiers
            recovery.attempt(device, lambda c: c.migration_failed())
        for device in self._devices:
            if device.name not in recovery.lost:
                self._states.note(device)
                self._observer.source_continues(device.name)
