"""How a user application writes device_state: read, modify, check, write.

The bits of a write are given as QEMU gives them: what ``mask`` keeps of the value
that was read, and what ``value`` adds to it.  So the reserved bits survive
(V1-STATE-12), and one table says what each moment of a migration writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.protocol.errors import StateError, UserApplicationError
from vfiomig.protocol.v1.registers import Register
from vfiomig.protocol.v1.requests import READ_DEVICE_STATE, Request, WriteRegister
from vfiomig.protocol.v1.states import DeviceState, named_state, state_name
from vfiomig.uapi.migration_v1 import VFIO_DEVICE_STATE_VALID

if TYPE_CHECKING:
    from collections.abc import Generator


class DeviceInErrorStateError(StateError):
    """After a failed write device_state reads ERROR: only a reset leaves it.

    So it counts when device_state cannot even be read any more.
    """

    def __init__(self, target: int, cause: OSError) -> None:
        super().__init__(
            f"the write of {state_name(target)} failed ({cause}) and left ERROR",
            state=DeviceState.ERROR,
            required=state_name(target),
        )


def set_device_state(mask: int, value: int) -> Generator[Request, int, int]:
    """Bring the device to ``read & mask | value``, and return what was written.

    Raises:
        UserApplicationError: the value would be invalid; nothing was written
            (V1-USER-04).
        OSError: the driver refused, and device_state is what it was.
        DeviceInErrorStateError: the driver failed, and device_state is ERROR or
            cannot be read.
    """
    current = yield READ_DEVICE_STATE
    target = current & mask | value
    if not VFIO_DEVICE_STATE_VALID(target):
        message = (
            f"device_state would become {state_name(target)}, which is invalid "
            f"(it is {state_name(current)})"
        )
        raise UserApplicationError(message)
    try:
        yield WriteRegister(Register.DEVICE_STATE, target)
    except OSError as refusal:
        # No errno tells which state a failed write left (V1-TRANS-04).
        if (yield from _is_in_error()):
            raise DeviceInErrorStateError(target, refusal) from refusal
        raise
    return target


def _is_in_error() -> Generator[Request, int, bool]:
    """Read the state back; one that cannot even be read counts as ERROR, as in QEMU."""
    try:
        return named_state((yield READ_DEVICE_STATE)) is DeviceState.ERROR
    except OSError:
        return True
