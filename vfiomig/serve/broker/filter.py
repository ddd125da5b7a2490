"""Which system calls of a program wait for the supervisor, as a BPF program.

BPF sees numbers and no memory: it cannot tell the path of an open, so that each of
them waits.  The other calls wait where the fd is one that the supervisor gives out,
``first_fd`` or above.
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


class SeccompError(VfiomigError):
    """A program's system calls cannot be watched on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Syscalls:
    """The numbers of one architecture; ``open`` is None where only openat is."""

    arch: int
    openat: int
    close: int
    ioctl: int
    pread64: int
    pwrite64: int
    seccomp: int
    open: int | None = None
    last: int = X32_SYSCALL_BIT - 1

    @property
    def of_fds(self) -> tuple[int, ...]:
        """Those whose first argument is an fd."""
        return (self.close, self.ioctl, self.pread64, self.pwrite64)

    @property
    def of_paths(self) -> tuple[int, ...]:
        """Those that open a path."""
        return (self.openat,) if self.open is None else (self.openat, self.open)


_SYSCALLS: Final = {
    "x86_64": Syscalls(
        arch=AUDIT_ARCH_X86_64,
        openat=257,
        open=2,
        close=3,
        ioctl=16,
        pread64=17,
        pwrite64=18,
        seccomp=317,
    ),
    "aarch64": Syscalls(
        arch=AUDIT_ARCH_AARCH64,
        openat=56,
        close=57,
        ioctl=29,
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
_FD: Final = seccomp_data.args.offset  # the low half of the first: little-endian


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
        *((BPF_JMP_JEQ_K, "fd", 0, number) for number in numbers.of_fds),
        (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
    ]
    places = {}
    places["fd"] = len(steps)
    steps += [
        (BPF_LD_W_ABS, 0, 0, _FD),
        (BPF_JMP_JGE_K, "wait", 0, first_fd),
        (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
    ]
    for name, result in (
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
