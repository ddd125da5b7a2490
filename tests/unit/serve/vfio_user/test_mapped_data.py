"""The file of the mapped parts of the migration region."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from typing import TYPE_CHECKING, cast

import pytest

from tests.unit.serve.vfio_user.wire import (
    MIGRATION,
    REGION,
    REGION_INFO,
    VERSION,
    Client,
    MappedCard,
    Serving,
    open_fds,
    region_info,
    serving,
)
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEEDED = 32 + 16 + 16 + 2 * 16
DEVICE_STATE, DATA_OFFSET, DATA_SIZE = 0, 0x10, 0x18


def card_of(server: Serving) -> MappedCard:
    return cast("MappedCard", server.drivers[-1])


def mapped(client: Client) -> tuple[int, int]:
    """Return the file of the migration region, and where the region lies in it."""
    info = region_info(client, MIGRATION)
    (fd,) = info.fds
    return fd, REGION.unpack_from(info.payload)[5]


def test_the_region_has_both_capabilities_and_one_file(folder: Path) -> None:
    with serving(folder, MappedCard) as server, Client(server.path) as client:
        info = region_info(client, MIGRATION)
        small = region_info(client, MIGRATION, NEEDED - 1)
    # Flags: read, write, mmap, caps.
    assert info.payload == b"".join(
        (
            REGION.pack(NEEDED, 0xF, 9, 32, 0x5000, 0),
            struct.pack("<HHIII", 2, 1, 48, 3, 1),
            struct.pack("<HHIII", 1, 1, 0, 2, 0),
            struct.pack("<QQQQ", 0x1000, 0x1000, 0x3000, 0x2000),
        )
    )
    assert len(info.fds) == 1
    os.close(info.fds[0])
    assert REGION.unpack_from(small.payload) == (NEEDED, 7, 9, 0, 0x5000, 0)
    assert (len(small.payload), small.fds) == (NEEDED - 1, [])


@pytest.mark.parametrize("base", [0, 0x3000])
def test_the_drivers_own_file_is_shared_and_sealed(folder: Path, base: int) -> None:
    with (
        serving(folder, lambda: MappedCard(base=base)) as server,
        Client(server.path) as client,
    ):
        fd, place = mapped(client)
        own = card_of(server).files[0]
        try:
            assert place == base
            assert os.fstat(fd).st_ino == os.fstat(own).st_ino
            with mmap.mmap(fd, 0x2000, offset=place + 0x3000) as area:
                client.write(0x3000, b"trapped")
                assert area[:7] == b"trapped"
                area[0x1FFC:] = b"last"
                assert client.read(0x4FFC, 4) == b"last"
            with pytest.raises(PermissionError):
                os.ftruncate(fd, 0)
            with pytest.raises(PermissionError):
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        finally:
            os.close(fd)


def test_two_files_are_mirrored_when_data_size_is_read_and_written(
    folder: Path,
) -> None:
    with (
        serving(folder, lambda: MappedCard(files=2)) as server,
        Client(server.path) as client,
    ):
        fd, place = mapped(client)
        card = card_of(server)
        with mmap.mmap(fd, 0x2000, offset=place + 0x3000) as area:
            os.close(fd)
            # Saving: the driver has put 5 bytes at 0x3010.
            client.write(DEVICE_STATE, struct.pack("<I", 2))
            os.pwrite(card.files[1], b"saved", 0x3010)
            client.write(DATA_OFFSET, struct.pack("<Q", 0x3010))
            client.write(DATA_SIZE, struct.pack("<Q", 5))
            assert area[0x10:0x15] == bytes(5)
            client.read(DATA_OFFSET, 8)
            client.read(DATA_SIZE, 8)
            assert area[0x10:0x15] == b"saved"
            # Resuming: the client puts 6 bytes there.
            client.write(DEVICE_STATE, struct.pack("<I", 4))
            client.read(DATA_OFFSET, 8)
            area[0x10:0x16] = b"loaded"
            client.write(DATA_SIZE, struct.pack("<Q", 6))
            assert card.seen == b"loaded"


def test_a_client_that_takes_no_fds_gets_none(folder: Path) -> None:
    said = b'{"capabilities":{"max_msg_fds":0}}\0'
    with (
        serving(folder, MappedCard) as server,
        Client(server.path, is_agreed=False) as client,
    ):
        client.ask(VERSION, struct.pack("<HH", 0, 2) + said)
        info = region_info(client, MIGRATION)
        assert (len(info.payload), info.fds) == (NEEDED, [])


@pytest.mark.parametrize(
    "area",
    [
        SparseMmapArea(0x800, 0x1000),  # not a page
        SparseMmapArea(0x1000, 0),
        SparseMmapArea(0x4000, 0x2000),  # not in the region
    ],
)
def test_an_area_that_cannot_be_mapped_is_told_and_there_is_no_file(
    folder: Path, area: SparseMmapArea
) -> None:
    def make() -> MappedCard:
        card = MappedCard()
        areas = (SparseMmapArea(0x3000, 0x1000), area)
        card.migration_region = MigrationRegion(0x5000, areas)
        return card

    with serving(folder, make) as server, Client(server.path) as client:
        info = region_info(client, MIGRATION)
        assert info.payload[-16:] == struct.pack("<QQ", *area)
        assert info.fds == []
        assert client.read(0x3000, 4) == bytes(4)


def test_a_driver_that_refuses_to_map_leaves_all_trapped(folder: Path) -> None:
    def make() -> MappedCard:
        card = MappedCard()
        card.refusal = OSError(errno.ENODEV, "no memory is to be had")
        return card

    with serving(folder, make) as server, Client(server.path) as client:
        assert region_info(client, MIGRATION).fds == []
        assert client.read(0x3000, 4) == bytes(4)


@pytest.mark.parametrize("make_error", [lambda: RuntimeError("oops"), None])
def test_a_driver_that_has_no_memory_dies(
    folder: Path, make_error: Callable[[], Exception] | None
) -> None:
    def make() -> MappedCard:
        card = MappedCard()
        if make_error is not None:
            card.refusal = make_error()
        else:
            os.ftruncate(card.files[0], 0x1000)
        return card

    def ask() -> None:
        with serving(folder, make) as server, Client(server.path) as client:
            client.send(REGION_INFO, REGION.pack(4096, 0, 9, 0, 0, 0))
            assert client.is_closed()

    with pytest.raises(DriverDiedError, match="mmap of 0x1000 bytes at 0x"):
        ask()


def test_a_client_takes_its_file_along_and_leaves_nothing(folder: Path) -> None:
    with serving(folder, MappedCard) as server:
        before = None
        for number in range(1, 6):
            with Client(server.path) as client:
                fd, _ = mapped(client)
                with mmap.mmap(fd, 0x1000, offset=0x1000) as area:
                    assert area[:4] == bytes(4)  # not what the one before left
                    area[:4] = b"mine"
                os.close(fd)
            server.await_ends(number)
            before = before or open_fds()
            assert open_fds() == before
