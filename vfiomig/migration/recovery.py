"""Bringing devices back after a failure, and knowing which did not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfiomig.client.v1 import ApplicationAbortedError
from vfiomig.protocol.errors import VfiomigError
from vfiomig.protocol.v1.device_state import DeviceInErrorStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vfiomig.client.v1 import V1Client
    from vfiomig.migration.side import MigratingDevice


class Recovery:
    """What is tried after ``error``, when the side was busy with one device.

    Without an error it only lets devices run again.

    ``lost`` names the devices that do not run again with the state that they had.
    """

    def __init__(self, error: Exception | None, busy_with: str) -> None:
        self.lost: dict[str, Exception] = {}
        if isinstance(error, DeviceInErrorStateError):
            self.lost[busy_with] = error

    def attempt(
        self, device: MigratingDevice, action: Callable[[V1Client], None]
    ) -> None:
        """Try to bring a device back; the last word on it counts.

        But one that was in ERROR has been reset: it may run, its state is gone.

        Raises:
            ApplicationAbortedError: it went to ERROR, and nothing may follow.
        """
        failure: Exception | None = None
        try:
            action(device.client)
        except ApplicationAbortedError:
            raise
        except (OSError, VfiomigError) as error:
            failure = error
        if isinstance(self.lost.get(device.name), DeviceInErrorStateError):
            return
        if failure is not None:
            self.lost[device.name] = failure
        else:
            self.lost.pop(device.name, None)

    def lose_all(
        self, devices: Iterable[MigratingDevice], abort: ApplicationAbortedError
    ) -> None:
        """Note that the user application is gone, and every device with it."""
        for device in devices:
            self.lost.setdefault(device.name, abort)
