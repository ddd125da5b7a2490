"""Processes that hold conversations beside each other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.parent import die_with

if TYPE_CHECKING:
    from collections.abc import Iterator

# Forked, as workers are: a target that was imported once is there at once.
_FORK: Final = multiprocessing.get_context("fork")


def cores() -> int:
    """Return how many processes this one may let run beside each other."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """Give so many processes to send work to; none where one job is done here.

    They are there before this returns: whoever asks has no threads yet.  At the end
    they are gone, whatever they were doing, and the workers that they had as well.
    """
    if jobs <= 1:
        yield None
        return
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        jobs, mp_context=_FORK, initializer=_begin, initargs=(os.getpid(),)
    )
    with _without_interrupts():
        pool.submit(os.getpid).result()  # all are started for the first
    ours = [each for each in multiprocessing.active_children() if each not in others]
    try:
        yield pool
    finally:
        with _without_interrupts():
            for each in ours:
                each.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait: a process that is being started or ended is not to be lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _begin(parent: int) -> None:
    """Let the parent alone be interrupted: it then says what was found."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
