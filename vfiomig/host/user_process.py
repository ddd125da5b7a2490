"""Whoever has files of /dev/vfio open: its memory, its fds, and what is behind them.

Containers, groups and devices are files of one process.  They are told of it with
each ioctl, because an argument may be a pointer into its memory, or one of its fds.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, Protocol

from vfiomig.host.user_memory import LocalMemory, UserMemory

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_FD: Final = 1000


class UserProcess(Protocol):
    """One caller, as the host sees it."""

    @property
    def memory(self) -> UserMemory:
        """Its address space."""

    def duplicate(self, number: int) -> int:
        """Return an fd of ours that is what its fd ``number`` is; OSError(EBADF).

        For what is not the host's own: the eventfds of interrupts.
        """

    def file(self, number: int) -> HostFile:
        """Return the host's file behind its fd; OSError(EBADF), or EINVAL for none."""

    def install(self, file: HostFile) -> int:
        """Give it another fd, of a file that was opened for it; OSError(EMFILE)."""


class HostFile(Protocol):
    """An open file of the host: a container, a group or a device.

    Failures are OSErrors with the kernel's errno.
    """

    def user_ioctl(self, request: int, argument: int, user: UserProcess) -> int:
        """Perform an ioctl whose ``argument`` is a number or a pointer."""

    def pread(self, size: int, offset: int) -> bytes:
        """Read at an offset."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write at an offset; return how many bytes were taken."""

    def close(self) -> None:
        """Let go of it: the last reference is gone."""


class LocalProcess:
    """A caller within this process, with a table of fds of its own.

    ``open_file`` is what the kernel does at open(2): a path of /dev/vfio to a file.
    """

    def __init__(self, open_file: Callable[[str], HostFile]) -> None:
        self.memory = LocalMemory()
        self._open_file = open_file
        self._files: dict[int, HostFile] = {}

    def open(self, path: str) -> int:
        """Open a path of /dev/vfio; return an fd."""
        return self.install(self._open_file(path))

    def ioctl(self, number: int, request: int, argument: int = 0) -> int:
        """Perform an ioctl on one of its fds."""
        return self.file(number).user_ioctl(request, argument, self)

    def close(self, number: int) -> None:
        """Close one of its fds."""
        file = self.file(number)
        del self._files[number]
        file.close()

    def duplicate(self, number: int) -> int:
        """Return a duplicate of an fd of this process itself."""
        return os.dup(number)

    def file(self, number: int) -> HostFile:
        """Return what is behind an fd."""
        try:
            return self._files[number]
        except KeyError:
            raise OSError(errno.EBADF, f"no fd {number} is open") from None

    def install(self, file: HostFile) -> int:
        """Give out the next fd."""
        number = max(self._files, default=_FIRST_FD - 1) + 1
        self._files[number] = file
        return number
