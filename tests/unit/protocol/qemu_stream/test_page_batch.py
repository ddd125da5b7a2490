"""Batches of RAM pages: the bytes, and what is refused.

Words are from the layout of QEMU's migration/ram.c: be64 of address | flags; ZERO 0x02,
PAGE 0x08, EOS 0x10, CONTINUE 0x20.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest

from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.page_batch import (
    LARGEST_PAGE,
    PageEncoder,
    Run,
    decode_run,
)

PAGE = 4096
ALL = 1 << 40  # bytes: no limit
PC_RAM = b"\x06pc.ram"
FULL_SIZE, ZERO_SIZE = 8 + PAGE, 8 + 1


def word(page: int, flags: int) -> bytes:
    return struct.pack(">Q", page * PAGE | flags)


def content(page: int) -> bytes:
    """Return a page that no other equals, or zeros for page 0."""
    return bytes([page]) * PAGE


def table(pages: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    ram = b"".join(map(content, range(pages)))
    return np.frombuffer(ram, np.uint8).reshape(pages, PAGE)


def encoded(
    encoder: PageEncoder,
    numbers: list[int],
    *,
    block: str = "pc.ram",
    limit: int = ALL,
    zero: frozenset[int] = frozenset({0}),
) -> tuple[bytes, int, int]:
    ram = table(16)
    flags = np.array([number in zero for number in numbers])
    got = encoder.encode(block, ram, np.array(numbers, np.int64), flags, limit)
    return bytes(got.view), got.pages, got.zero_pages


def decoded(data: bytes, block: str = "pc.ram", position: int = 0) -> Run | int | None:
    return decode_run(memoryview(data), block, position)


def run_of(data: bytes, block: str = "pc.ram") -> Run:
    got = decoded(data, block)
    assert isinstance(got, Run)
    return got


def reason_of(data: bytes, block: str = "", position: int = 1000) -> str:
    with pytest.raises(StreamError) as refused:
        decoded(data, block, position)
    assert refused.value.position is not None
    assert refused.value.position >= position
    return str(refused.value)


# -- encoding --------------------------------------------------------------------------


def test_the_first_page_names_its_block_and_the_next_ones_continue_it() -> None:
    data, pages, zeros = encoded(PageEncoder(16), [3, 4])
    assert data == (
        word(3, 0x08) + PC_RAM + content(3) + word(4, 0x08 | 0x20) + content(4)
    )
    assert (pages, zeros) == (2, 0)


def test_a_zero_page_is_a_word_and_one_byte() -> None:
    data, pages, zeros = encoded(PageEncoder(16), [0, 1], zero=frozenset({0, 1}))
    assert data == word(0, 0x02) + PC_RAM + b"\0" + word(1, 0x02 | 0x20) + b"\0"
    assert (pages, zeros) == (2, 2)


def test_full_and_zero_pages_in_turn_and_not_in_a_row() -> None:
    encoder = PageEncoder(16)
    encoded(encoder, [1])
    data, pages, zeros = encoded(encoder, [2, 5, 0, 9, 7])
    assert data == b"".join(
        [
            *(word(2, 0x28), content(2), word(5, 0x28), content(5)),
            *(word(0, 0x22), b"\0"),
            *(word(9, 0x28), content(9), word(7, 0x28), content(7)),
        ]
    )
    assert (pages, zeros) == (5, 1)


def test_a_batch_of_the_same_block_continues_and_one_of_another_names_it() -> None:
    encoder = PageEncoder(16)
    assert encoded(encoder, [1])[0].startswith(word(1, 0x08) + PC_RAM)
    assert encoded(encoder, [2])[0] == word(2, 0x28) + content(2)
    other = encoded(encoder, [3], block="vga.vram")[0]
    assert other == word(3, 0x08) + b"\x08vga.vram" + content(3)
    assert encoded(encoder, [4])[0].startswith(word(4, 0x08) + PC_RAM)


@pytest.mark.parametrize(
    ("limit", "pages"),
    [
        (1, 1),
        (FULL_SIZE - 1, 1),
        (FULL_SIZE, 2),  # used up, not exceeded: qemu_file_rate_limit asks for >
        (FULL_SIZE + 1, 2),
        (3 * FULL_SIZE - 1, 3),
        (3 * FULL_SIZE, 4),
    ],
)
def test_the_limit_is_looked_at_before_each_page(limit: int, pages: int) -> None:
    encoder = PageEncoder(16)
    encoded(encoder, [1])  # so that no name is in the way
    data, sent, _ = encoded(encoder, [2, 3, 4, 5, 6], limit=limit)
    assert sent == pages
    assert len(data) == pages * FULL_SIZE


def test_the_limit_counts_the_name_and_zero_pages() -> None:
    limit = 8 + len(PC_RAM) + 1 + ZERO_SIZE  # two zero pages, the first with the name
    numbers = list(range(16))
    data, pages, zeros = encoded(
        PageEncoder(16), numbers, limit=limit, zero=frozenset(numbers)
    )
    assert (pages, zeros) == (3, 3)
    assert len(data) == limit + ZERO_SIZE


def test_the_room_holds_the_longest_name_and_all_pages() -> None:
    encoder = PageEncoder(2)
    data, pages, _ = encoded(encoder, [1, 2], block="n" * 255)
    assert pages == 2
    assert len(data) == LARGEST_PAGE + FULL_SIZE


# -- decoding --------------------------------------------------------------------------


def test_pages_that_are_alike_come_at_once() -> None:
    data = b"".join(word(n, 0x28) + content(n) for n in (7, 3, 4))
    run = run_of(data + word(1, 0x22) + b"\0")
    assert (run.block, run.numbers.tolist(), run.size) == ("pc.ram", [7, 3, 4], 12312)
    assert run.contents is not None
    assert run.contents.tobytes() == content(7) + content(3) + content(4)


def test_zero_pages_have_no_contents() -> None:
    run = run_of(word(2, 0x22) + b"\0" + word(9, 0x22) + b"\0" + word(0, 0x10))
    assert (run.numbers.tolist(), run.contents, run.size) == ([2, 9], None, 18)


def test_a_page_that_names_its_block_comes_alone() -> None:
    run = run_of(word(2, 0x08) + PC_RAM + content(2) + word(3, 0x28), "")
    assert (run.block, run.numbers.tolist()) == ("pc.ram", [2])
    assert run.size == 8 + 7 + PAGE
    zero = run_of(word(2, 0x02) + b"\x01x\0", "pc.ram")
    assert (zero.block, zero.contents, zero.size) == ("x", None, 11)


def test_the_end_of_the_payload_is_a_word() -> None:
    assert decoded(word(0, 0x10) + b"~") == 8


@pytest.mark.parametrize(
    "data",
    [
        word(1, 0x28) + content(1),
        word(1, 0x22) + b"\0",
        word(1, 0x08) + PC_RAM + content(1),
        word(1, 0x02) + PC_RAM + b"\0",
        word(0, 0x10),
    ],
    ids=["page", "zero", "named page", "named zero", "end"],
)
def test_what_is_cut_anywhere_waits_for_more(data: bytes) -> None:
    assert decoded(data) is not None
    places = {*range(24), *range(24, len(data), 97), len(data) - 1}
    for size in sorted(place for place in places if place < len(data)):
        assert decoded(data[:size]) is None, size


def test_the_highest_address_is_a_number_still() -> None:
    run = run_of(word((1 << 52) - 1, 0x22) + b"\0")
    assert run.numbers.tolist() == [(1 << 52) - 1]


@pytest.mark.parametrize("flags", [0x28, 0x22])
def test_a_page_cannot_continue_what_nobody_named(flags: int) -> None:
    reason = reason_of(word(1, flags) + content(1))
    assert (
        reason
        == "byte 1000 of the stream: a page continues a block, and none was named"
    )


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (0x00, "0x0"),
        (0x01, "0x1"),
        (0x04, "0x4"),  # MEM_SIZE, which a START section alone has
        (0x0A, "0xa"),  # ZERO and PAGE
        (0x30, "0x30"),  # EOS continues nothing
        (0x40, "0x40"),  # XBZRLE: a capability of its own
        (0x80, "0x80"),
        (0x100, "0x100"),
        (0x200, "0x200"),
        (0x800, "0x800"),
    ],
)
def test_unknown_flags(flags: int, shown: str) -> None:
    reason = reason_of(word(0, flags) + bytes(PAGE), "pc.ram")
    assert reason == f"byte 1000 of the stream: unknown flags {shown} of a page"


def test_an_end_with_an_address_is_none() -> None:
    assert "unknown flags 0x10" in reason_of(word(1, 0x10), "pc.ram")


@pytest.mark.parametrize("named", [True, False])
def test_a_zero_page_is_filled_with_nothing_else(named: bool) -> None:
    head = word(1, 0x02) + PC_RAM if named else word(1, 0x22)
    reason = reason_of(head + b"\x07", "pc.ram")
    assert "a zero page is filled with 0x07" in reason


def test_one_of_many_zero_pages_that_is_filled() -> None:
    data = b"".join(word(n, 0x22) + bytes([n == 3]) for n in range(5))
    assert "filled with 0x01" in reason_of(data, "pc.ram")


def test_a_name_that_is_no_text() -> None:
    assert "not text: ff00" in reason_of(word(1, 0x02) + b"\x02\xff\0\0")


def test_what_was_encoded_is_decoded() -> None:
    encoder, luck = PageEncoder(64), np.random.default_rng(5)
    ram = np.zeros((64, PAGE), np.uint8)
    held = luck.choice(64, 40, replace=False)
    ram[held] = luck.integers(1, 256, (40, PAGE))
    zero = (ram == 0).all(axis=1)
    numbers = luck.permutation(64).astype(np.int64)
    made = encoder.encode("pc.ram", ram, numbers, zero[numbers], ALL)
    data, copy = made.view, np.full((64, PAGE), 0xEE, np.uint8)
    seen: list[int] = []
    block = ""
    while data:
        run = decode_run(data, block, 0)
        assert isinstance(run, Run)
        copy[run.numbers] = 0 if run.contents is None else run.contents
        seen += run.numbers.tolist()
        data, block = data[run.size :], run.block
    assert seen == numbers.tolist()
    assert (copy == ram).all()
