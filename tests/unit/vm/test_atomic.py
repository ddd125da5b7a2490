"""Changes in one step are seen by every process, and none of them is lost."""

from __future__ import annotations

import errno
import os
import struct
import time
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.vm import atomic
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GPA: Final = 3 * PAGE_SIZE + 64
_TURNS: Final = 20_000
_LIMIT: Final = 30.0  # seconds until updates must have been lost


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory.of_pc(8 * PAGE_SIZE) as made:
        yield made


def word(memory: GuestMemory, size: int = 8, gpa: int = _GPA) -> int:
    return int.from_bytes(memory.read(gpa, size), "little")


# -- what each does --------------------------------------------------------------------


@pytest.mark.parametrize("size", atomic.SIZES)
def test_what_is_expected_is_swapped(memory: GuestMemory, size: int) -> None:
    high = 1 << (8 * size - 1)
    memory.write(_GPA, b"\xff" * 16)
    assert memory.compare_and_swap(_GPA, size, (high << 1) - 1, high + 5) == (
        (high << 1) - 1,
        True,
    )
    assert memory.read(_GPA, 16) == (high + 5).to_bytes(size, "little") + b"\xff" * (
        16 - size
    )


def test_what_is_not_expected_stays_and_is_told(memory: GuestMemory) -> None:
    memory.write(_GPA, struct.pack("<Q", 7))
    assert memory.compare_and_swap(_GPA, 8, 8, 9) == (7, False)
    assert word(memory) == 7


@pytest.mark.parametrize("size", atomic.SIZES)
def test_bits_are_set_and_cleared(memory: GuestMemory, size: int) -> None:
    memory.write(_GPA, b"\xaa" * 8)
    old = int.from_bytes(b"\xaa" * size, "little")
    assert memory.fetch_or(_GPA, size, 0x0F) == old
    assert word(memory, size) == old | 0x0F
    assert memory.fetch_and(_GPA, size, 0x1E) == old | 0x0F
    assert word(memory, size) == 0x0E
    assert memory.read(_GPA + size, 8 - size) == b"\xaa" * (8 - size)


@pytest.mark.parametrize("user", LogUser)
def test_what_was_changed_is_dirty(memory: GuestMemory, user: LogUser) -> None:
    memory.start_log(user)
    log = memory.log(user, memory.blocks[0])
    assert log is not None
    memory.compare_and_swap(_GPA, 4, 1, 2, user)
    assert log.count == 0  # nothing was
    memory.compare_and_swap(_GPA, 4, 0, 2, user)
    memory.fetch_or(5 * PAGE_SIZE, 8, 1, user)
    memory.fetch_and(7 * PAGE_SIZE - 8, 8, 1, user)
    assert [tuple(each) for each in log.ranges()] == [(3, 1), (5, 2)]


@pytest.mark.parametrize(
    ("gpa", "size", "code"),
    [
        (_GPA + 4, 8, errno.EINVAL),
        (_GPA + 1, 2, errno.EINVAL),
        (_GPA - 4, 16, errno.EINVAL),
        (_GPA, 16, errno.EINVAL),
        (_GPA, 3, errno.EINVAL),
        (_GPA, 0, errno.EINVAL),
        (8 * PAGE_SIZE, 8, errno.EFAULT),
        (1 << 60, 8, errno.EFAULT),
    ],
)
def test_what_cannot_be_changed_in_one_step_is_refused(
    memory: GuestMemory, gpa: int, size: int, code: int
) -> None:
    for change in (
        lambda: memory.compare_and_swap(gpa, size, 0, 1),
        lambda: memory.fetch_or(gpa, size, 1),
        lambda: memory.fetch_and(gpa, size, 1),
    ):
        with pytest.raises(OSError, match=f"{gpa:#x}") as refusal:
            change()
        assert refusal.value.errno == code


# -- two processes at once -------------------------------------------------------------


def count_by_swaps(memory: GuestMemory) -> None:
    """Add 1 to a word, many times, by compare-and-swap."""
    for _ in range(_TURNS):
        old = word(memory)
        while not (swap := memory.compare_and_swap(_GPA, 8, old, old + 1)).is_done:
            old = swap.old


def count_by_stores(memory: GuestMemory) -> None:
    """Do the same by a load and a store."""
    words = memory.blocks[0].view.cast("Q")
    for _ in range(_TURNS):
        words[_GPA // 8] = words[_GPA // 8] + 1


def in_two_processes(work: Callable[[], None]) -> None:
    """Let a child of ours and ourselves work at the same time."""
    ready, go = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(go, b"!")
            work()
            os._exit(0)
        finally:
            os._exit(1)
    try:
        os.read(ready, 1)
        work()
    finally:
        _, status = os.waitpid(child, 0)
        os.close(ready)
        os.close(go)
    assert status == 0


def test_two_processes_lose_no_update(memory: GuestMemory) -> None:
    in_two_processes(lambda: count_by_swaps(memory))
    assert word(memory) == 2 * _TURNS


def test_two_processes_lose_updates_by_load_and_store(memory: GuestMemory) -> None:
    expected, deadline = 0, time.monotonic() + _LIMIT
    while word(memory) == expected:
        assert time.monotonic() < deadline, f"{expected} updates, and none is lost"
        in_two_processes(lambda: count_by_stores(memory))
        expected += 2 * _TURNS
    assert word(memory) < expected


class Toggler:
    """Sets and clears one bit of a word whose other bits are somebody else's."""

    def __init__(self, memory: GuestMemory, bit: int) -> None:
        self.memory = memory
        self.mask = 1 << bit
        self.others = ~self.mask & (1 << 64) - 1

    def by_fetching(self) -> None:
        for _ in range(_TURNS):
            assert not self.memory.fetch_or(_GPA, 8, self.mask) & self.mask
            assert self.memory.fetch_and(_GPA, 8, self.others) & self.mask

    def by_stores(self) -> int:
        """Return how often what it had written was gone."""
        words = self.memory.blocks[0].view.cast("Q")
        lost, at = 0, _GPA // 8
        for _ in range(_TURNS):
            words[at] = words[at] | self.mask
            lost += not words[at] & self.mask
            words[at] = words[at] & self.others
            lost += bool(words[at] & self.mask)
        return lost


def test_two_processes_change_bits_of_one_word(memory: GuestMemory) -> None:
    parent = os.getpid()

    def toggle() -> None:
        bit = 0 if os.getpid() == parent else 63
        Toggler(memory, bit).by_fetching()

    in_two_processes(toggle)
    assert word(memory) == 0


def test_two_processes_lose_bits_by_load_and_store(memory: GuestMemory) -> None:
    parent, deadline = os.getpid(), time.monotonic() + _LIMIT
    found = 2 * PAGE_SIZE  # each notes there what it lost

    def toggle() -> None:
        is_parent = os.getpid() == parent
        lost = Toggler(memory, 0 if is_parent else 63).by_stores()
        memory.write(found + 8 * is_parent, struct.pack("<Q", lost))

    lost = 0
    while not lost:
        assert time.monotonic() < deadline, "no update is lost"
        in_two_processes(toggle)
        lost = word(memory, gpa=found) + word(memory, gpa=found + 8)
