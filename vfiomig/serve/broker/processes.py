"""Who is under the filter, as far as it has called: processes, by their threads."""

from __future__ import annotations

import errno
import select
from typing import TYPE_CHECKING

from vfiomig.serve.broker.listener import GoneError
from vfiomig.serve.broker.tracee import Tracee, is_thread_of, process_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.serve.broker.fd_table import FdTable
    from vfiomig.serve.broker.listener import Call, Listener

_MOST_THREADS = 4096  # that are remembered


class Processes:
    """The processes that have called; ``poller`` is told of their pidfds."""

    def __init__(self, listener: Listener, table: FdTable, poller: select.poll) -> None:
        self._listener = listener
        self._table = table
        self._poller = poller
        self._of_pid: dict[int, Tracee] = {}
        self._of_pidfd: dict[int, Tracee] = {}
        self._of_thread: dict[int, Tracee] = {}

    def __iter__(self) -> Iterator[Tracee]:
        return iter([*self._of_pid.values()])

    def probably_of(self, call: Call) -> Tracee:
        """Return the process of a call, by the number of its thread alone.

        Its memory is that of the thread in any case; another process can only be meant
        where the number has been used again.
        """
        return self._of_thread.get(call.thread) or self.of(call)

    def of(self, call: Call) -> Tracee:
        """Return the process of a call.

        Raises:
            GoneError: the call is.
            OSError: EMFILE and the like: we have no room for another process.
        """
        known = self._of_thread.get(call.thread)
        if known is not None and is_thread_of(known.pid, call.thread):
            return known
        try:
            pid = process_of(call.thread)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise GoneError from None
            raise
        self._listener.require(call)
        if len(self._of_thread) >= _MOST_THREADS:
            self._of_thread.clear()
        found = self._of_thread[call.thread] = self._of_pid.get(pid) or self._add(pid)
        return found

    def ended(self, pidfd: int) -> Tracee | None:
        """Forget the process that a pidfd is of, and return it."""
        process = self._of_pidfd.pop(pidfd, None)
        if process is None:
            return None
        self._poller.unregister(pidfd)
        del self._of_pid[process.pid]
        self._of_thread = {
            thread: each
            for thread, each in self._of_thread.items()
            if each is not process
        }
        return process

    def _add(self, pid: int) -> Tracee:
        process = Tracee(pid, self._listener, self._table)
        self._of_pid[pid] = self._of_pidfd[process.pidfd] = process
        self._poller.register(process.pidfd, select.POLLIN)
        return process
