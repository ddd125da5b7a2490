"""Memory of a client, mapped from its file without an object of Python's.

Python's own keeps a duplicate of the fd for each mapping, and a read of a page that
the client has cut off would kill us.  So there is an address only, and it is read by
process_vm_readv, which answers EFAULT then.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_mmap: Final = _LIBC.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_munmap: Final = _LIBC.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED: Final = ctypes.c_void_p(-1).value
_LARGEST: Final = (1 << 63) - 1


def map_file(fd: int, size: int, offset: int, *, is_writable: bool) -> int:
    """Map a part of a file, and return the address; the fd may be closed.

    Raises:
        OSError: EINVAL for a part that the file has not, or no regular file; EACCES
            for one that is not open for it; ENOMEM.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "memory is a regular file")
    if not 0 < size <= _LARGEST - offset or offset + size > found.st_size:
        what = f"{size:#x} bytes from {offset:#x} of a file of {found.st_size:#x}"
        raise OSError(errno.EINVAL, what)
    access = mmap.PROT_READ | (mmap.PROT_WRITE if is_writable else 0)
    address = _mmap(None, size, access, mmap.MAP_SHARED, fd, offset)
    if address == _FAILED or address is None:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(address)


def unmap(address: int, size: int) -> None:
    """Let a mapping go."""
    if _munmap(address, size):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
