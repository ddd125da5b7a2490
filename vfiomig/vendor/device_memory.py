"""Memory of a simulated device: private, anonymous, zero at first.

Rule 1: whoever maps, unmaps; but a view that a user still holds keeps the mapping
alive, and then the garbage collector unmaps it.  Closing never fails for that.

Rule 2: the pages are there from the start.  A page fault costs more than copying the
page, and a migration is not the moment to pay for it.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Final

# Python 3.11 does not know it: "MADV_POPULATE_WRITE: populate (prefault) page tables
# writable, triggering write faults" (madvise(2), since Linux 5.14).
_MADV_POPULATE_WRITE: Final = 23


class DeviceMemory:
    """``size`` bytes of zeroed memory; ``view`` is all of it, writable."""

    def __init__(self, size: int) -> None:
        self._mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._mapping)
        self._advise(mmap.MADV_HUGEPAGE)
        self._advise(_MADV_POPULATE_WRITE)

    def zero(self) -> None:
        """Let every byte be 0 again; views that exist show it."""
        # "For private anonymous mappings, zero-fill-on-demand pages" follow
        # (madvise(2)); the kernel clears pages faster than a copy of zeros would.
        self._mapping.madvise(mmap.MADV_DONTNEED)
        self._advise(_MADV_POPULATE_WRITE)

    def close(self) -> None:
        """Unmap, or leave that to the last user who still holds a view."""
        with contextlib.suppress(BufferError):
            self.view.release()
            self._mapping.close()

    def _advise(self, advice: int) -> None:
        # Advice: a kernel without huge pages or from before 5.14 only is slower.
        with contextlib.suppress(OSError):
            self._mapping.madvise(advice)
