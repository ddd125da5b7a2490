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
    seccomp_notif,
    seccomp_notif_addfd,
    seccomp_notif_resp,
)

_GONE: Final = (errno.ENOENT, errno.EINPROGRESS)


class GoneError(Exception):
    """The call that is being answered is gone; nobody waits for it."""


class Call(NamedTuple):
    """A system call that waits: its number, its arguments and its thread."""

    id: int
    thread: int
    number: int
    args: tuple[int, ...]


class Listener:
    """The listener fd of one filter, whichever processes run under it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._notification = bytearray(memoryview(seccomp_notif()).nbytes)
        self._seen = seccomp_notif.from_buffer(self._notification)
        self._answer = bytearray(memoryview(seccomp_notif_resp()).nbytes)
        self._told = seccomp_notif_resp.from_buffer(self._answer)
        self.wakes_synchronously = self._ask_for_synchronous_wake_up()

    def receive(self) -> Call | None:
        """Return a call that waits; None if it has gone before we looked."""
        # The kernel demands a buffer of zeros.
        self._notification[:] = bytes(len(self._notification))
        try:
            fcntl.ioctl(self.fd, SECCOMP_IOCTL_NOTIF_RECV, self._notification)
        except OSError as error:
            if error.errno in (*_GONE, errno.EINTR):
                return None
            raise
        seen = self._seen
        return Call(seen.id, seen.pid, seen.data.nr, tuple(seen.data.args))

    def is_waiting(self, call: Call) -> bool:
        """Tell whether a call still waits."""
        try:
            fcntl.ioctl(
                self.fd, SECCOMP_IOCTL_NOTIF_ID_VALID, call.id.to_bytes(8, "little")
            )
        except OSError:
            return False
        return True

    def require(self, call: Call) -> None:
        """Raise `GoneError` unless a call still waits."""
        if not self.is_waiting(call):
            raise GoneError

    def answer(self, call: Call, value: int) -> None:
        """Let a call return a value, or fail with a negative errno."""
        self._send(call, value=max(value, 0), error=min(value, 0))

    def let_pass(self, call: Call) -> None:
        """Let the kernel perform a call, as if nobody had looked."""
        self._send(call, flags=SECCOMP_USER_NOTIF_FLAG_CONTINUE)

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

    def _send(
        self, call: Call, *, value: int = 0, error: int = 0, flags: int = 0
    ) -> None:
        told = self._told
        told.id, told.val, told.error, told.flags = call.id, value, error, flags
        try:
            fcntl.ioctl(self.fd, SECCOMP_IOCTL_NOTIF_SEND, self._answer)
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
