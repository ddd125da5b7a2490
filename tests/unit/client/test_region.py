"""Finding the migration region, as vfio_get_dev_region_info of QEMU 7.2 does.

Numbers are linux/vfio.h's, structures are packed by hand.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.client.region import FoundRegion, find_migration_region
from vfiomig.protocol.errors import VendorDriverError
from vfiomig.protocol.region import SparseMmapArea

if TYPE_CHECKING:
    import mmap

GET_INFO = 0x3B6B
GET_REGION_INFO = 0x3B6C

INFO = struct.Struct("=IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
READ, WRITE, MMAP, CAPS = 1, 2, 4, 8
SPARSE_MMAP, TYPE, MSIX_MAPPABLE, UNKNOWN = 1, 2, 3, 0x77

SIZE, PLACE = 0x5000, 9 << 40


def capability(identity: int, body: bytes, following: int) -> bytes:
    return struct.pack("=HHI", identity, 1, following) + body


def type_body(kind: int = 3, subtype: int = 1) -> bytes:
    return struct.pack("=II", kind, subtype)


def sparse_body(*areas: tuple[int, int], count: int | None = None) -> bytes:
    head = struct.pack("=II", len(areas) if count is None else count, 0)
    return head + b"".join(struct.pack("=QQ", *area) for area in areas)


def info(
    *capabilities: tuple[int, bytes],
    flags: int = READ | WRITE | CAPS,
    size: int = SIZE,
    offset: int = PLACE,
    index: int = 9,
) -> bytes:
    """Return an info with its chain, one capability behind the other."""
    chain = b""
    for number, (identity, body) in enumerate(capabilities, 1):
        end = INFO.size + len(chain) + 8 + len(body)
        following = end if number < len(capabilities) else 0
        chain += capability(identity, body, following)
    argsz = INFO.size + len(chain)
    return INFO.pack(argsz, flags, index, INFO.size, size, offset) + chain


MIGRATION = info((TYPE, type_body()))
ABSENT = info(flags=0, size=0)


class Device:
    """A device fd that answers the two ioctls; what was asked for is in ``asked``."""

    def __init__(self, *regions: bytes | int, count: int | None = None) -> None:
        self.regions = regions
        self.count = len(regions) if count is None else count
        self.asked: list[tuple[int, int]] = []

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        assert argument is not None
        argsz, _, index, *_ = INFO.unpack_from(argument.ljust(INFO.size, b"\0"))
        assert argsz == len(argument)
        if request == GET_INFO:
            assert argsz == 20
            argument[:20] = struct.pack("=IIIII", 20, 3, self.count, 5, 0)
            return 0
        assert request == GET_REGION_INFO
        self.asked.append((index, argsz))
        region = self.answer(index, argsz)
        if isinstance(region, int):
            raise OSError(region, "no such region")
        shown = region if len(region) <= argsz else self.cut(region)
        argument[: len(shown)] = shown
        return 0

    def answer(self, index: int, argsz: int) -> bytes | int:
        return self.regions[index] if index < len(self.regions) else errno.EINVAL

    @staticmethod
    def cut(region: bytes) -> bytes:
        """Say how much room it takes, and show no chain: cap_offset is 0."""
        return region[:12] + bytes(4) + region[16 : INFO.size]

    def pread(self, size: int, offset: int) -> NoReturn:
        raise AssertionError("nothing is accessed to find the region")

    def pwrite(self, data: bytes | memoryview, offset: int) -> NoReturn:
        raise AssertionError("nothing is accessed to find the region")

    def mmap(self, length: int, offset: int) -> mmap.mmap:
        raise AssertionError("nothing is mapped to find the region")

    def close(self) -> None: ...


def test_the_region_with_type_3_subtype_1_is_it() -> None:
    device = Device(ABSENT, info(flags=READ), MIGRATION)
    found = find_migration_region(device)
    assert found == FoundRegion(index=2, offset=PLACE, size=SIZE, listed=())


def test_every_index_before_it_is_asked_for_and_none_behind() -> None:
    device = Device(ABSENT, errno.EINVAL, MIGRATION, MIGRATION)
    find_migration_region(device)
    assert device.asked == [(0, 32), (1, 32), (2, 32), (2, 48)]


def test_an_index_that_fails_is_skipped() -> None:
    device = Device(errno.EINVAL, errno.ENODEV, errno.EIO, MIGRATION)
    assert find_migration_region(device).index == 3


def test_any_index_qualifies() -> None:
    assert find_migration_region(Device(MIGRATION)).index == 0


def test_the_first_match_wins() -> None:
    first = info((TYPE, type_body()), size=0x1000, offset=1 << 40)
    found = find_migration_region(Device(ABSENT, first, MIGRATION))
    assert (found.index, found.size, found.offset) == (1, 0x1000, 1 << 40)


@pytest.mark.parametrize(("kind", "subtype"), [(3, 0), (3, 2), (1, 1), (0, 0), (2, 1)])
def test_another_type_is_not_it(kind: int, subtype: int) -> None:
    other = info((TYPE, type_body(kind, subtype)))
    assert find_migration_region(Device(other, MIGRATION)).index == 1


def test_the_first_type_of_a_region_counts() -> None:
    two = info((TYPE, type_body(1, 1)), (TYPE, type_body()))
    assert find_migration_region(Device(two, MIGRATION)).index == 1


def test_a_chain_counts_only_with_its_flag() -> None:
    unflagged = info((TYPE, type_body()), flags=READ | WRITE)
    assert find_migration_region(Device(unflagged, MIGRATION)).index == 1


def test_a_flag_without_a_chain_is_a_region_like_any_other() -> None:
    empty = INFO.pack(32, READ | CAPS, 0, 0, SIZE, 0)
    assert find_migration_region(Device(empty, MIGRATION)).index == 1


@pytest.mark.parametrize("identity", [MSIX_MAPPABLE, UNKNOWN, SPARSE_MMAP])
def test_capabilities_before_the_type_are_passed_over(identity: int) -> None:
    body = sparse_body((0x1000, 0x1000)) if identity == SPARSE_MMAP else b""
    answer = info((identity, body), (UNKNOWN, bytes(24)), (TYPE, type_body()))
    assert find_migration_region(Device(answer)).index == 0


@pytest.mark.parametrize(
    "regions", [(), (ABSENT,) * 9, (errno.EINVAL,) * 9, (info((UNKNOWN, b"")),)]
)
def test_a_device_without_it_does_not_migrate(regions: tuple[bytes | int, ...]) -> None:
    with pytest.raises(VendorDriverError, match="does not offer v1 migration"):
        find_migration_region(Device(*regions))


def test_an_empty_region_does_not_migrate() -> None:
    with pytest.raises(VendorDriverError, match="has size 0"):
        find_migration_region(Device(info((TYPE, type_body()), size=0)))


def test_a_device_that_does_not_answer_is_no_vfio_device() -> None:
    class Silent(Device):
        def ioctl(self, request: int, argument: bytearray | None = None) -> int:
            raise OSError(errno.ENOTTY, "what?")

    with pytest.raises(OSError, match="what"):
        find_migration_region(Silent())


# -- argsz ---------------------------------------------------------------------------


def test_an_answer_that_needs_more_room_is_asked_for_again() -> None:
    answer = info((SPARSE_MMAP, sparse_body((0x1000, 0x1000))), (TYPE, type_body()))
    device = Device(answer)
    find_migration_region(device)
    assert device.asked == [(0, 32), (0, 32 + 8 + 8 + 16 + 16)]


def test_a_chain_that_grows_between_two_answers_is_asked_for_once_more() -> None:
    class Growing(Device):
        def answer(self, index: int, argsz: int) -> bytes | int:
            more = info((TYPE, type_body()), (UNKNOWN, bytes(32)))
            return MIGRATION if argsz < len(MIGRATION) else more

    device = Growing(MIGRATION)
    assert find_migration_region(device).index == 0
    assert device.asked == [(0, 32), (0, 48), (0, 88)]


@pytest.mark.parametrize("step", [1, 8, 1 << 19, (1 << 32) - 100])
def test_an_info_that_never_has_enough_room_is_refused(step: int) -> None:
    class Greedy(Device):
        def answer(self, index: int, argsz: int) -> bytes | int:
            return INFO.pack(min(argsz + step, (1 << 32) - 1), READ, 0, 0, SIZE, 0)

    device = Greedy(MIGRATION)
    with pytest.raises(VendorDriverError, match="has no end"):
        find_migration_region(device)
    assert len(device.asked) <= 8
    assert max(argsz for _, argsz in device.asked) <= 1 << 20


def test_a_device_with_billions_of_regions_is_not_asked_for_all() -> None:
    device = Device(count=(1 << 32) - 1)
    with pytest.raises(VendorDriverError):
        find_migration_region(device)
    assert len(device.asked) == 4096


# -- chains that cannot be followed --------------------------------------------------


def test_a_chain_that_goes_in_circles_is_refused() -> None:
    circle = INFO.pack(40, CAPS, 0, 32, SIZE, 0) + capability(UNKNOWN, b"", 32)
    with pytest.raises(VendorDriverError, match="does not end"):
        find_migration_region(Device(circle))


@pytest.mark.parametrize("start", [1, 8, 31, 33, 40, 0xFFFFFFFF])
def test_a_capability_outside_the_answer_is_refused(start: int) -> None:
    # 39 bytes: no header of 8 bytes fits behind the first 32.
    answer = INFO.pack(39, CAPS, 0, start, SIZE, 0) + bytes(7)
    with pytest.raises(VendorDriverError, match="a capability at"):
        find_migration_region(Device(answer))


def test_a_type_that_is_cut_short_is_refused() -> None:
    answer = INFO.pack(44, CAPS, 0, 32, SIZE, 0) + capability(TYPE, bytes(4), 0)
    with pytest.raises(VendorDriverError, match="a capability at 0x20"):
        find_migration_region(Device(answer))


@pytest.mark.parametrize("count", [3, 0xFFFFFFFF])
def test_areas_outside_the_answer_are_refused(count: int) -> None:
    body = sparse_body((0x1000, 0x1000), (0x3000, 0x1000), count=count)
    answer = info((TYPE, type_body()), (SPARSE_MMAP, body), flags=CAPS | MMAP)
    with pytest.raises(VendorDriverError, match="a capability at"):
        find_migration_region(Device(answer))


@given(
    chain=st.binary(max_size=120),
    start=st.integers(0, 160),
    flags=st.sampled_from([CAPS, CAPS | MMAP]),
)
def test_no_chain_makes_it_fail_otherwise(chain: bytes, start: int, flags: int) -> None:
    answer = INFO.pack(32 + len(chain), flags, 0, start, SIZE, 0) + chain
    try:
        found = find_migration_region(Device(answer))
    except VendorDriverError:
        return
    assert found.size == SIZE


# -- areas ---------------------------------------------------------------------------


def areas_of(answer: bytes) -> tuple[tuple[int, int], ...]:
    return find_migration_region(Device(answer)).areas


def test_without_the_mmap_flag_all_is_trapped() -> None:
    sparse = (SPARSE_MMAP, sparse_body((0x1000, 0x1000)))
    assert areas_of(info((TYPE, type_body()), sparse)) == ()


def test_the_mmap_flag_alone_means_the_whole_region() -> None:
    answer = info((TYPE, type_body()), flags=READ | WRITE | CAPS | MMAP)
    assert areas_of(answer) == (SparseMmapArea(0, SIZE),)


def test_areas_keep_their_order_and_empty_ones_are_left_out() -> None:
    listed = ((0x4000, 0x1000), (0x2000, 0), (0x1000, 0x1000))
    sparse = (SPARSE_MMAP, sparse_body(*listed))
    for chain in [(sparse, (TYPE, type_body())), ((TYPE, type_body()), sparse)]:
        answer = info(*chain, flags=CAPS | MMAP)
        assert areas_of(answer) == ((0x4000, 0x1000), (0x1000, 0x1000))


@pytest.mark.parametrize("listed", [(), ((0x1000, 0),), ((0, 0), (0x1000, 0))])
def test_only_empty_areas_mean_that_all_is_trapped(
    listed: tuple[tuple[int, int], ...],
) -> None:
    sparse = (SPARSE_MMAP, sparse_body(*listed))
    assert areas_of(info((TYPE, type_body()), sparse, flags=CAPS | MMAP)) == ()
