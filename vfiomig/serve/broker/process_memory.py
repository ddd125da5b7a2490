"""The memory of another process, by process_vm_readv and process_vm_writev.

They keep to the protection of its pages, as the kernel's own copies do; writing to
/proc/PID/mem would not.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final, NoReturn

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ADDRESS_LIMIT: Final = 1 << 64


class _iovec(ctypes.Structure):  # noqa: N801 -- C's name
    _fields_ = (("iov_base", ctypes.c_uint64), ("iov_len", ctypes.c_size_t))


_TRANSFER_ARGUMENTS: Final = (
    ctypes.c_int,
    ctypes.POINTER(_iovec),
    ctypes.c_ulong,
    ctypes.POINTER(_iovec),
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_readv: Final = _LIBC.process_vm_readv
_writev: Final = _LIBC.process_vm_writev
for _function in (_readv, _writev):
    _function.argtypes = _TRANSFER_ARGUMENTS
    _function.restype = ctypes.c_ssize_t


class ProcessMemory:
    """A `UserMemory`: what a thread, and so its process, has at an address."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._local, self._remote = _iovec(), _iovec()

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from ``address`` on.

        Raises:
            OSError: EFAULT where any of them is not there to be read; EPERM where we
                may not look into the process; ESRCH if it has ended.
        """
        data = self.read_some(address, size)
        if len(data) < size:
            _fault(address, size)
        return data

    def read_some(self, address: int, size: int) -> bytes:
        """Return the bytes from ``address`` on up to where the first is missing.

        Raises:
            OSError: as `read`, EFAULT if the first one is.
        """
        if not size:
            return b""
        buffer = ctypes.create_string_buffer(size)
        moved = self._transfer(_readv, ctypes.addressof(buffer), address, size)
        return buffer.raw[:moved]

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Put ``data`` at ``address``.

        Raises:
            OSError: as `read`.
        """
        size = len(data)
        if not size:
            return
        whole = bytes(data)
        place = ctypes.cast(ctypes.c_char_p(whole), ctypes.c_void_p).value
        assert place is not None
        if self._transfer(_writev, place, address, size) < size:
            _fault(address, size)

    def _transfer(
        self, function: ctypes._NamedFuncPointer, place: int, address: int, size: int
    ) -> int:
        if not 0 <= address < _ADDRESS_LIMIT:
            _fault(address, size)
        local, remote = self._local, self._remote
        local.iov_base, local.iov_len = place, size
        remote.iov_base, remote.iov_len = address, size
        moved = int(function(self.pid, local, 1, remote, 1, 0))
        if moved < 0:
            code = ctypes.get_errno()
            # A range that wraps is EINVAL to the call, and no place to the kernel.
            if code in (errno.EINVAL, errno.ENOMEM):
                _fault(address, size)
            raise OSError(code, f"process {self.pid}: {os.strerror(code)}")
        return moved


def _fault(address: int, size: int) -> NoReturn:
    raise OSError(errno.EFAULT, f"no {size} bytes at {address:#x}")
