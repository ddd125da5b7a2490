"""A page of guest memory that a host changes while the guest runs, and two ways to it.

`Frame` is where the page was found: its words, changed by compare-and-swap alone.
Two ways lead there, and differ in when they look:

- `PinnedPage`: mapped once, for good.  What guest addresses show later is not its
  concern: when the page is moved, replaced or unmapped, it goes on writing to the old
  one.  That is why KVM gave it up.
- `CachedPage`: the translation is kept with the memory's generation, and made anew as
  soon as that is another (KVM: gfn_to_pfn_cache).

Whoever has a way to a page takes a frame for one use and does not keep it.  One thread
at a time on the host's side; the guest is another process.
"""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from vfiomig.vm import atomic
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vfiomig.vm.atomic import Swapping
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.ram_block import RamBlock

    Swaps: TypeAlias = Callable[[int], Swapping]

# A memoryview's letters.
_CODES: Final[Mapping[int, Literal["B", "H", "I", "Q"]]] = {
    1: "B",
    2: "H",
    4: "I",
    8: "Q",
}
_Words: TypeAlias = "tuple[memoryview[int] | None, Swapping]"
_NONE: Final[_Words] = (None, lambda *_: False)
# A guest that writes a word without end can keep a compare-and-swap from it.
_TRIES: Final = 1 << 16


class GuestPage(Protocol):
    """A way to the page at a guest physical address."""

    @property
    def gpa(self) -> int:
        """The address, a multiple of the page size."""
        ...

    def frame(self) -> Frame:
        """Return where the page is; raises ``OSError(EFAULT)`` if it is no RAM."""
        ...

    def byte(self, offset: int) -> int:
        """Read one byte, the quick way; raises as `frame`."""
        ...


@cache
def _swapping(size: int) -> Swapping:
    return atomic.swapping(size)


class Frame:
    """``PAGE_SIZE`` bytes of a block, shared with a guest that runs.

    Offsets count from the start of the page.  A word has 1, 2, 4 or 8 bytes, and its
    offset is a multiple of that; what is changed is marked in the log of ``user``.
    ``swaps`` gives the compare-and-swap of a size.

    Raises (all methods):
        OSError: EINVAL for a word that is none; EAGAIN when the guest did not let a
            change through; ENOENT where libatomic is missing.
    """

    def __init__(
        self,
        memory: GuestMemory,
        block: RamBlock,
        offset: int,
        user: LogUser = LogUser.KERNEL,
        swaps: Swaps = _swapping,
    ) -> None:
        view = block.view[offset : offset + PAGE_SIZE]
        self.block, self.offset = block, offset
        self.bytes = view
        self._address = block.address + offset
        self._words: Mapping[int, _Words] = {
            size: (view.cast(code), swaps(size)) for size, code in _CODES.items()
        }
        self._page = offset // PAGE_SIZE
        self._log = memory.log(user, block)
        log = b"" if self._log is None else self._log.words.data
        self._dirty = memoryview(log).cast("B")
        self._dirty_byte, self._dirty_bit = self._page >> 3, 1 << (self._page & 7)

    def load(self, offset: int, size: int) -> int:
        """Read a word, in one piece."""
        words, _ = self._words.get(size, _NONE)
        if words is None or offset % size or not 0 <= offset < PAGE_SIZE:
            raise _no_word(offset, size)
        return words[offset // size]

    def compare_and_swap(
        self, offset: int, size: int, expected: int, desired: int
    ) -> bool:
        """Write ``desired`` if ``expected`` is there; return whether it was."""
        _, swap = self._at(offset, size)
        is_done = swap(self._address + offset, expected, desired)
        if is_done:
            self._mark()
        return is_done

    def test_and_set(self, offset: int, size: int, bit: int) -> bool:
        """Set a bit of a word; return whether it was set before.

        In either case all that we read afterwards is newer.
        """
        words, swap = self._words.get(size, _NONE)
        if words is None or offset % size or not 0 <= offset < PAGE_SIZE:
            raise _no_word(offset, size)
        old, mask = words[offset // size], 1 << bit
        if not swap(self._address + offset, old, old | mask):
            old = self.set_bits(offset, size, mask)
        if old & mask:
            return True
        self._mark()
        return False

    def look_and_set(self, offset: int, size: int, bit: int) -> bool:
        """Do the same, but only look where the bit is set.

        For a change that follows another: that one has put things in order.
        """
        words, _ = self._words.get(size, _NONE)
        if words is None or offset % size or not 0 <= offset < PAGE_SIZE:
            raise _no_word(offset, size)
        if words[offset // size] >> bit & 1:
            return True
        return self.test_and_set(offset, size, bit)

    def test_and_clear(self, offset: int, size: int, bit: int) -> bool:
        """Clear a bit of a word; return whether it was set before."""
        words, swap = self._at(offset, size)
        index, address, mask = offset // size, self._address + offset, 1 << bit
        for _ in range(_TRIES):
            old = words[index]
            if swap(address, old, old & ~mask):
                break
        else:
            raise _starved(offset, size)
        if not old & mask:
            return False
        self._mark()
        return True

    def exchange(self, offset: int, size: int, value: int) -> int:
        """Write a word; return what was there."""
        return self._change(offset, size, lambda _: value)

    def set_bits(self, offset: int, size: int, bits: int) -> int:
        """Set all of ``bits`` in one step; return what was there."""
        return self._change(offset, size, lambda old: old | bits)

    def _change(self, offset: int, size: int, change: Callable[[int], int]) -> int:
        """Make ``change`` of a word in one step; return what was there."""
        words, swap = self._at(offset, size)
        index, address = offset // size, self._address + offset
        for _ in range(_TRIES):
            old = words[index]
            if swap(address, old, change(old)):
                break
        else:
            raise _starved(offset, size)
        self._mark()
        return old

    def _at(self, offset: int, size: int) -> tuple[memoryview[int], Swapping]:
        words, swap = self._words.get(size, _NONE)
        if words is None or offset % size or not 0 <= offset < PAGE_SIZE:
            raise _no_word(offset, size)
        return words, swap

    def _mark(self) -> None:
        log = self._log
        if log is None:
            return
        # Behind the change: who took the log before it would miss it.  A page that is
        # marked already is looked at only, which is a tenth of the price.
        if not self._dirty[self._dirty_byte] & self._dirty_bit:
            log.mark(self._page)


def _no_word(offset: int, size: int) -> OSError:
    message = f"{size} bytes at {offset:#x} of a page are no word"
    return OSError(errno.EINVAL, message)


def _starved(offset: int, size: int) -> OSError:
    message = f"the guest changed {size} bytes at {offset:#x} {_TRIES} times meanwhile"
    return OSError(errno.EAGAIN, message)


class PinnedPage:
    """Mapped once: it stays where it was made, whatever the address shows later.

    Raises:
        OSError: EFAULT if the page is no RAM; EINVAL for an address that is no
            multiple of the page size.
    """

    def __init__(
        self,
        memory: GuestMemory,
        gpa: int,
        user: LogUser = LogUser.KERNEL,
        swaps: Swaps = _swapping,
    ) -> None:
        self.gpa = _page_address(gpa)
        self._memory, self._user, self._swaps = memory, user, swaps
        block, offset, _ = memory.pieces(gpa, PAGE_SIZE)[0]
        self._generation = memory.generation
        self._frame = Frame(memory, block, offset, user, swaps)

    def frame(self) -> Frame:
        """Return where the page was when it was pinned."""
        if self._generation != self._memory.generation:
            old = self._frame  # only the log may be another
            self._frame = Frame(
                self._memory, old.block, old.offset, self._user, self._swaps
            )
            self._generation = self._memory.generation
        return self._frame

    def byte(self, offset: int) -> int:
        """Read one byte of where the page was."""
        return self._frame.bytes[offset]


class CachedPage:
    """A kept translation, looked at anew when the memory's generation is another.

    Raises ``OSError(EINVAL)`` for an address that is no multiple of the page size.
    """

    def __init__(
        self,
        memory: GuestMemory,
        gpa: int,
        user: LogUser = LogUser.KERNEL,
        swaps: Swaps = _swapping,
    ) -> None:
        self.gpa = _page_address(gpa)
        self._memory, self._user, self._swaps = memory, user, swaps
        self._generation = -1
        self._frame: Frame | None = None

    def frame(self) -> Frame:
        """Return where the page is now; raises ``OSError(EFAULT)`` if it is no RAM."""
        if self._generation == self._memory.generation and self._frame is not None:
            return self._frame
        self._frame = None
        # Slots are whole pages, so a page is in one of them.
        block, offset, _ = self._memory.pieces(self.gpa, PAGE_SIZE)[0]
        self._frame = Frame(self._memory, block, offset, self._user, self._swaps)
        self._generation = self._memory.generation
        return self._frame

    def byte(self, offset: int) -> int:
        """Read one byte of where the page is now; raises as `frame`."""
        # Written out: it is asked for before each entry into the guest.
        frame = self._frame
        if self._generation == self._memory.generation and frame is not None:
            return frame.bytes[offset]
        return self.frame().bytes[offset]


# The word of a scenario.
Way: TypeAlias = "Callable[[GuestMemory, int], GuestPage]"
WAYS: Final[Mapping[str, Way]] = {"cached": CachedPage, "pinned": PinnedPage}


def _page_address(gpa: int) -> int:
    if gpa % PAGE_SIZE:
        message = f"{gpa:#x} is not the address of a page"
        raise OSError(errno.EINVAL, message)
    return gpa
