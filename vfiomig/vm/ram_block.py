"""A block of guest RAM: a memfd, sparse, mapped once."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from types import TracebackType

Bytes: TypeAlias = NDArray[np.uint8]
RamWords: TypeAlias = NDArray[np.uint64]

PAGE_SIZE: Final = 4096  # the target page of x86, which the stream counts in
_LONGEST_NAME: Final = 255  # a counted string of the stream; idstr[256] in C


class RamBlock:
    """``size`` bytes of RAM with QEMU's name for it, ``idstr`` (``pc.ram``).

    A page that nobody wrote takes no memory: gigabytes cost nothing at first.  Reading
    such a page **through the mapping** makes it, however; `zero_pages` and `digest`
    do not.

    - ``fd``: the memfd, for others who map it (DMA, another process).  It stays ours:
      who keeps it duplicates it.
    - ``mapping``: all of it, shared, writable; for ctypes' ``from_buffer``.
    - ``address``: of its first byte, in this process.
    - ``view`` (memoryview), ``bytes`` (uint8) and ``words`` (uint64, one dimension):
      the same memory.

    Raises:
        ValueError: not whole pages, or a name that the stream cannot hold.
        OSError: what memfd_create, ftruncate or mmap raise.
    """

    def __init__(self, idstr: str, size: int) -> None:
        if size <= 0 or size % PAGE_SIZE:
            message = f"{idstr}: {size} bytes are not whole pages of {PAGE_SIZE}"
            raise ValueError(message)
        if not 0 < len(idstr.encode()) <= _LONGEST_NAME:
            message = f"a block's name has 1 to {_LONGEST_NAME} bytes: {idstr!r}"
            raise ValueError(message)
        self.idstr = idstr
        self.size = size
        self.pages = size // PAGE_SIZE
        self.fd = os.memfd_create("guest-ram")
        try:
            os.ftruncate(self.fd, size)
            self.mapping = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self.view = memoryview(self.mapping)
        self.bytes: Bytes = np.frombuffer(self.mapping, np.uint8)
        self.words: RamWords = np.frombuffer(self.mapping, np.dtype("<u8"))
        self.address = self.bytes.ctypes.data

    def pages_view(self, first: int, count: int) -> memoryview:
        """Return ``count`` pages from ``first`` on, writable, not copied.

        Raises ``IndexError`` for pages that are not there.
        """
        if not 0 <= first <= first + count <= self.pages:
            message = f"pages {first} to {first + count} of {self.pages}"
            raise IndexError(message)
        return self.view[first * PAGE_SIZE : (first + count) * PAGE_SIZE]

    def close(self) -> None:
        """Free it; whoever still holds a view keeps the memory until it lets go."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        del self.bytes, self.words
        with contextlib.suppress(BufferError):
            self.view.release()
            self.mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
