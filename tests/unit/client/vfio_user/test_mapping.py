"""Files that a server passes: mapped at their own offset, and never past their end."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.client.vfio_user.scripted_server import (
    GET_REGION_INFO,
    HEADER,
    MMAP,
    READ,
    REGION_READ,
    REPLY,
    WRITE,
    Peer,
    Regions,
    areas,
    is_migration,
    memfd,
    open_fds,
    region_info,
    serving,
)
from vfiomig.client.mapped_region import MappedRegion
from vfiomig.client.region import find_migration_region
from vfiomig.client.vfio_user import VfioUserDevice, connect
from vfiomig.protocol.region import SparseMmapArea

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
REGION_INFO_IOCTL = 0x3B6C
NINE = 9 << 40
MAPPABLE = READ | WRITE | MMAP

# A file of 8 pages, each full of its number; the region begins at the fourth.
CONTENT = b"".join(bytes([number]) * PAGE for number in range(8))
START = 3 * PAGE
TWO_AREAS = areas((PAGE, PAGE), (3 * PAGE, 2 * PAGE))


def migration_region(*chain: tuple[int, bytes], index: int = 9) -> bytes:
    return region_info(
        index, 5 * PAGE, is_migration(), *chain, flags=MAPPABLE, offset=START
    )


def refused(code: int, device: VfioUserDevice, length: int, offset: int) -> None:
    for call in (device.mmap, device.backing):
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- its errno counts
            call(length, offset)
        assert raised.value.errno == code


@pytest.mark.parametrize("index", [9, 2])
def test_two_areas_of_one_file_are_mapped_at_its_own_offset(
    tmp_path: Path, index: int
) -> None:
    base = index << 40
    with memfd(CONTENT) as fd:
        infos = {index: (migration_region(TWO_AREAS, index=index), (fd,))}
        regions = Regions(infos=infos)
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            found = find_migration_region(device)
            assert found.areas == (
                SparseMmapArea(PAGE, PAGE),
                SparseMmapArea(3 * PAGE, 2 * PAGE),
            )
            first = device.mmap(PAGE, base + PAGE)
            second = device.mmap(2 * PAGE, base + 3 * PAGE)
            half = device.mmap(PAGE, base + 4 * PAGE)
            assert first[:] == b"\4" * PAGE
            assert second[:] == b"\6" * PAGE + b"\7" * PAGE
            assert half[:] == b"\7" * PAGE
            second[0] = 0xEE  # both ends see what either writes
            assert os.pread(fd, 1, 6 * PAGE) == b"\xee"
            os.pwrite(fd, b"\xdd", 4 * PAGE)
            assert first[0] == 0xDD
            device.close()
            assert first[0] == 0xDD  # a mapping outlives the device
            for mapping in (first, second, half):
                mapping.close()
        # A server is asked for a region once, whatever is mapped.
        assert regions.commands().count(GET_REGION_INFO) == index + 1


def test_a_buffer_in_an_area_crosses_no_socket(tmp_path: Path) -> None:
    with memfd(CONTENT) as fd:
        regions = Regions(
            infos={9: (migration_region(TWO_AREAS), (fd,))},
            memory=bytearray(range(256)) * 80,
        )
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            region = MappedRegion(device, find_migration_region(device))
            assert region.map() is None
            whole = b"".join(region.data(PAGE, 2 * PAGE))
            region.unmap()
            device.close()
    assert whole == b"\4" * PAGE + regions.memory[2 * PAGE : 3 * PAGE]
    reads = [each for each in regions.asked if each.command == REGION_READ]
    assert [each.payload[:8] for each in reads] == [struct.pack("<Q", 2 * PAGE)]


def test_the_file_behind_an_area_can_be_asked_for(tmp_path: Path) -> None:
    with memfd(CONTENT) as fd:
        regions = Regions(infos={9: (migration_region(TWO_AREAS), (fd,))})
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            behind, place = device.backing(PAGE, NINE + 4 * PAGE)
            assert place == START + 4 * PAGE
            assert behind == device.backing(PAGE, NINE + PAGE)[0]
            assert os.fstat(behind).st_ino == os.fstat(fd).st_ino
            assert not os.get_inheritable(behind)
            device.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(behind)


def test_without_a_list_all_of_a_region_is_mapped(tmp_path: Path) -> None:
    with memfd(CONTENT) as fd:
        regions = Regions(infos={9: (migration_region(), (fd,))})
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            with device.mmap(5 * PAGE, NINE) as mapping:
                assert mapping[:] == CONTENT[START:]
            device.close()


@pytest.mark.parametrize(
    ("length", "place"),
    [
        (PAGE, 0),  # registers
        (PAGE, 2 * PAGE),  # between two areas
        (2 * PAGE, PAGE),  # over the end of one
        (3 * PAGE, PAGE),  # from one into the other
        (PAGE, 5 * PAGE),
        (PAGE, PAGE + 8),
        (0, PAGE),
        (-PAGE, PAGE),
        (1 << 50, PAGE),
    ],
)
def test_what_is_not_in_one_area_is_not_mapped(
    tmp_path: Path, length: int, place: int
) -> None:
    with memfd(CONTENT) as fd:
        regions = Regions(infos={9: (migration_region(TWO_AREAS), (fd,))})
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            refused(errno.EINVAL, device, length, NINE + place)
            device.close()


@pytest.mark.parametrize("size", [0, START + 4 * PAGE, START + 5 * PAGE - 1])
def test_a_file_that_ends_before_its_area_is_not_mapped(
    tmp_path: Path, size: int
) -> None:
    with memfd(CONTENT) as fd:
        os.ftruncate(fd, size)
        regions = Regions(infos={9: (migration_region(TWO_AREAS), (fd,))})
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            refused(errno.EINVAL, device, 2 * PAGE, NINE + 3 * PAGE)
            device.close()


@pytest.mark.parametrize("offset", [1 << 62, (1 << 64) - PAGE])
def test_an_offset_that_no_file_has_is_not_mapped(tmp_path: Path, offset: int) -> None:
    info = region_info(9, 5 * PAGE, is_migration(), flags=MAPPABLE, offset=offset)
    with memfd(CONTENT) as fd:
        regions = Regions(infos={9: (info, (fd,))})
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            refused(errno.EINVAL, device, PAGE, NINE)
            device.close()


def test_a_file_that_nobody_may_write_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    regions = Regions(infos={9: (migration_region(), (fd,))})
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        with pytest.raises(PermissionError):
            device.mmap(PAGE, NINE)
        device.close()
    os.close(fd)


def test_a_pipe_is_not_mapped(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    regions = Regions(infos={9: (migration_region(), (theirs,))})
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        refused(errno.EINVAL, device, PAGE, NINE)
        device.close()
    os.close(ours)
    os.close(theirs)


def test_areas_without_a_file_are_told_and_cannot_be_mapped(tmp_path: Path) -> None:
    regions = Regions(infos={9: (migration_region(TWO_AREAS), ())})
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert len(find_migration_region(device).areas) == 2
        refused(errno.ENODEV, device, PAGE, NINE + PAGE)
        argument = bytearray(struct.pack("<III", 4096, 0, 9).ljust(4096, b"\0"))
        device.ioctl(REGION_INFO_IOCTL, argument)
        assert argument[4] & MMAP
        device.close()


def test_more_files_than_expected_are_closed(tmp_path: Path) -> None:
    """Beside a region, beside a read either way, beside a command, and too many."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.reply(peer.expect(4), struct.pack("<IIII", 16, 3, 1, 0), *fds)
        peer.reply(peer.expect(5), region_info(0, PAGE), *fds)
        for size in (8, 500):
            read = peer.expect(REGION_READ)
            peer.send(HEADER.pack(3, 99, 16, 0x10, 0), fds)
            head = HEADER.pack(read.msg_id, REGION_READ, 32 + size, REPLY, 0)
            peer.send(head + read.payload + bytes(size), fds)
        info = region_info(1, PAGE, flags=MAPPABLE)
        peer.reply(peer.expect(5), info, *fds[:3])
        peer.reply(peer.expect(5), info[:31], *fds)
        peer.until_gone()

    before = open_fds()
    with memfd(CONTENT) as fd:
        fds = (fd,) * 200
        with serving(tmp_path / "s", script) as server:
            device = connect(server.path)
            find_or_none(device)
            at_rest = len(open_fds())
            assert device.pread(8, 0) == bytes(8)
            assert device.pread(500, 0) == bytes(500)
            assert len(open_fds()) == at_rest
            assert device.backing(PAGE, 1 << 40)[1] == 0
            assert len(open_fds()) == at_rest + 1
            with pytest.raises(Exception, match="31 bytes"):
                device.backing(PAGE, 2 << 40)
            assert len(open_fds()) == at_rest + 1
            device.close()
    assert open_fds() == before


def find_or_none(device: VfioUserDevice) -> None:
    with pytest.raises(Exception, match="no region of this device"):
        find_migration_region(device)


def test_closing_closes_every_file_once(tmp_path: Path) -> None:
    before = open_fds()
    with memfd(CONTENT) as fd:
        infos = {
            index: (region_info(index, PAGE, flags=MAPPABLE), (fd,))
            for index in range(5)
        }
        infos[9] = (migration_region(TWO_AREAS), (fd,))
        with serving(tmp_path / "s", Regions(infos=infos)) as server:
            device = connect(server.path)
            find_migration_region(device)
            with device.mmap(mmap.PAGESIZE, 3 << 40) as mapping:
                assert mapping[0] == 0
            device.close()
            device.close()
    assert open_fds() == before
