"""Answering the calls of a program: the files of /dev/vfio, one thread for all.

Rule 1: a call that is not about our files is performed by the kernel.

Rule 2: a call that goes wrong gets its errno, and the next one is served.  That holds
for errors of our own as well: such a call gets EIO, and the first of them is raised
when the program has ended.

Rule 3: what ends is noticed before the next call is answered, so that a process finds
free what another one had when it died.
"""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.protocol.errors import DriverDiedError
from vfiomig.serve.broker.answers import access_size, code_of, position
from vfiomig.serve.broker.fd_table import FdTable, Mappable
from vfiomig.serve.broker.filter import syscalls
from vfiomig.serve.broker.listener import Call, Listener
from vfiomig.serve.broker.process_memory import ProcessMemory
from vfiomig.serve.broker.processes import Processes
from vfiomig.uapi.seccomp import CLOSE_RANGE_CLOEXEC

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.user_process import HostFile
    from vfiomig.serve.broker.child import Child
    from vfiomig.serve.broker.fd_table import OpenFile
    from vfiomig.serve.broker.tracee import Tracee

_PREFIX: Final = b"/dev/vfio/"
_LONGEST_PATH: Final = 64  # of ours
_MASK: Final = 0xFFFFFFFF

# How long processes that the program leaves behind are served, in seconds.
_PATIENCE: Final = 5.0

# A program can open a device that dies at that as often as it likes.
_MOST_DEATHS: Final = 100


class DevVfio(Protocol):
    """What is to be found in /dev/vfio."""

    def open(self, path: str) -> HostFile:
        """Open a path; OSError(ENOENT) for one that is not there."""


class Supervisor:
    """Serves a `Child`, and what it leaves behind for some seconds of ``patience``.

    ``deaths`` are drivers that died, in that order; ``error`` is the first error of
    our own.
    """

    def __init__(
        self, child: Child, dev_vfio: DevVfio, *, patience: float = _PATIENCE
    ) -> None:
        self._child = child
        self._patience = patience
        self._dev_vfio = dev_vfio
        self._listener = Listener(child.listener)
        self._table = FdTable(child.first_fd)
        self._poller = select.poll()
        self._poller.register(self._listener.fd, select.POLLIN)
        self._poller.register(child.leash.fd, select.POLLIN)
        self._processes = Processes(self._listener, self._table, self._poller)
        self._only_a_call = [(self._listener.fd, select.POLLIN)]
        self._has_callers = True
        self._status: int | None = None
        self.deaths: list[DriverDiedError] = []
        self.error: Exception | None = None
        self.calls = 0
        numbers = syscalls()
        self._open_at = {numbers.openat: 1}
        if numbers.open is not None:
            self._open_at[numbers.open] = 0
        self._memory = ProcessMemory(child.pid)  # of the thread that reads or writes
        self._accesses: dict[int, Callable[[Call, HostFile], int]] = {
            numbers.pread64: self._pread,
            numbers.pwrite64: self._pwrite,
        }
        self._ioctl_number = numbers.ioctl
        self._mmap_number = numbers.mmap
        self._close_number = numbers.close
        self._close_range_number = numbers.close_range
        self._over_fds = numbers.over_fds

    def serve(self, idle: Callable[[], float] | None = None) -> int:
        """Answer until the program has ended; return its exit status.

        That is as of subprocess: negative for a signal.  ``idle`` is called between
        calls, and returns after how many seconds it wants to be again.

        Raises:
            Exception: one of our own, when the program has ended.
        """
        due = 0.0
        wait = None
        while self._status is None:
            if idle is not None:
                now = time.monotonic()
                if now >= due:
                    due = now + idle()
                wait = max(0.0, due - now) * 1000
            self._turn(wait)
        self._serve_what_is_left()
        if self.error is not None:
            raise self.error
        return os.waitstatus_to_exitcode(self._status)

    def serve_one(self) -> None:
        """Answer the next call."""
        call = self._listener.receive()
        if call is None:
            return
        self.calls += 1
        try:
            self._serve(call)
        except Exception as error:
            self._listener.answer(call, -self._code_of(error))
        except BaseException:
            self._listener.answer(call, -errno.EIO)
            raise

    def close(self) -> None:
        """Kill what still runs, and let go of all files."""
        self._child.leash.close()
        for process in self._processes:
            self._end(process)
        self._listener.close()

    # -- turns -------------------------------------------------------------------------

    def _turn(self, wait: float | None) -> None:
        """Wait for something to happen, and see to it; at most so many milliseconds."""
        ready = self._poller.poll(wait)
        if ready == self._only_a_call:
            self.serve_one()
            return
        # The listener is the first that was registered, and so the last to be seen to.
        for fd, events in reversed(ready):
            if fd == self._listener.fd:
                if events & select.POLLIN:
                    self.serve_one()
                else:  # nobody is left who could call
                    self._poller.unregister(fd)
                    self._has_callers = False
            elif fd == self._child.leash.fd:
                self._poller.unregister(fd)
                self._status = self._child.leash.status()
            else:
                process = self._processes.ended(fd)
                if process is not None:
                    self._end(process)

    def _serve_what_is_left(self) -> None:
        deadline = time.monotonic() + self._patience
        while self._has_callers and (left := deadline - time.monotonic()) > 0:
            self._turn(left * 1000)

    # -- calls -------------------------------------------------------------------------

    def _serve(self, call: Call) -> None:
        access = self._accesses.get(call.number)
        if access is None:
            self._serve_other(call)
            return
        # A program does these most of all, so that no more is done than must be.
        number = call.arg0 & _MASK
        opened = self._table.get(number)
        if opened is None:
            self._listener.let_pass(call)
            return
        process = self._processes.probably_of(call)
        if self._is_its(process, number, opened):
            self._listener.answer(call, access(call, opened.file))
        else:
            self._listener.let_pass(call)

    def _serve_other(self, call: Call) -> None:
        process = self._processes.of(call)
        process.enter(call)
        try:
            answer = self._answer(call, process)
        finally:
            process.leave()
        if answer is None:
            self._listener.let_pass(call)
        else:
            self._listener.answer(call, answer)

    def _answer(self, call: Call, process: Tracee) -> int | None:
        """Return what a call returns; None where the kernel is to perform it."""
        number, args = call.number, call.args
        place = self._open_at.get(number)
        if place is not None:
            return self._open(process, args[place], args[place + 1])
        if number == self._close_number:
            self._close(process, args[0] & _MASK)
        elif number in self._over_fds:
            self._close(process, args[1] & _MASK)
        elif number == self._close_range_number:
            self._close_range(process, *(each & _MASK for each in args[:3]))
        else:
            fd = args[4 if number == self._mmap_number else 0] & _MASK
            opened = self._table.get(fd)
            if opened is None or not self._is_its(process, fd, opened):
                return None
            if number == self._ioctl_number:
                return opened.file.user_ioctl(args[1] & _MASK, args[2], process)
            self._require_mappable(opened.file, args)
        return None

    def _is_its(self, process: Tracee, number: int, opened: OpenFile) -> bool:
        """Tell whether a number is our file to a process.

        To its owner it is, or we would know; another one may have it from a fork, or a
        file of its own there.
        """
        return opened.owner == process.pid or process.has(number, opened)

    def _open(self, process: Tracee, address: int, flags: int) -> int | None:
        try:
            read = process.memory.read_some(address, _LONGEST_PATH)
        except OSError:
            return None  # the kernel will say what is wrong with it
        path = read.partition(b"\0")[0]
        if not path.startswith(_PREFIX) or len(path) == len(read):
            return None
        self._forget_lost(process)
        file = self._dev_vfio.open(os.fsdecode(path))
        try:
            return process.install_with(file, flags)
        except BaseException:
            file.close()
            raise

    def _pread(self, call: Call, file: HostFile) -> int:
        data = file.pread(access_size(call.arg2), position(call.arg3))
        memory = self._memory
        memory.pid = call.thread
        self._listener.require(call)
        memory.write(call.arg1, data)
        return len(data)

    def _pwrite(self, call: Call, file: HostFile) -> int:
        place = position(call.arg3)
        memory = self._memory
        memory.pid = call.thread
        data = memory.read(call.arg1, access_size(call.arg2))
        self._listener.require(call)
        return file.pwrite(data, place)

    def _require_mappable(self, file: HostFile, args: tuple[int, ...]) -> None:
        if not isinstance(file, Mappable):
            raise OSError(errno.ENODEV, "this is no file to be mapped")
        _, length, _, flags, _, offset = args
        file.require_mappable(length, offset, flags & _MASK)

    # -- files that go -----------------------------------------------------------------

    def _close(self, process: Tracee, number: int) -> None:
        """Close a file for the process that opened it; that never fails."""
        try:
            self._table.close(number, process.pid)
        except Exception as error:
            self._code_of(error)

    def _close_range(self, process: Tracee, first: int, last: int, flags: int) -> None:
        if flags & CLOSE_RANGE_CLOEXEC:
            return
        for number in self._table.owned_by(process.pid):
            if first <= number <= last:
                self._close(process, number)

    def _forget_lost(self, process: Tracee) -> None:
        """Close what a process has no more: an exec closes files, and says nothing."""
        for number in self._table.owned_by(process.pid):
            opened = self._table.get(number)
            if opened is not None and not process.has(number, opened):
                self._close(process, number)

    def _end(self, process: Tracee) -> None:
        """Close what belonged to a process that is no more."""
        for number in self._table.owned_by(process.pid):
            self._close(process, number)
        process.close()

    def _code_of(self, error: Exception) -> int:
        """Return the errno that an error has to the program, and remember ours."""
        if isinstance(error, DriverDiedError):
            if len(self.deaths) < _MOST_DEATHS:
                self.deaths.append(error)
        elif not isinstance(error, OSError | MemoryError) and self.error is None:
            self.error = error
        return code_of(error)
