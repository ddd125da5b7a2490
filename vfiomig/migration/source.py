"""The source: pre-copy rounds, the switch-over, stop-and-copy; or going on unharmed.

The loop is QEMU's (migration_iteration_run and qemu_savevm_state_* of 7.2): every
pass asks all devices what is pending, then walks them in order and lets each save one
buffer, stopping at the first that still had one.  So devices take turns one after
another, and the last of them is asked many times before its data_offset is read.

Whatever fails, this side ends with its devices RUNNING again and their state whole,
or says which of them it could not bring back.  Where the user application aborts, as
QEMU does at a device in ERROR, none is touched any more and all are lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.migration.convergence import Decision, DowntimeEstimate, Limits, Look
from vfiomig.migration.exchange import Finish, Receive, Send, Steps
from vfiomig.migration.metrics import Metrics, Outcome, Round
from vfiomig.migration.observer import Guest, IdleGuest, Observer, Unobserved
from vfiomig.migration.recovery import Recovery
from vfiomig.migration.sections import SectionWriter
from vfiomig.migration.side import Ending, MigratingDevice, StateNotes
from vfiomig.protocol.errors import (
    DriverDiedError,
    VendorDriverError,
    VfiomigError,
)
from vfiomig.protocol.qemu_stream import framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.client.v1 import Buffer
    from vfiomig.migration.clock import VirtualClock

# A device that has more to say after so many buffers has no end (V1-PEND-13): a
# mebibyte in buffers of one byte is still let through.
_BUFFERS_LIMIT: Final = 1 << 20

# A round is over at the latest after so many buffers, whatever pending_bytes claimed.
_ROUND_LIMIT: Final = 1 << 16


class _EndedEarlyError(VfiomigError):
    """The source itself decided to stop: a cancel, or no hope of an end."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


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
        self._estimate = estimate
        self._limits = limits
        self._metrics = metrics
        self._guest = guest or IdleGuest()
        self._observer = observer or Unobserved()
        self._states = StateNotes("source", clock, metrics, self._observer)
        self._stopped: list[MigratingDevice] = []  # by us, to run again if it fails
        self._busy_with = ""
        self._sections = SectionWriter(devices)

    def migrate(self) -> Steps[Ending]:
        """Move all devices; return how it ended, with the source in order again."""
        try:
            yield from self._send(Send(framing.STREAM_HEAD))
            yield from self._set_up()
            yield from self._pre_copy()
            yield from self._stop_and_copy()
            yield from self._wait_for_destination()
        except (OSError, VfiomigError) as error:
            return self._end_badly(error)
        for device in self._devices:
            device.client.save_cleanup()
        self._metrics.ended_at = self._clock.now
        return Ending(Outcome.COMPLETED)

    # -- set-up and pre-copy ---------------------------------------------------------

    def _set_up(self) -> Steps[None]:
        for device in self._devices:
            self._busy_with = device.name
            device.client.save_setup()
            self._states.note(device)
            yield from self._send(self._sections.start(device))

    def _pre_copy(self) -> Steps[None]:
        """Iterate until what is left can be moved within the downtime limit."""
        rounds = self._metrics.rounds
        while True:
            self._guest.run_until(self._clock.now)
            pending = self._pending()
            is_round_over = not rounds or _is_over(rounds[-1])
            look = Look(
                now=self._clock.now,
                pending=pending,
                expected=self._estimate.of(pending),
                rounds_begun=len(rounds),
                rounds_ended=len(rounds) - (not is_round_over),
            )
            decision = self._limits.decide(look)
            if decision is not Decision.ITERATE:
                self._leave_pre_copy(decision, look)
                return
            if is_round_over:
                self._begin_round(pending)
            rounds[-1].polls += 1
            yield from self._iterate(rounds[-1])
            rounds[-1].ended_at = self._clock.now

    def _pending(self) -> int:
        total = 0
        for device in self._devices:
            self._busy_with = device.name
            total += device.client.save_pending()
        return total

    def _begin_round(self, pending: int) -> None:
        number = len(self._metrics.rounds) + 1
        now = self._clock.now
        self._metrics.rounds.append(
            Round(number=number, began_at=now, pending_bytes=pending, ended_at=now)
        )
        self._observer.round_began(number, pending)

    def _iterate(self, current: Round) -> Steps[None]:
        """Let each device save one buffer, up to the first that had one."""
        for device in self._devices:
            self._busy_with = device.name
            size = None
            for buffer in device.client.save_iterate():
                size = buffer.size
                part = self._sections.part(device, buffer)
                yield from self._send_buffer(device, buffer, part)
            if size is not None:
                current.buffers += 1
                current.device_bytes += size
                current.is_idle = not size
                self._metrics.precopy_device_bytes += size
                return
            yield from self._send(self._sections.part(device, None))
        current.is_idle = True

    def _leave_pre_copy(self, decision: Decision, look: Look) -> None:
        if decision is Decision.CANCEL:
            raise _EndedEarlyError(Outcome.CANCELLED, "cancelled")
        if decision is Decision.GIVE_UP:
            why = (
                f"after {look.rounds_ended} rounds {look.pending} bytes are pending: "
                f"{look.expected / 1e6:.1f} ms of downtime, and the limit is "
                f"{self._limits.downtime / 1e6:.1f} ms"
            )
            raise _EndedEarlyError(Outcome.NOT_CONVERGED, why)
        self._metrics.pending_bytes_at_switch_over = look.pending
        self._metrics.expected_downtime = look.expected

    # -- switch-over and stop-and-copy -----------------------------------------------

    def _stop_and_copy(self) -> Steps[None]:
        self._stop_vm()
        for device in self._devices:
            self._busy_with = device.name
            head = self._sections.end_head(device)
            for number, buffer in enumerate(device.client.save_complete_precopy()):
                if number == _BUFFERS_LIMIT:
                    message = (
                        f"{device.name} has no end: {number} buffers while stopped"
                    )
                    raise VendorDriverError(message)
                framed = self._sections.buffer(buffer, head=head)
                yield from self._send_buffer(device, buffer, framed)
                self._metrics.stop_and_copy_device_bytes += buffer.size
                head = b""
            self._states.note(device)
            yield from self._send(Send(head + self._sections.foot(device)))
        yield from self._send(Send(framing.STREAM_END))
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
            self._busy_with = device.name
            try:
                device.client.vm_state_change(running=False)
            except OSError as failure:
                failures.append(failure)
            else:
                self._observer.source_stopped(device.name)
                self._states.note(device)
        if failures:
            first = self._devices[0]
            self._busy_with = first.name
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
        recovery = Recovery(error, self._busy_with)
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
        return Ending(outcome, error, self._busy_with, tuple(recovery.lost.items()))

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

    # -- the stream ------------------------------------------------------------------

    def _send_buffer(
        self, device: MigratingDevice, buffer: Buffer, framed: Send
    ) -> Steps[None]:
        yield from self._send(framed)
        self._observer.buffer_sent(device.name, buffer.size, self._clock.now)

    def _send(self, step: Send) -> Steps[None]:
        """Send, and count what went."""
        size = step.size  # the views are good until the next access
        yield step
        self._metrics.stream_bytes += size


def _is_over(current: Round) -> bool:
    """Tell whether a round sent what was pending, or cannot."""
    return (
        current.device_bytes >= current.pending_bytes
        or current.is_idle
        or current.buffers >= _ROUND_LIMIT
    )
