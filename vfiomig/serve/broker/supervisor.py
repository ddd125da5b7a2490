"""Answering the calls of a program: the files of /dev/vfio, one thread for all.

Rule 1: a call that is not about our files is performed by the kernel.

Rule 2: a call that goes wrong gets its errno, and the next one is served.  A driver
that died is remembered, and its device answers EIO from then on.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.protocol.errors import DriverDiedError
from vfiomig.serve.broker.fd_table import FdTable
from vfiomig.serve.broker.filter import syscalls
from vfiomig.serve.broker.listener import Call, GoneError, Listener
from vfiomig.serve.broker.tracee import Tracee, process_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.user_process import HostFile
    from vfiomig.serve.broker.child import Child

_PREFIX: Final = b"/dev/vfio/"
_LONGEST_PATH: Final = 64  # of ours

# One access that is larger has no sense for any register, and what a driver in C
# would allocate for it the kernel would not give.
_LARGEST_ACCESS: Final = 64 << 20

# How long processes that the program leaves behind are served, in seconds.
_PATIENCE: Final = 5.0


class DevVfio(Protocol):
    """What is to be found in /dev/vfio."""

    def open(self, path: str) -> HostFile:
        """Open a path; OSError(ENOENT) for one that is not there."""


class Supervisor:
    """Serves a `Child` and what it forks, until it has ended.

    ``deaths`` are drivers that died, in that order.
    """

    def __init__(self, child: Child, dev_vfio: DevVfio) -> None:
        self._child = child
        self._dev_vfio = dev_vfio
        self._listener = Listener(child.listener)
        self._table = FdTable(child.first_fd)
        self._processes: dict[int, Tracee] = {}
        self._process_of: dict[int, int] = {}  # threads
        self.deaths: list[DriverDiedError] = []
        self.calls = 0
        numbers = syscalls()
        self._open_at = {numbers.openat: 1}
        if numbers.open is not None:
            self._open_at[numbers.open] = 0
        self._perform: dict[int, Callable[[Call, Tracee, HostFile], int]] = {
            numbers.ioctl: self._ioctl,
            numbers.pread64: self._pread,
            numbers.pwrite64: self._pwrite,
        }
        self._close_number = numbers.close

    def serve(self, idle: Callable[[], float] | None = None) -> int:
        """Answer until the program has ended; return its exit status.

        That is as of subprocess: negative for a signal.  ``idle`` is called between
        calls, and returns after how many seconds it wants to be again.

        Raises:
            Exception: one of our own; what was being answered got EIO.
        """
        poller = select.poll()
        poller.register(self._listener.fd, select.POLLIN)
        poller.register(self._child.pidfd, select.POLLIN)
        due = 0.0
        while True:
            wait = None
            if idle is not None:
                now = time.monotonic()
                if now >= due:
                    due = now + idle()
                wait = max(0.0, due - now) * 1000
            ready = dict(poller.poll(wait))
            if ready.get(self._listener.fd, 0) & select.POLLIN:
                self.serve_one()
            elif self._child.pidfd in ready:
                return self._end()

    def serve_one(self) -> None:
        """Answer the next call."""
        call = self._listener.receive()
        if call is None:
            return
        self.calls += 1
        try:
            self._serve(call)
        except GoneError:
            pass
        except OSError as error:
            self._listener.answer(call, -(error.errno or errno.EIO))
        except BaseException:
            self._listener.answer(call, -errno.EIO)
            raise

    def close(self) -> None:
        """Let go of all files; a program that still runs is killed."""
        self._kill()
        for process in self._processes.values():
            self._close_files_of(process)
            process.close()
        self._processes.clear()
        self._listener.close()
        os.close(self._child.pidfd)

    # -- calls -------------------------------------------------------------------------

    def _serve(self, call: Call) -> None:
        place = self._open_at.get(call.number)
        if place is not None:
            self._open(call, place)
            return
        number = call.args[0] & 0xFFFFFFFF
        file = self._table.get(number)
        if file is None:
            self._listener.let_pass(call)
            return
        process = self._tracee(call)
        process.call = call
        try:
            if call.number == self._close_number:
                self._close(call, process, number)
            else:
                value = self._perform[call.number](call, process, file)
                self._listener.answer(call, value)
        except DriverDiedError as death:
            self.deaths.append(death)
            self._listener.answer(call, -errno.EIO)
        finally:
            process.call = None

    def _open(self, call: Call, place: int) -> None:
        process = self._tracee(call)
        process.call = call
        try:
            try:
                read = process.memory.read_some(call.args[place], _LONGEST_PATH)
            except OSError:
                read = b""  # the kernel will say what is wrong with it
            path = read.partition(b"\0")[0]
            if not path.startswith(_PREFIX) or len(path) == len(read):
                self._listener.let_pass(call)
                return
            file = self._dev_vfio.open(os.fsdecode(path))
            self._listener.answer(
                call, process.install_with(file, call.args[place + 1])
            )
        finally:
            process.call = None

    def _ioctl(self, call: Call, process: Tracee, file: HostFile) -> int:
        return file.user_ioctl(call.args[1] & 0xFFFFFFFF, call.args[2], process)

    def _pread(self, call: Call, process: Tracee, file: HostFile) -> int:
        _, address, size, offset = call.args[:4]
        data = file.pread(_allowed(size), _signed(offset))
        process.memory.write(address, data)
        return len(data)

    def _pwrite(self, call: Call, process: Tracee, file: HostFile) -> int:
        _, address, size, offset = call.args[:4]
        data = process.memory.read(address, _allowed(size))
        return file.pwrite(data, _signed(offset))

    def _close(self, call: Call, process: Tracee, number: int) -> None:
        try:
            self._table.close(number, process.pid)
        except OSError:
            pass  # close(2) of a device never fails
        finally:
            self._listener.let_pass(call)

    # -- processes ---------------------------------------------------------------------

    def _tracee(self, call: Call) -> Tracee:
        pid = self._process_of.get(call.thread)
        if pid is None or pid not in self._processes:
            try:
                pid = process_of(call.thread)
            except OSError:
                raise GoneError from None
            self._listener.require(call)
            self._process_of[call.thread] = pid
            if pid not in self._processes:
                self._forget_ended()
                self._processes[pid] = Tracee(pid, self._listener, self._table)
        return self._processes[pid]

    def _forget_ended(self) -> None:
        """Close what belonged to processes that are no more."""
        poller = select.poll()
        of_fd = {each.pidfd: each for each in self._processes.values()}
        for fd in of_fd:
            poller.register(fd, select.POLLIN)
        for fd, _ in poller.poll(0):
            process = of_fd[fd]
            self._close_files_of(process)
            process.close()
            del self._processes[process.pid]
            self._process_of = {
                thread: pid
                for thread, pid in self._process_of.items()
                if pid != process.pid
            }

    def _close_files_of(self, process: Tracee) -> None:
        for number in self._table.owned_by(process.pid):
            try:
                self._table.close(number, process.pid)
            except OSError:
                pass  # close(2) of a device never fails
            except DriverDiedError as death:
                self.deaths.append(death)

    def _end(self) -> int:
        """Serve what the program leaves behind for a while; return its status."""
        _, status = os.waitpid(self._child.pid, 0)
        self._forget_ended()
        deadline = time.monotonic() + _PATIENCE
        poller = select.poll()
        poller.register(self._listener.fd, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            events = poller.poll(left * 1000)
            if not events or not events[0][1] & select.POLLIN:
                break  # none of them is left
            self.serve_one()
        return os.waitstatus_to_exitcode(status)

    def _kill(self) -> None:
        for process in [*self._processes.values()]:
            try:
                signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
            os.waitpid(self._child.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def _signed(value: int) -> int:
    """Read a register as a loff_t, which no file of ours has below 0."""
    if value >> 63:
        raise OSError(errno.EINVAL, f"offset {value - (1 << 64)}")
    return value


def _allowed(size: int) -> int:
    if size > _LARGEST_ACCESS:
        raise OSError(errno.ENOMEM, f"{size} bytes in one access")
    return size
