"""Where two images of a RAM block differ: runs of pages, where either has data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.frontends.stream_facts import Block

_PAGE: Final = 4096
_PIECE: Final = 256 * _PAGE


@dataclass(frozen=True, slots=True)
class PageRun:
    """Neighbouring pages that differ, of 4 KiB each, and the first byte that does.

    Addresses are in bytes from the start of the block; ``one`` and ``other`` are what
    stands from ``at`` on, 16 bytes at most.
    """

    first: int
    pages: int
    at: int
    one: bytes
    other: bytes


def differing_pages(one: Block, other: Block) -> Iterator[PageRun]:
    """Yield the runs of pages that differ, within what both blocks have.

    A run that goes over a MiB boundary comes in pieces.
    """
    end = min(one.block.used_length, other.block.used_length)
    files = (one.file.fileno(), other.file.fileno())
    address = 0
    while (address := min(_data_from(file, address, end) for file in files)) < end:
        start = address - address % _PIECE
        size = min(_PIECE, end - start)
        # Behind the last page that was written, pread has less to give than zeros.
        a, b = (os.pread(file, size, start).ljust(size, b"\0") for file in files)
        if a != b:
            yield from _runs(start, a, b)
        address = start + size


def _data_from(file: int, address: int, end: int) -> int:
    try:
        return os.lseek(file, address, os.SEEK_DATA)
    except OSError:  # ENXIO: only holes follow
        return end


def _runs(start: int, a: bytes, b: bytes) -> Iterator[PageRun]:
    differs = np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8)
    pages = np.unique(np.flatnonzero(differs) // _PAGE)
    for run in np.split(pages, np.flatnonzero(np.diff(pages) != 1) + 1):
        first = int(run[0]) * _PAGE
        at = first + int(np.flatnonzero(differs[first : first + _PAGE])[0])
        yield PageRun(
            first=start + first,
            pages=len(run),
            at=start + at,
            one=a[at : at + 16],
            other=b[at : at + 16],
        )
