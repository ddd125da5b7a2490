"""What a call is answered where numbers are concerned: the kernel's errnos."""

from __future__ import annotations

import errno
from typing import Final

# Where a process may have memory: the kernel does not look at the rest (access_ok).
_USER_ADDRESSES: Final = 1 << 47

# One access that is larger has no sense for any register, and what a driver in C
# would allocate for it the kernel would not give.
_LARGEST_ACCESS: Final = 64 << 20


def position(register: int) -> int:
    """Read a register as a loff_t; OSError(EINVAL) below 0."""
    if register >> 63:
        raise OSError(errno.EINVAL, f"offset {register - (1 << 64)}")
    return register


def access_size(size: int) -> int:
    """Return the size of an access; OSError(EFAULT, ENOMEM) for too large a one."""
    if size > _LARGEST_ACCESS:
        code = errno.EFAULT if size >= _USER_ADDRESSES else errno.ENOMEM
        raise OSError(code, f"{size} bytes in one access")
    return size


def code_of(error: Exception) -> int:
    """Return the errno that an error is to a program: EIO for what has none."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    code = error.errno if isinstance(error, OSError) else None
    # Other numbers are no errors to a libc, or make the kernel repeat the call.
    return code if code is not None and code in errno.errorcode else errno.EIO
