"""A block of RAM: one memory, seen through an fd, a mapping and arrays."""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest

from vfiomig.vm.ram_block import PAGE_SIZE, RamBlock

GIB = 1 << 30


def bytes_made(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def test_every_way_to_it_leads_to_the_same_bytes() -> None:
    with RamBlock("pc.ram", 4 * PAGE_SIZE) as ram:
        os.pwrite(ram.fd, b"\1\2\3\4\5\6\7\x08", PAGE_SIZE)
        assert ram.words[PAGE_SIZE // 8] == 0x0807060504030201
        assert ram.bytes[PAGE_SIZE + 1] == 2
        assert bytes(ram.pages_view(1, 1)[:3]) == b"\1\2\3"
        number = ctypes.c_uint32.from_buffer(ram.mapping, 2 * PAGE_SIZE)
        number.value = 0xAABBCCDD
        assert os.pread(ram.fd, 4, 2 * PAGE_SIZE) == b"\xdd\xcc\xbb\xaa"
        assert ctypes.string_at(ram.address + PAGE_SIZE, 2) == b"\1\2"
        del number


def test_another_mapping_of_the_fd_is_the_same_memory() -> None:
    with (
        RamBlock("pc.ram", PAGE_SIZE) as ram,
        mmap.mmap(ram.fd, PAGE_SIZE) as other,
    ):
        other[5] = 9
        assert ram.bytes[5] == 9


def test_what_nobody_wrote_takes_no_memory() -> None:
    with RamBlock("pc.ram", 1024 * GIB) as ram:
        assert (ram.pages, ram.size) == (1 << 28, 1 << 40)
        ram.words[-1] = 1
        assert 0 < bytes_made(ram.fd) < 1 << 22  # a huge page is 2 MiB


def test_close_gives_fd_and_memory_back() -> None:
    ram = RamBlock("pc.ram", PAGE_SIZE)
    fd, mapping = ram.fd, ram.mapping
    ram.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert mapping.closed
    ram.close()  # once more is no error


def test_a_view_outlives_the_block() -> None:
    ram = RamBlock("pc.ram", PAGE_SIZE)
    ram.bytes[7] = 7
    view, words = ram.pages_view(0, 1), ram.words
    ram.close()
    assert view[7] == 7
    assert np.count_nonzero(words) == 1


@pytest.mark.parametrize("size", [0, -4096, 1, 4095, 4097])
def test_a_size_that_is_no_pages(size: int) -> None:
    with pytest.raises(ValueError, match=f"pc.ram: {size} bytes are not whole pages"):
        RamBlock("pc.ram", size)


@pytest.mark.parametrize("name", ["", "a" * 256, "ä" * 128])
def test_a_name_that_no_counted_string_holds(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        RamBlock(name, PAGE_SIZE)


def test_the_longest_name() -> None:
    with RamBlock("ä" * 127 + "a", PAGE_SIZE) as ram:
        assert len(ram.idstr.encode()) == 255


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 3), (2, 1), (1, -1)])
def test_pages_that_are_not_there(first: int, count: int) -> None:
    with (
        RamBlock("pc.ram", 2 * PAGE_SIZE) as ram,
        pytest.raises(IndexError, match="of 2"),
    ):
        ram.pages_view(first, count)
