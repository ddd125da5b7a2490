"""Devices that change by themselves while they run: a clock, a thread, real time.

A state that differs is no evidence against such a device.  Whether it is one is looked
for where a difference was seen, once for all devices of a driver.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vfiomig.conformance.conversation.device import DeviceUnderTest

# A clock of 10 ms ticks in one of them; what ticks more rarely is rarely in the way.
_WAITS: Final = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016)  # seconds


class Ticking:
    """What is known of it; the first device that is asked about decides."""

    def __init__(self) -> None:
        self._is_known: bool | None = None

    def is_seen(self, device: DeviceUnderTest, snapshot: str | None) -> bool:
        """Tell whether a device that runs may be another one by now, without work."""
        if self._is_known is None:
            self._is_known = any(_differs(device, snapshot, wait) for wait in _WAITS)
        return self._is_known or device.snapshot() != snapshot


def _differs(device: DeviceUnderTest, snapshot: str | None, wait: float) -> bool:
    time.sleep(wait)
    return device.snapshot() != snapshot
