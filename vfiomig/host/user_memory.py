"""The memory of whoever made a call: what pointers in ioctl arguments lead to.

The kernel copies from and to its user by address, and answers EFAULT where there is
nothing.  Here that is a Protocol, so that the same host serves callers of this process
(`LocalMemory`) and of another one (the broker's `ProcessMemory`).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE: Final = 4096


class UserMemory(Protocol):
    """Bytes by address."""

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from ``address`` on; OSError(EFAULT) if any is not."""

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Put ``data`` at ``address``; OSError(EFAULT) if any byte has no place.

        Some of it may have been written then, as with copy_to_user.
        """


class LocalMemory:
    """A table of buffers of this process, each at an address."""

    def __init__(self) -> None:
        self._buffers: dict[int, memoryview] = {}
        self._next = 0x1000_0000

    def place(self, buffer: bytearray | memoryview, address: int | None = None) -> int:
        """Put a buffer into the table, at ``address`` or where there is room.

        Return its address.  Between two buffers that were placed without one there is
        a page that nobody has.

        Raises:
            ValueError: another buffer lies there.
        """
        view = memoryview(buffer).cast("B")
        start = self._next if address is None else address
        for other, there in self._buffers.items():
            if other < start + len(view) and start < other + len(there):
                message = f"{start:#x} is taken: {len(there)} bytes from {other:#x} on"
                raise ValueError(message)
        self._buffers[start] = view
        end = -(-(start + len(view)) // _PAGE) * _PAGE
        self._next = max(self._next, end + _PAGE)
        return start

    def remove(self, address: int) -> None:
        """Take the buffer at ``address`` out of the table."""
        del self._buffers[address]

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from ``address`` on, over buffers that touch.

        Raises:
            OSError: EFAULT.
        """
        return b"".join(self._pieces(address, size))

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Put ``data`` at ``address``, over buffers that touch.

        Raises:
            OSError: EFAULT; also for a buffer that is read-only.
        """
        done = 0
        for piece in self._pieces(address, len(data)):
            if piece.readonly:
                _fault(address + done, len(piece))
            piece[:] = data[done : done + len(piece)]
            done += len(piece)

    def _pieces(self, address: int, size: int) -> Iterator[memoryview]:
        end = address + size
        while address < end:
            for start, buffer in self._buffers.items():
                if start <= address < start + len(buffer):
                    piece = buffer[address - start : end - start]
                    break
            else:
                _fault(address, end - address)
            yield piece
            address += len(piece)


def _fault(address: int, size: int) -> NoReturn:
    raise OSError(errno.EFAULT, f"no {size} bytes at {address:#x}")
