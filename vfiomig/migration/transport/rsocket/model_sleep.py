"""How calls of the rsocket model sleep: on one lock, and woken by one another.

Whoever has other descriptors to wait for sleeps in the kernel's poll, with a bell among
them: an eventfd that is rung for every change, as librdmacm's own threads do it.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Sleepers:
    """Those that sleep on the lock of a network."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._sleeping = 0
        self._bells: set[int] = set()

    # All of these are called by who holds the lock, and holds it again afterwards.

    def wake(self) -> None:
        """Have everyone look again."""
        if self._sleeping:
            self._changed.notify_all()
        for bell in self._bells:
            os.eventfd_write(bell, 1)

    def until(self, is_over: Callable[[], bool], limit: float | None = None) -> bool:
        """Sleep until something holds; False if ``limit`` (monotonic) came before."""
        while not is_over():
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._sleeping += 1
            try:
                self._changed.wait(left)
            finally:
                self._sleeping -= 1
        return True

    def until_ready(
        self, kernel: select.poll, is_over: Callable[[], bool], limit: float | None
    ) -> bool:
        """Sleep as `until` does, or until ``kernel`` finds a descriptor ready."""
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        kernel.register(bell, select.POLLIN)
        self._bells.add(bell)
        try:
            return self._until_rung(kernel, bell, is_over, limit)
        finally:
            self._bells.discard(bell)
            kernel.unregister(bell)
            os.close(bell)

    def _until_rung(
        self,
        kernel: select.poll,
        bell: int,
        is_over: Callable[[], bool],
        limit: float | None,
    ) -> bool:
        while not is_over():
            left = None if limit is None else max(0.0, limit - time.monotonic())
            self.lock.release()
            try:
                ready = kernel.poll(None if left is None else math.ceil(left * 1000))
            finally:
                self.lock.acquire()
            if any(number != bell for number, _ in ready):
                return True
            if not ready:
                return False
            os.eventfd_read(bell)
        return True
