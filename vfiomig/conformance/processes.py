"""Processes that hold conversations beside each other."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Spawned, not forked: what the parent has imported of a target is not theirs.
_SPAWN: Final = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """Give so many processes to send work to; none where one job is done here.

    At the end, work that has not begun is let go.
    """
    if jobs == 1:
        yield None
        return
    with ProcessPoolExecutor(
        jobs, mp_context=_SPAWN, initializer=_leave_interrupts
    ) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    """Let the parent alone be interrupted: it then says what was found."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
