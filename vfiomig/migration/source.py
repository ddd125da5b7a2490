"""The source: pre-copy rounds, the switch-over, stop-and-copy; or going on unharmed.

The loop is QEMU's, in `pre_copy`.  Whatever fails, this side ends with its devices
RUNNING again and their state whole, or says which of them it could not bring back.
Where the user application aborts, as QEMU does at a device in ERROR, none is touched
any more and all are lost.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.migration.device_saving import DeviceSaving
from vfiomig.migration.exchange import Finish, Receive, Send, Steps
from vfiomig.migration.metrics import Metrics, Outcome, StatusChange
from vfiomig.migration.observer import Guest, IdleGuest, Observer, Unobserved
from vfiomig.migration.pace import Pace, QemuPace, Unpaced
from vfiomig.migration.parameters import Parameters
from vfiomig.migration.pre_copy import PreCopy
from vfiomig.migration.ram_saving import RamSaving
from vfiomig.migration.recovery import Recovery
from vfiomig.migration.sections import SectionWriter
from vfiomig.migration.side import (
    Ending,
    MigratingDevice,
    MigratingMachine,
    StateNotes,
    description_of,
)
from vfiomig.migration.state_saving import StateSaving, hart_states, xen_states
from vfiomig.protocol.errors import DriverDiedError, VfiomigError
from vfiomig.protocol.qemu_stream import framing
from vfiomig.vm.machine import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.clock import VirtualClock
    from vfiomig.migration.convergence import DowntimeEstimate, Limits
    from vfiomig.migration.handler import SaveHandler

# The section of RAM; the devices' come behind it, or begin here without one.
_RAM_SECTION: Final = 1

# query-migrate's word for an end.
_STATUSES: Final = {Outcome.COMPLETED: "completed", Outcome.CANCELLED: "cancelled"}


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
        machine: MigratingMachine | None = None,
    ) -> None:
        self._devices = devices
        self._clock = clock
        self._metrics = metrics
        self._observer = observer or Unobserved()
        self._states = StateNotes("source", clock, metrics, self._observer)
        self._stopped: list[MigratingDevice] = []  # by us, to run again if it fails
        self._machine = machine
        parameters = machine.parameters if machine is not None else Parameters()
        self._parameters = parameters
        self._pace: Pace = Unpaced(estimate)
        handlers: list[SaveHandler] = []
        self._ram: RamSaving | None = None
        if machine is not None:
            self._pace = QemuPace(
                clock=clock, metrics=metrics, link=estimate.link, parameters=parameters
            )
            self._ram = RamSaving(
                machine,
                _RAM_SECTION,
                clock=clock,
                pace=self._pace,
                metrics=metrics,
                sender=machine.sender,
                observer=self._observer,
            )
            handlers.append(self._ram)
        section = _RAM_SECTION + len(handlers)
        self._harts: StateSaving | None = None
        self._xen: StateSaving | None = None
        if machine is not None and (board := machine.machine.board) is not None:
            take = partial(hart_states, board, section)
            self._harts = StateSaving("harts", take, clock=clock, metrics=metrics)
            handlers.append(self._harts)
            section += len(board.harts)
        sections = SectionWriter(devices, section)
        handlers += [
            DeviceSaving(
                device,
                sections,
                clock=clock,
                metrics=metrics,
                observer=self._observer,
                states=self._states,
                rules=parameters.rules,
            )
            for device in devices
        ]
        if machine is not None and (xen := machine.machine.xen) is not None:
            take = partial(xen_states, xen, section + len(devices))
            self._xen = StateSaving("xen", take, clock=clock, metrics=metrics)
            handlers.append(self._xen)
        self._loop = PreCopy(
            handlers,
            clock=clock,
            pace=self._pace,
            limits=limits,
            metrics=metrics,
            guest=guest or IdleGuest(),
            observer=self._observer,
            rules=parameters.rules,
        )

    def migrate(self) -> Steps[Ending]:
        """Move all devices; return how it ended, with the source in order again."""
        self._note_status("setup")
        try:
            yield from self._send(framing.STREAM_HEAD)
            if self._machine is not None:
                machine_type = self._machine.machine.machine_type
                yield from self._send(framing.configuration(machine_type))
            yield from self._loop.set_up()
            self._note_status("active")
            yield from self._loop.iterate()
            yield from self._stop_and_copy()
            yield from self._wait_for_destination()
        except (OSError, VfiomigError) as error:
            return self._end_badly(error)
        for device in self._devices:
            device.client.save_cleanup()
        self._clean_up(RunState.POST_MIGRATE, Outcome.COMPLETED)
        return Ending(Outcome.COMPLETED)

    # -- switch-over and stop-and-copy -----------------------------------------------

    def _stop_and_copy(self) -> Steps[None]:
        if self._machine is not None:
            self._machine.machine.stop(RunState.FINISH_MIGRATE)
        self._stop_vm()
        if self._parameters.pause_before_switchover:
            self._note_status("pre-switchover")  # migrate-continue comes at once
        if self._parameters.enters_device:
            self._note_status("device")
        yield from self._loop.complete()
        yield from self._send(framing.STREAM_END)
        if self._machine is not None:
            before, behind = (
                states.descriptions if states is not None else ()
                for states in (self._harts, self._xen)
            )
            document = description_of(self._devices, before, behind)
            text = framing.vm_description(document)
            yield from self._send(text)
            self._metrics.vmdesc_bytes += len(text)
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
        self._clean_up(RunState.RUNNING, outcome)
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

    def _clean_up(self, run_state: RunState, outcome: Outcome) -> None:
        """Leave the machine so; note how it ended (migrate_fd_cleanup)."""
        if self._machine is not None:
            if run_state is RunState.RUNNING:
                self._machine.machine.start(self._clock.now)
            else:
                self._machine.machine.run_state = run_state
        if self._ram is not None:
            self._ram.stop_logs()
        if outcome is Outcome.CANCELLED:
            self._note_status("cancelling")
        self._note_status(_STATUSES.get(outcome, "failed"))
        self._metrics.ended_at = self._clock.now

    def _note_status(self, status: str) -> None:
        self._metrics.statuses.append(StatusChange(at=self._clock.now, status=status))

    def _send(self, data: bytes) -> Steps[None]:
        sent = yield Send(data)
        self._metrics.stream_bytes += sent
