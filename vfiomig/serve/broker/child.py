"""Starting a program under the filter, behind a guard that lets it never outlive us.

Between fork and exec little may be done, and behind the filter nothing that opens a
file, not even an import: nobody answers yet.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.protocol.errors import VfiomigError
from vfiomig.serve.broker.filter import SeccompError, Syscalls, program, syscalls
from vfiomig.serve.broker.guard import Leash, start_guarded
from vfiomig.uapi.seccomp import (
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    SECCOMP_SET_MODE_FILTER,
    sock_fprog,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ours begin here, above what a program opens by itself (userspace_vfio.md, step 2).
_FIRST_FD: Final = 1000
_ROOM: Final = 24  # fds of ours, where the limit is low
_WANTED_FDS: Final = 4096

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

# How a child says what went wrong: which step, and the errno.
_TROUBLE: Final = struct.Struct("=BI")
_NO_FILTER: Final = 1
_NO_EXEC: Final = 2

_REMEDIES: Final = {
    errno.EBUSY: "this runs under a listener already, of another vfiomig or of a "
    "container, and the kernel allows one",
}
_REMEDY: Final = "a container's own filter may refuse it; it takes Linux 5.9"


class StartError(VfiomigError):
    """The program cannot be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A program under the filter; its calls wait at ``listener``, an fd.

    ``leash`` tells when it has ended, and kills what is left of it when it is closed.
    Fds from ``first_fd`` on are watched.
    """

    pid: int
    leash: Leash
    listener: int
    first_fd: int


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    files: Mapping[int, int] | None = None,
) -> Child:
    """Run ``command`` under the filter.

    ``files`` gives it fds: its number to ours.  It has our terminal and our working
    directory.

    Raises:
        SeccompError: the kernel refuses filters, or their listeners.
        StartError: there is no such program, or it cannot be executed.
    """
    numbers = syscalls()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(soft, min(hard, _WANTED_FDS))
    first_fd = max(3, min(_FIRST_FD, limit - _ROOM))
    # Everything that takes memory or an import, before the fork.
    arguments = [os.fsencode(each) for each in command]
    paths = _candidates(command[0])
    variables = dict(os.environ if environment is None else environment)
    instructions = program(numbers, first_fd)
    filter_program = sock_fprog(len(instructions), instructions)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def run() -> NoReturn:
        ours.close()
        _prepare(limit, hard, files or {})
        _install(numbers, filter_program, theirs)
        _execute(paths, arguments, variables, theirs)

    leash = start_guarded(run)
    theirs.close()
    try:
        pid = leash.pid()
        listener = _listener_of(ours, command[0])
    except BaseException:
        leash.close()
        raise
    finally:
        ours.close()
    return Child(pid=pid, leash=leash, listener=listener, first_fd=first_fd)


# -- in the child ----------------------------------------------------------------------


def _prepare(limit: int, hard: int, files: Mapping[int, int]) -> None:
    # The guard kills us when it must; this is for one that was killed itself.
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for each in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    for number, fd in files.items():
        os.dup2(fd, number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _install(
    numbers: Syscalls, filter_program: sock_fprog, channel: socket.socket
) -> None:
    _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A signal must not make a thread repeat a call that the driver has seen: where the
    # kernel can (5.19), only a deadly one ends the wait.
    for flags in (
        SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ):
        listener = _LIBC.syscall(
            numbers.seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            ctypes.byref(filter_program),
        )
        if listener >= 0:
            break
    else:
        _tell(channel, _NO_FILTER, ctypes.get_errno())
    rights = struct.pack("i", listener)
    channel.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _execute(
    paths: Sequence[bytes],
    arguments: list[bytes],
    variables: Mapping[str, str],
    channel: socket.socket,
) -> NoReturn:
    code = errno.ENOENT
    for path in paths:
        try:
            os.execve(path, arguments, variables)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                code = error.errno or code
    _tell(channel, _NO_EXEC, code)


def _tell(channel: socket.socket, step: int, code: int) -> NoReturn:
    channel.send(_TROUBLE.pack(step, code))
    os._exit(127)


# -- in the parent ---------------------------------------------------------------------


def _candidates(name: str) -> list[bytes]:
    """Return where a program may be, as execvp(3) looks for it."""
    if "/" in name:
        return [os.fsencode(name)]
    return [os.fsencode(os.path.join(each, name)) for each in os.get_exec_path()]  # noqa: PTH118


def _listener_of(channel: socket.socket, name: str) -> int:
    """Receive the listener, and wait until the program is executed."""
    room = socket.CMSG_LEN(struct.calcsize("i"))
    message, ancillary, _, _ = channel.recvmsg(
        _TROUBLE.size, room, socket.MSG_CMSG_CLOEXEC
    )
    listeners = [
        struct.unpack("i", data[:4])[0]
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    ]
    if not listeners:
        raise _error_of(message, name)
    trouble = channel.recv(_TROUBLE.size)  # empty: the exec has closed it
    if trouble:
        os.close(listeners[0])
        raise _error_of(trouble, name)
    return int(listeners[0])


def _error_of(message: bytes, name: str) -> VfiomigError:
    if len(message) != _TROUBLE.size:
        return StartError(f"{name}: it ended before it was executed")
    step, code = _TROUBLE.unpack(message)
    if step == _NO_EXEC:
        return StartError(f"{name}: {os.strerror(code)}")
    return SeccompError(
        f"seccomp user notification is not to be had here: {os.strerror(code)} "
        f"({_REMEDIES.get(code, _REMEDY)})"
    )
