"""Moving chunks: in pieces that add up, and never behind the end of the region."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conformance.small_drivers import (
    DATA,
    RESUMING,
    RUNNING,
    SIZE,
    STOP_AND_COPY,
    Bare,
    Framed,
    RefusesLooseData,
    hold,
    origins_broken,
    small,
)
from vfiomig.conformance.conversation.conversation import Conversation
from vfiomig.conformance.conversation.device import DeviceUnderTest, opened
from vfiomig.conformance.conversation.moving import (
    give_chunk,
    give_impossible,
    read_chunk,
    takes_loose_data,
    widths,
)
from vfiomig.conformance.conversation.steps import step
from vfiomig.protocol.history import Access, Record
from vfiomig.protocol.v1.registers import Register
from vfiomig.vendor.conforming.several_areas import SeveralAreas
from vfiomig.vendor.data_section import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.region import SparseMmapArea

WAYS = ("whole", "halves", "bytes", "words", "odd", "sevens")
NARROW = {"bytes": 1, "words": 8, "odd": 3, "sevens": 7}
SIZES = st.one_of(st.integers(0, 200), st.integers(0, 1 << 33))


@given(SIZES, st.sampled_from(WAYS))
def test_the_widths_add_up_to_the_size(size: int, how: str) -> None:
    assert sum(widths(size, how)) == size


@given(SIZES, st.sampled_from(WAYS))
def test_no_piece_is_empty_and_they_are_few(size: int, how: str) -> None:
    pieces = widths(size, how)
    assert all(width > 0 for width in pieces)
    assert len(pieces) <= 48 + 17


@given(st.integers(1, 1 << 20), st.sampled_from(tuple(NARROW)))
def test_it_begins_with_narrow_pieces_and_goes_on_in_multiples(
    size: int, how: str
) -> None:
    width = NARROW[how]
    first, *_ = pieces = widths(size, how)
    assert first == min(size, width)
    odd = [piece for piece in pieces if piece % width]
    assert len(odd) <= 2  # where the narrow ones end, and at the end


def test_halves_are_two() -> None:
    assert widths(9, "halves") == [4, 5]
    assert widths(1, "halves") == [1]


def test_nothing_is_moved_in_no_pieces() -> None:
    assert [widths(0, how) for how in WAYS] == [[]] * len(WAYS)


# -- devices ---------------------------------------------------------------------------


class Opened:
    """A device, and what was recorded of it."""

    def __init__(self, driver: TrappedDriver) -> None:
        self.records: list[Record] = []
        self.device: DeviceUnderTest = opened(
            lambda: driver, "destination", self.records.append, lambda *_: None
        )

    def resume(self) -> None:
        assert self.device.write_register(Register.DEVICE_STATE, RESUMING)

    def written(self) -> list[tuple[int, int]]:
        """Return offset and size of each write behind the one to device_state."""
        return [
            (each.offset, each.size)
            for each in self.records
            if isinstance(each, Access) and each.access == "write" and each.offset
        ]


@pytest.mark.parametrize("how", [*WAYS, "filled", "mapped"])
@pytest.mark.parametrize("size", [1, 2, 7, 48, 64])
def test_a_chunk_arrives_whole_however_it_is_given(how: str, size: int) -> None:
    driver = Bare()
    bench = Opened(driver)
    bench.resume()
    chunk = bytes(range(1, size + 1))
    assert give_chunk(bench.device, chunk, how)
    assert driver.loaded == [chunk]


@pytest.mark.parametrize("how", WAYS)
def test_a_chunk_is_read_whole_in_any_pieces(how: str) -> None:
    driver = Bare()
    bench = Opened(driver)
    driver.window[:60] = bytes(range(60))
    assert read_chunk(bench.device, DATA, 60, how) == bytes(range(60))


def test_rubbish_is_written_before_the_chunk() -> None:
    bench = Opened(Bare())
    bench.resume()
    give_chunk(bench.device, b"four", "filled")
    assert bench.written() == [(DATA, 4), (DATA, 4), (24, 8)]


def test_a_chunk_that_does_not_fit_is_not_begun() -> None:
    bench = Opened(Bare())
    bench.resume()
    assert not give_chunk(bench.device, bytes(65), "whole")
    assert bench.written() == []


@pytest.mark.parametrize("offset", [0, 31, 96, 1 << 63])
def test_a_data_offset_that_cannot_be_is_not_written_to(offset: int) -> None:
    bench = Opened(small(Bare, data_offset=lambda _: offset)())
    bench.resume()
    assert not give_chunk(bench.device, b"four", "whole")
    give_impossible(bench.device, b"four", "one too many")
    assert bench.written() == []


@pytest.mark.parametrize(
    ("how", "size"),
    [
        ("one too many", 65),
        ("32 bits", (1 << 32) + 4),
        ("63 bits", (1 << 63) + 4),
        ("64 bits", (1 << 64) - 1),
    ],
)
def test_a_size_that_cannot_be_is_written_once(how: str, size: int) -> None:
    asked: list[int] = []
    driver = small(Bare, take=lambda _, value: asked.append(value))()
    bench = Opened(driver)
    bench.resume()
    give_impossible(bench.device, b"four", how)
    assert asked == [size]


# -- the window behind a chunk ---------------------------------------------------------

LOADED = (
    step("enter", "source", STOP_AND_COPY),
    step("drain", "source"),
    step("enter", "destination", RESUMING),
    step("load", "destination"),
)
SPOILED = step("overwrite_window", "destination")


class Keeps(Bare):
    """Its stream is one chunk; it is kept in ``made`` with the others of a test."""

    made: ClassVar[list[Bare]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)

    def stream(self) -> list[bytes]:
        return [self.memory]


def test_the_window_is_spoiled_and_no_more() -> None:
    driver = small(Keeps, made=[])
    hold(driver, *LOADED, SPOILED)
    destination = driver.made[1]  # type: ignore[attr-defined]
    assert bytes(destination.window) == b"\xa5" * SIZE + bytes(64 - SIZE)


def test_before_a_chunk_was_taken_there_is_no_window_to_spoil() -> None:
    driver = small(Keeps, made=[])
    hold(driver, *LOADED[:3], SPOILED)
    assert bytes(driver.made[1].window) == bytes(64)  # type: ignore[attr-defined]


def test_nothing_is_read_before_the_window_is_spoiled() -> None:
    """A driver that loads at the next data_offset must not be woken."""
    conversation = Conversation(Bare, (), rule_ids={})
    conversation.perform(LOADED)
    before = len(conversation.records)
    conversation.perform([SPOILED])
    conversation.close()
    behind = conversation.records[before]
    assert isinstance(behind, Access)
    assert (behind.access, behind.offset) == ("write", DATA)


# -- loose data ------------------------------------------------------------------------

CHUNKS = Framed().stream()


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, "no")


def test_most_drivers_take_loose_data() -> None:
    assert takes_loose_data(Opened(Bare()).device, CHUNKS)
    assert takes_loose_data(Opened(Framed()).device, [b"", *CHUNKS])


@pytest.mark.parametrize(
    "driver",
    [
        RefusesLooseData,
        small(write_device_state=refuse),
        small(take=refuse),
        small(finish=refuse),
    ],
    ids=["loose data", "RESUMING", "a chunk", "RUNNING"],
)
def test_one_that_refuses_anything_of_it_does_not(
    driver: Callable[[], Bare],
) -> None:
    assert not takes_loose_data(Opened(driver()).device, CHUNKS)


# -- mappings --------------------------------------------------------------------------


def unseen(records: list[Record]) -> list[tuple[int, int, bool]]:
    """Return offset, size and whether nobody saw it, of each access to data."""
    return [
        (each.offset, each.size, each.unseen)
        for each in records
        if isinstance(each, Access)
        and each.access in ("read", "write")
        and each.offset >= PAGE
    ]


def test_a_buffer_is_read_piece_by_piece_where_areas_begin_and_end() -> None:
    bench = Opened(SeveralAreas())
    assert bench.device.read_mapped(PAGE, 5 * PAGE + 77) == bytes(5 * PAGE + 77)
    assert unseen(bench.records) == [
        (PAGE, PAGE, True),
        (2 * PAGE, PAGE, False),
        (3 * PAGE, 2 * PAGE, True),
        (5 * PAGE, PAGE + 77, False),
    ]
    assert bench.device.close()


def test_mapped_and_trapped_pieces_are_where_they_were_written() -> None:
    bench = Opened(SeveralAreas())
    bench.resume()
    data = bytes(range(256)) * (PAGE // 64)
    assert bench.device.write_mapped(PAGE + 100, data)
    assert bench.device.read_mapped(PAGE + 100, len(data)) == data
    assert bench.device.read(PAGE + 100, len(data)) == data
    assert bench.device.close()


def test_a_piece_that_is_refused_is_the_end_of_it() -> None:
    bench = Opened(SeveralAreas())
    assert bench.device.fail("data", errno.EIO)
    assert bench.device.read_mapped(PAGE, 4 * PAGE) is None
    assert bench.device.close()


def test_an_area_that_cannot_be_mapped_is_trapped() -> None:
    class CannotBeMapped(SeveralAreas):
        def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
            raise OSError(errno.ENODEV, f"nothing at {area.offset:#x}")

    bench = Opened(CannotBeMapped())
    assert bench.device.read_mapped(PAGE, 2 * PAGE) == bytes(2 * PAGE)
    assert unseen(bench.records) == [(PAGE, PAGE, False), (2 * PAGE, PAGE, False)]
    assert bench.device.close()


@pytest.mark.parametrize("how", ["whole", "mapped"])
def test_a_buffer_that_straddles_areas_restores_the_device(how: str) -> None:
    steps = (
        step("work", "source", 40),
        LOADED[0],
        step("drain", "source", how),
        LOADED[2],
        step("load", "destination", how),
        step("enter", "destination", RUNNING),
    )
    held = hold(SeveralAreas, *steps)
    assert held.broken == {}
    assert "v1/transitions/resuming-to-running" in held.reached


class ShowsAnotherPage(SeveralAreas):
    """A trapped read of the mapped part shows what the mapping does not."""

    def read(self, offset: int, size: int) -> bytes:
        data = super().read(offset, size)
        return b"\xee" + data[1:] if offset == PAGE else data


def test_a_trapped_read_that_shows_other_bytes_than_the_pieces_is_accused() -> None:
    steps = (LOADED[0], step("drain", "source", "mapped"))
    assert origins_broken(ShowsAnotherPage, *steps) == {"V1-MMAP-05"}
