"""Which system calls of a program wait for the supervisor, as a BPF program.

BPF sees numbers and no memory: it cannot tell the path of an open, so that each of
them waits.  The other calls wait where the fd is one that the supervisor gives out,
``first_fd`` or above; among them those that close an fd without close(2).
"""

from __future__ import annotations

import errno
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import VfiomigError
from vfiomig.uapi.seccomp import (
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_X86_64,
    BPF_JMP_JEQ_K,
    BPF_JMP_JGE_K,
    BPF_LD_W_ABS,
    BPF_RET_K,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_USER_NOTIF,
    X32_SYSCALL_BIT,
    seccomp_data,
    sock_filter,
)

if TYPE_CHECKING:
    import ctypes


_FD_OF_MMAP: Final = 4  # -1 for no file at all


class SeccompError(VfiomigError):
    """A program's system calls cannot be watched on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Syscalls:
    """The numbers of one architecture; ``open`` is None where only openat is."""

    arch: int
    openat: int
    close: int
    close_range: int
    dup3: int
    ioctl: int
    mmap: int
    pread64: int
    pwrite64: int
    seccomp: int
    open: int | None = None
    dup2: int | None = None
    last: int = X32_SYSCALL_BIT - 1

    @property
    def of_fds(self) -> dict[int, int]:
        """Those that are given an fd, and which argument that is.

        Of close_range(2) it is the last of those to close.
        """
        calls = dict.fromkeys((self.close, self.ioctl, self.pread64, self.pwrite64), 0)
        calls |= dict.fromkeys(self.over_fds, 1)
        return calls | {self.close_range: 1, self.mmap: _FD_OF_MMAP}

    @property
    def of_paths(self) -> tuple[int, ...]:
        """Those that open a path."""
        return (self.openat,) if self.open is None else (self.openat, self.open)

    @property
    def over_fds(self) -> tuple[int, ...]:
        """Those that put another file over an fd."""
        return (self.dup3,) if self.dup2 is None else (self.dup3, self.dup2)


_SYSCALLS: Final = {
    "x86_64": Syscalls(
        arch=AUDIT_ARCH_X86_64,
        openat=257,
        open=2,
        close=3,
        close_range=436,
        dup2=33,
        dup3=292,
        ioctl=16,
        mmap=9,
        pread64=17,
        pwrite64=18,
        seccomp=317,
    ),
    "aarch64": Syscalls(
        arch=AUDIT_ARCH_AARCH64,
        openat=56,
        close=57,
        close_range=436,
        dup3=24,
        ioctl=29,
        mmap=222,
        pread64=67,
        pwrite64=68,
        seccomp=277,
    ),
}


def syscalls() -> Syscalls:
    """Return the numbers of this machine; raises `SeccompError` where unknown."""
    machine = platform.machine()
    if machine not in _SYSCALLS:
        message = f"no table of system calls for {machine}"
        raise SeccompError(message)
    return _SYSCALLS[machine]


_ARCH: Final = seccomp_data.arch.offset
_NR: Final = seccomp_data.nr.offset
_ARGS: Final = seccomp_data.args.offset  # the low half comes first: little-endian
_NO_FD: Final = 0xFFFFFFFF


def program(numbers: Syscalls, first_fd: int) -> ctypes.Array[sock_filter]:
    """Return the filter.

    A foreign architecture has other numbers and could slip through: it is killed.
    """
    steps: list[tuple[int, int | str, int | str, int]] = [
        (BPF_LD_W_ABS, 0, 0, _ARCH),
        (BPF_JMP_JEQ_K, 0, "kill", numbers.arch),
        (BPF_LD_W_ABS, 0, 0, _NR),
        (BPF_JMP_JGE_K, "no such call", 0, numbers.last + 1),
        *((BPF_JMP_JEQ_K, "wait", 0, number) for number in numbers.of_paths),
        *((BPF_JMP_JEQ_K, f"fd {at}", 0, nr) for nr, at in numbers.of_fds.items()),
        (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
    ]
    places = {}
    for at in sorted({*numbers.of_fds.values()}):
        places[f"fd {at}"] = len(steps)
        steps.append((BPF_LD_W_ABS, 0, 0, _ARGS + 8 * at))
        if at == _FD_OF_MMAP:
            steps.append((BPF_JMP_JEQ_K, "allow", 0, _NO_FD))
        steps.append((BPF_JMP_JGE_K, "wait", "allow", first_fd))
    for name, result in (
        ("allow", SECCOMP_RET_ALLOW),
        ("wait", SECCOMP_RET_USER_NOTIF),
        ("kill", SECCOMP_RET_KILL_PROCESS),
        ("no such call", SECCOMP_RET_ERRNO | errno.ENOSYS),
    ):
        places[name] = len(steps)
        steps.append((BPF_RET_K, 0, 0, result))

    def jump(target: int | str, at: int) -> int:
        return places[target] - at - 1 if isinstance(target, str) else target

    return (sock_filter * len(steps))(
        *(
            sock_filter(code, jump(true, at), jump(false, at), k)
            for at, (code, true, false, k) in enumerate(steps)
        )
    )
