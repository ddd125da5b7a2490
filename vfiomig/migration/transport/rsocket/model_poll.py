"""rpoll() of the rsocket model: who is ready, and sleeping until someone is.

As in rdma-core 44.0, whoever polls is in the library for every socket that it polls,
when it begins, when a completion wakes it, and when it has slept for long enough.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from vfiomig.migration.transport.rsocket.model_socket import ModelSocket, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfiomig.migration.transport.rsocket.model_network import Network
    from vfiomig.migration.transport.rsocket.model_sleep import Sleepers

    Watched: TypeAlias = Sequence[tuple[int, int]]

_IN, _OUT = select.POLLIN, select.POLLOUT
_ALWAYS: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Polling:
    """The rpoll() of one network; who calls holds the lock."""

    def __init__(
        self, network: Network, sleepers: Sleepers, wake_up_seconds: float
    ) -> None:
        self._network = network
        self._sleepers = sleepers
        self._wake_up_seconds = wake_up_seconds

    def wait(self, watched: Watched, timeout: int) -> list[tuple[int, int]]:
        """Return who is ready, within ``timeout`` ms; -1 is for ever."""
        end = math.inf if timeout < 0 else time.monotonic() + timeout / 1000
        ready = self._ready(watched, entering=True)
        while not ready and timeout and (now := time.monotonic()) < end:
            ready = self._sleep(watched, min(end, now + self._wake_up_seconds))
        return ready

    def _ready(self, watched: Watched, *, entering: bool) -> list[tuple[int, int]]:
        """Return who is ready; ``entering`` looks at what no completion told of."""
        found = self._kernel_ready(watched)
        for number, events in watched:
            if (each := self._network.sockets.get(number)) is not None:
                found[number] = self._revents(each, events, entering=entering)
        return [
            (number, revents)
            for number, events in watched
            if (revents := found.get(number, 0) & (events | _ALWAYS))
        ]

    def _sleep(self, watched: Watched, limit: float) -> list[tuple[int, int]]:
        """Sleep until one of them is ready, or ``limit``; then look at all of them."""
        ready: list[tuple[int, int]] = []

        def is_over() -> bool:
            # One completion is enough for all of them to be looked at.
            ready[:] = self._ready(watched, entering=self._has_event(watched))
            return bool(ready)

        kernel = self._kernel(watched)
        if kernel is None:
            self._sleepers.until(is_over, limit)
        else:
            self._sleepers.until_ready(kernel, is_over, limit)
        return ready or self._ready(watched, entering=True)

    def _has_event(self, watched: Watched) -> bool:
        sockets = [self._network.sockets.get(number) for number, _ in watched]
        return any(each and each.end and each.end.has_event for each in sockets)

    def _kernel_ready(self, watched: Watched) -> dict[int, int]:
        kernel = self._kernel(watched)
        return {} if kernel is None else dict(kernel.poll(0))

    def _kernel(self, watched: Watched) -> select.poll | None:
        """Return a poll of the ordinary descriptors, None if there are none."""
        kernel = None
        for number, events in watched:
            if number >= 0 and self._network.sockets.get(number) is None:
                kernel = kernel or select.poll()
                kernel.register(number, events)
        return kernel

    def _revents(self, each: ModelSocket, events: int, *, entering: bool) -> int:
        if each.phase is Phase.LISTENING:
            # Its queue is one end of a pair of sockets that nobody ever fills.
            return (_IN if each.queue else 0) | _OUT
        if each.phase is Phase.OPENING:
            with contextlib.suppress(ConnectionRefusedError):
                self._network.open(each)
        if each.phase is Phase.REFUSED:
            return _IN | _OUT | select.POLLERR
        end = each.end
        if end is None:
            return 0
        if entering and end.enter():
            self._sleepers.wake()
        found = _IN if end.messages or not end.is_readable else 0
        found |= _OUT if end.can_send else 0
        if not end.is_connected:
            found |= select.POLLERR if end.has_failed else select.POLLHUP
        return found
