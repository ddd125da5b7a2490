"""A process between us and the program, so that nothing of it outlives us.

It starts the program, and is the nearest subreaper: what the program leaves behind
becomes its child, however it was forked.  Once we let go of the leash, or are no more,
it kills all that it has, until there is nothing left, and ends.

Two messages come along the leash: the program's pid, and later its status.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.uapi.seccomp import PR_SET_CHILD_SUBREAPER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NUMBER: Final = struct.Struct("=i")
_MOST_FDS: Final = 1 << 20
_GRACE: Final = 10.0  # seconds; it takes longer only while the kernel cannot kill
_ROUND: Final = 0.05  # seconds

# What a terminal sends to all of us is for the program.
_NOT_FOR_IT: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
)


class Leash:
    """Our end of a guard: it tells of the program, and holds on while it is open."""

    def __init__(self, channel: socket.socket, guard: int) -> None:
        self._channel = channel
        self._guard = guard

    @property
    def fd(self) -> int:
        """Readable once the program has ended."""
        return self._channel.fileno()

    def pid(self) -> int:
        """Receive the program's pid; call it first, and once."""
        return self._number()

    def status(self) -> int:
        """Receive the status, as of os.waitpid; SIGKILL if there is no guard left."""
        return self._number()

    def close(self) -> None:
        """Kill all that is left; wait for that, but not for ever."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            fd = os.pidfd_open(self._guard)
            try:
                if not select.select([fd], [], [], _GRACE)[0]:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)
            os.waitpid(self._guard, 0)

    def _number(self) -> int:
        message = self._channel.recv(_NUMBER.size)
        return _NUMBER.unpack(message)[0] if message else int(signal.SIGKILL)


def start_guarded(program: Callable[[], NoReturn]) -> Leash:
    """Fork a guard, and from it a process that calls ``program``."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.pidfd_open(os.getpid())
    try:
        guard = os.fork()
        if not guard:
            try:
                ours.close()
                _guard(theirs, parent, program)
            finally:
                os._exit(127)
    finally:
        os.close(parent)
        theirs.close()
    return Leash(ours, guard)


# -- in the guard ----------------------------------------------------------------------


def _guard(leash: socket.socket, parent: int, program: Callable[[], NoReturn]) -> None:
    gc.disable()  # nothing that it would find is ours to close
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_IT)
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    bell, ringer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
    pid = os.fork()
    if not pid:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        program()
    leash.send(_NUMBER.pack(pid))
    _close_all_but({leash.fileno(), parent, bell, ringer})
    _watch(leash, parent, bell, pid)
    _kill_all(bell)
    os._exit(0)


def _watch(leash: socket.socket, parent: int, bell: int, pid: int) -> None:
    """Tell of the program's end; return when nobody holds the leash."""
    poller = select.poll()
    for fd in (leash.fileno(), parent, bell):
        poller.register(fd, select.POLLIN)
    while {fd for fd, _ in poller.poll()} == {bell}:
        with contextlib.suppress(BlockingIOError):
            os.read(bell, 4096)
        for ended, status in _reaped():
            if ended == pid:
                with contextlib.suppress(OSError):
                    leash.send(_NUMBER.pack(status))


def _reaped() -> Iterable[tuple[int, int]]:
    """Yield children that have ended, and their status."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if not ended:
                return
            yield ended, status


def _kill_all(bell: int) -> None:
    """Kill children until there are none; theirs become ours as they die."""
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children")
    while True:
        for _ in _reaped():
            pass
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        for child in children.read_bytes().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        select.select([bell], [], [], _ROUND)
        with contextlib.suppress(BlockingIOError):
            os.read(bell, 4096)


def _close_all_but(kept: set[int]) -> None:
    """Close what we have open, so that nobody waits for the end of a pipe of ours."""
    start = 0
    for fd in [*sorted(kept), _MOST_FDS]:
        os.closerange(start, fd)
        start = fd + 1
