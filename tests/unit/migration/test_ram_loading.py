"""RAM at the destination: what is loaded, and streams that mean it ill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.migration.feeding import feed
from tests.unit.migration.guests import (
    CONTINUE,
    END_OF_STATE,
    FULL,
    PAGE,
    PC_RAM,
    ZERO,
    SmallGuest,
    content,
    footer,
    word,
)
from vfiomig.migration.incoming import Incoming
from vfiomig.migration.metrics import Metrics
from vfiomig.migration.ram_loading import RamLoading
from vfiomig.protocol.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = 16
SECTION = 3
END = END_OF_STATE + footer(SECTION)


@pytest.fixture
def guest() -> Iterator[SmallGuest]:
    with SmallGuest(PAGES) as made:
        yield made


def load(guest: SmallGuest, *payloads: bytes, piece: int = 1 << 20) -> Metrics:
    """Load a PART section of each payload; all of the bytes must be used."""
    incoming, metrics = Incoming(), Metrics()
    loading = RamLoading(guest.memory, incoming, metrics)
    for payload in payloads:
        section = payload + END
        taken, used = feed(loading.load_part(SECTION), section, piece)
        assert taken == used == len(section)
    return metrics


def refused(guest: SmallGuest, *payloads: bytes, piece: int = 1 << 20) -> StreamError:
    with pytest.raises(StreamError) as error:
        load(guest, *payloads, piece=piece)
    return error.value


def held(guest: SmallGuest) -> dict[int, int]:
    """Return which pages are not zero, and what number's content they have."""
    pages = {n: guest.page(n) for n in range(PAGES)}
    found = {n: int.from_bytes(page[:4], "little") - 1 for n, page in pages.items()}
    for number, whose in found.items():
        if whose >= 0:
            assert pages[number] == content(whose)
    return {number: whose for number, whose in found.items() if whose >= 0}


NAMED = word(2, FULL) + PC_RAM + content(2)


@pytest.mark.parametrize("piece", [1 << 20, PAGE, 61])
def test_pages_arrive_in_any_order_and_in_any_pieces(
    guest: SmallGuest, piece: int
) -> None:
    payload = NAMED
    for page in (9, 3, 4, 15):
        payload += word(page, FULL | CONTINUE) + content(page)
    metrics = load(guest, payload, piece=piece)
    assert held(guest) == {n: n for n in (2, 3, 4, 9, 15)}
    assert metrics.loaded_ram_pages == 5


def test_zero_pages_make_pages_zero_that_were_not(guest: SmallGuest) -> None:
    for page in range(PAGES):
        guest.write(page)
    zeros = b"".join(word(n, ZERO | CONTINUE) + b"\0" for n in (3, 4, 5, 11))
    load(guest, word(1, ZERO) + PC_RAM + b"\0" + zeros)
    assert sorted(held(guest)) == [0, 2, 6, 7, 8, 9, 10, 12, 13, 14, 15]


def test_zero_pages_out_of_order(guest: SmallGuest) -> None:
    for page in range(PAGES):
        guest.write(page)
    zeros = b"".join(word(n, ZERO | CONTINUE) + b"\0" for n in (12, 2, 7, 2))
    load(guest, word(0, ZERO) + PC_RAM + b"\0" + zeros)
    assert sorted(held(guest)) == [1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15]


def test_a_page_that_comes_twice_is_the_last_one(guest: SmallGuest) -> None:
    again = word(2, FULL | CONTINUE) + content(40) + word(3, FULL | CONTINUE)
    load(guest, NAMED + again + content(41) + word(3, FULL | CONTINUE) + content(42))
    assert held(guest) == {2: 40, 3: 42}


def test_a_block_is_remembered_over_sections(guest: SmallGuest) -> None:
    load(guest, NAMED, word(5, FULL | CONTINUE) + content(5))
    assert held(guest) == {2: 2, 5: 5}


def test_continue_without_a_name(guest: SmallGuest) -> None:
    error = refused(guest, word(5, FULL | CONTINUE) + content(5))
    assert str(error).endswith("a page continues a block, and none was named")
    assert held(guest) == {}


@pytest.mark.parametrize("page", [PAGES, PAGES + 1, (1 << 52) - 1])
@pytest.mark.parametrize("kind", [FULL, ZERO])
def test_a_page_outside_of_the_block(guest: SmallGuest, page: int, kind: int) -> None:
    rest = content(1) if kind == FULL else b"\0"
    for payload in (
        word(page, kind) + PC_RAM + rest,
        NAMED + word(page, kind | CONTINUE) + rest,
    ):
        error = refused(guest, payload)
        assert f"page {page} of pc.ram, which has {PAGES}" in str(error)


def test_one_page_of_many_that_is_outside_loads_none_of_them(guest: SmallGuest) -> None:
    pages = [word(n, FULL | CONTINUE) + content(n) for n in (3, 4, PAGES, 5)]
    refused(guest, NAMED + b"".join(pages))
    assert held(guest) == {2: 2}


def test_a_block_that_is_not_there(guest: SmallGuest) -> None:
    error = refused(guest, word(0, FULL) + b"\x06pc.rom" + content(0))
    assert "no block of RAM is called 'pc.rom'" in str(error)


def test_a_zero_page_that_is_not_filled_with_zero(guest: SmallGuest) -> None:
    error = refused(guest, NAMED + word(3, ZERO | CONTINUE) + b"\x01")
    assert "filled with 0x01" in str(error)
    assert error.position == len(NAMED)


@pytest.mark.parametrize("flags", [0, 0x04, 0x40, 0x80, 0x100, 0x200])
def test_what_is_no_page(guest: SmallGuest, flags: int) -> None:
    error = refused(guest, NAMED + word(0, flags) + bytes(PAGE))
    assert f"unknown flags {flags:#x}" in str(error)
    assert error.position == len(NAMED)


def test_a_footer_of_another_section(guest: SmallGuest) -> None:
    loading = RamLoading(guest.memory, Incoming(), Metrics())
    with pytest.raises(StreamError, match="is not a section's footer"):
        feed(loading.load_end(SECTION), NAMED + END_OF_STATE + footer(SECTION + 1))


def test_a_full_section(guest: SmallGuest) -> None:
    loading = RamLoading(guest.memory, Incoming(), Metrics())
    with pytest.raises(StreamError, match="ram, has no FULL section"):
        feed(loading.load_state(SECTION), b"")


@pytest.mark.parametrize("piece", [1 << 20, 100])
def test_a_stream_that_is_cut_anywhere(guest: SmallGuest, piece: int) -> None:
    payload = NAMED + word(3, ZERO | CONTINUE) + b"\0"
    payload += word(4, FULL | CONTINUE) + content(4) + END
    edges = (0, 8, 15, len(NAMED), len(NAMED) + 9, len(payload) - 5, len(payload))
    places = {edge + by for edge in edges for by in (-1, 0, 1)} | {1000, 5000}
    for size in sorted(place for place in places if 0 <= place < len(payload)):
        loading = RamLoading(guest.memory, Incoming(), Metrics())
        with pytest.raises(StreamError, match="ends") as error:
            feed(loading.load_part(SECTION), payload[:size], piece)
        assert error.value.position is not None
        assert error.value.position <= size


def test_the_blocks_of_the_start_section(guest: SmallGuest) -> None:
    wanted = b"".join(
        [
            b"\x03ram" + bytes(4) + b"\0\0\0\x04",  # instance 0, version 4
            (PAGES * PAGE | 0x04).to_bytes(8, "big"),
            PC_RAM + (PAGES * PAGE).to_bytes(8, "big"),
            END_OF_STATE,
            footer(SECTION),
        ]
    )
    loading = RamLoading(guest.memory, Incoming(), Metrics())
    taken, used = feed(loading.load_start(SECTION), wanted, 1 << 20)
    assert taken == used == len(wanted)
    for place in range(len(wanted)):
        damaged = bytearray(wanted)
        damaged[place] ^= 4
        loading = RamLoading(guest.memory, Incoming(), Metrics())
        with pytest.raises(StreamError, match="the START section of ram"):
            feed(loading.load_start(SECTION), bytes(damaged), 1 << 20)
