"""A data section for driver authors: memory that user applications can map.

A migration region is registers first, data section after them.  A `DataSection` is
the second half: a memfd, mapped once.  The driver fills ``view``; a user application
that maps the area sees the same pages, and one that does not is served by `read` and
`write`.

The file begins with a hole as large as what precedes the section in the region, so
that an area's offset in the file is its offset in the region.  The registers are not
in the file: a user application that has it mapped cannot touch them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from typing import Final

from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

PAGE: Final = mmap.PAGESIZE

_CLOSED: Final = -1


class DataSection:
    """``size`` bytes of data section at ``offset`` in the migration region.

    Both are whole pages.  ``view`` is the memory, ``fd`` the memfd behind it: its
    size is sealed, so that nobody can truncate it under a mapping; it can take more
    seals.
    """

    def __init__(self, size: int, *, offset: int = PAGE) -> None:
        if size <= 0 or size % PAGE or offset <= 0 or offset % PAGE:
            message = (
                f"a data section has whole pages of {PAGE} bytes and leaves the first "
                f"to the registers: not {size} bytes at {offset}"
            )
            raise ValueError(message)
        self.size = size
        self.offset = offset
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self.fd = os.memfd_create("vfiomig-data-section", flags)
        try:
            os.ftruncate(self.fd, offset + size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
            self._memory = mmap.mmap(self.fd, size, offset=offset)
        except BaseException:
            os.close(self.fd)
            raise
        self.view = memoryview(self._memory)

    def region(self, *, mapped: int | None = None) -> MigrationRegion:
        """Return a region with this section of which ``mapped`` bytes are an area.

        ``None`` maps all of it, 0 nothing: every access is trapped then.  An area is
        whole pages (V1-MMAP-07); ``ValueError`` for any other size.
        """
        length = self.size if mapped is None else mapped
        if not 0 <= length <= self.size or length % PAGE:
            message = f"{length} bytes are not whole pages of {self.size} bytes"
            raise ValueError(message)
        areas = (SparseMmapArea(self.offset, length),) if length else ()
        return MigrationRegion(self.offset + self.size, areas)

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        """Answer `VendorDriver.mmap` for an area inside the section."""
        return self.fd, area.offset

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read at ``offset`` of the region.

        Raises:
            OSError: EINVAL where it leaves the section.
        """
        start = self._inside(offset, size)
        return self._memory[start : start + size]

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write at ``offset`` of the region.

        Raises:
            OSError: EINVAL where it leaves the section.
        """
        start = self._inside(offset, len(data))
        self._memory[start : start + len(data)] = data

    def close(self) -> None:
        """Let the memory and the file go; a mapping that a user has lives on.

        Closing again does nothing.
        """
        if self.fd == _CLOSED:
            return
        self.view.release()
        # Somebody may still hold a slice of the view: it goes with the last of them.
        with contextlib.suppress(BufferError):
            self._memory.close()
        os.close(self.fd)
        self.fd = _CLOSED  # by now the number may be somebody else's

    def _inside(self, offset: int, size: int) -> int:
        start = offset - self.offset
        if start < 0 or size < 0 or start + size > self.size:
            message = f"{size} bytes at {offset:#x} leave the data section"
            raise OSError(errno.EINVAL, message)
        return start
