"""VFIO_IOMMU_DIRTY_PAGES and the bitmap of unmapping, rule by rule (kernel_uapi.md, D).

The oracle is a set of page numbers; around every buffer there are guards.
"""

from __future__ import annotations

import errno
import itertools
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.unit.host.test_container import refused
from tests.unit.host.type1_user import (
    BITMAP,
    DIRTY,
    DIRTY_PAGES,
    GET,
    NESTING,
    NOWHERE,
    PAGE,
    RANGE,
    START,
    STOP,
    TYPE1,
    User,
)
from vfiomig.host.container import UnloggedDma
from vfiomig.host.iommu import IommuLimits, IovaRange

if TYPE_CHECKING:
    from tests.unit.host.type1_user import Bits

BASES = [0, PAGE, 0x10_0000, 0x1_0000_0000, 0x100_0000_1000]
U64 = (1 << 64) - 1
EVERYWHERE = (IovaRange(0, U64),)
GIB = 1 << 30


@pytest.fixture
def user() -> User:
    """A user of six pages at page 16, which are tracked."""
    user = User()
    user.map(16 * PAGE, 6 * PAGE)
    user.start()
    return user


def operate(user: User, flags: int, argsz: int = 8) -> None:
    user.call(DIRTY_PAGES, DIRTY.pack(argsz, flags))


# -- DIRTY-OP --------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [START, STOP, GET, 0, 8])
def test_the_first_type_has_no_tracking(flags: int) -> None:  # DIRTY-OP-01
    user = User(iommu=TYPE1)
    refused(errno.EACCES, lambda: operate(user, flags))


def test_a_nesting_iommu_has_tracking() -> None:  # DIRTY-OP-01
    user = User(iommu=NESTING)
    user.map(0, PAGE)
    user.start()
    user.dma.dma_write(0, b"a")
    assert user.dirty(0, PAGE) == {0}


@pytest.mark.parametrize("argsz", [0, 4, 7])
def test_an_argsz_below_the_structure(user: User, argsz: int) -> None:  # DIRTY-OP-02
    refused(errno.EINVAL, lambda: operate(user, START, argsz))


@pytest.mark.parametrize("flags", [0, 3, 5, 6, 7, 8, 9, 12, 1 << 31])
def test_there_is_one_operation_at_a_time(user: User, flags: int) -> None:
    bits = user.bits(8)
    argument = DIRTY.pack(48, flags) + RANGE.pack(16 * PAGE, 6 * PAGE)
    argument += BITMAP.pack(PAGE, 8, bits.address)
    user.dma.dma_write(16 * PAGE, b"a")
    refused(errno.EINVAL, lambda: user.call(DIRTY_PAGES, argument))
    assert bits.data == bytes(8)
    assert user.dirty(16 * PAGE, 6 * PAGE) == {0}


def test_starting_again_forgets_nothing(user: User) -> None:  # DIRTY-OP-03
    user.dma.dma_write(17 * PAGE, b"a")
    user.start()
    assert user.dirty(16 * PAGE, 6 * PAGE) == {1}


def test_what_is_mapped_later_is_tracked(user: User) -> None:  # DIRTY-OP-03
    user.map(22 * PAGE, PAGE)
    user.dma.dma_write(22 * PAGE, b"a")
    assert user.dirty(22 * PAGE, PAGE) == {0}


def test_what_was_written_before_the_start_is_not_in_the_log() -> None:
    user = User()
    user.map(0, PAGE)
    user.dma.dma_write(0, b"a")
    user.start()
    assert user.dirty(0, PAGE) == set()


def test_logs_take_no_more_than_they_may() -> None:  # DIRTY-OP-03: ENOMEM
    user = User(IommuLimits(max_log_bytes=24))
    for number in range(3):  # a word each
        user.map(number << 20, PAGE)
    user.start()
    refused(errno.ENOMEM, partial(user.map, 3 << 20, PAGE))
    operate(user, STOP)
    user.map(3 << 20, PAGE)
    refused(errno.ENOMEM, user.start)
    refused(errno.EINVAL, partial(user.dirty, 0, PAGE))  # it was not begun


def test_a_mapping_of_too_many_pages_cannot_be_tracked() -> None:  # DIRTY-OP-03
    user = User()
    user.map(0, PAGE)
    user.map(0x1_0000_0000, PAGE << 31, vaddr=0)
    refused(errno.EINVAL, user.start)
    assert user.dma.log_bytes == 0
    refused(errno.EINVAL, lambda: user.dirty(0, PAGE))
    assert user.unmap(0x1_0000_0000, PAGE << 31) == PAGE << 31
    user.start()
    assert user.dma.log_bytes == 8
    too_many = partial(user.map, 0x1_0000_0000, PAGE << 31, vaddr=0)
    refused(errno.EINVAL, too_many)
    assert user.unmap(0x1_0000_0000, PAGE << 31) == 0
    user.map(0x1_0000_0000, (PAGE << 31) - PAGE, vaddr=0)
    assert user.dma.log_bytes == 8 + (256 << 20)


def test_stopping_frees_the_log_and_may_be_done_twice(user: User) -> None:
    user.dma.dma_write(16 * PAGE, b"a")
    for _ in range(2):  # DIRTY-OP-04
        user.stop()
        assert user.dma.log_bytes == 0
    refused(errno.EINVAL, lambda: user.dirty(16 * PAGE, PAGE))  # DIRTY-OP-05
    user.start()
    assert user.dirty(16 * PAGE, 6 * PAGE) == set()


# -- DIRTY-GET: what is refused --------------------------------------------------------


@pytest.mark.parametrize("argsz", [8, 9, 47])
def test_an_argsz_below_both_structures(user: User, argsz: int) -> None:
    bits = user.bits(8)
    refused(errno.EINVAL, lambda: user.get(16 * PAGE, PAGE, bits, argsz=argsz))


@pytest.mark.parametrize(
    ("iova", "size"),
    [
        ((1 << 64) - PAGE, 2 * PAGE),  # DIRTY-GET-01
        ((1 << 64) - PAGE, PAGE),
        (PAGE, U64),
        (0, 0),  # DIRTY-GET-03
        (16 * PAGE, 0),
        (16 * PAGE + 1, 6 * PAGE),
        (16 * PAGE, 6 * PAGE + 8),
        (16 * PAGE, 1),
        (16 * PAGE, 5 * PAGE),  # DIRTY-GET-05
        (17 * PAGE, 5 * PAGE),
        (17 * PAGE, PAGE),
        (0, 17 * PAGE),
        (21 * PAGE, 9 * PAGE),
    ],
)
def test_ranges_without_an_answer(user: User, iova: int, size: int) -> None:
    user.dma.dma_write(16 * PAGE, bytes(6 * PAGE))
    bits = user.bits(64)
    refused(errno.EINVAL, lambda: user.get(iova, size, bits))
    assert bits.data == bytes(64)
    assert user.dirty(0, 32 * PAGE) == set(range(16, 22))


@pytest.mark.parametrize("shift", [*range(12), *range(13, 64)])
def test_no_page_size_but_the_smallest(user: User, shift: int) -> None:  # DIRTY-GET-02
    bits = user.bits(8)
    get = partial(user.get, 16 * PAGE, 6 * PAGE, bits)
    for pgsize in (1 << shift, (1 << shift) + 3, 0, 3):
        refused(errno.EINVAL, lambda size=pgsize: get(pgsize=size))  # type: ignore[misc]
    assert bits.data == bytes(8)


@pytest.mark.parametrize(
    ("pages", "room", "code"),
    [
        (1, 0, errno.EINVAL),  # DIRTY-GET-04
        (1, 1, errno.EINVAL),
        (1, 7, errno.EINVAL),
        (1, 8, 0),
        (1, 12, 0),
        (64, 8, 0),
        (65, 8, errno.EINVAL),
        (65, 15, errno.EINVAL),
        (65, 16, 0),
        (1, 256 << 20, 0),
        (1, (256 << 20) + 1, errno.EINVAL),
        (1, 1 << 63, errno.EINVAL),
        (1, U64, errno.EINVAL),
    ],
)
def test_the_size_of_a_bitmap(pages: int, room: int, code: int) -> None:
    user = User()
    user.map(0, pages * PAGE, vaddr=0)
    user.start()
    bits = user.bits(16)
    bits.fill(b"\xff" * 16)
    if code:
        refused(code, lambda: user.get(0, pages * PAGE, bits, room=room))
        assert bits.data == b"\xff" * 16
    else:
        user.get(0, pages * PAGE, bits, room=room)
        written = -(-pages // 64) * 8
        assert bits.data == bytes(written) + b"\xff" * (16 - written)


def test_a_bitmap_that_is_not_there_loses_nothing(user: User) -> None:
    user.map(80 * PAGE, 2 * PAGE)
    user.dma.dma_write(17 * PAGE, b"a")
    user.dma.dma_write(81 * PAGE, b"a")
    get = partial(user.get, 16 * PAGE, 66 * PAGE)
    refused(errno.EFAULT, lambda: get(at(user.bits(16), NOWHERE)))
    half = bytearray(8)  # the first word is there, the second is not
    bits = at(user.bits(16), user.memory.place(half))
    refused(errno.EFAULT, lambda: get(bits))
    assert half == b"\x02" + bytes(7)
    assert user.dirty(16 * PAGE, 66 * PAGE) == {1, 65}


def at(bits: Bits, address: int) -> Bits:
    bits.address = address
    return bits


# -- DIRTY-GET: what is answered -------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("offset", [0, 1, PAGE - 1])
@pytest.mark.parametrize("length", [1, 2, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_every_page_that_a_write_touches(base: int, offset: int, length: int) -> None:
    user = User(IommuLimits(iova_ranges=EVERYWHERE))
    user.map(base, 70 * PAGE)
    user.start()
    for page in (0, 7, 8, 62, 63, 64, 66):
        place = page * PAGE + offset
        touched = {(place + each) // PAGE for each in range(length)}
        user.dma.dma_write(base + place, bytes(length))
        assert user.dirty(base, 70 * PAGE) == touched  # DIRTY-GET-06
        assert user.dirty(base, 70 * PAGE) == set()  # DIRTY-GET-08


@pytest.mark.parametrize("pages", [1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 1000])
def test_the_last_byte_of_the_last_page(pages: int) -> None:
    user = User()
    user.map(PAGE, pages * PAGE)
    user.start()
    user.dma.dma_write((1 + pages) * PAGE - 1, b"z")
    assert user.dirty(PAGE, pages * PAGE) == {pages - 1}


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 16, PAGE - 8, PAGE - 1])
@pytest.mark.parametrize("pages", [1, 64, 65, 8 * PAGE, 3 * 8 * PAGE + 5])
def test_a_bitmap_anywhere_in_a_page(offset: int, pages: int) -> None:
    user = User()
    user.map(PAGE, pages * PAGE, vaddr=0)
    user.start()
    user.memory.place(bytearray(PAGE), 0)
    if pages > 1:
        user.memory.place(bytearray(PAGE), (pages - 1) * PAGE)
    user.dma.dma_write(PAGE, b"a")
    user.dma.dma_write(pages * PAGE, b"a")
    bits = user.bits(-(-pages // 64) * 8, offset)
    user.get(PAGE, pages * PAGE, bits)
    expected = bytearray(bits.size)
    expected[0] |= 1
    expected[(pages - 1) // 8] |= 1 << (pages - 1) % 8
    assert bits.data == expected


def test_words_of_holes_stay_as_they_are(user: User) -> None:  # DIRTY-GET-07
    user.map(144 * PAGE, 3 * PAGE)
    user.dma.dma_write(21 * PAGE, b"a")
    user.dma.dma_write(146 * PAGE, b"a")
    bits = user.bits(24)
    bits.fill(b"\xff" * 24)
    user.get(0, 192 * PAGE, bits)
    words = [int.from_bytes(bits.data[at : at + 8], "little") for at in (0, 8, 16)]
    lower = 0xFFFF  # the pages below the mapping, in its word
    assert words == [lower | 1 << 21, (1 << 64) - 1, lower | 1 << 18]


@pytest.mark.parametrize("first", range(1, 66))
def test_mappings_that_share_a_word(first: int) -> None:
    user = User()
    user.map(PAGE, first * PAGE)
    user.map((1 + first) * PAGE, 3 * PAGE)
    user.map((6 + first) * PAGE, 70 * PAGE)
    user.start()
    written = {first - 1, first, first + 2, first + 5, first + 74}
    for page in written:
        user.dma.dma_write((1 + page) * PAGE, b"a")
    assert user.dirty(PAGE, 80 * PAGE + first * PAGE) == written
    assert user.dirty(PAGE, 80 * PAGE + first * PAGE) == set()


def test_only_what_was_asked_for_is_cleared(user: User) -> None:  # DIRTY-GET-08
    user.map(22 * PAGE, 2 * PAGE)
    user.dma.dma_write(21 * PAGE, bytes(2 * PAGE))
    assert user.dirty(22 * PAGE, 2 * PAGE) == {0}
    assert user.dirty(0, 32 * PAGE) == {21}


def test_a_range_without_a_mapping_has_a_bitmap_of_nothing(user: User) -> None:
    assert user.dirty(64 * PAGE, 64 * PAGE) == set()


@pytest.mark.parametrize("shift", [12, 16, 21, 31, 32, 52, 62, 63])
def test_every_page_size_that_an_iommu_may_have(shift: int) -> None:
    size = 1 << shift
    limits = IommuLimits(page_sizes=U64 << shift & U64, iova_ranges=EVERYWHERE)
    user = User(limits)
    count = min(3, (1 << 64 - shift) - 1)
    user.map(0, count * size, vaddr=0)
    user.start()
    user.memory.place(bytearray(8), count * size - 8)
    user.dma.dma_write(count * size - 1, b"z")
    assert user.dirty(0, count * size, pgsize=size) == {count - 1}


# -- DIRTY-UNMAP -----------------------------------------------------------------------


def test_unmapping_gives_the_bitmap_of_what_goes(user: User) -> None:  # DIRTY-UNMAP-02
    user.map(22 * PAGE, 2 * PAGE)
    user.map(100 * PAGE, PAGE)
    for page in (16, 21, 22, 100):
        user.dma.dma_write(page * PAGE + 5, b"a")
    bits = user.bits(8, offset=PAGE - 4)
    assert user.unmap_with_bitmap(16 * PAGE, 64 * PAGE, bits) == 8 * PAGE
    assert bits.pages == {0, 5, 6}
    refused(errno.EFAULT, lambda: user.dma.dma_write(16 * PAGE, b"a"))
    assert user.dirty(0, 128 * PAGE) == {100}


@pytest.mark.parametrize(
    ("iova", "size", "room", "pgsize"),
    [
        (16, 6, 8, 2 * PAGE),  # DIRTY-UNMAP-01
        (16, 6, 8, 0),
        (16, 6, 0, PAGE),
        (16, 6, 7, PAGE),
        (16, 65, 8, PAGE),
        (16, 6, (256 << 20) + 8, PAGE),
        (16, 5, 8, PAGE),
        (17, 5, 8, PAGE),
    ],
)
def test_unmapping_with_a_bitmap_that_will_not_do(
    user: User, iova: int, size: int, room: int, pgsize: int
) -> None:
    user.dma.dma_write(16 * PAGE, b"a")
    bits = user.bits(8)
    bits.size = room
    unmap = partial(user.unmap_with_bitmap, iova * PAGE, size * PAGE, bits, pgsize)
    refused(errno.EINVAL, unmap)
    bits.size = 8
    assert bits.data == bytes(8)
    assert user.dirty(16 * PAGE, 6 * PAGE) == {0}


def test_a_bitmap_that_is_not_there_unmaps_nothing(user: User) -> None:
    user.map(100 * PAGE, PAGE)
    user.dma.dma_write(16 * PAGE, b"a")
    bits = at(user.bits(16), NOWHERE)
    unmap = partial(user.unmap_with_bitmap, 16 * PAGE, 85 * PAGE, bits)
    refused(errno.EFAULT, unmap)
    assert user.dirty(0, 128 * PAGE) == {16}


def test_unmapping_without_a_bitmap_frees_the_log(user: User) -> None:
    user.dma.dma_write(16 * PAGE, b"a")
    user.unmap(16 * PAGE, 6 * PAGE)
    assert user.dma.log_bytes == 0
    user.map(16 * PAGE, 6 * PAGE)
    assert user.dirty(16 * PAGE, 6 * PAGE) == set()


# -- DIRTY-GET-09: a group behind a hardware IOMMU -------------------------------------


def test_a_group_that_nobody_sees_makes_every_page_dirty(user: User) -> None:
    silent = object()
    user.dma.attach(silent, is_logged=False)
    for _ in range(2):
        assert user.dirty(0, 64 * PAGE) == set(range(16, 22))
    UnloggedDma(user.dma).dma_write(18 * PAGE, b"a")
    assert UnloggedDma(user.dma).dma_read(18 * PAGE, 1) == b"a"
    user.dma.detach(silent)
    assert user.dirty(0, 64 * PAGE) == set(range(16, 22))  # once more, BUG-IOMMU-02
    assert user.dirty(0, 64 * PAGE) == set()


def test_two_groups_that_nobody_sees() -> None:
    user = User(iommu=None)
    for silent in ("first", "second"):
        user.dma.attach(silent, is_logged=False)
    user.join()
    user.ioctl(0x3B66, 3)
    user.map(0, PAGE)
    user.start()
    user.dma.detach("first")
    for _ in range(2):
        assert user.dirty(0, PAGE) == {0}
    bits = user.bits(8)
    assert user.unmap_with_bitmap(0, PAGE, bits) == PAGE
    assert bits.pages == {0}


def test_a_guest_of_many_pieces() -> None:
    user = User()
    places = list(itertools.accumulate([5, 64, 3, 130, 1, 200], initial=2))
    for start, end in itertools.pairwise(places):
        user.map(start * PAGE, (end - start) * PAGE)
    user.start()
    written = {place for place in range(places[0], places[-1]) if place % 11 in (0, 3)}
    for page in written:
        user.dma.dma_write(page * PAGE + page, bytes(1 + page % 7))
    assert user.dirty(0, 512 * PAGE) == written
