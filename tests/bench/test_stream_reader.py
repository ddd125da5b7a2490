"""Reading QEMU's migration stream, against Python reading the same file."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from tests.bench.figures import best_of, timed
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import (
    EndOfFile,
    FileHeader,
    RamBlock,
    RamBlocks,
    RamEndOfState,
    RamPageKind,
    RamPages,
    Record,
    SectionEnd,
    SectionFooter,
    SectionStart,
)
from vfiomig.protocol.qemu_stream.writer import write_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 1 << 30
PAGE = 4096
PIECE = 1 << 20
PAGES = SIZE // PAGE
LEAST = 0.3  # of the rate at which Python reads the file
RUN = PIECE // PAGE
SHORT_RUNS = 1 << 14


def machine(runs: Iterator[RamPages]) -> Iterator[Record]:
    yield FileHeader()
    yield SectionStart(section_id=2, idstr="ram", instance_id=0, version_id=4)
    yield RamBlocks((RamBlock(idstr="pc.ram", used_length=SIZE),))
    yield RamEndOfState()
    yield SectionFooter(2)
    yield SectionEnd(2)
    yield from runs
    yield RamEndOfState()
    yield SectionFooter(2)
    yield EndOfFile()


def full_pages() -> Iterator[RamPages]:
    """Yield random pages, 1 MiB of them again and again."""
    pages = np.random.default_rng(1).integers(0, 256, (RUN, PAGE), np.uint8)
    for first in range(0, PAGES, RUN):
        yield RamPages(
            kind=RamPageKind.PAGE,
            block="pc.ram",
            addresses=np.arange(first, first + RUN, dtype=np.uint64) * PAGE,
            contents=pages,
            named=first == 0,
        )


def full_and_zero_in_turns() -> Iterator[RamPages]:
    for page in range(SHORT_RUNS):
        full = page % 2 == 0
        yield RamPages(
            kind=RamPageKind.PAGE if full else RamPageKind.ZERO,
            block="pc.ram",
            addresses=np.array([page * PAGE], np.uint64),
            contents=np.full((1, PAGE), 7, np.uint8) if full else None,
            named=page == 0,
        )


def read_in_pieces(path: Path) -> int:
    size = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            size += len(piece)
    return size


def read_records(path: Path) -> int:
    """Read the stream as its users do: mapped, one record at a time."""
    pages = 0
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    for located in read_stream(memoryview(mapping)):
        if isinstance(located.record, RamPages):
            pages += len(located.record)
    return pages


def write(path: Path, runs: Iterator[RamPages], pages: int) -> None:
    with path.open("wb") as file:
        file.writelines(write_stream(machine(runs)))
    assert read_records(path) == pages


def test_a_gib_of_full_pages(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    write(path, full_pages(), PAGES)
    plain, records = best_of(
        lambda: timed(lambda: read_in_pieces(path)),
        lambda: timed(lambda: read_records(path)),
        runs=3,
    )
    path.unlink()
    ratio = plain / records
    verdict = "ok" if ratio >= LEAST else "UNDER"
    print(
        f"\nreading a stream of 1 GiB of full pages: {ratio:.2f} times the rate of"
        f" file.read in 1 MiB pieces (at least {LEAST:g}): {verdict}"
    )


def test_runs_of_one_page(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    write(path, full_and_zero_in_turns(), SHORT_RUNS)
    (records,) = best_of(lambda: timed(lambda: read_records(path)), runs=3)
    print(f"\nreading a run of one page: {records / SHORT_RUNS * 1e6:.1f} us")
