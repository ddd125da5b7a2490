"""Our files behind the fds of a program.

Rule 1: a number is given out once, whatever the process, so that the copies that a
fork leaves in a child are the same files.

Rule 2: a file is open until the process that opened it closes it or ends.  Its copies
in children work as long, and are never what keeps a device alive.  Duplicates under
other numbers can only be mapped: no call on them comes to us.

Rule 3: what really lies under a number is an empty file that nobody can write, or the
data section of the device, to be mapped; all other accesses come to us.

Rule 4: by that file one can tell whether a process still has ours under a number: it
may have lost it by an exec, or never had it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.host.user_process import HostFile

_SEALS: Final = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
)


@runtime_checkable
class Mappable(Protocol):
    """A file of which a program may map parts."""

    def backing_fd(self) -> int | None:
        """Return the fd whose pages these are; None if nothing can be mapped."""

    def require_mappable(self, length: int, offset: int, flags: int) -> None:
        """Raise OSError(EINVAL) unless this may be mapped, with flags of mmap(2)."""


class Identity(NamedTuple):
    """Which file lies under a number, as stat(2) tells it."""

    device: int
    inode: int

    @classmethod
    def of(cls, path_or_fd: str | int) -> Identity:
        """Return that of a path, or of an fd of ours."""
        found = os.stat(path_or_fd)  # noqa: PTH116 -- a Path is slower
        return cls(found.st_dev, found.st_ino)


class OpenFile(NamedTuple):
    """A file of ours that a process, its owner, has opened."""

    file: HostFile
    owner: int
    identity: Identity


class FdTable:
    """The open files of all processes under one filter, numbered from ``first``."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._open: dict[int, OpenFile] = {}
        # What is behind a number, if it is one of ours: asked at every access.
        self.get: Callable[[int], OpenFile | None] = self._open.get

    def add(self, number: int, opened: OpenFile) -> None:
        """Note that a process has a file open."""
        self._open[number] = opened

    def free_numbers(self, limit: int) -> Iterator[int]:
        """Yield the numbers below a limit that none of our files has."""
        return (each for each in range(self._first, limit) if each not in self._open)

    def owned_by(self, owner: int) -> list[int]:
        """Return the numbers that a process has open, the last opened first."""
        return [n for n, each in reversed(self._open.items()) if each.owner == owner]

    def close(self, number: int, closer: int) -> None:
        """Close a file, if it is the process that opened it that does so.

        Raises:
            OSError, VfiomigError: as the file; it is closed all the same.
        """
        found = self._open.get(number)
        if found is not None and found.owner == closer:
            del self._open[number]
            found.file.close()

    @contextlib.contextmanager
    def backing(self, file: HostFile) -> Iterator[int]:
        """Give an fd to put under a number."""
        own = file.backing_fd() if isinstance(file, Mappable) else None
        if own is not None:
            yield own
            return
        empty = os.memfd_create("vfiomig", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            fcntl.fcntl(empty, fcntl.F_ADD_SEALS, _SEALS)
            yield empty
        finally:
            os.close(empty)
