"""The memory of another process, by process_vm_readv and process_vm_writev.

They keep to the protection of its pages, as the kernel's own copies do; writing to
/proc/PID/mem would not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NoReturn

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ADDRESS_LIMIT: Final = 1 << 64
_SMALL: Final = 4096  # bytes that pass through a buffer that is always there


# Two of struct iovec: the local one, and the remote one.
_VECTORS: Final = struct.Struct("=QQQQ")

_readv: Final = _LIBC.process_vm_readv
_writev: Final = _LIBC.process_vm_writev
_readv.restype = _writev.restype = ctypes.c_ssize_t
# No argtypes: objects that are there already pass faster than they are converted.
_ONE: Final = ctypes.c_ulong(1)
_NO_FLAGS: Final = ctypes.c_ulong(0)


class ProcessMemory:
    """A `UserMemory`: what a thread, and so its process, has at an address."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._vectors = ctypes.create_string_buffer(_VECTORS.size)
        at = ctypes.addressof(self._vectors)
        self._local = ctypes.c_void_p(at)
        self._remote = ctypes.c_void_p(at + _VECTORS.size // 2)
        self._buffer = ctypes.create_string_buffer(_SMALL)
        self._buffer_at = ctypes.addressof(self._buffer)
        self._small = memoryview(self._buffer).cast("B")

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
        if size <= _SMALL:
            moved = self._transfer(_readv, self._buffer_at, address, size)
            return self._small[:moved].tobytes()
        buffer = ctypes.create_string_buffer(size)
        moved = self._transfer(_readv, ctypes.addressof(buffer), address, size)
        return memoryview(buffer)[:moved].tobytes()

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Put ``data`` at ``address``.

        Raises:
            OSError: as `read`.
        """
        size = len(data)
        if not size:
            return
        if size <= _SMALL:
            self._small[:size] = data
            moved = self._transfer(_writev, self._buffer_at, address, size)
        else:
            whole = bytes(data)
            place = ctypes.cast(ctypes.c_char_p(whole), ctypes.c_void_p).value
            assert place is not None
            moved = self._transfer(_writev, place, address, size)
        if moved < size:
            _fault(address, size)

    def _transfer(
        self, function: ctypes._NamedFuncPointer, place: int, address: int, size: int
    ) -> int:
        if not 0 <= address < _ADDRESS_LIMIT:
            _fault(address, size)
        _VECTORS.pack_into(self._vectors, 0, place, size, address, size)
        local, remote = self._local, self._remote
        moved: int = function(self.pid, local, _ONE, remote, _ONE, _NO_FLAGS)
        if moved < 0:
            code = ctypes.get_errno()
            # A range that wraps is EINVAL to the call, and no place to the kernel.
            if code in (errno.EINVAL, errno.ENOMEM):
                _fault(address, size)
            raise OSError(code, f"process {self.pid}: {os.strerror(code)}")
        return moved


def _fault(address: int, size: int) -> NoReturn:
    raise OSError(errno.EFAULT, f"no {size} bytes at {address:#x}")
