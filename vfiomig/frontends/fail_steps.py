"""Where a migration by real QEMUs can be made to fail: which access, of which side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.states import DeviceState
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_MASK

CANCEL: Final = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailStep:
    """The access at which a device fails, once, with EIO, and whose device it is.

    ``states`` are those in which the access is meant; ``target``, for a write of
    device_state, the state that is asked for.
    """

    party: Literal["source", "destination"]
    access: Literal["read", "write"]
    register: Register
    states: tuple[DeviceState, ...]
    target: DeviceState | None = None

    def is_at(
        self, access: str, offset: int, state: DeviceState | None, asked: int
    ) -> bool:
        """Tell whether this is the access; ``asked`` is the value of a write."""
        target = asked & VFIO_DEVICE_STATE_MASK
        return (
            access == self.access
            and offset == self.register.offset
            and state in self.states
            and self.target in (None, target)
        )


_STATE: Final = Register.DEVICE_STATE

# In the order of a migration; named for what QEMU is about to do.
FAIL_STEPS: Final = {
    "save-setup": FailStep(
        party="source",
        access="write",
        register=_STATE,
        states=(DeviceState.RUNNING, DeviceState.STOP),
        target=DeviceState.PRE_COPY,
    ),
    "pre-copy": FailStep(
        party="source",
        access="read",
        register=Register.DATA_OFFSET,
        states=(DeviceState.PRE_COPY,),
    ),
    "stop": FailStep(
        party="source",
        access="write",
        register=_STATE,
        states=(DeviceState.PRE_COPY,),
        target=DeviceState.STOP_AND_COPY,
    ),
    "stop-and-copy": FailStep(
        party="source",
        access="read",
        register=Register.DATA_OFFSET,
        states=(DeviceState.STOP_AND_COPY,),
    ),
    "save-end": FailStep(
        party="source",
        access="write",
        register=_STATE,
        states=(DeviceState.STOP_AND_COPY,),
        target=DeviceState.STOP,
    ),
    "load-setup": FailStep(
        party="destination",
        access="write",
        register=_STATE,
        states=(DeviceState.RUNNING, DeviceState.STOP),
        target=DeviceState.RESUMING,
    ),
    "load": FailStep(
        party="destination",
        access="write",
        register=Register.DATA_SIZE,
        states=(DeviceState.RESUMING,),
    ),
    "run": FailStep(
        party="destination",
        access="write",
        register=_STATE,
        states=(DeviceState.RESUMING,),
        target=DeviceState.RUNNING,
    ),
}
