"""Each command, by the bytes that go over the socket."""

from __future__ import annotations

import errno
import os
import select
import struct
from typing import TYPE_CHECKING, cast

import pytest

from tests.unit.serve.vfio_user.wire import (
    ACCESS,
    COMMAND,
    CONFIG,
    DEVICE_INFO,
    DIRTY,
    DMA_MAP,
    DMA_UNMAP,
    HEADER,
    IO_FDS,
    IRQ_INFO,
    MIGRATION,
    NO_REPLY,
    READ,
    REGION,
    REGION_INFO,
    RESET,
    SET_IRQS,
    VERSION,
    WRITE,
    Card,
    Client,
    Serving,
    region_info,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder) as server:
        yield server


@pytest.fixture
def client(server: Serving) -> Iterator[Client]:
    with Client(server.path) as client:
        yield client


def card_of(server: Serving) -> Card:
    return cast("Card", server.drivers[-1])


# -- version


@pytest.mark.parametrize(("asked", "agreed"), [(99, 2), (2, 2), (1, 1), (0, 0)])
def test_the_lower_minor_version_is_spoken(
    server: Serving, asked: int, agreed: int
) -> None:
    with Client(server.path, is_agreed=False) as client:
        reply = client.ask(VERSION, struct.pack("<HH", 0, asked) + b"{}\0")
    assert reply.payload == struct.pack("<HH", 0, agreed) + (
        b'{"capabilities":{"max_msg_fds":32,"max_data_xfer_size":1048576,'
        b'"migration":{"pgsize":4096}}}\0'
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\2",
        struct.pack("<HH", 1, 0),
        struct.pack("<HH", 0, 2) + b"{}",
        struct.pack("<HH", 0, 2) + b"{]\0",
        struct.pack("<HH", 0, 2) + b'{"capabilities":{"max_msg_fds":1025}}\0',
        struct.pack("<HH", 0, 2) + b'{"capabilities":{"migration":{"pgsize":8192}}}\0',
    ],
)
def test_a_version_that_cannot_be_is_refused_and_ends_the_connection(
    server: Serving, payload: bytes
) -> None:
    with Client(server.path, is_agreed=False) as client:
        assert client.ask(VERSION, payload).error == errno.EINVAL
        assert client.is_closed()
    assert server.drivers == []


@pytest.mark.parametrize("command", [DEVICE_INFO, READ, RESET, 999])
def test_nothing_comes_before_the_version(server: Serving, command: int) -> None:
    with Client(server.path, is_agreed=False) as client:
        assert client.ask(command, b"\0\0\2\0").error == errno.EINVAL
        assert client.is_closed()
    assert server.drivers == []


def test_a_second_version_is_refused_and_the_connection_survives(
    client: Client,
) -> None:
    reply = client.ask(VERSION, struct.pack("<HH", 0, 2))
    assert reply.error == errno.EINVAL
    assert client.read(0, 4) == bytes(4)


# -- information


def test_device_info_counts_ten_regions_and_five_interrupts(client: Client) -> None:
    reply = client.ask(DEVICE_INFO, struct.pack("<IIII", 16, 0, 0, 0))
    assert reply.payload == struct.pack("<IIII", 16, 3, 10, 5)


def test_the_migration_region_has_a_type_capability(client: Client) -> None:
    # flags: read, write, caps; the chain begins behind the structure.
    head = REGION.pack(48, 0xB, 9, 32, 0x4000, 0)
    chain = struct.pack("<HHIII", 2, 1, 0, 3, 1)
    reply = region_info(client, MIGRATION)
    assert (reply.payload, reply.fds) == (head + chain, [])


@pytest.mark.parametrize("argsz", [32, 40, 47])
def test_a_reply_is_cut_at_argsz_and_has_no_capabilities(
    client: Client, argsz: int
) -> None:
    reply = region_info(client, MIGRATION, argsz)
    assert len(reply.payload) == argsz
    assert REGION.unpack_from(reply.payload) == (48, 3, 9, 0, 0x4000, 0)


@pytest.mark.parametrize(
    ("index", "flags", "size"), [(0, 3, 0x100), (1, 0, 0), (6, 0, 0), (7, 3, 256)]
)
def test_other_regions_are_read_and_written(
    client: Client, index: int, flags: int, size: int
) -> None:
    expected = REGION.pack(32, flags, index, 0, size, 0)
    assert region_info(client, index).payload == expected


@pytest.mark.parametrize(
    ("index", "argsz"), [(8, 4096), (10, 4096), (0xFFFFFFFF, 4096), (9, 31), (9, 0)]
)
def test_a_region_there_is_not_or_too_small_an_argsz_is_refused(
    client: Client, index: int, argsz: int
) -> None:
    assert region_info(client, index, argsz).error == errno.EINVAL


def test_no_region_has_fds_for_its_io(client: Client) -> None:
    reply = client.ask(IO_FDS, struct.pack("<IIII", 4096, 0, 9, 0))
    assert reply.payload == struct.pack("<IIII", 16, 0, 9, 0)
    reply = client.ask(IO_FDS, struct.pack("<IIII", 4096, 0, 10, 0))
    assert reply.error == errno.EINVAL


@pytest.mark.parametrize(
    ("index", "flags", "count"), [(0, 7, 1), (1, 9, 4), (2, 9, 0), (4, 9, 1)]
)
def test_irq_info(client: Client, index: int, flags: int, count: int) -> None:
    reply = client.ask(IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0))
    assert reply.payload == struct.pack("<IIII", 16, flags, index, count)


# -- accesses


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8, 13, 4096, 5000, 1 << 20])
def test_an_access_of_any_width_reaches_the_driver(
    server: Serving, client: Client, size: int
) -> None:
    data = bytes(range(1, 252)) * 4200
    assert client.write(0x1001, data[:size]) == size
    assert client.read(0x1001, size) == data[:size]
    assert card_of(server).calls == [f"write 4097 {size}", f"read 4097 {size}"]


def test_other_regions_are_the_hosts(client: Client) -> None:
    assert client.read(0, 4, CONFIG) == struct.pack("<HH", 1, 2)
    assert client.read(4, 2, 0) == b"\x80\x80"
    # Both end with the BAR.
    assert client.read(0xFE, 16, 0) == b"\x80\x80"
    assert client.write(0xFC, bytes(16), 0) == 4


@pytest.mark.parametrize("flags", [COMMAND, NO_REPLY])
def test_a_failed_access_is_the_drivers_errno(
    server: Serving, client: Client, flags: int
) -> None:
    client.read(0, 4)
    card_of(server).refusal = OSError(errno.ENOSPC, "full")
    for command, rest in ((READ, b""), (WRITE, bytes(4))):
        client.send(command, ACCESS.pack(0, 9, 4) + rest, flags=flags)
        if flags == COMMAND:
            reply = client.receive()
            assert (reply.flags, reply.error) == (0x21, errno.ENOSPC)
            assert reply.payload == b""
    card_of(server).refusal = None
    assert client.read(0, 4) == bytes(4)


def test_a_short_read_is_replied_as_it_came(server: Serving, client: Client) -> None:
    client.read(0, 1)
    del card_of(server).memory[0x20:]
    reply = client.ask(READ, ACCESS.pack(0x1C, 9, 8))
    assert reply.payload == ACCESS.pack(0x1C, 9, 4) + bytes(4)


@pytest.mark.parametrize(
    ("offset", "region", "size", "code"),
    [
        (0, 9, 0xFFFFFFFF, errno.E2BIG),
        (0, 9, (1 << 20) + 1, errno.E2BIG),
        (0, 10, 4, errno.EINVAL),
        (0, 8, 4, errno.EINVAL),
        (0, 0xFFFFFFFF, 4, errno.EINVAL),
        (1 << 40, 8, 4, errno.EINVAL),  # that would be the migration region
        ((1 << 64) - 1, 9, 4, errno.EINVAL),
    ],
)
def test_a_read_that_cannot_be_is_refused_and_reaches_nobody(
    server: Serving, client: Client, offset: int, region: int, size: int, code: int
) -> None:
    reply = client.ask(READ, ACCESS.pack(offset, region, size))
    assert reply.error == code
    assert card_of(server).calls == []


def test_a_write_says_its_size_twice(server: Serving, client: Client) -> None:
    for count in (3, 5, 0xFFFFFFFF):
        reply = client.ask(WRITE, ACCESS.pack(0, 9, count) + bytes(4))
        assert reply.error == errno.EINVAL
    reply = client.ask(WRITE, ACCESS.pack(0, 9, (1 << 20) + 1) + bytes((1 << 20) + 1))
    assert reply.error == errno.E2BIG
    assert card_of(server).calls == []


def test_a_client_that_takes_little_is_given_no_more(server: Serving) -> None:
    said = b'{"capabilities":{"max_data_xfer_size":8}}\0'
    with Client(server.path, is_agreed=False) as client:
        client.ask(VERSION, struct.pack("<HH", 0, 2) + said)
        assert client.read(0, 8) == bytes(8)
        with pytest.raises(OSError, match="as the server says") as refusal:
            client.read(0, 9)
        assert refusal.value.errno == errno.E2BIG
        assert client.write(0, bytes(4000)) == 4000  # that is for the server to take


# -- interrupts, reset


def test_an_eventfd_is_signalled(client: Client) -> None:
    eventfds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    try:
        # data is eventfds, action is trigger; MSI; all four.
        asked = struct.pack("<IIIII", 20, 0x24, 1, 0, 4)
        assert not client.ask(SET_IRQS, asked, fds=eventfds).error
        client.write(4, struct.pack("<H", 5), CONFIG)  # I/O space, bus master
        client.write(0, b"\2", 0)
        assert [os.eventfd_read(eventfds[2])] == [1]
        # None any more: the device speaks to nobody.
        assert not client.ask(SET_IRQS, asked).error
        client.write(0, b"\2", 0)
        assert not select.select(eventfds, [], [], 0)[0]
    finally:
        for fd in eventfds:
            os.close(fd)


def test_interrupts_that_cannot_be_set_are_refused(client: Client) -> None:
    eventfd = os.eventfd(0)
    other = os.memfd_create("no eventfd")
    try:
        for asked, fds in (
            (struct.pack("<IIIII", 20, 0x24, 1, 0, 2), [eventfd]),
            (struct.pack("<IIIII", 20, 0x24, 1, 0, 1), [other]),
            (struct.pack("<IIIII", 20, 0x24, 1, 0, 0xFFFFFFF0), []),
            (struct.pack("<IIIII", 20, 0x24, 3, 0, 1), [eventfd]),
            (struct.pack("<IIIII", 20, 0x22, 1, 0, 4) + b"\1", []),
            (struct.pack("<IIIII", 19, 0x24, 1, 0, 1), [eventfd]),
        ):
            assert client.ask(SET_IRQS, asked, fds=fds).error == errno.EINVAL
    finally:
        os.close(eventfd)
        os.close(other)


def test_reset_is_a_header_and_no_more(server: Serving, client: Client) -> None:
    client.write(0x200, b"x")
    assert client.ask(RESET, b"\0").error == errno.EINVAL
    reply = client.ask(RESET)
    assert (reply.error, reply.payload) == (0, b"")
    assert client.read(0x200, 1) == b"\0"
    assert card_of(server).calls == ["write 512 1", "reset", "read 512 1"]


# -- messages


@pytest.mark.parametrize(
    "command",
    [
        VERSION, DMA_MAP, DMA_UNMAP, DEVICE_INFO, REGION_INFO, IO_FDS, IRQ_INFO,
        SET_IRQS, READ, WRITE, DIRTY, 0, 11, 12, 15, 16, 0xFFFF,
    ],
)  # fmt: skip
def test_a_header_alone_is_refused_and_the_connection_survives(
    client: Client, command: int
) -> None:
    assert client.ask(command).error == errno.EINVAL
    client.send(command, flags=NO_REPLY)
    assert client.read(0, 4) == bytes(4)


def test_a_command_that_wants_no_reply_is_performed(
    server: Serving, client: Client
) -> None:
    client.send(WRITE, ACCESS.pack(0, 9, 2) + b"ab", flags=NO_REPLY)
    client.send(RESET, flags=NO_REPLY)
    client.send(WRITE, ACCESS.pack(1, 9, 2) + b"cd", flags=NO_REPLY)
    assert client.read(0, 4) == b"\0cd\0"
    assert card_of(server).calls[:2] == ["write 0 2", "reset"]


def test_commands_that_come_together_are_answered_in_their_order(
    client: Client,
) -> None:
    messages = [
        HEADER.pack(n, WRITE, 33, 0, 0) + ACCESS.pack(n, 9, 1) + bytes([n])
        for n in range(200)
    ]
    messages.append(HEADER.pack(200, READ, 32, 0, 0) + ACCESS.pack(0, 9, 200))
    client.socket.sendall(b"".join(messages))
    assert [client.receive().number for _ in range(200)] == list(range(200))
    assert client.receive().payload[16:] == bytes(range(200))


def test_a_command_may_come_a_byte_at_a_time(client: Client) -> None:
    message = HEADER.pack(7, READ, 32, 0, 0) + ACCESS.pack(0, 9, 4)
    for byte in message:
        client.socket.send(bytes([byte]))
    assert client.receive().payload == ACCESS.pack(0, 9, 4) + bytes(4)


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(1, READ, 15, 0, 0),
        HEADER.pack(1, READ, 0, 0, 0),
        HEADER.pack(1, WRITE, 0xFFFFFFFF, 0, 0),
        HEADER.pack(1, READ, 16, 2, 0),
        HEADER.pack(1, READ, 16, 1, 0),  # a reply to nothing
    ],
)
def test_a_header_that_cannot_be_believed_ends_the_connection(
    client: Client, header: bytes
) -> None:
    client.socket.sendall(header)
    assert client.is_closed()
