"""Run a command under a filter that answers seccomp(2) with an errno.

``python refuse_seccomp.py NUMBER FLAG CODE COMMAND ...``: NUMBER is that of the call,
and only calls with FLAG among their flags are refused.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_uint16), ("filter", ctypes.c_void_p))


def _refuse(number: int, flag: int, code: int) -> None:
    steps = (
        (0x20, 0, 0, 0),  # load the number
        (0x15, 0, 3, number),
        (0x20, 0, 0, 24),  # load the second argument
        (0x45, 0, 1, flag),
        (0x06, 0, 0, 0x50000 | code),
        (0x06, 0, 0, 0x7FFF0000),
    )
    room = ctypes.create_string_buffer(
        b"".join(struct.pack("=HBBI", *each) for each in steps)
    )
    program = _Program(len(steps), ctypes.addressof(room))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP


if __name__ == "__main__":
    _refuse(*map(int, sys.argv[1:4]))
    os.execvp(sys.argv[4], sys.argv[4:])
