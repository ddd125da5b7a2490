"""Seccomp's user notification (linux/seccomp.h, linux/filter.h, linux/audit.h)."""

from __future__ import annotations

import ctypes
from typing import Final

# seccomp(2)
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5  # since 5.19

# What a filter returns.
SECCOMP_RET_KILL_PROCESS: Final = 0x80000000
SECCOMP_RET_ERRNO: Final = 0x00050000  # the errno in the low 16 bits
SECCOMP_RET_USER_NOTIF: Final = 0x7FC00000
SECCOMP_RET_ALLOW: Final = 0x7FFF0000

# struct seccomp_notif_resp, flags
SECCOMP_USER_NOTIF_FLAG_CONTINUE: Final = 1 << 0

# struct seccomp_notif_addfd, flags
SECCOMP_ADDFD_FLAG_SETFD: Final = 1 << 0
SECCOMP_ADDFD_FLAG_SEND: Final = 1 << 1  # since 5.14

# The argument of SECCOMP_IOCTL_NOTIF_SET_FLAGS.
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: Final = 1 << 0  # since 6.6

SECCOMP_IOCTL_NOTIF_RECV: Final = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND: Final = 0xC0182101
SECCOMP_IOCTL_NOTIF_ID_VALID: Final = 0x40082102
SECCOMP_IOCTL_NOTIF_ADDFD: Final = 0x40182103
SECCOMP_IOCTL_NOTIF_SET_FLAGS: Final = 0x40082104

# prctl(2)
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38

# close_range(2)
CLOSE_RANGE_CLOEXEC: Final = 1 << 2

# Classic BPF: class, size and mode of a load; class, operation and source of a jump.
BPF_LD_W_ABS: Final = 0x20
BPF_JMP_JEQ_K: Final = 0x15
BPF_JMP_JGE_K: Final = 0x35
BPF_RET_K: Final = 0x06

AUDIT_ARCH_X86_64: Final = 0xC000003E
AUDIT_ARCH_AARCH64: Final = 0xC00000B7
X32_SYSCALL_BIT: Final = 0x40000000


class seccomp_data(ctypes.Structure):
    """One system call, as its filter sees it."""

    _fields_ = (
        ("nr", ctypes.c_int32),  # 0x00
        ("arch", ctypes.c_uint32),  # 0x04
        ("instruction_pointer", ctypes.c_uint64),  # 0x08
        ("args", ctypes.c_uint64 * 6),  # 0x10
    )


class seccomp_notif(ctypes.Structure):
    """A system call that waits for an answer; ``pid`` is the thread's."""

    _fields_ = (
        ("id", ctypes.c_uint64),  # 0x00
        ("pid", ctypes.c_uint32),  # 0x08
        ("flags", ctypes.c_uint32),  # 0x0c
        ("data", seccomp_data),  # 0x10
    )


class seccomp_notif_resp(ctypes.Structure):
    """The answer: a value, or an errno as a negative ``error``."""

    _fields_ = (
        ("id", ctypes.c_uint64),  # 0x00
        ("val", ctypes.c_int64),  # 0x08
        ("error", ctypes.c_int32),  # 0x10
        ("flags", ctypes.c_uint32),  # 0x14
    )


class seccomp_notif_addfd(ctypes.Structure):
    """A file for the process that waits."""

    _fields_ = (
        ("id", ctypes.c_uint64),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x08
        ("srcfd", ctypes.c_uint32),  # 0x0c
        ("newfd", ctypes.c_uint32),  # 0x10
        ("newfd_flags", ctypes.c_uint32),  # 0x14
    )


class sock_filter(ctypes.Structure):
    """One instruction of classic BPF."""

    _fields_ = (
        ("code", ctypes.c_uint16),  # 0x00
        ("jt", ctypes.c_uint8),  # 0x02
        ("jf", ctypes.c_uint8),  # 0x03
        ("k", ctypes.c_uint32),  # 0x04
    )


class sock_fprog(ctypes.Structure):
    """A program of classic BPF."""

    _fields_ = (
        ("len", ctypes.c_uint16),  # 0x00
        ("filter", ctypes.POINTER(sock_filter)),  # 0x08
    )
