"""What drivers take of their process and do not give back: memory, and open files."""

from __future__ import annotations

import gc
import resource
from pathlib import Path
from typing import Final

_PAGE_SIZE: Final = resource.getpagesize()
_FILES: Final = Path("/proc/self/fd")
_SIZES: Final = Path("/proc/self/statm")
_MEMORY: Final = Path("/proc/meminfo")

_WARM_UP: Final = 3  # conversations until everything has been made once
_LEAST: Final = 8  # conversations that tell a habit from an accident
_MEMORY_LIMIT: Final = 512 << 20  # bytes that may stay
_HABIT_LIMIT: Final = 48 << 20  # ... where nearly every conversation leaves some
_HABIT: Final = 12  # conversations that make it one
_RISE: Final = 256 << 10  # bytes that one of those leaves
_HEAP_LEAST: Final = 2 << 30
_HEAP_MOST: Final = 6 << 30


def limit_heap() -> None:
    """Let an allocation fail before the machine is out of memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = max(_HEAP_LEAST, min(_available() // 2, _HEAP_MOST))
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _available() -> int:
    for line in _MEMORY.read_text("ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return 0


class Appetite:
    """Is asked between two conversations, when no driver is left."""

    def __init__(self) -> None:
        self._conversations = 0
        self._files = 0
        self._memory = 0
        self._last = 0  # memory behind the conversation before
        self._rises = 0  # conversations that left some
        self.is_told = False

    def complaint(self) -> str:
        """Say, once, what grows from conversation to conversation; else nothing."""
        self._conversations += 1
        if self._conversations < _WARM_UP:
            return ""
        if self._conversations == _WARM_UP:
            gc.collect()
            self._files, self._memory = _files(), _memory()
            self._last = self._memory
            return ""
        since = self._conversations - _WARM_UP
        memory = _memory()
        self._rises += memory - self._last > _RISE
        self._last = memory
        if self.is_told or since < _LEAST or not self._has_grown(since):
            return ""
        gc.collect()  # what a cycle kept is no leak
        if not self._has_grown(since):
            return ""
        self.is_told = True
        what = "files stay open" if _files() - self._files >= since else "memory stays"
        return f"{what}, and more with each conversation"

    def _has_grown(self, since: int) -> bool:
        is_habit = since >= _HABIT and 4 * self._rises >= 3 * since
        limit = _HABIT_LIMIT if is_habit else _MEMORY_LIMIT
        is_larger = _memory() - self._memory > limit
        return is_larger or _files() - self._files >= since


def _files() -> int:
    return sum(1 for _ in _FILES.iterdir())


def _memory() -> int:
    return int(_SIZES.read_text("ascii").split()[1]) * _PAGE_SIZE
