"""The container's ioctls but for the dirty bitmap: literal errnos, guarded bytes."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.host.type1_user import (
    ALL,
    BITMAP,
    CHECK_EXTENSION,
    DIRTY,
    DIRTY_PAGES,
    GET_API_VERSION,
    GET_INFO,
    MAP,
    MAP_DMA,
    NESTING,
    NOWHERE,
    PAGE,
    READ,
    SET_IOMMU,
    START,
    TYPE1,
    TYPE1V2,
    UNMAP,
    UNMAP_DMA,
    UNSET_CONTAINER,
    VADDR,
    WITH_BITMAP,
    WRITE,
    User,
)
from vfiomig.host.iommu import IommuLimits, IovaRange
from vfiomig.host.user_process import LocalProcess

if TYPE_CHECKING:
    from collections.abc import Callable

TOP = (1 << 64) - PAGE
U64 = (1 << 64) - 1
INFO = struct.Struct("<IIQII")  # argsz, flags, iova_pgsizes, cap_offset, pad
HEADER = struct.Struct("<HHI")  # id, version, next


@pytest.fixture
def user() -> User:
    return User()


def refused(code: int, action: Callable[[], object]) -> None:
    with pytest.raises(OSError) as failure:  # noqa: PT011 - the errno is what counts
        action()
    assert errno.errorcode[failure.value.errno or 0] == errno.errorcode[code]


# -- before there is an IOMMU ----------------------------------------------------------


def test_the_version_and_the_extensions_are_known_from_the_start() -> None:
    user = User(iommu=None)
    assert user.ioctl(GET_API_VERSION) == 0
    known = {number for number in range(100) if user.ioctl(CHECK_EXTENSION, number)}
    assert known == {1, 3, 6, 9}


def test_an_iommu_needs_a_group() -> None:
    user = User(iommu=None)
    refused(errno.EINVAL, lambda: user.ioctl(SET_IOMMU, TYPE1V2))
    user.join()
    assert user.ioctl(SET_IOMMU, TYPE1V2) == 0


@pytest.mark.parametrize("kind", [TYPE1, TYPE1V2, NESTING])
def test_there_is_one_iommu_at_a_time(kind: int) -> None:
    user = User(iommu=kind)
    refused(errno.EINVAL, lambda: user.ioctl(SET_IOMMU, kind))


@pytest.mark.parametrize(
    ("number", "code"),
    [(0, errno.ENODEV), (2, errno.ENODEV), (8, errno.ENODEV), (9, errno.EINVAL)],
)
def test_what_is_no_iommu_cannot_be_set(number: int, code: int) -> None:
    user = User(iommu=None)
    user.join()
    refused(code, lambda: user.ioctl(SET_IOMMU, number))
    assert user.ioctl(SET_IOMMU, TYPE1V2) == 0


@pytest.mark.parametrize("request_", [GET_INFO, MAP_DMA, UNMAP_DMA, DIRTY_PAGES, 1])
def test_nothing_can_be_asked_of_an_iommu_before_there_is_one(request_: int) -> None:
    user = User(iommu=None)
    user.join()
    refused(errno.EINVAL, lambda: user.ioctl(request_, NOWHERE))


@pytest.mark.parametrize("request_", [0, 1, 0x3B63, 0x3B67, 0x3B73, 0x3B76])
def test_an_unknown_ioctl_is_none(user: User, request_: int) -> None:
    refused(errno.ENOTTY, lambda: user.ioctl(request_))


@pytest.mark.parametrize("request_", [GET_INFO, MAP_DMA, UNMAP_DMA, DIRTY_PAGES])
def test_a_pointer_to_nothing_is_a_fault(user: User, request_: int) -> None:
    refused(errno.EFAULT, lambda: user.ioctl(request_, NOWHERE))


def test_a_container_has_no_bytes(user: User) -> None:
    refused(errno.EINVAL, lambda: user.dma.pread(8, 0))
    refused(errno.EINVAL, lambda: user.dma.pwrite(b"8", 0))


def test_a_closed_container_answers_nothing(user: User) -> None:
    user.process.close(user.container)
    refused(errno.EBADF, lambda: user.ioctl(GET_API_VERSION))
    refused(errno.EBADF, lambda: user.dma.user_ioctl(GET_INFO, 0, user.process))
    refused(errno.EBADF, lambda: user.dma.pread(8, 0))
    refused(errno.EBADF, lambda: user.dma.pwrite(b"8", 0))
    refused(errno.EBADF, user.dma.close)


# -- VFIO_IOMMU_GET_INFO ---------------------------------------------------------------


def chain_of(info: bytes) -> dict[int, bytes]:
    """Follow the chain as QEMU does; what each capability has behind its header."""
    found, place = {}, INFO.unpack(info[:24])[3]
    while place:
        assert place % 8 == 0
        number, version, following = HEADER.unpack_from(info, place)
        assert version == 1
        assert following == 0 or place < following < len(info)
        found[number] = info[place + 8 : following or len(info)]
        place = following
    return found


def grown_info(user: User) -> bytes:
    """Ask as QEMU does: with the bare structure, then with the argsz it answered."""
    argsz = 24
    while True:
        asked = argsz.to_bytes(4, "little").ljust(argsz, b"\0")
        info = user.call(GET_INFO, asked)
        if INFO.unpack(info[:24])[0] <= argsz:
            return info
        argsz = INFO.unpack(info[:24])[0]


def test_the_capabilities_of_the_iommu(user: User) -> None:
    info = grown_info(user)
    _, flags, page_sizes, _, _ = INFO.unpack(info[:24])
    assert flags == 3
    assert page_sizes == 0xFFFF_FFFF_FFFF_F000
    chain = chain_of(info)
    assert set(chain) == {1, 2, 3}
    assert struct.unpack("<IIQQ", chain[2]) == (0, 0, 0x1000, 268435456)
    assert struct.unpack("<II", chain[3]) == (65535, 0)
    assert struct.unpack("<IIQQQQ", chain[1]) == (
        *(2, 0, 0, 0xFEDF_FFFF),
        *(0xFEF0_0000, 0xFFFF_FFFF_FFFF),
    )


@pytest.mark.parametrize("argsz", [24, 25, 119])
def test_too_little_room_is_answered_with_how_much_it_takes(
    user: User, argsz: int
) -> None:
    asked = INFO.pack(argsz, 77, 77, 77, 77).ljust(argsz, b"\x77")
    info = user.call(GET_INFO, asked)
    assert INFO.unpack(info[:24]) == (120, 3, 0xFFFF_FFFF_FFFF_F000, 0, 77)
    assert info[24:] == asked[24:]


@pytest.mark.parametrize("argsz", [16, 19])
def test_a_user_of_the_first_version_gets_no_cap_offset(user: User, argsz: int) -> None:
    info = user.call(GET_INFO, INFO.pack(argsz, 0, 0, 77, 77))
    assert INFO.unpack(info) == (120, 3, 0xFFFF_FFFF_FFFF_F000, 77, 77)


def test_more_room_than_needed_is_left_alone(user: User) -> None:
    asked = INFO.pack(200, 0, 0, 0, 0).ljust(200, b"\x77")
    info = user.call(GET_INFO, asked)
    assert INFO.unpack(info[:24])[0] == 200
    assert info[120:] == asked[120:]


@pytest.mark.parametrize("argsz", [0, 8, 15])
def test_an_argsz_below_the_first_version_is_invalid(user: User, argsz: int) -> None:
    refused(errno.EINVAL, lambda: user.call(GET_INFO, INFO.pack(argsz, 0, 0, 0, 0)))


def test_the_mappings_left_are_counted(user: User) -> None:
    user.map(0, PAGE, vaddr=0)
    user.map(PAGE, PAGE, vaddr=0)
    assert chain_of(grown_info(user))[3][:4] == (65533).to_bytes(4, "little")
    user.unmap(0, PAGE)
    assert chain_of(grown_info(user))[3][:4] == (65534).to_bytes(4, "little")


def test_a_chain_that_has_no_room_in_memory_is_a_fault(user: User) -> None:
    address = user.memory.place(bytearray(INFO.pack(120, 0, 0, 0, 0)))
    refused(errno.EFAULT, lambda: user.ioctl(GET_INFO, address))


# -- VFIO_IOMMU_MAP_DMA ----------------------------------------------------------------


def test_a_device_reaches_mapped_memory(user: User) -> None:
    low, high = user.map(0x10000, PAGE), user.map(0x11000, PAGE)
    user.dma.dma_write(0x10FFE, b"abcd")
    assert low[-2:] + high[:2] == b"abcd"
    assert user.dma.dma_read(0x10FFD, 6) == b"\0abcd\0"
    assert user.dma.dma_read(0x10000, 0) == b""
    user.dma.dma_write(NOWHERE, b"")


@pytest.mark.parametrize(
    ("iova", "size"),
    [
        (0xFFFF, 1),
        (0xFFFF, 2),
        (0x12000, 1),
        (0x11FFF, 2),
        (0x13000, 0x1000),
        (0x14FFF, 2),
        (U64, 1),
        (U64, 2),
    ],
)
def test_dma_in_a_gap_is_a_fault(user: User, iova: int, size: int) -> None:
    for start in (0x10000, 0x11000, 0x14000):
        user.map(start, PAGE)
    refused(errno.EFAULT, lambda: user.dma.dma_read(iova, size))
    refused(errno.EFAULT, lambda: user.dma.dma_write(iova, bytes(size)))


def test_what_was_written_before_a_gap_stays_and_is_dirty(user: User) -> None:
    memory = user.map(0x10000, 2 * PAGE)
    user.start()
    refused(errno.EFAULT, lambda: user.dma.dma_write(0x11FFF, b"ab"))
    assert memory[-1:] == b"a"
    assert user.dirty(0x10000, 2 * PAGE) == {1}


def test_memory_that_is_not_there_is_a_fault_when_it_is_used(user: User) -> None:
    user.map(0, PAGE, vaddr=NOWHERE)
    user.start()
    refused(errno.EFAULT, lambda: user.dma.dma_read(0, 1))
    refused(errno.EFAULT, lambda: user.dma.dma_write(0, b"a"))


def test_a_mapping_is_read_or_written_as_its_flags_say(user: User) -> None:
    user.map(0, PAGE, flags=READ)
    user.map(PAGE, PAGE, flags=WRITE)
    assert user.dma.dma_read(0, 8) == bytes(8)
    refused(errno.EFAULT, lambda: user.dma.dma_write(0, b"a"))
    refused(errno.EFAULT, lambda: user.dma.dma_read(PAGE, 1))
    user.dma.dma_write(PAGE, b"a")


def test_memory_is_that_of_the_process_that_mapped_it(user: User) -> None:
    child = LocalProcess(user.dev.open)  # has the container's fd from its parent
    theirs, argument = bytearray(PAGE), MAP.pack(32, READ | WRITE, 0x7000_0000, 0, PAGE)
    child.memory.place(theirs, 0x7000_0000)
    user.dma.user_ioctl(MAP_DMA, child.memory.place(bytearray(argument)), child)
    user.map(PAGE, PAGE)
    user.dma.dma_write(0, b"theirs")
    assert theirs[:6] == b"theirs"
    assert user.dma.dma_read(PAGE, 6) == bytes(6)


@pytest.mark.parametrize(
    ("vaddr", "iova", "size"),
    [
        (0, 0, 0),
        (0, 0, 1),
        (0, 0, PAGE + 8),
        (0, 8, PAGE),
        (8, 0, PAGE),
        (0, 0, PAGE - 1),
        (0, TOP, 2 * PAGE),
        (TOP, 0, 2 * PAGE),
        (0, 0xFEDF_F000, 2 * PAGE),  # reaches into the hole
        (0, 0xFEE0_0000, PAGE),
        (0, 0xFEEF_F000, 2 * PAGE),
        (0, (1 << 48) - PAGE, 2 * PAGE),
        (0, TOP, PAGE),
    ],
)
def test_what_cannot_be_mapped(user: User, vaddr: int, iova: int, size: int) -> None:
    argument = MAP.pack(32, READ | WRITE, vaddr, iova, size)
    refused(errno.EINVAL, lambda: user.call(MAP_DMA, argument))


@pytest.mark.parametrize(
    ("iova", "size"),
    [(0, 0xFEE0_0000), (0xFEF0_0000, PAGE), ((1 << 48) - PAGE, PAGE)],
)
def test_a_range_can_be_mapped_to_its_ends(user: User, iova: int, size: int) -> None:
    user.map(iova, size, vaddr=0)
    assert user.unmap(iova, size) == size


def test_the_last_page_of_all_can_be_mapped_and_unmapped() -> None:
    user = User(IommuLimits(iova_ranges=(IovaRange(0, U64),)))
    user.map(TOP, PAGE)
    user.dma.dma_write(U64, b"z")
    assert user.dma.dma_read(U64, 1) == b"z"
    refused(errno.EFAULT, lambda: user.dma.dma_write(U64, b"zz"))
    assert user.unmap(TOP, PAGE) == PAGE


@pytest.mark.parametrize(
    ("iova", "size"),
    [(2, 3), (2, 1), (4, 1), (1, 2), (4, 2), (1, 9), (3, 1), (7, 1)],
)
def test_mappings_do_not_overlap(user: User, iova: int, size: int) -> None:
    user.map(2 * PAGE, 3 * PAGE)
    user.map(7 * PAGE, PAGE)
    argument = MAP.pack(32, READ, 0, iova * PAGE, size * PAGE)
    refused(errno.EEXIST, lambda: user.call(MAP_DMA, argument))


def test_mappings_may_touch(user: User) -> None:
    for page in (5, 3, 4, 2):
        user.map(page * PAGE, PAGE)
    assert user.unmap(0, 16 * PAGE) == 4 * PAGE


def test_there_can_be_so_many_mappings() -> None:
    user = User(IommuLimits(max_mappings=2))
    user.map(0, PAGE)
    user.map(PAGE, PAGE)
    argument = MAP.pack(32, READ, 0, 2 * PAGE, PAGE)
    refused(errno.ENOSPC, lambda: user.call(MAP_DMA, argument))
    user.unmap(0, PAGE)
    user.call(MAP_DMA, argument)


@pytest.mark.parametrize(
    ("argsz", "flags", "code"),
    [
        (31, READ, errno.EINVAL),
        (0, READ, errno.EINVAL),
        (32, 0, errno.EINVAL),
        (32, 8, errno.EINVAL),
        (32, READ | 1 << 31, errno.EINVAL),
        (32, READ | VADDR, errno.EINVAL),
        (32, VADDR, errno.EBUSY),
    ],
)
def test_argsz_and_flags_of_a_mapping(
    user: User, argsz: int, flags: int, code: int
) -> None:
    argument = MAP.pack(argsz, flags, 0, 0, PAGE)
    refused(code, lambda: user.call(MAP_DMA, argument))
    assert user.unmap(0, PAGE) == 0


# -- VFIO_IOMMU_UNMAP_DMA --------------------------------------------------------------


def test_unmapping_says_how_much_it_was(user: User) -> None:
    user.map(PAGE, PAGE)
    user.map(4 * PAGE, 2 * PAGE)
    assert user.unmap(0, PAGE) == 0
    assert user.unmap(0, 16 * PAGE) == 3 * PAGE
    assert user.unmap(0, 16 * PAGE) == 0
    refused(errno.EFAULT, lambda: user.dma.dma_read(PAGE, 1))


@pytest.mark.parametrize(
    ("iova", "size"), [(3, 1), (2, 2), (1, 2), (3, 9), (0, 3), (4, 5), (0, 7), (6, 1)]
)
def test_unmapping_cuts_no_mapping(user: User, iova: int, size: int) -> None:
    user.map(2 * PAGE, 3 * PAGE)
    user.map(6 * PAGE, 2 * PAGE)
    refused(errno.EINVAL, lambda: user.unmap(iova * PAGE, size * PAGE))
    assert user.dma.dma_read(2 * PAGE, 3 * PAGE) == bytes(3 * PAGE)
    assert user.dma.dma_read(6 * PAGE, 2 * PAGE) == bytes(2 * PAGE)


def test_the_first_type_unmaps_what_begins_in_the_range() -> None:
    user = User(iommu=TYPE1)
    user.map(2 * PAGE, 3 * PAGE)
    user.map(6 * PAGE, 2 * PAGE)
    assert user.unmap(3 * PAGE, 9 * PAGE) == 0
    assert user.unmap(2 * PAGE, PAGE) == 3 * PAGE
    assert user.unmap(0, 7 * PAGE) == 2 * PAGE


@pytest.mark.parametrize(
    ("iova", "size"),
    [
        (0, 0),
        (0, 1),
        (8, PAGE),
        (0, PAGE + 8),
        (2 * PAGE, TOP),
        (TOP, 2 * PAGE),
        (0, U64),
    ],
)
def test_what_cannot_be_unmapped(user: User, iova: int, size: int) -> None:
    refused(errno.EINVAL, lambda: user.unmap(iova, size))


def test_a_range_up_to_the_very_end_can_be_unmapped(user: User) -> None:
    user.map(PAGE, PAGE)
    assert user.unmap(PAGE, TOP - PAGE + PAGE) == PAGE


def test_all_can_be_unmapped_at_once(user: User) -> None:
    for page in (1, 3, 4):
        user.map(page * PAGE, PAGE)
    for iova, size in ((0, PAGE), (PAGE, 0)):
        refused(errno.EINVAL, lambda i=iova, s=size: user.unmap(i, s, ALL))  # type: ignore[misc]
    assert user.unmap(0, 0, ALL) == 3 * PAGE
    assert user.unmap(0, 0, ALL) == 0


@pytest.mark.parametrize(
    ("argsz", "flags", "code"),
    [
        (0, 0, errno.EINVAL),
        (23, 0, errno.EINVAL),
        (24, 8, errno.EINVAL),
        (24, VADDR, errno.EBUSY),
        (24, WITH_BITMAP, errno.EINVAL),
        (47, WITH_BITMAP, errno.EINVAL),
        (48, WITH_BITMAP | ALL, errno.EINVAL),
        (48, WITH_BITMAP | VADDR, errno.EINVAL),
        (48, WITH_BITMAP, errno.EINVAL),  # there is no tracking
    ],
)
def test_argsz_and_flags_of_unmapping(
    user: User, argsz: int, flags: int, code: int
) -> None:
    user.map(0, PAGE)
    bits = user.bits(8)
    argument = UNMAP.pack(argsz, flags, 0, PAGE)
    argument += BITMAP.pack(PAGE, bits.size, bits.address)
    refused(code, lambda: user.call(UNMAP_DMA, argument))
    assert user.dma.dma_read(0, 1) == b"\0"
    assert bits.data == bytes(8)


# -- whose container it is -------------------------------------------------------------


def test_the_last_group_takes_the_iommu_with_it(user: User) -> None:
    user.map(0, PAGE)
    user.start()
    assert user.dma.log_bytes == 8
    user.ioctl(UNSET_CONTAINER, fd=user.group)
    assert user.dma.log_bytes == 0
    refused(errno.EFAULT, lambda: user.dma.dma_read(0, 1))
    refused(errno.EINVAL, lambda: user.call(DIRTY_PAGES, DIRTY.pack(8, START)))
    user.join()
    assert user.ioctl(SET_IOMMU, TYPE1V2) == 0
    assert user.unmap(0, PAGE) == 0


def test_a_closed_container_still_serves_the_devices_of_its_groups(user: User) -> None:
    memory = user.map(0, PAGE)
    user.process.close(user.container)
    user.dma.dma_write(0, b"still")
    assert memory[:5] == b"still"
    user.process.close(user.group)
    refused(errno.EFAULT, lambda: user.dma.dma_write(0, b"a"))
