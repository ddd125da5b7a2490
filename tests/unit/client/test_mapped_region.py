"""A migration region in use: what is trapped, what is mapped, what is let go."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.client.scripted_driver import (
    OpenDevice,
    Refusal,
    ScriptedDriver,
    words,
)
from vfiomig.client.mapped_region import MappedRegion
from vfiomig.client.region import FoundRegion
from vfiomig.protocol.v1.registers import Register

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

QEMU_WIDTHS = (8, 4, 2, 1)
BASE = 9 << 40


@pytest.fixture
def device() -> Iterator[OpenDevice]:
    areas = ((0x1000, 0x1000), (0x3000, 0x1000))
    with OpenDevice(ScriptedDriver(size=0x6000, areas=areas)) as opened:
        yield opened


def region_of(
    device: OpenDevice, *, widths: tuple[int, ...] = QEMU_WIDTHS
) -> MappedRegion:
    driver = device.driver.migration_region
    found = FoundRegion(index=9, offset=BASE, size=driver.size, listed=driver.areas)
    return MappedRegion(
        device.handle, found, widths=widths, unseen=device.handle.unseen
    )


def contents(device: OpenDevice, offset: int, size: int) -> bytes:
    return device.driver.memory[offset : offset + size]


def give(region: MappedRegion, offset: int, data: bytes) -> None:
    for view in region.room(offset, len(data)):
        piece, data = data[: len(view)], data[len(view) :]
        view[:] = piece
    assert not data


# -- registers ------------------------------------------------------------------------


def test_registers_are_one_access_of_their_width_even_where_a_mapping_covers_them() -> (
    None
):
    whole = ScriptedDriver(size=0x2000, areas=((0, 0x2000),), pending=[7], state=3)
    with OpenDevice(whole) as device:
        region = region_of(device)
        assert region.map() is None
        assert region.read_register(Register.DEVICE_STATE) == 3
        assert region.read_register(Register.PENDING_BYTES) == 7
        region.write_register(Register.DATA_SIZE, 1 << 40)
        region.unmap()
        assert device.told() == f"map0+2000 R4=3 R8=7 W24={1 << 40:x}"


class Short:
    """A handle that moves one byte less than it is asked to."""

    def pread(self, size: int, offset: int) -> bytes:
        return bytes(size - 1)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return len(data) - 1

    def mmap(self, length: int, offset: int) -> mmap.mmap:
        raise OSError(errno.ENODEV, "no")

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        raise OSError(errno.ENOTTY, "no")

    def close(self) -> None: ...


def test_a_short_count_is_einval() -> None:
    found = FoundRegion(index=9, offset=BASE, size=0x2000, listed=())
    region = MappedRegion(Short(), found, widths=QEMU_WIDTHS)
    for access in (
        lambda: region.read_register(Register.DEVICE_STATE),
        lambda: region.write_register(Register.DATA_SIZE, 1),
        lambda: region.data(0x1000, 8),
        lambda: give(region, 0x1000, bytes(8)),
    ):
        with pytest.raises(OSError, match="bytes of") as raised:
            access()
        assert raised.value.errno == errno.EINVAL


# -- data -----------------------------------------------------------------------------


def test_a_buffer_of_mapped_and_trapped_parts_is_read_as_qemu_reads_it(
    device: OpenDevice,
) -> None:
    # Section 2.3: map, 512 preads @0x2000, map, 1024 preads @0x4000.
    region = region_of(device)
    region.map()
    assert device.told() == "map1000+1000 map3000+1000"
    views = region.data(0x1000, 0x5000)
    assert [len(view) for view in views] == [0x1000, 0x1000, 0x1000, 0x2000]
    assert b"".join(views) == contents(device, 0x1000, 0x5000)
    trapped = device.told().split()
    assert trapped[0] == "m1000+1000"
    assert trapped[1:513] == [f"r8@{place:x}" for place in range(0x2000, 0x3000, 8)]
    assert trapped[513] == "m3000+1000"
    assert trapped[514:] == [f"r8@{place:x}" for place in range(0x4000, 0x6000, 8)]
    region.unmap()


def test_a_buffer_is_written_to_the_same_parts(device: OpenDevice) -> None:
    region = region_of(device)
    region.map()
    device.told()
    data = bytes(range(251)) * 4
    give(region, 0x1FF0, data)
    region.unmap()
    assert contents(device, 0x1FF0, len(data)) == data
    trapped = [f"w8@{place:x}" for place in range(0x2000, 0x23D8, 8)]
    assert device.told().split() == ["M1ff0+10", *trapped, "w4@23d8"]


def test_without_a_mapping_everything_is_trapped(device: OpenDevice) -> None:
    region = region_of(device)
    (view,) = region.data(0x1FFD, 6)
    assert bytes(view) == contents(device, 0x1FFD, 6)
    give(region, 0x3001, b"abcdefg")
    assert contents(device, 0x3001, 7) == b"abcdefg"
    assert device.told() == words("""
        r1@1ffd r2@1ffe r2@2000 r1@2002
        w1@3001 w2@3002 w4@3004
    """)


def test_23_bytes_are_five_accesses(device: OpenDevice) -> None:
    region_of(device).data(0x4000, 23)
    assert device.told() == "r8@4000 r8@4008 r4@4010 r2@4014 r1@4016"


def test_without_widths_a_trapped_part_is_one_access(device: OpenDevice) -> None:
    region = region_of(device, widths=())
    region.map()
    device.told()
    views = region.data(0x1003, 0x1800)
    assert b"".join(views) == contents(device, 0x1003, 0x1800)
    give(region, 0x2001, b"x" * 77)
    region.unmap()
    assert device.told() == "m1003+ffd r2051@2000 w77@2001"


@settings(max_examples=40)
@given(
    offset=st.integers(0x20, 0x5FFF),
    size=st.integers(0, 0x60),
    near=st.sampled_from([0, 0x1000, 0x2000, 0x3000, 0x4000]),
    is_mapped=st.booleans(),
    widths=st.sampled_from([QEMU_WIDTHS, ()]),
)
def test_what_is_written_at_a_place_is_read_there(
    offset: int, size: int, near: int, is_mapped: bool, widths: tuple[int, ...]
) -> None:
    if near:
        offset = near - offset % 0x40
    size = min(size, 0x6000 - offset)
    areas = ((0x1000, 0x1000), (0x3000, 0x1000))
    with OpenDevice(ScriptedDriver(size=0x6000, areas=areas)) as device:
        region = region_of(device, widths=widths)
        if is_mapped:
            region.map()
        before = contents(device, 0, 0x6000)
        data = bytes(255 - place % 256 for place in range(size))
        give(region, offset, data)
        expected = before[:offset] + data + before[offset + size :]
        assert contents(device, 0, 0x6000) == expected
        assert b"".join(region.data(offset, size)) == data
        region.unmap()


def test_nothing_is_copied_of_what_is_mapped(device: OpenDevice) -> None:
    region = region_of(device)
    region.map()
    (view,) = region.data(0x1000, 0x1000)
    device.driver.memory[0x1234] ^= 0xFF
    assert view[0x234] == device.driver.memory[0x1234]
    region.unmap()


# -- buffers that leave the region ----------------------------------------------------


def test_what_lies_inside_is_read_before_a_buffer_that_leaves_is_refused(
    device: OpenDevice,
) -> None:
    # Section 2.3, last line: "Error allocating buffer", -ENOMEM.
    region = region_of(device)
    with pytest.raises(OSError, match="leave the migration region") as raised:
        region.data(0x5FF0, 0x20)
    assert raised.value.errno == errno.ENOMEM
    assert device.told() == "r8@5ff0 r8@5ff8"


@pytest.mark.parametrize("offset", [0x6000, 0x6001, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("size", [1, 1 << 40, (1 << 64) - 1])
def test_nothing_is_read_behind_the_region(
    device: OpenDevice, offset: int, size: int
) -> None:
    with pytest.raises(OSError, match="leave") as raised:
        region_of(device).data(offset, size)
    assert raised.value.errno == errno.ENOMEM
    assert device.told() == ""


@pytest.mark.parametrize("offset", [0, 0x1000, 0x6000, (1 << 64) - 1])
def test_an_empty_buffer_is_nowhere_wrong(device: OpenDevice, offset: int) -> None:
    assert region_of(device).data(offset, 0) == []
    assert device.told() == ""


# -- mapping --------------------------------------------------------------------------


def test_areas_are_mapped_in_the_order_in_which_they_are_listed() -> None:
    areas = ((0x3000, 0x1000), (0x1000, 0x2000))
    with OpenDevice(ScriptedDriver(size=0x4000, areas=areas)) as device:
        region = region_of(device)
        region.map()
        region.unmap()
        assert device.told() == "map3000+1000 map1000+2000"


def test_where_one_area_cannot_be_mapped_none_is(device: OpenDevice) -> None:
    device.driver.refusals.append(Refusal("mmap", 0x3000, code=errno.ENOMEM))
    region = region_of(device)
    failure = region.map()
    assert failure is not None
    assert failure.errno == errno.ENOMEM
    region.data(0x1FF8, 16)
    assert device.told() == "map1000+1000 map3000+1000-ENOMEM r8@1ff8 r8@2000"


def test_what_was_not_mapped_can_be_mapped_the_next_time(device: OpenDevice) -> None:
    device.driver.refusals.append(Refusal("mmap", 0x3000))
    region = region_of(device)
    assert region.map() is not None
    assert region.map() is None
    device.told()
    region.data(0x3000, 8)
    region.unmap()
    assert device.told() == "m3000+8"


def mapping_of(view: memoryview) -> mmap.mmap:
    mapping: mmap.mmap = view.obj  # type: ignore[assignment]  # what it is a view of
    return mapping


def test_unmapping_closes_the_mappings_though_views_were_handed_out(
    device: OpenDevice,
) -> None:
    region = region_of(device)
    region.map()
    (read,) = region.data(0x1000, 16)
    mapping = mapping_of(read)
    region.unmap()
    assert mapping.closed
    with pytest.raises(ValueError, match="released"):
        read.tobytes()


def test_unmapping_closes_the_mappings_though_a_buffer_was_half_received(
    device: OpenDevice,
) -> None:
    region = region_of(device)
    region.map()
    places = region.room(0x1FF0, 0x20)
    mapping = mapping_of(next(places))
    region.unmap()
    assert mapping.closed
    del places


def test_a_view_of_a_view_keeps_its_pages(device: OpenDevice) -> None:
    region = region_of(device)
    region.map()
    (view,) = region.data(0x1000, 16)
    kept = memoryview(view)
    region.unmap()
    assert bytes(kept) == contents(device, 0x1000, 16)
    kept.release()


def test_the_views_of_a_buffer_are_good_until_the_next_one(device: OpenDevice) -> None:
    region = region_of(device)
    region.map()
    (first,) = region.data(0x1000, 16)
    region.data(0x1000, 16)
    with pytest.raises(ValueError, match="released"):
        first.tobytes()
    region.unmap()


def test_unmapping_twice_is_no_harm(device: OpenDevice) -> None:
    region = region_of(device)
    region.map()
    region.unmap()
    region.unmap()
    assert device.told() == "map1000+1000 map3000+1000"
