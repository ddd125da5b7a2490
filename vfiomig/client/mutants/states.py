"""Mutants that take a device through states as nobody may."""

from __future__ import annotations

from typing import ClassVar

from vfiomig.client.mutants.careful import CarefulClient, Device
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.states import DeviceState

__all__ = [
    "DoesNotKnowError",
    "GoesOnAsIfNothingFailed",
    "PutsBackWhatItWrote",
    "ResumesAnOldSave",
]


class PutsBackWhatItWrote(CarefulClient):
    """Writes RUNNING after a refused write, without a look at what that one left."""

    violates: ClassVar = frozenset({"v1/transitions/read-again-after-failure"})

    def after_refusal(self, device: Device) -> None:
        """Write RUNNING; it will do."""
        try:
            device.write(Register.DEVICE_STATE, DeviceState.RUNNING)
        except OSError:
            device.reset()


class GoesOnAsIfNothingFailed(CarefulClient):
    """Drops the error of a write to device_state, and saves all the same (BUG-QV2-19).

    The page has the title alone, "migration isn't aborted in a corner case"; what is
    dropped here is the error of a transition.
    """

    violates: ClassVar = frozenset({"v1/transitions/read-again-after-failure"})

    def after_refusal(self, device: Device) -> None:
        """Ask for the first buffer."""
        try:
            self.save_buffer(device)
        except OSError:
            super().after_refusal(device)


class DoesNotKnowError(CarefulClient):
    """Takes ERROR for one more state, and writes RUNNING over it (BUG-CORE-02).

    The macro that sets ERROR could not be compiled, so that no user application ever
    met the value in a test.
    """

    violates: ClassVar = frozenset({"v1/transitions/leave-error-by-reset"})

    def leave_error(self, device: Device) -> None:
        """Write RUNNING; a reset comes only where that fails."""
        try:
            device.write(Register.DEVICE_STATE, DeviceState.RUNNING)
        except OSError:
            device.read(Register.DEVICE_STATE)
            super().leave_error(device)


class ResumesAnOldSave(CarefulClient):
    """Lets the destination run on an earlier save, once the next is in pre-copy."""

    violates: ClassVar = frozenset({"v1/transitions/normal-save-order"})

    def migrate(self, source: Device, destination: Device) -> None:
        """Save, go on, begin to save again, and load what came first."""
        chunks = self.save(source)
        self.set_state(source, DeviceState.RUNNING)
        self.set_state(source, DeviceState.PRE_COPY)
        self.load(destination, chunks)
        self.set_state(source, DeviceState.STOP_AND_COPY)
        self.set_state(source, DeviceState.STOP)
