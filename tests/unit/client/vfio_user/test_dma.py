"""Memory for the device: what a server is told of it, and what it gets when it asks."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.client.vfio_user.scripted_server import (
    DIRTY_PAGES,
    DMA_MAP,
    DMA_READ,
    DMA_UNMAP,
    DMA_WRITE,
    ERROR,
    HEADER,
    NO_REPLY,
    REGION_READ,
    REPLY,
    RESET,
    VERSION,
    Message,
    Peer,
    Regions,
    memfd,
    open_fds,
    serving,
)
from vfiomig.client.vfio_user import connect
from vfiomig.protocol.errors import DriverLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLACE = struct.Struct("<QQ")
RESET_IOCTL = 0x3B6F
NINE = 9 << 40
CLOSED = 9999  # no fd of this process


def refused(code: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 -- its errno is what counts
        call()
    assert raised.value.errno == code


class Asking(Regions):
    """A server that asks for memory before it answers a reset or a region read."""

    def __init__(self, *commands: tuple[int, bytes]) -> None:
        super().__init__(meanwhile=self.ask)
        self.commands_of_its_own = commands
        self.answers: list[Message] = []

    def ask(self, peer: Peer) -> None:
        if self.asked[-1].command not in (RESET, REGION_READ):
            return
        for number, (command, payload) in enumerate(self.commands_of_its_own, 1000):
            peer.command(number, command, payload)
            answer = peer.message()
            assert (answer.msg_id, answer.command) == (number, command)
            self.answers.append(answer)

    def said(self) -> list[bytes | int]:
        """Return each answer: its payload, or its errno."""
        assert {answer.flags for answer in self.answers} <= {REPLY, REPLY | ERROR}
        return [
            answer.error if answer.flags & ERROR else answer.payload
            for answer in self.answers
        ]


def read_of(iova: int, size: int) -> tuple[int, bytes]:
    return DMA_READ, PLACE.pack(iova, size)


def write_of(iova: int, data: bytes) -> tuple[int, bytes]:
    return DMA_WRITE, PLACE.pack(iova, len(data)) + data


def test_a_mapping_is_told_with_its_file(tmp_path: Path) -> None:
    regions = Regions()
    with memfd(bytes(0x4000)) as fd:
        inode = os.fstat(fd).st_ino

        def look(peer: Peer) -> None:
            passed = [os.fstat(each).st_ino for each in regions.asked[-1].fds]
            assert passed == ([inode] if len(regions.asked) == 1 else [])

        regions.meanwhile = look
        with serving(tmp_path / "s", regions) as server:
            device = connect(server.path)
            device.map_dma(0x10_0000, 0x2000, file=(fd, 0x1000))
            memory = memoryview(bytearray(0x1000))
            device.map_dma(0x20_0000, 0x1000, memory=memory, writable=False)
            device.map_dma(0x30_0000, 0x1000, readable=False)
            assert device.unmap_dma(0x10_0000, 0x2000) is None
            device.close()
    assert [(message.command, message.payload) for message in regions.asked] == [
        (DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0x1000, 0x10_0000, 0x2000)),
        (DMA_MAP, struct.pack("<IIQQQ", 32, 1, 0, 0x20_0000, 0x1000)),
        (DMA_MAP, struct.pack("<IIQQQ", 32, 2, 0, 0x30_0000, 0x1000)),
        (DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0x10_0000, 0x2000)),
    ]


def test_a_server_that_takes_no_files_gets_none(tmp_path: Path) -> None:
    server_asks = Asking(read_of(0x1000, 4))
    server_asks.capabilities = b'{"max_msg_fds":0}'
    with memfd(b"abcd" * 0x400) as fd, serving(tmp_path / "s", server_asks) as server:
        device = connect(server.path)
        device.map_dma(0x1000, 0x1000, file=(fd, 0))
        device.ioctl(RESET_IOCTL)
        device.close()
    assert server_asks.asked[0].fds == []
    assert server_asks.said() == [PLACE.pack(0x1000, 4) + b"abcd"]


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("size", [8, 500])
def test_what_a_server_asks_for_meanwhile_is_answered(
    tmp_path: Path, kind: str, size: int
) -> None:
    server_asks = Asking(
        read_of(0x1000, 4), write_of(0x1FFE, b"XY"), read_of(0x1FFC, 4), read_of(0, 0)
    )
    memory = bytearray(b"abcd" * 0x400)
    with memfd(bytes(8) + memory) as fd, serving(tmp_path / "s", server_asks) as server:
        device = connect(server.path)
        if kind == "memory":
            device.map_dma(0x1000, 0x1000, memory=memoryview(memory))
        else:
            device.map_dma(0x1000, 0x1000, file=(fd, 8))
        assert device.pread(size, NINE) == server_asks.memory[:size]
        device.close()
        assert server_asks.said() == [
            PLACE.pack(0x1000, 4) + b"abcd",
            PLACE.pack(0x1FFE, 2),
            PLACE.pack(0x1FFC, 4) + b"abXY",
            PLACE.pack(0, 0),
        ]
        written = memory if kind == "memory" else os.pread(fd, 0x2000, 8)
    assert written == (b"abcd" * 0x400)[:-2] + b"XY"


def test_one_access_may_go_over_mappings_that_touch(tmp_path: Path) -> None:
    first, second = bytearray(b"a" * 0x1000), bytearray(b"b" * 0x1000)
    server_asks = Asking(read_of(0x1FFE, 4), write_of(0x1FFF, b"XYZ"))
    with serving(tmp_path / "s", server_asks) as server:
        device = connect(server.path)
        device.map_dma(0x2000, 0x1000, memory=memoryview(second))
        device.map_dma(0x1000, 0x1000, memory=memoryview(first))
        device.ioctl(RESET_IOCTL)
        device.close()
    assert server_asks.said() == [
        PLACE.pack(0x1FFE, 4) + b"aabb",
        PLACE.pack(0x1FFF, 3),
    ]
    assert first[-2:] + second[:3] == b"aXYZb"


def test_what_a_server_may_not_have_is_an_error_and_changes_nothing(
    tmp_path: Path,
) -> None:
    memory = bytearray(0x1000)
    cases: tuple[tuple[tuple[int, bytes], int], ...] = (
        (read_of(0, 1), errno.EFAULT),
        (read_of(0xFFF, 2), errno.EFAULT),
        (read_of(0x1FFF, 2), errno.EFAULT),
        (write_of(0x1FFF, b"ab"), errno.EFAULT),
        (read_of((1 << 64) - 1, 2), errno.EFAULT),
        (read_of(0x1000, 1 << 63), errno.EINVAL),
        (read_of(0x1000, (1 << 20) + 1), errno.EINVAL),
        (read_of(0x5000, 1), errno.EFAULT),  # write-only
        (write_of(0x6000, b"x"), errno.EFAULT),  # read-only
        (read_of(0x7000, 1), errno.EFAULT),  # nothing is behind it
        (write_of(0x7000, b"x"), errno.EFAULT),
        (write_of(0x8000, b"x"), errno.EFAULT),  # bytes that cannot change
        (read_of(0x9800, 1), errno.EFAULT),  # a file that ends before
        (write_of(0x9800, b"x"), errno.EFAULT),
        ((DMA_READ, bytes(15)), errno.EINVAL),
        ((DMA_READ, bytes(17)), errno.EINVAL),
        ((DMA_WRITE, PLACE.pack(0x1000, 4) + b"abc"), errno.EINVAL),
        ((VERSION, b""), errno.EINVAL),
        ((99, b"what is this?"), errno.EINVAL),
    )
    server_asks = Asking(*(command for command, _ in cases))
    with memfd(bytes(0x800)) as fd, serving(tmp_path / "s", server_asks) as server:
        device = connect(server.path)
        device.map_dma(0x1000, 0x1000, memory=memoryview(memory))
        view = memoryview(bytearray(0x1000))
        device.map_dma(0x5000, 0x1000, memory=view, readable=False)
        device.map_dma(0x6000, 0x1000, memory=view, writable=False)
        device.map_dma(0x7000, 0x1000)
        device.map_dma(0x8000, 0x1000, memory=memoryview(bytes(0x1000)))
        device.map_dma(0x9000, 0x1000, file=(fd, 0))
        device.ioctl(RESET_IOCTL)
        device.close()
        assert os.fstat(fd).st_size == 0x800
    assert server_asks.said() == [code for _, code in cases]
    assert memory == bytes(0x1000)


def test_a_command_that_wants_no_reply_gets_none(tmp_path: Path) -> None:
    memory = bytearray(0x1000)

    def script(peer: Peer) -> None:
        peer.greet()
        peer.reply(peer.expect(DMA_MAP))
        reset = peer.expect(RESET)
        peer.command(1, *write_of(0x1000, b"abc"), flags=NO_REPLY)
        peer.command(2, *write_of(0, b"abc"), flags=NO_REPLY)
        peer.command(3, 99, b"", flags=NO_REPLY)
        peer.command(4, *read_of(0x1000, 3))
        answer = peer.message()
        assert (answer.msg_id, answer.payload[16:]) == (4, b"abc")
        peer.reply(reset)
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        device.map_dma(0x1000, 0x1000, memory=memoryview(memory))
        device.ioctl(RESET_IOCTL)
        device.close()
    assert memory[:3] == b"abc"


@pytest.mark.parametrize(
    ("command", "answered"),
    [
        (read_of(0x1000, 4), PLACE.pack(0x1000, 4) + b"abcd"),
        ((99, b""), b""),  # so short that all of it is read ahead
    ],
)
def test_a_command_may_come_behind_a_reply_and_before_the_next(
    tmp_path: Path, command: tuple[int, bytes], answered: bytes
) -> None:
    """It comes with a short reply at once: what is read ahead is not lost."""
    number, payload = command
    memory = bytearray(b"abcd" * 0x400)

    def script(peer: Peer) -> None:
        peer.greet()
        peer.reply(peer.expect(DMA_MAP))
        read = peer.expect(REGION_READ)
        refusal = HEADER.pack(read.msg_id, REGION_READ, 16, REPLY | ERROR, errno.EIO)
        peer.send(refusal + HEADER.pack(77, number, 16 + len(payload), 0, 0) + payload)
        again = peer.expect(REGION_READ)  # sent before the client looked further
        answer = peer.message()
        assert (answer.msg_id, answer.payload) == (77, answered)
        peer.reply(again, again.payload + bytes(8))
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path, limit=2)
        device.map_dma(0x1000, 0x1000, memory=memoryview(memory))
        refused(errno.EIO, lambda: device.pread(8, NINE))
        assert device.pread(8, NINE) == bytes(8)
        device.close()


def test_memory_is_reached_while_it_is_mapped_and_no_longer(tmp_path: Path) -> None:
    memory = bytearray(b"abcd" * 0x400)

    def script(peer: Peer) -> None:
        peer.greet()
        for command in (DMA_MAP, DMA_UNMAP, RESET):
            message = peer.expect(command)
            peer.command(1, *read_of(0x1000, 4))
            answer = peer.message()
            assert answer.error == (errno.EFAULT if command == RESET else 0)
            peer.reply(message, message.payload if command == DMA_UNMAP else b"")
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        device.map_dma(0x1000, 0x1000, memory=memoryview(memory))
        device.unmap_dma(0x1000, 0x1000)
        memory.clear()  # BufferError, were a view of it held
        device.ioctl(RESET_IOCTL)
        device.close()


def test_what_a_server_refuses_to_map_is_not_mapped(tmp_path: Path) -> None:
    before = open_fds()
    memory = bytearray(0x1000)

    def script(peer: Peer) -> None:
        peer.greet()
        for code in (errno.ENOMEM, errno.EINVAL):
            message = peer.expect(DMA_MAP)
            for fd in message.fds:
                os.close(fd)
            peer.refuse(message, code)
        message = peer.expect(DMA_MAP)
        peer.command(1, *read_of(0x1000, 4))
        assert peer.message().payload == PLACE.pack(0x1000, 4) + bytes(4)
        peer.reply(message, message.payload)  # some repeat it
        peer.refuse(peer.expect(DMA_UNMAP), errno.ENOENT)
        reset = peer.expect(RESET)
        peer.command(1, *read_of(0x1000, 4))
        assert peer.message().payload == PLACE.pack(0x1000, 4) + bytes(4)
        peer.reply(reset)
        peer.until_gone()

    with memfd(bytes(0x1000)) as fd, serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        refused(errno.ENOMEM, lambda: device.map_dma(0x1000, 0x1000, file=(fd, 0)))
        view = memoryview(memory)
        refused(errno.EINVAL, lambda: device.map_dma(0x1000, 0x1000, memory=view))
        device.map_dma(0x1000, 0x1000, memory=view)
        refused(errno.ENOENT, lambda: device.unmap_dma(0x1000, 0x1000))
        device.ioctl(RESET_IOCTL)
        device.close()
        view.release()
    memory.clear()
    assert open_fds() == before


def test_what_cannot_be_mapped_is_an_errno_of_ours(tmp_path: Path) -> None:
    before = open_fds()
    regions, view = Regions(), memoryview(bytearray(0x1000))
    with memfd(b"") as fd, serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        device.map_dma(0x1000, 0x1000, memory=view)
        for code, call in (
            (errno.EINVAL, lambda: device.map_dma(-1, 0x1000)),
            (errno.EINVAL, lambda: device.map_dma(0, 0)),
            (errno.EINVAL, lambda: device.map_dma(0, (1 << 64) + 1)),
            (errno.EINVAL, lambda: device.map_dma(1 << 63, 1 << 63 | 1)),
            (errno.EINVAL, lambda: device.map_dma(0x8000, 0x1001, memory=view)),
            (errno.EINVAL, lambda: device.map_dma(0x8000, 0x1000, file=(fd, -1))),
            (errno.EINVAL, lambda: device.map_dma(0x8000, 1, file=(fd, 1 << 64))),
            (errno.EBADF, lambda: device.map_dma(0x8000, 1, file=(CLOSED, 0))),
            (errno.EBADF, lambda: device.map_dma(0x8000, 1, file=(-1, 0))),
            (errno.EEXIST, lambda: device.map_dma(0x1FFF, 1, file=(fd, 0))),
            (errno.EEXIST, lambda: device.map_dma(0, 0x8000)),
            (errno.EINVAL, lambda: device.unmap_dma(0x1000, 0)),
            (errno.EINVAL, lambda: device.unmap_dma(0x1000, 0x1000, pgsize=0)),
            (errno.EINVAL, lambda: device.unmap_dma(0x1000, 0x1000, pgsize=3000)),
            (errno.EINVAL, lambda: device.dirty_bitmap(0, 0x1000, -4096)),
            (errno.EINVAL, lambda: device.dirty_bitmap(0, 1 << 63, 4096)),
        ):
            refused(code, call)
        device.close()
    assert regions.commands() == [DMA_MAP]
    assert open_fds() == before


# -- dirty pages


def test_dirty_pages_are_begun_got_and_ended(tmp_path: Path) -> None:
    bits = b"\5" + bytes(7) + b"\1" + bytes(7)

    class Tracking(Regions):
        def answer(self, peer: Peer, message: Message) -> None:
            flags = struct.unpack_from("<I", message.payload, 4)[0]
            if message.command == DIRTY_PAGES and flags == 1:
                peer.reply(message, message.payload)  # some repeat it
            elif message.command == DIRTY_PAGES and flags == 4:
                peer.reply(message, message.payload + bits)
            elif message.command == DMA_UNMAP:
                peer.reply(message, message.payload + bits[:8])
            else:
                peer.reply(message)

    regions = Tracking()
    with serving(tmp_path / "s", regions) as server:
        device = connect(server.path)
        device.start_dirty_tracking()
        # 65 pages of 4 KiB: two words
        assert device.dirty_bitmap(0x10_0000, 65 * 4096, 4096) == bits
        assert device.unmap_dma(0x10_0000, 64 * 4096, pgsize=4096) == bits[:8]
        device.stop_dirty_tracking()
        device.close()
    assert [(message.command, message.payload) for message in regions.asked] == [
        (DIRTY_PAGES, struct.pack("<II", 8, 1)),
        (
            DIRTY_PAGES,
            struct.pack("<IIQQQQ", 56, 4, 0x10_0000, 65 * 4096, 4096, 16),
        ),
        (DMA_UNMAP, struct.pack("<IIQQQQ", 48, 1, 0x10_0000, 64 * 4096, 4096, 8)),
        (DIRTY_PAGES, struct.pack("<II", 8, 2)),
    ]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (struct.pack("<IIQQQQ", 48, 4, 0, 4096, 4096, 8), "0 bytes of bits, not 8"),
        (struct.pack("<IIQQQQ", 48, 4, 0, 4096, 4096, 8) + b"x", "1 bytes, not 8"),
        (struct.pack("<IIQQQQ", 48, 4, 8, 4096, 4096, 8) + bytes(8), "another range"),
        (struct.pack("<IIQQQQ", 48, 4, 0, 4096, 2048, 8) + bytes(8), "other pages"),
        (struct.pack("<II", 8, 1), "another range"),
        (b"", "0 bytes, less than 8"),
    ],
)
def test_bits_that_do_not_fit_are_garbage(
    tmp_path: Path, payload: bytes, reason: str
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.reply(peer.expect(DIRTY_PAGES), payload)
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        with pytest.raises(DriverLostError, match=reason) as raised:
            device.dirty_bitmap(0, 4096, 4096)
        assert raised.value.access == "DIRTY_PAGES, bitmap of 0x1000 bytes at 0x0"
        device.close()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (struct.pack("<IIQQ", 24, 0, 4096, 4096), "0x1000 bytes at 0x1000 were"),
        (struct.pack("<IIQQ", 24, 0, 0, 8192), "0x2000 bytes at 0x0 were"),
        (struct.pack("<IIQQ", 24, 0, 0, 4096), "the bits are of None"),
        (struct.pack("<IIQQQQ", 48, 1, 0, 4096, 4096, 8), "0 bytes of bits"),
    ],
)
def test_an_unmapping_that_does_not_fit_is_garbage(
    tmp_path: Path, payload: bytes, reason: str
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.reply(peer.expect(DMA_UNMAP), payload)
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        with pytest.raises(DriverLostError, match=reason):
            device.unmap_dma(0, 4096, pgsize=4096)
        device.close()
