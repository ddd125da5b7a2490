"""The client's memory: what the device reaches of it, and what it wrote."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from tests.unit.serve.vfio_user.wire import (
    ACCESS,
    CONFIG,
    DIRTY,
    DMA_MAP,
    DMA_READ,
    DMA_UNMAP,
    DMA_WRITE,
    ERROR,
    HEADER,
    MIGRATION,
    READ,
    REPLY,
    VERSION,
    WRITE,
    Card,
    Client,
    Serving,
    open_fds,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAP = struct.Struct("<IIQQQ")
UNMAP = struct.Struct("<IIQQ")
BITMAP = struct.Struct("<QQ")
RANGE = struct.Struct("<IIQQQQ")
R, W = 1, 2
FETCH, STORE = 0x100, 0x108  # what makes the card do DMA


@pytest.fixture
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder, patience=0.3) as server:
        yield server


@pytest.fixture
def client(server: Serving) -> Iterator[Client]:
    with Client(server.path) as client:
        client.write(4, struct.pack("<H", 4), CONFIG)  # bus master
        yield client


@pytest.fixture
def file() -> Iterator[int]:
    """Return a file of 16 pages, each filled with its number."""
    fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    os.write(fd, b"".join(bytes([n]) * 4096 for n in range(16)))
    yield fd
    os.close(fd)


def map_dma(
    client: Client, iova: int, size: int, *fds: int, flags: int = R | W, offset: int = 0
) -> int:
    reply = client.ask(DMA_MAP, MAP.pack(32, flags, offset, iova, size), fds=fds)
    assert reply.payload == b""
    return reply.error


def unmap_dma(client: Client, iova: int, size: int, flags: int = 0) -> int:
    reply = client.ask(DMA_UNMAP, UNMAP.pack(24, flags, iova, size))
    if reply.error:
        return reply.error
    assert UNMAP.unpack(reply.payload)[:3] == (24, flags, iova)
    return 0


def fetch(client: Client, iova: int, size: int) -> bytes:
    """Let the card read guest memory, and return what it has read."""
    client.write(FETCH, struct.pack("<QI", iova, size))
    return client.read(0x2000, size)


def store(client: Client, iova: int, data: bytes) -> None:
    """Let the card write guest memory."""
    client.write(0x2000, data)
    client.write(STORE, struct.pack("<QI", iova, len(data)))


def fails(client: Client, iova: int, size: int, register: int = FETCH) -> bool:
    asked = ACCESS.pack(register, MIGRATION, 12) + struct.pack("<QI", iova, size)
    reply = client.ask(WRITE, asked)
    return reply.error == errno.EFAULT


def test_a_file_is_memory_at_its_offset(client: Client, file: int) -> None:
    assert map_dma(client, 0x10000, 0x2000, file, offset=0x3000) == 0
    assert fetch(client, 0x10FFE, 4) == b"\3\3\4\4"
    store(client, 0x11000, b"card")
    assert os.pread(file, 6, 0x3FFF) == b"\3card\4"
    assert fails(client, 0x0FFFF, 2)
    assert fails(client, 0x11FFF, 2)


def test_a_file_is_of_the_command_that_it_came_with(client: Client, file: int) -> None:
    # All three come at once, behind a command that is slower than they are sent.
    read = ACCESS.pack(0, MIGRATION, 1 << 20)
    mapping = MAP.pack(32, R | W, 0x3000, 0, 0x1000)
    client.send(READ, read)
    for _ in range(20):
        client.send(READ, ACCESS.pack(0, MIGRATION, 4))
    client.send(DMA_MAP, mapping, fds=[file])
    client.send(READ, ACCESS.pack(0, MIGRATION, 4))
    assert [client.receive().error for _ in range(23)] == [0] * 23
    assert fetch(client, 0, 1) == b"\3"


def test_touching_files_are_one_memory(client: Client, file: int) -> None:
    assert map_dma(client, 0, 0x1000, file, offset=0x5000) == 0
    assert map_dma(client, 0x1000, 0x1000, file, offset=0x2000) == 0
    assert fetch(client, 0xFFF, 2) == b"\5\2"


def test_a_file_that_was_cut_off_fails_the_access_alone(
    client: Client, file: int
) -> None:
    map_dma(client, 0, 0x10000, file)
    os.ftruncate(file, 0x1000)
    assert fails(client, 0x8000, 8)
    assert fails(client, 0x8000, 8, STORE)
    assert os.fstat(file).st_size == 0x1000
    assert fetch(client, 0, 2) == b"\0\0"


def test_flags_say_what_the_device_may(client: Client, file: int) -> None:
    map_dma(client, 0, 0x1000, file, flags=R)
    map_dma(client, 0x1000, 0x1000, file, flags=W)
    assert fails(client, 0, 1, STORE)
    assert fails(client, 0x1000, 1)
    store(client, 0x1000, b"w")
    assert fetch(client, 0, 1) == b"w"


def test_a_file_that_is_read_only_cannot_be_mapped_to_be_written(
    client: Client, folder: Path
) -> None:
    (folder / "file").write_bytes(bytes(4096))
    fd = os.open(folder / "file", os.O_RDONLY)
    try:
        assert map_dma(client, 0, 0x1000, fd, flags=R | W) == errno.EACCES
        assert map_dma(client, 0, 0x1000, fd, flags=R) == 0
        assert fetch(client, 0, 1) == b"\0"
    finally:
        os.close(fd)


def test_what_cannot_be_mapped_is_refused_and_keeps_nothing(
    client: Client, file: int
) -> None:
    client.read(0, 1)
    before = open_fds()
    reader, writer = os.pipe()
    try:
        for error, iova, size, fds, flags, offset in (
            (errno.EINVAL, 0, 0x11000, (file,), 3, 0),  # more than the file
            (errno.EINVAL, 0, 0x1000, (file,), 3, 0x10000),
            (errno.EINVAL, 0, 0x1000, (file,), 3, (1 << 64) - 0x1000),
            (errno.ENOMEM, 0, (1 << 64) - 0x1000, (file,), 3, 0x1000),
            (errno.EINVAL, 0, 0x1000, (file,), 3, 0x800),
            (errno.EINVAL, 0x800, 0x1000, (file,), 3, 0),
            (errno.EINVAL, 0, 0, (file,), 3, 0),
            (errno.EINVAL, 0, 0x1000, (reader,), 3, 0),
            (errno.EINVAL, 0, 0x1000, (file, file), 3, 0),
            (errno.EINVAL, 0, 0x1000, (file,), 0, 0),
            (errno.EINVAL, 0, 0x1000, (file,), 7, 0),
            (errno.EINVAL, (1 << 64) - 0x1000, 0x2000, (), 3, 0),
        ):
            got = map_dma(client, iova, size, *fds, flags=flags, offset=offset)
            assert got == error, (iova, size, fds, flags, offset)
    finally:
        os.close(reader)
        os.close(writer)
    assert open_fds() == before
    assert fails(client, 0, 1)


def test_a_mapping_cannot_overlap_another(client: Client, file: int) -> None:
    assert map_dma(client, 0x2000, 0x2000, file) == 0
    for iova, size in ((0x2000, 0x2000), (0x1000, 0x2000), (0x3000, 0x9000)):
        assert map_dma(client, iova, size, file) == errno.EEXIST
    assert map_dma(client, 0x1000, 0x1000, file) == 0


def test_what_was_unmapped_is_reached_no_more(client: Client, file: int) -> None:
    map_dma(client, 0, 0x1000, file)
    map_dma(client, 0x4000, 0x4000, file)
    assert unmap_dma(client, 0x4000, 0x1000) == errno.EINVAL  # cut in two
    assert unmap_dma(client, 0x3000, 0x5000) == 0
    assert fails(client, 0x4000, 1)
    assert fetch(client, 0, 1) == b"\0"
    assert map_dma(client, 0x4000, 0x4000, file) == 0
    assert unmap_dma(client, 0, 0x1000, flags=2) == errno.EINVAL  # all, and a range
    assert unmap_dma(client, 0, 0, flags=2) == 0
    assert fails(client, 0, 1)
    assert fails(client, 0x4000, 1)
    assert unmap_dma(client, 0, 0x1000, flags=4) == errno.EINVAL


def test_nothing_of_a_client_stays_mapped(
    server: Serving, client: Client, file: int
) -> None:
    name = "unlike-any-other"
    fd = os.memfd_create(name)
    os.ftruncate(fd, 0x1000)
    map_dma(client, 0, 0x1000, fd)
    os.close(fd)
    assert name in Path("/proc/self/maps").read_text()
    assert unmap_dma(client, 0, 0, flags=2) == 0
    assert name not in Path("/proc/self/maps").read_text()
    fd = os.memfd_create(name)
    os.ftruncate(fd, 0x1000)
    map_dma(client, 0, 0x1000, fd)
    os.close(fd)
    client.socket.close()
    server.await_ends(1)
    assert name not in Path("/proc/self/maps").read_text()


# -- dirty pages


def test_pages_that_the_device_wrote_are_dirty_until_they_were_asked_for(
    client: Client, file: int
) -> None:
    map_dma(client, 0x10000, 0x10000, file)
    store(client, 0x10000, b"before")
    assert not client.ask(DIRTY, struct.pack("<II", 8, 1)).error
    store(client, 0x12FFF, b"ab")
    fetch(client, 0x1F000, 8)
    asked = RANGE.pack(48, 4, 0x10000, 0x10000, 0x1000, 8)
    # Pages 2 and 3: a write that touches two.
    for bits in (0b1100, 0):
        reply = client.ask(DIRTY, asked)
        assert reply.payload == asked + struct.pack("<Q", bits)
    store(client, 0x1F000, b"x")
    reply = client.ask(
        DMA_UNMAP, UNMAP.pack(48, 1, 0x10000, 0x10000) + BITMAP.pack(0x1000, 8)
    )
    head = UNMAP.pack(48, 1, 0x10000, 0x10000) + BITMAP.pack(0x1000, 8)
    assert reply.payload == head + struct.pack("<Q", 1 << 15)
    reply = client.ask(DIRTY, struct.pack("<II", 8, 2))
    assert (reply.error, reply.payload) == (0, b"")
    assert client.ask(DIRTY, asked).error == errno.EINVAL


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (struct.pack("<II", 8, 0), errno.EINVAL),
        (struct.pack("<II", 8, 3), errno.EINVAL),
        (struct.pack("<II", 8, 4), errno.EINVAL),  # without a range
        (struct.pack("<II", 7, 1), errno.EINVAL),
        (RANGE.pack(48, 4, 0, 0x10000, 0x2000, 8), errno.EINVAL),
        (RANGE.pack(48, 4, 0, 0x10000, 0, 8), errno.EINVAL),
        (RANGE.pack(48, 4, 0, 0x10000, 0x1000, 0), errno.EINVAL),
        (RANGE.pack(48, 4, 0, 0x1000, 0x1000, 8), errno.EINVAL),  # half of it
        (RANGE.pack(48, 4, 0, 0x2000, 0x1000, 1 << 40), errno.E2BIG),
        (RANGE.pack(48, 5, 0, 0x2000, 0x1000, 8), errno.EINVAL),
    ],
)
def test_dirty_pages_that_cannot_be_asked_for(
    client: Client, file: int, payload: bytes, code: int
) -> None:
    map_dma(client, 0, 0x2000, file)
    assert not client.ask(DIRTY, struct.pack("<II", 8, 1)).error
    assert client.ask(DIRTY, payload).error == code


def test_a_log_for_more_memory_than_there_is_is_refused(client: Client) -> None:
    assert map_dma(client, 0, 1 << 46) == 0
    assert client.ask(DIRTY, struct.pack("<II", 8, 1)).error == errno.EINVAL
    for n in range(1, 4):
        assert map_dma(client, n << 47, 1 << 40) == 0
    assert unmap_dma(client, 0, 1 << 46) == 0
    assert client.ask(DIRTY, struct.pack("<II", 8, 1)).error == errno.ENOMEM


# -- memory without a file: the client is asked


def tell(client: Client, register: int, iova: int, size: int) -> None:
    """Make the card do DMA, without waiting for the reply."""
    what = ACCESS.pack(register, MIGRATION, 12) + struct.pack("<QI", iova, size)
    client.send(WRITE, what, number=7)


def test_a_client_without_a_file_is_asked_in_pieces(server: Serving) -> None:
    with Client(server.path, is_agreed=False) as client:
        said = b'{"capabilities":{"max_data_xfer_size":16}}\0'
        client.ask(VERSION, struct.pack("<HH", 0, 2) + said)
        client.write(4, struct.pack("<H", 4), CONFIG)
        map_dma(client, 0x1000, 0x1000)
        tell(client, FETCH, 0x1008, 40)
        for address, size in ((0x1008, 16), (0x1018, 16), (0x1028, 8)):
            asked = client.receive()
            assert (asked.command, asked.flags) == (DMA_READ, 0)
            assert asked.payload == struct.pack("<QQ", address, size)
            answer = asked.payload + bytes([address & 0xFF] * size)
            client.send(DMA_READ, answer, flags=REPLY, number=asked.number)
        done = client.receive()
        assert (done.number, done.command, done.error) == (7, WRITE, 0)
        data = b"\x08" * 16 + b"\x18" * 16 + b"\x28" * 8
        assert client.read(0x2000, 16) + client.read(0x2010, 16) == data[:32]
        tell(client, STORE, 0x1800, 20)
        for address, part in ((0x1800, data[:16]), (0x1810, data[16:20])):
            asked = client.receive()
            assert (asked.command, asked.flags) == (DMA_WRITE, 0)
            assert asked.payload == struct.pack("<QQ", address, len(part)) + part
            answer = asked.payload[:16]
            client.send(DMA_WRITE, answer, flags=REPLY, number=asked.number)
        assert client.receive().error == 0


def test_commands_that_come_before_the_reply_wait(
    server: Serving, client: Client
) -> None:
    map_dma(client, 0, 0x1000)
    tell(client, FETCH, 0, 4)
    asked = client.receive()
    for number in range(60):
        client.send(READ, ACCESS.pack(0x2000, MIGRATION, 4), number=number)
    client.send(DMA_READ, asked.payload + b"data", flags=REPLY, number=asked.number)
    assert client.receive().number == 7
    for number in range(60):
        reply = client.receive()
        assert (reply.number, reply.payload[16:]) == (number, b"data")
    calls = cast("Card", server.drivers[-1]).calls
    assert calls == ["write 256 12"] + ["read 8192 4"] * 60


def test_a_client_that_refuses_fails_the_access_alone(client: Client) -> None:
    map_dma(client, 0, 0x1000)
    tell(client, FETCH, 0, 4)
    asked = client.receive()
    refusal = HEADER.pack(asked.number, DMA_READ, 16, REPLY | ERROR, errno.EPERM)
    client.socket.sendall(refusal)
    assert client.receive().error == errno.EFAULT
    tell(client, FETCH, 0, 4)
    asked = client.receive()
    for_more = struct.pack("<QQ", 0, 8) + bytes(8)
    client.send(DMA_READ, for_more, flags=REPLY, number=asked.number)
    assert client.receive().error == errno.EFAULT
    assert client.read(0x2000, 4) == bytes(4)


@pytest.mark.parametrize("answer", ["nothing", "another", "flood", "leave"])
def test_a_client_that_does_not_answer_is_left(
    server: Serving, client: Client, answer: str
) -> None:
    map_dma(client, 0, 0x1000)
    tell(client, FETCH, 0, 4)
    asked = client.receive()
    if answer == "another":
        reply = asked.payload + bytes(4)
        client.send(DMA_READ, reply, flags=REPLY, number=asked.number ^ 1)
    elif answer == "flood":
        for _ in range(65):
            client.send(READ, ACCESS.pack(0, MIGRATION, 4))
    elif answer == "leave":
        client.socket.close()
    if answer != "leave":
        assert client.is_closed()
    ((_, why),) = server.await_ends(1)
    assert why == {
        "nothing": "it says nothing after 0.3 s",
        "another": "a reply to nothing, command 11",
        "flood": "it sends commands where it owes a reply",
        "leave": "",
    }.get(answer)
    # The driver had its errno, and the device was closed as ever.
    assert cast("Card", server.drivers[0]).calls == ["write 256 12", "close"]
    with Client(server.path) as another:
        assert another.read(0, 4) == bytes(4)


def test_without_the_bus_master_bit_there_is_no_dma(client: Client, file: int) -> None:
    map_dma(client, 0, 0x1000, file)
    client.write(4, bytes(2), CONFIG)
    assert fails(client, 0, 1)
