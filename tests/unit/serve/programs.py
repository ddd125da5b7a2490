"""Programs under the broker: scripts for a child, and a file that plays along."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, Final

from vfiomig.protocol.errors import DriverDiedError
from vfiomig.serve.broker.child import start
from vfiomig.serve.broker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vfiomig.host.user_process import HostFile, UserProcess
    from vfiomig.serve.broker.child import Child

LIMIT: Final = 30.0  # seconds that a program may take; none takes one

# What an ioctl of `EchoFile` does.
GREET, OPEN, RING, NOTHING, DIE, BUG, FAIL, FIND, KILL, TELL = range(1, 11)

PRELUDE: Final = """
import ctypes, errno, fcntl, json, mmap, os, signal, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.syscall.restype = ctypes.c_long
OPENAT, IOCTL, PREAD, PWRITE, MMAP = {calls}
def u64(value):
    return ctypes.c_uint64(value)
def raw(number, *args):
    "A system call as it is: its value, or the name of its errno."
    value = libc.syscall(number, *map(u64, args))
    return errno.errorcode[ctypes.get_errno()] if value == -1 else value
def tried(function, *args):
    try:
        return function(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
def say(*words):
    os.write(1, json.dumps(words).encode() + b"\\n")
"""

CALLS: Final = {"x86_64": (257, 16, 17, 18, 9), "aarch64": (56, 29, 67, 68, 222)}


class EchoFile:
    """A file that says what it was asked; each ioctl is one of those above."""

    def __init__(self, log: list[tuple[Any, ...]]) -> None:
        self.log = log
        self.on_pread: Callable[[], None] = lambda: None
        self.told: list[tuple[UserProcess, int]] = []

    def user_ioctl(self, request: int, argument: int, user: UserProcess) -> int:
        self.log.append(("ioctl", request, argument))
        if request == GREET:
            user.memory.write(argument, b"hello!!!")
            return 5
        if request == OPEN:
            return user.install(EchoFile(self.log))
        if request == RING:
            fd = user.duplicate(argument)
            os.eventfd_write(fd, 7)
            os.close(fd)
        if request == DIE:
            raise DriverDiedError("an ioctl", "driver.py:1", "KeyError: 1")
        if request == BUG:
            raise ZeroDivisionError("our own")
        if request == FAIL:
            raise OSError(argument, "as it was asked for")
        if request == FIND:
            return int(isinstance(user.file(argument), EchoFile))
        if request == KILL:
            kill(argument)
            return user.install(EchoFile(self.log))
        if request == TELL:
            self.told.append((user, argument))
        if request > TELL:
            raise OSError(errno.ENOTTY, "no such ioctl")
        return 0

    def pread(self, size: int, offset: int) -> bytes:
        self.log.append(("pread", size, offset))
        self.on_pread()
        return (b"%x" % offset).ljust(size, b".")[:size]

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self.log.append(("pwrite", bytes(data), offset))
        return len(data)

    def close(self) -> None:
        self.log.append(("close",))


class EchoFolder:
    """A /dev/vfio whose one file is ``echo``; ``alone`` can be opened once."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.file = EchoFile(self.log)
        self.is_taken = False

    def open(self, path: str) -> HostFile:
        self.log.append(("open", path))
        if path == "/dev/vfio/alone":
            return self._alone()
        if path != "/dev/vfio/echo":
            raise OSError(errno.ENOENT, path)
        return self.file

    def _alone(self) -> HostFile:
        if self.is_taken:
            raise OSError(errno.EBUSY, "it is open")
        self.is_taken = True
        folder = self

        class Alone(EchoFile):
            def close(self) -> None:
                folder.is_taken = False

        return Alone(self.log)

    def closes(self) -> int:
        return self.log.count(("close",))

    def told(self) -> list[int]:
        """Return what was told by ioctl TELL."""
        return [each[2] for each in self.log if each[:2] == ("ioctl", TELL)]


class Output:
    """A file that is a program's standard output."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("output", os.MFD_CLOEXEC)

    @property
    def text(self) -> str:
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0).decode()

    @property
    def said(self) -> list[Any]:
        """Return what each `say` had to say."""
        return [json.loads(line) for line in self.text.splitlines()]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Kill a process, and wait until it is dead."""
    with contextlib.closing(Watch(pid)) as watch:
        os.kill(pid, number)
        assert watch.has_ended()


class Watch:
    """A process that must end, whoever its parent is."""

    def __init__(self, pid: int) -> None:
        self.fd = os.pidfd_open(pid)

    def has_ended(self, patience: float = LIMIT) -> bool:
        return bool(select.select([self.fd], [], [], patience)[0])

    def close(self) -> None:
        os.close(self.fd)


def script(code: str) -> list[str]:
    """Return the command line of a script with what `PRELUDE` has."""
    prelude = PRELUDE.format(calls=CALLS[os.uname().machine])
    return [sys.executable, "-S", "-c", prelude + textwrap.dedent(code)]


def out_of_patience() -> Callable[[], float]:
    """Return an ``idle`` that ends what hangs."""
    deadline = time.monotonic() + LIMIT

    def idle() -> float:
        assert time.monotonic() < deadline, "the program hangs"
        return 1.0

    return idle


@contextlib.contextmanager
def started(
    command: Sequence[str], folder: Any, output: Output, *, patience: float = 5.0
) -> Iterator[tuple[Supervisor, Child]]:
    """Start a program with a supervisor that is closed afterwards."""
    child = start(command, files={1: output.fd})
    supervisor = Supervisor(child, folder, patience=patience)
    try:
        yield supervisor, child
    finally:
        supervisor.close()


def run(code: str, folder: Any, *, status: int = 0) -> list[Any]:
    """Run a script to its end; return what it said."""
    output = Output()
    try:
        with started(script(code), folder, output) as (supervisor, _):
            assert supervisor.serve(out_of_patience()) == status, output.text
        return output.said
    finally:
        os.close(output.fd)
