"""Reads, writes, information and resets over a socket, asked of a scripted server."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.client.vfio_user.scripted_server import (
    ACCESS,
    GET_IRQ_INFO,
    GET_REGION_INFO,
    MMAP,
    READ,
    REGION_READ,
    REGION_WRITE,
    RESET,
    SET_IRQS,
    WRITE,
    Message,
    Peer,
    Regions,
    areas,
    is_migration,
    region_info,
    serving,
)
from vfiomig.client.region import FoundRegion, find_migration_region
from vfiomig.client.vfio_user import VfioUserDevice, connect
from vfiomig.protocol.errors import VendorDriverError
from vfiomig.protocol.vfio_user.negotiation import Capabilities

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vfiomig.client.device import DeviceHandle

GET_INFO_IOCTL, REGION_INFO_IOCTL, IRQ_INFO_IOCTL = 0x3B6B, 0x3B6C, 0x3B6D
SET_IRQS_IOCTL, RESET_IOCTL = 0x3B6E, 0x3B6F

NINE = 9 << 40
CLOSED = 9999  # no fd of this process
SMALL = b'{"max_msg_fds":8,"max_data_xfer_size":16}'


def refused(code: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 -- its errno is what counts
        call()
    assert raised.value.errno == code


def test_a_device_is_a_handle(tmp_path: Path) -> None:
    with serving(tmp_path / "s", Regions()) as server:
        device: DeviceHandle = connect(server.path)
        device.close()


def test_a_client_says_what_it_takes(tmp_path: Path) -> None:
    hello: list[Message] = []
    with serving(tmp_path / "s", lambda peer: hello.append(peer.greet())) as server:
        connect(server.path).close()
    payload = hello[0].payload
    assert payload[:4] == b"\0\0\2\0"
    assert payload[-1:] == b"\0"
    said = Capabilities.from_json(payload[4:-1])
    assert said.max_data_xfer_size == 1 << 20
    assert said.pgsize == os.sysconf("SC_PAGESIZE")
    assert not said.has_twin_socket


@pytest.mark.parametrize("size", [1, 4, 8, 64, 96, 97, 1000])
def test_a_read_is_one_message_and_returns_what_it_brings(
    tmp_path: Path, size: int
) -> None:
    regions = Regions()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert device.pread(size, NINE + 0x10) == regions.memory[0x10 : 0x10 + size]
        device.close()
    (message,) = regions.asked
    assert (message.command, message.payload) == (
        REGION_READ,
        ACCESS.pack(0x10, 9, size),
    )


@pytest.mark.parametrize("size", [1, 4, 8, 64, 96, 97, 1000])
def test_a_write_is_one_message_and_returns_what_was_taken(
    tmp_path: Path, size: int
) -> None:
    regions, data = Regions(), bytes(range(100, 200)) * 10
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert device.pwrite(memoryview(data)[:size], (2 << 40) + 0x20) == size
        device.close()
    (message,) = regions.asked
    payload = ACCESS.pack(0x20, 2, size) + data[:size]
    assert (message.command, message.payload) == (REGION_WRITE, payload)


def test_every_request_has_another_id(tmp_path: Path) -> None:
    regions = Regions()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        for _ in range(3):
            device.pread(4, NINE)
            device.pread(200, NINE)
            device.pwrite(b"abcd", NINE)
            device.ioctl(RESET_IOCTL)
        device.close()
    ids = [message.msg_id for message in regions.asked]
    assert len(set(ids)) == len(ids) == 12


def test_more_than_a_server_takes_goes_in_pieces(tmp_path: Path) -> None:
    regions = Regions(capabilities=SMALL)
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert device.pread(40, NINE + 8) == regions.memory[8:48]
        assert device.pwrite(b"x" * 33, NINE + 256) == 33
        assert device.pread(8, NINE) == regions.memory[:8]
        device.close()
    assert regions.memory[256:289] == b"x" * 33
    accesses = [
        (message.command, *ACCESS.unpack_from(message.payload))
        for message in regions.asked
    ]
    assert accesses == [
        (REGION_READ, 8, 9, 16),
        (REGION_READ, 24, 9, 16),
        (REGION_READ, 40, 9, 8),
        (REGION_WRITE, 256, 9, 16),
        (REGION_WRITE, 272, 9, 16),
        (REGION_WRITE, 288, 9, 1),
        (REGION_READ, 0, 9, 8),
    ]


def test_a_server_that_takes_less_than_a_register_gets_it_in_pieces(
    tmp_path: Path,
) -> None:
    regions = Regions(capabilities=b'{"max_data_xfer_size":3}')
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert device.pread(8, NINE) == regions.memory[:8]
        assert device.pwrite(b"abcd", NINE) == 4
        device.close()
    assert regions.commands() == [REGION_READ] * 3 + [REGION_WRITE] * 2


def test_a_server_that_takes_more_than_we_do_is_not_asked_for_it(
    tmp_path: Path,
) -> None:
    size = (1 << 20) + 1
    regions = Regions(
        memory=bytearray(size), capabilities=b'{"max_data_xfer_size":4294967295}'
    )
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert device.pread(size, NINE) == bytes(size)
        assert device.pwrite(b"\1" * size, NINE) == size
        device.close()
    assert regions.memory == b"\1" * size
    sizes = [ACCESS.unpack_from(message.payload)[2] for message in regions.asked]
    assert sizes == [1 << 20, 1, 1 << 20, 1]


@pytest.mark.parametrize("size", [8, 200])
def test_a_short_reply_is_a_short_read(tmp_path: Path, size: int) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        read = peer.expect(REGION_READ)
        peer.reply(read, ACCESS.pack(0, 9, 3) + b"abc")
        write = peer.expect(REGION_WRITE)
        peer.reply(write, ACCESS.pack(0, 9, 2))
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        assert device.pread(size, NINE) == b"abc"
        assert device.pwrite(bytes(size), NINE) == 2
        device.close()


def test_pieces_end_with_the_first_short_one(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.greet(SMALL)
        peer.reply(peer.expect(REGION_READ), ACCESS.pack(0, 9, 16) + bytes(16))
        peer.reply(peer.expect(REGION_READ), ACCESS.pack(16, 9, 1) + b"x")
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        assert device.pread(64, NINE) == bytes(16) + b"x"
        device.close()


@pytest.mark.parametrize("size", [8, 200])
@pytest.mark.parametrize(
    ("said", "raised"),
    [
        (errno.EINVAL, errno.EINVAL),
        (errno.EIO, errno.EIO),
        (errno.EAGAIN, errno.EAGAIN),
        (errno.EPIPE, errno.EPIPE),
        (0, errno.EIO),
        (99_999, errno.EIO),
        (0xFFFF_FFEA, errno.EIO),  # -EINVAL
    ],
)
def test_an_error_reply_is_its_errno_and_the_session_goes_on(
    tmp_path: Path, size: int, said: int, raised: int
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.refuse(peer.expect(REGION_READ), said)
        peer.refuse(peer.expect(REGION_WRITE), said)
        read = peer.expect(REGION_READ)
        peer.reply(read, read.payload + bytes(4))
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        refused(raised, lambda: device.pread(size, NINE))
        refused(raised, lambda: device.pwrite(bytes(size), NINE))
        assert device.pread(4, NINE) == bytes(4)
        device.close()


def test_a_reply_that_comes_byte_by_byte_is_whole(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        for size in (8, 120):
            read = peer.expect(REGION_READ)
            whole = struct.pack("<HHIII", read.msg_id, 9, 32 + size, 1, 0)
            for byte in whole + read.payload + b"y" * size:
                peer.send(bytes([byte]))
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        assert device.pread(8, NINE) == b"y" * 8
        assert device.pread(120, NINE) == b"y" * 120
        device.close()


@pytest.mark.parametrize("offset", [-1, -(1 << 40), 1 << 63, 1 << 70])
def test_no_region_lies_outside_what_an_fd_has(tmp_path: Path, offset: int) -> None:
    regions = Regions()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        for call in (
            lambda: device.pread(4, offset),
            lambda: device.pwrite(b"abcd", offset),
            lambda: device.backing(4096, offset),
            lambda: device.pread(-1, NINE),
            lambda: device.pread(1 << 32, NINE),
        ):
            refused(errno.EINVAL, call)
        device.close()
    assert regions.asked == []


def test_an_access_of_no_bytes_is_left_to_the_server(tmp_path: Path) -> None:
    regions = Regions()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert device.pread(0, NINE) == b""
        assert device.pwrite(b"", NINE) == 0
        device.close()
    assert regions.commands() == [REGION_READ, REGION_WRITE]


# -- information


def test_the_migration_region_is_found_by_its_type_at_any_index(
    tmp_path: Path,
) -> None:
    regions = Regions(
        infos={
            0: (region_info(0, 0x1000), ()),
            3: (region_info(3, 0x2000, is_migration(3, 2)), ()),
            7: (region_info(7, 256), ()),
            9: (region_info(9, 0x3000, is_migration(1, 1)), ()),
            11: (region_info(11, 0x5000, is_migration(), offset=0x3000), ()),
            12: (region_info(12, 0x6000, is_migration()), ()),
        },
        count=13,
    )
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        found = find_migration_region(device)
        assert find_migration_region(device) == found
        device.close()
    assert found == FoundRegion(index=11, offset=11 << 40, size=0x5000, listed=())
    # One round trip a region, asked for once; those that are refused may change.
    asked = [
        struct.unpack_from("<I", message.payload, 8)[0]
        for message in regions.asked
        if message.command == GET_REGION_INFO
    ]
    assert asked[:12] == list(range(12))
    assert not {0, 3, 7, 9, 11} & set(asked[12:])


def test_a_chain_that_is_longer_than_expected_is_asked_for_again(
    tmp_path: Path,
) -> None:
    many = tuple((0x1000 * place, 0x1000) for place in range(1, 400))
    chain = (is_migration(), areas(*many))
    regions = Regions(infos={9: (region_info(9, 0x200000, *chain), ())})
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        assert find_migration_region(device).index == 9
        device.close()
    assert regions.commands().count(GET_REGION_INFO) == 11


def test_a_chain_that_cannot_be_followed_is_the_finders_to_refuse(
    tmp_path: Path,
) -> None:
    info = bytearray(region_info(9, 0x5000, is_migration(), flags=READ | MMAP))
    info[36:40] = struct.pack("<I", 0x1000)  # the next one leaves the info
    info[32:34] = struct.pack("<H", 7)
    regions = Regions(infos={9: (bytes(info), ())})
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        with pytest.raises(VendorDriverError, match="a capability at 0x1000"):
            find_migration_region(device)
        device.close()


def region_info_of(device: VfioUserDevice, index: int, argsz: int) -> bytes:
    argument = bytearray(struct.pack("<III", argsz, 0, index).ljust(argsz, b"\xee"))
    assert device.ioctl(REGION_INFO_IOCTL, argument) == 0
    return bytes(argument)


def test_a_region_info_has_the_handles_offset_and_the_argsz_rules(
    tmp_path: Path,
) -> None:
    info = region_info(9, 0x5000, is_migration(), offset=0x3000)
    regions = Regions(infos={9: (info, ())})
    flags = READ | WRITE | 8
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        short = region_info_of(device, 9, 40)
        whole = region_info_of(device, 9, 64)
        refused(errno.EINVAL, lambda: region_info_of(device, 9, 31))
        refused(errno.EINVAL, lambda: region_info_of(device, 5, 48))
        device.close()
    told = struct.pack("<IIIIQQ", 48, flags, 9, 0, 0x5000, NINE)
    assert short == told + b"\xee" * 8
    told = struct.pack("<IIIIQQ", 64, flags, 9, 32, 0x5000, NINE)
    assert whole == told + info[32:] + b"\xee" * 16


def test_a_region_that_no_offset_can_reach_is_an_errno(tmp_path: Path) -> None:
    infos = {9: (region_info(9, (1 << 40) + 1, is_migration()), ())}
    with serving(tmp_path / "s", Regions(infos=infos)) as server:
        device = connect(server.path)
        refused(errno.EOVERFLOW, lambda: region_info_of(device, 9, 64))
        device.close()


@pytest.mark.parametrize("argsz", [16, 20, 24])
def test_a_device_info_is_the_servers(tmp_path: Path, argsz: int) -> None:
    with serving(tmp_path / "s", Regions(count=10)) as server:
        device = connect(server.path)
        argument = bytearray(struct.pack("<I", argsz).ljust(argsz, b"\xee"))
        assert device.ioctl(GET_INFO_IOCTL, argument) == 0
        device.close()
    told = struct.pack("<IIIII", argsz, 3, 10, 5, 0) + b"\xee" * 4
    assert argument == told[:argsz]


def test_interrupts_and_the_reset_are_passed_on(tmp_path: Path) -> None:
    regions = Regions()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        argument = bytearray(struct.pack("<IIII", 16, 0, 2, 0))
        assert device.ioctl(IRQ_INFO_IOCTL, argument) == 0
        assert argument == struct.pack("<IIII", 16, 9, 2, 4)
        assert device.ioctl(RESET_IOCTL) == 0
        device.close()
    assert regions.commands() == [GET_IRQ_INFO, RESET]


@pytest.mark.parametrize(
    ("request_number", "argument", "code"),
    [
        (0x3B70, bytearray(64), errno.ENOTTY),
        (0x1234, None, errno.ENOTTY),
        (GET_INFO_IOCTL, None, errno.EFAULT),
        (GET_INFO_IOCTL, bytearray(3), errno.EFAULT),
        (GET_INFO_IOCTL, bytearray(b"\x0f\0\0\0" + bytes(12)), errno.EINVAL),
        (REGION_INFO_IOCTL, bytearray(b"\x40\0\0\0" + bytes(28)), errno.EFAULT),
        (SET_IRQS_IOCTL, bytearray(b"\x13\0\0\0" + bytes(16)), errno.EINVAL),
    ],
)
def test_an_argument_that_cannot_be_is_the_kernels_errno(
    tmp_path: Path, request_number: int, argument: bytearray | None, code: int
) -> None:
    regions = Regions()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        refused(code, lambda: device.ioctl(request_number, argument))
        device.close()
    assert regions.asked == []


# -- eventfds


def set_irqs(flags: int, start: int, count: int, data: bytes = b"") -> bytearray:
    head = struct.pack("<IIIII", 20 + len(data), flags, 1, start, count)
    return bytearray(head + data)


def test_eventfds_travel_beside_the_message(tmp_path: Path) -> None:
    first, second = os.eventfd(0), os.eventfd(0)
    fds = struct.pack("<iiiii", first, second, -1, -1, first)

    def script(peer: Peer) -> None:
        peer.greet()
        ran = []
        for wanted in (2, 0, 1):
            message = peer.expect(SET_IRQS)
            ran.append(struct.unpack("<IIIII", message.payload))
            assert len(message.fds) == wanted
            for fd in message.fds:
                os.eventfd_write(fd, 1 + len(ran))
                os.close(fd)
            peer.reply(message)
        assert ran == [(20, 0x24, 1, 3, 2), (20, 0x24, 1, 5, 2), (20, 0x24, 1, 7, 1)]
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        assert device.ioctl(SET_IRQS_IOCTL, set_irqs(0x24, 3, 5, fds)) == 0
        device.close()
    assert (os.eventfd_read(first), os.eventfd_read(second)) == (2 + 4, 2)
    os.close(first)
    os.close(second)


@pytest.mark.parametrize(("most", "messages"), [(8, [3]), (2, [2, 1]), (1, [1, 1, 1])])
def test_no_message_has_more_eventfds_than_a_server_takes(
    tmp_path: Path, most: int, messages: list[int]
) -> None:
    regions = Regions(capabilities=b'{"max_msg_fds":%d}' % most)
    fd = os.eventfd(0)
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        argument = set_irqs(0x24, 0, 3, struct.pack("<iii", fd, fd, fd))
        device.ioctl(SET_IRQS_IOCTL, argument)
        device.close()
    os.close(fd)
    assert [len(message.fds) for message in regions.asked] == messages
    starts = [message.payload[12:20] for message in regions.asked]
    ends = [sum(messages[: n + 1]) for n in range(len(messages))]
    assert starts == [
        struct.pack("<II", end - count, count)
        for end, count in zip(ends, messages, strict=True)
    ]


def test_other_interrupt_data_are_data(tmp_path: Path) -> None:
    regions = Regions()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        device.ioctl(SET_IRQS_IOCTL, set_irqs(0x22, 0, 3, b"\1\0\1"))
        device.ioctl(SET_IRQS_IOCTL, set_irqs(0x21, 0, 0))
        device.ioctl(SET_IRQS_IOCTL, set_irqs(0x24, 0, 0))
        device.close()
    assert [message.payload for message in regions.asked] == [
        struct.pack("<IIIII", 23, 0x22, 1, 0, 3) + b"\1\0\1",
        struct.pack("<IIIII", 20, 0x21, 1, 0, 0),
        struct.pack("<IIIII", 20, 0x24, 1, 0, 0),
    ]


def test_eventfds_that_cannot_travel_are_an_errno(tmp_path: Path) -> None:
    regions = Regions(capabilities=b'{"max_msg_fds":0}')
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        one = set_irqs(0x24, 0, 1, struct.pack("<i", 0))
        refused(errno.EINVAL, lambda: device.ioctl(SET_IRQS_IOCTL, one))
        short = set_irqs(0x24, 0, 2, struct.pack("<i", 0))
        refused(errno.EINVAL, lambda: device.ioctl(SET_IRQS_IOCTL, short))
        device.close()
    assert regions.asked == []
    with serving(tmp_path / "t", Regions()) as server:
        device = connect(server.path)
        gone = set_irqs(0x24, 0, 1, struct.pack("<i", CLOSED))
        refused(errno.EBADF, lambda: device.ioctl(SET_IRQS_IOCTL, gone))
        assert device.pread(1, NINE) == b"\0"  # the session goes on
        device.close()
