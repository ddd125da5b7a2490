"""Many pages of RAM at a time, between guest memory and the stream's bytes.

A live stream is never a whole: a source makes the next few pages, a destination takes
those that have come.  Pages that are written alike lie in the stream at equal
distances, so a run of them is one strided array (`ram_records.RamPages`).

    word: be64 address | flags   [block name, unless CONTINUE]   content
    PAGE: 4096 bytes             ZERO: one byte, 0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.framing import counted
from vfiomig.uapi.qemu_stream import (
    RAM_SAVE_FLAG_CONTINUE,
    RAM_SAVE_FLAG_EOS,
    RAM_SAVE_FLAG_PAGE,
    RAM_SAVE_FLAG_ZERO,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_SIZE: Final = 4096
_WORD: Final = 8
_FULL: Final = _WORD + PAGE_SIZE
FULL_SIZE: Final = _FULL  # of a full page that continues its block
_ZERO: Final = _WORD + 1
_FLAGS: Final = PAGE_SIZE - 1
_BE64: Final = np.dtype(">u8")
_SHIFT: Final = 12
_U64: Final = (1 << 64) - 1
_STEPS: Final = np.arange(1 << 12) * PAGE_SIZE
_FULL_AGAIN: Final = RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_CONTINUE
_ZERO_AGAIN: Final = RAM_SAVE_FLAG_ZERO | RAM_SAVE_FLAG_CONTINUE

# What one page takes at most: its word, the longest block name, its content.
LARGEST_PAGE: Final = _FULL + 256

PageNumbers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
PageTable: TypeAlias = NDArray[np.uint8]  # (pages, PAGE_SIZE): the RAM of a block


class Encoded(NamedTuple):
    """The bytes of ``pages`` pages, ``zero_pages`` of them zero; a view of the room."""

    view: memoryview
    pages: int
    zero_pages: int


def full_words(first: int, count: int) -> NDArray[np.uint8]:
    """Return what stands before full pages that continue their block, (count, 8)."""
    words = np.arange(first, first + count, dtype=np.uint64) * PAGE_SIZE | _FULL_AGAIN
    return words.astype(_BE64).view(np.uint8).reshape(count, _WORD)


class PageEncoder:
    """Writes pages of one block after another into a room of its own, ``pages`` long.

    It remembers the block of the last page: the next one of the same block continues.
    """

    def __init__(self, pages: int) -> None:
        self._view = memoryview(bytearray(pages * LARGEST_PAGE))
        self._room = np.frombuffer(self._view, np.uint8)
        self._last_block = ""

    def continues(self, block: str) -> bool:
        """Tell whether the last page was of this block."""
        return block == self._last_block

    def encode(
        self, block: str, ram: PageTable, numbers: PageNumbers, zero: Flags, limit: int
    ) -> Encoded:
        """Encode pages ``numbers`` of ``ram``, in this order, while ``limit`` lasts.

        The limit (bytes, at least 1) is looked at before each page, as QEMU does: the
        last one may go beyond it.  ``zero`` tells which of them hold only zeros.
        """
        at = done = zeros = 0
        if block != self._last_block:
            self._last_block = block
            at = self._write_named(
                counted(block), ram, int(numbers[0]), is_zero=bool(zero[0])
            )
            done, zeros = 1, int(zero[0])
        for low, high in _runs(zero, done):
            if at > limit:
                break
            size = _ZERO if zero[low] else _FULL
            run = numbers[low : min(high, low + (limit - at) // size + 1)]
            if zero[low]:
                self._write_zeros(at, run)
                zeros += len(run)
            else:
                self._write_full(at, run, ram)
            at += size * len(run)
            done += len(run)
        return Encoded(self._view[:at], done, zeros)

    def _write_named(
        self, name: bytes, ram: PageTable, number: int, *, is_zero: bool
    ) -> int:
        flag = RAM_SAVE_FLAG_ZERO if is_zero else RAM_SAVE_FLAG_PAGE
        at = _WORD + len(name)
        self._view[:at] = (number * PAGE_SIZE | flag).to_bytes(_WORD, "big") + name
        if is_zero:
            self._room[at] = 0
            return at + 1
        self._room[at : at + PAGE_SIZE] = ram[number]
        return at + PAGE_SIZE

    def _write_zeros(self, at: int, numbers: PageNumbers) -> None:
        words = _words_at(self._room, at, len(numbers), _ZERO)
        np.bitwise_or(numbers * PAGE_SIZE, _ZERO_AGAIN, out=words, casting="unsafe")
        self._room[at + _WORD : at + len(numbers) * _ZERO : _ZERO] = 0

    def _write_full(self, at: int, numbers: PageNumbers, ram: PageTable) -> None:
        first, count = int(numbers[0]), len(numbers)
        words = _words_at(self._room, at, count, _FULL)
        np.bitwise_or(numbers * PAGE_SIZE, _FULL_AGAIN, out=words, casting="unsafe")
        contents = _contents_at(self._room, at, count)
        if int(numbers[-1]) - first == count - 1:
            contents[:] = ram[first : first + count]
        else:
            contents[:] = ram[numbers]


class Run(NamedTuple):
    """Pages of one block: zero, or with contents (n, PAGE_SIZE), a view of the input.

    The input's first ``size`` bytes are they.  ``numbers`` are in the stream's order;
    ``is_run`` where each is the one behind the last.
    """

    block: str
    numbers: PageNumbers
    contents: PageTable | None
    size: int
    is_run: bool = False


def decode_run(data: memoryview, block: str, position: int) -> Run | int | None:
    """Decode the pages that ``data`` begins with, as many as are alike and whole.

    ``block`` is the one that was named last, "" for none; ``position`` is where the
    data stands in the stream.  Returns 8, the size of its word, at the end of the
    payload (EOS), and ``None`` where more bytes are needed.

    Raises:
        StreamError: what stands there is no page that is written this way.
    """
    if len(data) < _WORD:
        return None
    word = int.from_bytes(data[:_WORD], "big")
    match word & _FLAGS:
        case 0x10 if word == RAM_SAVE_FLAG_EOS:
            return _WORD
        case 0x28 if block:  # PAGE | CONTINUE
            return _decode_full(data, block)
        case 0x22 if block:  # ZERO | CONTINUE
            return _decode_zeros(data, block, position)
        case 0x08 | 0x02:  # PAGE, ZERO
            return _decode_named(data, word, position)
        case 0x28 | 0x22:
            reason = "a page continues a block, and none was named"
        case flags:
            reason = f"unknown flags {flags:#x} of a page"
    raise StreamError(reason, position=position)


def _decode_full(data: memoryview, block: str) -> Run | None:
    fit = len(data) // _FULL
    if not fit:
        return None
    room = np.frombuffer(data, np.uint8)
    words = _words_at(room, 0, fit, _FULL)
    numbers, is_run = _numbers(words, _FULL_AGAIN)
    count = len(numbers)
    return Run(block, numbers, _contents_at(room, 0, count), count * _FULL, is_run)


def _decode_zeros(data: memoryview, block: str, position: int) -> Run | None:
    fit = len(data) // _ZERO
    if not fit:
        return None
    room = np.frombuffer(data, np.uint8)
    numbers, is_run = _numbers(_words_at(room, 0, fit, _ZERO), _ZERO_AGAIN)
    size = len(numbers) * _ZERO
    _require_zeros(room[_WORD:size:_ZERO], position)
    return Run(block, numbers, None, size, is_run)


def _decode_named(data: memoryview, word: int, position: int) -> Run | None:
    at = _WORD + 1
    if len(data) < at or len(data) < (at := at + data[_WORD]) + 1:
        return None
    try:
        block = str(data[_WORD + 1 : at], "utf-8")
    except UnicodeDecodeError:
        reason = f"the name of a block is not text: {data[_WORD + 1 : at].hex()}"
        raise StreamError(reason, position=position + _WORD) from None
    number = np.array([word // PAGE_SIZE], np.int64)
    if word & RAM_SAVE_FLAG_ZERO:
        _require_zeros(np.frombuffer(data[at : at + 1], np.uint8), position)
        return Run(block, number, None, at + 1)
    if len(data) < at + PAGE_SIZE:
        return None
    content = np.frombuffer(data[at : at + PAGE_SIZE], np.uint8)
    return Run(block, number, content.reshape(1, PAGE_SIZE), at + PAGE_SIZE)


def _require_zeros(fills: NDArray[np.uint8], position: int) -> None:
    """QEMU 10.0 refuses a zero page that is filled with something else."""
    if fills.any():
        reason = f"a zero page is filled with {int(fills.max()):#04x}"
        raise StreamError(reason, position=position)


def _numbers(words: NDArray[np.uint64], flags: int) -> tuple[PageNumbers, bool]:
    """Return the pages of words up to the first with other flags; tell of a run."""
    native = words.astype(np.int64)
    first = int(native[0])
    steps = native - first
    if len(native) == 1 or _is_steps(steps):
        number = (first & _U64) >> _SHIFT
        return np.arange(number, number + len(native)), True
    others = np.flatnonzero((native & _FLAGS) != flags)
    if len(others):
        native, steps = native[: others[0]], steps[: others[0]]
    numbers = (native.view(np.uint64) >> np.uint64(_SHIFT)).astype(np.int64)
    return numbers, _is_steps(steps)


def _is_steps(steps: NDArray[np.int64]) -> bool:
    """Tell whether words rise by a page each, and so have the same flags."""
    count = len(steps)
    known = _STEPS[:count] if count <= len(_STEPS) else np.arange(count) * PAGE_SIZE
    return bool(np.array_equal(steps, known))


def _words_at(
    room: NDArray[np.uint8], at: int, count: int, stride: int
) -> NDArray[np.uint64]:
    return np.ndarray((count,), _BE64, room, at, (stride,))


def _contents_at(room: NDArray[np.uint8], at: int, count: int) -> PageTable:
    return np.ndarray((count, PAGE_SIZE), np.uint8, room, at + _WORD, (_FULL, 1))


def _runs(zero: Flags, first: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of pages that are alike, from page ``first`` on."""
    if first == len(zero):
        return
    edges = np.flatnonzero(zero[first + 1 :] != zero[first:-1]) + first + 1
    low = first
    for high in edges.tolist():
        yield low, high
        low = high
    yield low, len(zero)
