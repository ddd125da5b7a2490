"""No damage to a machine's stream passes for a migration that moved everything.

The framing is refused by the destination; where a page or a byte of configuration
arrives that was not sent, what arrived is not equal, and that is what reports compare.
"""

from __future__ import annotations

import random
from functools import cache

import pytest

from tests.unit.migration.machine_migration import FILLED, PAGES, Moved, move
from vfiomig.migration.transport import CutLink, FlipBit, Tee
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.reader import read_stream
from vfiomig.protocol.qemu_stream.records import (
    Located,
    RamPageKind,
    RamPages,
    VfioConfig,
    VfioData,
)

PAGE = 4096


@cache
def whole() -> bytes:
    """Return what crosses the link when nothing is wrong."""
    stream = bytearray()
    moved = move(lambda end: Tee(end, stream.extend))
    assert moved.has_completed
    assert moved.is_equal
    return bytes(stream)


@cache
def records() -> tuple[Located, ...]:
    return tuple(read_stream(memoryview(whole())))


def places_of(*, pages: bool = False, device: bool = False) -> set[int]:
    """Find the bytes of pages' contents, or of buffers and configuration."""
    found: set[int] = set()
    for record, offset, size, _ in records():
        if pages and isinstance(record, RamPages) and record.contents is not None:
            stride = size if len(record) == 1 else 8 + PAGE
            for end in range(offset + size, offset, -stride):
                found |= set(range(end - PAGE, end))
        elif device and isinstance(record, VfioData):
            found |= set(range(offset + 16, offset + size))
        elif device and isinstance(record, VfioConfig):
            found |= set(range(offset + 12, offset + 12 + 256))
    return found


def numbers_of_zero_pages() -> set[int]:
    """Find the words of zero pages: one that goes elsewhere may change nothing."""
    found: set[int] = set()
    for record, offset, size, _ in records():
        if isinstance(record, RamPages) and record.kind is RamPageKind.ZERO:
            found |= set(range(offset, offset + size))
    return found


def flipped(place: int, bit: int) -> Moved:
    return move(lambda stream: FlipBit(stream, place, bit))


def test_the_stream_is_of_a_machine() -> None:
    sections = list(
        dict.fromkeys(each.section.idstr for each in records() if each.section)
    )
    assert sections == ["ram", "0000:00:02.0/vfio"]
    assert len(places_of(pages=True)) == len(FILLED) * PAGE
    assert len(places_of(device=True)) == 2 * 8 + 256
    pages = [each.record for each in records() if isinstance(each.record, RamPages)]
    assert sum(map(len, pages)) == PAGES


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_flipped_bit_of_the_framing_passes(part: int) -> None:
    content = places_of(pages=True, device=True)
    framing = sorted(set(range(len(whole()))) - content)
    for number, place in enumerate(framing):
        if number % 4 != part:
            continue
        bit = number * 5 % 8
        moved, where = flipped(place, bit), f"bit {bit} of byte {place:#x}"
        if moved.has_completed and moved.is_equal:
            assert place in numbers_of_zero_pages(), where
        elif not moved.has_completed:
            assert isinstance(moved.destination.error, StreamError), where
            assert moved.source.lost == (), where


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_of_what_is_moved_passes(seed: int) -> None:
    luck = random.Random(seed)
    for places in (places_of(pages=True), places_of(device=True)):
        for place in luck.sample(sorted(places), 20):
            moved = flipped(place, luck.randrange(8))
            assert not (moved.has_completed and moved.is_equal), hex(place)


@pytest.mark.parametrize("part", range(4))
def test_a_link_that_is_cut_anywhere(part: int) -> None:
    edges = {each.offset for each in records()} | {1, len(whole()) - 1}
    for place in sorted(edges)[part::4]:
        moved = move(lambda stream, place=place: CutLink(stream, place))  # type: ignore[misc]
        where = f"cut after {place} bytes"
        assert not moved.has_completed, where
        assert isinstance(moved.source.error, ConnectionError), where
        assert moved.destination.error is not None, where
        assert moved.source.lost == (), where


@pytest.mark.parametrize("byte", [0x00, 0x03, 0x0A, 0x0E, 0x34])
def test_configuration_of_another_device_is_refused(byte: int) -> None:
    # Identity, class, header type and capabilities: QEMU's cmask.
    (where,) = [o + 12 for r, o, *_ in records() if isinstance(r, VfioConfig)]
    moved = flipped(where + byte, 6)
    assert not moved.has_completed
    assert isinstance(moved.destination.error, StreamError)
    assert moved.destination.error.position == where + byte
