"""The supervisor's end of a filter: calls come in, answers go out.

Rule 1: an id says which call is meant, and is good until its thread goes on or dies.
Whatever was read from the program meanwhile is only believed if the id still is.

Rule 2: a call that is gone needs no answer: its thread was killed.  That is no error.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from typing import Final, NamedTuple

from vfiomig.uapi.seccomp import (
    SECCOMP_ADDFD_FLAG_SETFD,
    SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_RECV,
    SECCOMP_IOCTL_NOTIF_SEND,
    SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
    seccomp_notif_addfd,
)

# ENOTCONN is told of a filter that nobody is under any more.
_GONE: Final = (errno.ENOENT, errno.EINPROGRESS, errno.ENOTCONN)

# seccomp_notif (id, thread, number, six arguments) and seccomp_notif_resp (id, value,
# error, flags) at once: field by field ctypes takes several times as long.
_SEEN: Final = struct.Struct("=QI4xi4x8x6Q")
_TOLD: Final = struct.Struct("=QqiI")
_ID: Final = struct.Struct("=Q")
_ZEROS: Final = bytes(_SEEN.size)


class GoneError(OSError):
    """The call that is being answered is gone; nobody waits for it.

    It is an OSError so that whoever is in the midst of something undoes it.
    """

    def __init__(self) -> None:
        super().__init__(errno.ESRCH, "the thread that called is gone")


class Call(NamedTuple):
    """A system call that waits: its thread, its number and its arguments."""

    id: int
    thread: int
    number: int
    arg0: int
    arg1: int
    arg2: int
    arg3: int
    arg4: int
    arg5: int

    @property
    def args(self) -> tuple[int, ...]:
        """All of the arguments."""
        return self[3:]


class Listener:
    """The listener fd of one filter, whichever processes run under it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._seen = bytearray(_SEEN.size)
        self._told = bytearray(_TOLD.size)
        self.wakes_synchronously = self._ask_for_synchronous_wake_up()

    def receive(self) -> Call | None:
        """Return a call that waits; None if it has gone before we looked."""
        seen = self._seen
        seen[:] = _ZEROS  # the kernel demands it
        try:
            fcntl.ioctl(self.fd, SECCOMP_IOCTL_NOTIF_RECV, seen)
        except OSError as error:
            if error.errno in (*_GONE, errno.EINTR):
                return None
            raise
        return Call._make(_SEEN.unpack(seen))

    def require(self, call: Call) -> None:
        """Raise `GoneError` unless a call still waits."""
        try:
            fcntl.ioctl(self.fd, SECCOMP_IOCTL_NOTIF_ID_VALID, _ID.pack(call.id))
        except OSError:
            raise GoneError from None

    def answer(self, call: Call, value: int) -> None:
        """Let a call return a value, or fail with a negative errno."""
        self._send(call, max(value, 0), min(value, 0), 0)

    def let_pass(self, call: Call) -> None:
        """Let the kernel perform a call, as if nobody had looked."""
        self._send(call, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)

    def add_fd(self, call: Call, fd: int, number: int, flags: int) -> None:
        """Give the caller a duplicate of ``fd`` under a number.

        ``flags`` may be O_CLOEXEC.

        Raises:
            OSError: EBADF where its limit allows no such number.
            GoneError: the call is.
        """
        request = seccomp_notif_addfd(
            id=call.id,
            flags=SECCOMP_ADDFD_FLAG_SETFD,
            srcfd=fd,
            newfd=number,
            newfd_flags=flags,
        )
        try:
            fcntl.ioctl(self.fd, SECCOMP_IOCTL_NOTIF_ADDFD, bytes(request))
        except OSError as error:
            if error.errno in _GONE:
                raise GoneError from None
            raise

    def close(self) -> None:
        """Stop listening: calls that come now fail with ENOSYS."""
        os.close(self.fd)

    def _send(self, call: Call, value: int, error: int, flags: int) -> None:
        _TOLD.pack_into(self._told, 0, call.id, value, error, flags)
        try:
            fcntl.ioctl(self.fd, SECCOMP_IOCTL_NOTIF_SEND, self._told)
        except OSError as failure:
            if failure.errno not in _GONE:
                raise

    def _ask_for_synchronous_wake_up(self) -> bool:
        """Ask that each side runs at once when the other waits, on one CPU.

        Linux 6.6 and later; without it an answer takes several times as long.
        """
        with contextlib.suppress(OSError):
            fcntl.ioctl(
                self.fd,
                SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
            )
            return True
        return False
