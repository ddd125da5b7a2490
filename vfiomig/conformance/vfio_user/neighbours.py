"""Whether a server shares a processor with its client: whichever way it answers sooner.

They take turns, so that one processor is enough for both, and none that has gone to
sleep is to be woken for each message, which on a virtual machine takes longer than the
answer.  A server that polls never sleeps: it is left a processor of its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_ASKED: Final = 40  # times
_BETWEEN: Final = 50e-6  # seconds that a client thinks between two messages


@contextlib.contextmanager
def own_processors() -> Iterator[None]:
    """Give this process its processors back at the end, whatever was done to them."""
    before = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def share_if_faster(servers: Iterable[int], ask: Callable[[], object]) -> bool:
    """Let this process and servers, by pid, share a processor if that is faster.

    ``ask`` is one message to one of them, and its answer.  Return whether they do.
    """
    processors = os.sched_getaffinity(0)
    if len(processors) < 2:
        return False
    apart = _seconds_to(ask)
    together = list(servers)
    share(together)
    if _seconds_to(ask) < apart:
        return True
    for pid in (0, *together):
        _put(pid, processors)
    return False


def share(servers: Iterable[int]) -> None:
    """Let this process and servers share one of its processors.

    Another process that does so at the same time takes another one, as pids follow one
    another.
    """
    processors = sorted(os.sched_getaffinity(0))
    one = {processors[os.getpid() % len(processors)]}
    for pid in (0, *servers):
        _put(pid, one)


def _put(pid: int, processors: set[int]) -> None:
    """Bind all threads of a process; of 0, this thread, and what it starts from now."""
    tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").glob("*")] or [pid]
    for task in tasks:
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            os.sched_setaffinity(task, processors)


def _seconds_to(ask: Callable[[], object]) -> float:
    took = []
    for _ in range(_ASKED):
        thought = time.perf_counter() + _BETWEEN
        while time.perf_counter() < thought:
            pass
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return median(took)
