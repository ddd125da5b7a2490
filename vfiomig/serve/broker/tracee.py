"""One process under the filter: its memory, its fds, and the call that it waits in."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import select
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig.serve.broker.fd_table import Identity, OpenFile
from vfiomig.serve.broker.process_memory import ProcessMemory

if TYPE_CHECKING:
    from vfiomig.host.user_process import HostFile
    from vfiomig.serve.broker.fd_table import FdTable
    from vfiomig.serve.broker.listener import Call, Listener

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD: Final = 438  # the same on all architectures
_TGID: Final = re.compile(rb"^Tgid:\s*(\d+)$", re.MULTILINE)


class _CheckedMemory(ProcessMemory):
    """Memory of a process that is known to be the one that is meant.

    While it waits in a call, that is the memory of the thread, and the id tells; a
    device reaches guest memory by itself, and then the pidfd does, for a pid may be
    another process's by now.
    """

    def __init__(self, process: int, pidfd: int, listener: Listener) -> None:
        super().__init__(process)
        self.call: Call | None = None
        self._process = process
        self._listener = listener
        self._ended = select.poll()
        self._ended.register(pidfd, select.POLLIN)

    def enter(self, call: Call) -> None:
        self.call = call
        self.pid = call.thread

    def leave(self) -> None:
        self.call = None
        self.pid = self._process

    def read_some(self, address: int, size: int) -> bytes:
        data = super().read_some(address, size)
        self._require()
        return data

    def write(self, address: int, data: bytes | memoryview) -> None:
        if self.call is not None:
            self._listener.require(self.call)
        else:
            self._require()
        ProcessMemory.write(self, address, data)

    def _require(self) -> None:
        if self.call is not None:
            self._listener.require(self.call)
        elif self._ended.poll(0):
            raise OSError(errno.EFAULT, f"process {self.pid} has ended")


class Tracee:
    """A `UserProcess` in another address space."""

    def __init__(self, pid: int, listener: Listener, table: FdTable) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._listener = listener
        self._table = table
        self.memory = _CheckedMemory(pid, self.pidfd, listener)

        # A call of it is being answered; and it is no more.
        self.enter = self.memory.enter
        self.leave = self.memory.leave

    def duplicate(self, number: int) -> int:
        """Return a duplicate of one of its fds.

        Raises:
            OSError: EBADF where it has none, EPERM where we may not ask.
        """
        fd = _LIBC.syscall(_PIDFD_GETFD, self.pidfd, number & 0xFFFFFFFF, 0)
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(
                code, f"fd {number} of process {self.pid}: {os.strerror(code)}"
            )
        return int(fd)

    def file(self, number: int) -> HostFile:
        """Return the host's file behind one of its fds.

        Raises:
            OSError: EINVAL for a file that is not ours, EBADF for none at all.
        """
        found = self._table.get(number)
        if found is None or not self.has(number, found):
            code = errno.EINVAL if self._identity(number) else errno.EBADF
            raise OSError(code, f"fd {number} of process {self.pid} is not ours")
        return found.file

    def has(self, number: int, opened: OpenFile) -> bool:
        """Tell whether what it has under a number is a certain file of ours."""
        return self._identity(number) == opened.identity

    def install(self, file: HostFile) -> int:
        """Give it a file of ours; return the number.

        Raises:
            OSError: EMFILE where its limit leaves no number.
        """
        return self._install(file, os.O_CLOEXEC)

    def install_with(self, file: HostFile, flags: int) -> int:
        """Give it a file that it opened with ``flags`` of open(2)."""
        return self._install(file, flags & os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it; it has ended."""
        os.close(self.pidfd)

    def _install(self, file: HostFile, flags: int) -> int:
        call = self.memory.call
        assert call is not None
        limit = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)[0]
        for number in self._table.free_numbers(limit):
            if self._identity(number) is None:
                break
        else:
            raise OSError(errno.EMFILE, f"no fd is free below {limit}")
        with self._table.backing(file) as fd:
            self._listener.add_fd(call, fd, number, flags)
            self._table.add(number, OpenFile(file, self.pid, Identity.of(fd)))
        return number

    def _identity(self, number: int) -> Identity | None:
        try:
            return Identity.of(f"/proc/{self.memory.pid}/fd/{number}")
        except OSError:
            return None


def process_of(thread: int) -> int:
    """Return the process that a thread belongs to.

    Raises:
        OSError: there is no such thread any more.
    """
    found = _TGID.search(Path(f"/proc/{thread}/status").read_bytes())
    assert found is not None  # the kernel writes that line
    return int(found[1])


def is_thread_of(process: int, thread: int) -> bool:
    """Tell whether a thread is one of a process."""
    return os.path.exists(f"/proc/{process}/task/{thread}")  # noqa: PTH110 -- faster
