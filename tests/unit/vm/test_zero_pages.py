"""Zero pages are told exactly, and without making a page that nobody wrote."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock
from vfiomig.vm.zero_pages import digest, zero_pages, zero_pages_in

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = 1200  # more than are read in one go


@pytest.fixture
def ram() -> Iterator[RamBlock]:
    with RamBlock("pc.ram", PAGES * PAGE_SIZE) as block:
        yield block


def pages_made(block: RamBlock) -> int:
    return os.fstat(block.fd).st_blocks * 512 // PAGE_SIZE


def not_zero(block: RamBlock) -> list[int]:
    return np.flatnonzero(~zero_pages(block, 0, block.pages)).tolist()


@pytest.mark.parametrize("is_made", [False, True], ids=["hole", "written zeros"])
@pytest.mark.parametrize("byte", [0, 1, 7, 8, 2048, PAGE_SIZE - 1])
def test_one_byte_makes_a_page_not_zero(
    ram: RamBlock, byte: int, *, is_made: bool
) -> None:
    if is_made:
        ram.bytes[:] = 0
    pages = [0, 1, 511, 512, 700, PAGES - 1]
    for page in pages:
        ram.bytes[page * PAGE_SIZE + byte] = 0x80
    assert not_zero(ram) == pages


def test_every_byte_of_a_page_counts(ram: RamBlock) -> None:
    ram.bytes[: 3 * PAGE_SIZE] = 0
    for byte in range(PAGE_SIZE, 2 * PAGE_SIZE):
        ram.bytes[byte] = 1
        assert zero_pages(ram, 0, 3).tolist() == [True, False, True]
        ram.bytes[byte] = 0


def test_the_last_byte_counts_beside_a_page_that_begins_with_another(
    ram: RamBlock,
) -> None:
    ram.bytes[:] = 0
    ram.bytes[3 * PAGE_SIZE] = ram.bytes[6 * PAGE_SIZE - 1] = 1
    assert not_zero(ram) == [3, 5]


def test_more_ranges_than_are_looked_at_in_one_go(ram: RamBlock) -> None:
    ram.bytes[3 * PAGE_SIZE] = ram.bytes[1100 * PAGE_SIZE] = 1
    single = np.stack((np.arange(PAGES), np.ones(PAGES, np.int64)), axis=1)
    assert np.flatnonzero(~zero_pages_in(ram, single)).tolist() == [3, 1100]


def test_pages_beside_holes(ram: RamBlock) -> None:
    for page in range(0, PAGES, 3):  # written, zeros, a hole
        ram.bytes[page * PAGE_SIZE + PAGE_SIZE - 1] = 1
        ram.bytes[(page + 1) * PAGE_SIZE] = 0
    assert not_zero(ram) == list(range(0, PAGES, 3))


def test_looking_makes_no_page(ram: RamBlock) -> None:
    ram.bytes[600 * PAGE_SIZE] = 1
    made = pages_made(ram)
    assert made < 600
    zero_pages(ram, 0, PAGES)
    zero_pages(ram, 599, 3)
    zero_pages_in(ram, np.array([[0, 1], [3, 1], [601, 2]]))
    digest([ram])
    assert pages_made(ram) == made


def test_a_guest_of_a_tebibyte_is_told_at_once() -> None:
    with RamBlock("pc.ram", 1 << 40) as ram:
        ram.bytes[-1] = 1
        ram.bytes[1 << 39] = 1
        far = np.array([[0, 1], [1 << 20, 5], [(1 << 27), 1], [(1 << 28) - 2, 2]])
        flags = zero_pages_in(ram, far)
        assert flags.tolist() == [True] * 6 + [False, True, False]
        assert zero_pages(ram, 1, 1 << 26).all()
        assert pages_made(ram) <= 1024  # two huge pages at most


@pytest.mark.parametrize("apart", [2, 40, 300])
def test_ranges_are_told_in_a_row(ram: RamBlock, apart: int) -> None:
    rng = np.random.default_rng(apart)
    is_set = rng.random(PAGES) < 0.5
    for page in np.flatnonzero(is_set):
        ram.bytes[page * PAGE_SIZE + page] = 1
    firsts = np.arange(0, PAGES - 4, apart)
    ranges = np.stack((firsts, rng.integers(1, min(apart, 4) + 1, len(firsts))), 1)
    expected = [~is_set[first : first + count] for first, count in ranges]
    assert zero_pages_in(ram, ranges).tolist() == np.concatenate(expected).tolist()


def test_no_page_has_no_flag(ram: RamBlock) -> None:
    assert len(zero_pages(ram, 5, 0)) == 0
    assert len(zero_pages(ram, PAGES, 0)) == 0
    assert len(zero_pages_in(ram, np.empty((0, 2), np.int64))) == 0


@pytest.mark.parametrize(
    ("first", "count"), [(-1, 1), (0, PAGES + 1), (PAGES, 1), (5, -1)]
)
def test_pages_that_are_not_there(ram: RamBlock, first: int, count: int) -> None:
    with pytest.raises(IndexError, match=f"of {PAGES}"):
        zero_pages(ram, first, count)


# -- the digest


def test_written_zeros_digest_as_holes_do(ram: RamBlock) -> None:
    nothing = digest([ram])
    ram.bytes[:] = 0
    assert digest([ram]) == nothing
    ram.bytes[5 * PAGE_SIZE : 700 * PAGE_SIZE] = 3
    some = digest([ram])
    with RamBlock("pc.ram", PAGES * PAGE_SIZE) as other:
        other.bytes[5 * PAGE_SIZE : 700 * PAGE_SIZE] = 3
        assert digest([other]) == some != nothing


def test_where_the_first_data_lies_does_not_tell() -> None:
    wide = 3 << 26  # bytes: three goes of a digest
    with RamBlock("pc.ram", wide) as ram, RamBlock("pc.ram", wide) as other:
        for block in (ram, other):
            block.bytes[1 << 26 : (1 << 26) + PAGE_SIZE] = 1
            block.bytes[(1 << 27) - 1 : (1 << 27) + 1] = 2
        other.bytes[123 * PAGE_SIZE] = 0
        other.bytes[-1] = 0
        assert digest([ram]) == digest([other])
        ram.bytes[(1 << 27) + 9 * PAGE_SIZE] = 1
        other.bytes[(1 << 27) + 9 * PAGE_SIZE] = 2
        assert digest([ram]) != digest([other])


def test_a_changed_moved_or_swapped_byte_shows(ram: RamBlock) -> None:
    seen = {digest([ram])}

    def is_new() -> bool:
        before = len(seen)
        seen.add(digest([ram]))
        return len(seen) > before

    ram.bytes[100] = 1
    assert is_new()
    ram.bytes[100], ram.bytes[PAGE_SIZE + 100] = 0, 1  # another page
    assert is_new()
    ram.bytes[100] = 2
    assert is_new()
    ram.bytes[100], ram.bytes[PAGE_SIZE + 100] = 1, 2  # exchanged
    assert is_new()
    ram.bytes[-1] = 1
    assert is_new()


def test_names_and_sizes_are_digested() -> None:
    with (
        RamBlock("pc.ram", PAGE_SIZE) as ram,
        RamBlock("pc.bios", PAGE_SIZE) as bios,
        RamBlock("pc.ram", 2 * PAGE_SIZE) as larger,
    ):
        all_of = [[ram], [bios], [larger], [ram, bios], [bios, ram], []]
        assert len({digest(blocks) for blocks in all_of}) == len(all_of)
