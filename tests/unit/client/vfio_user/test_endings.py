"""Servers that die, hang or talk garbage: one error, in words, and never a hang."""

from __future__ import annotations

import errno
import os
import pickle
import select
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.unit.client.vfio_user.scripted_server import (
    ACCESS,
    ERROR,
    HEADER,
    NO_REPLY,
    PATIENCE,
    REGION_READ,
    REGION_WRITE,
    REPLY,
    VERSION,
    Message,
    Peer,
    Regions,
    open_fds,
    region_info,
    serving,
)
from vfiomig.client.region import find_migration_region
from vfiomig.client.vfio_user import BusyError, ConnectError, VfioUserDevice, connect
from vfiomig.protocol.errors import DriverDiedError, DriverLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NINE = 9 << 40
RESET_IOCTL, GET_INFO_IOCTL, IRQ_INFO_IOCTL = 0x3B6F, 0x3B6B, 0x3B6D
LIMIT = 0.15  # seconds, of a server that is meant to let them pass


def lost(call: Callable[[], object]) -> DriverLostError:
    with pytest.raises(DriverLostError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return raised.value


def stays_lost(device: VfioUserDevice, error: DriverLostError) -> None:
    """See that whatever is asked later is answered alike, until it is closed."""
    for call in (
        lambda: device.pread(8, NINE),
        lambda: device.pread(500, NINE),
        lambda: device.pwrite(b"abcd", NINE),
        lambda: device.mmap(4096, NINE),
        lambda: device.backing(4096, NINE),
        lambda: device.ioctl(RESET_IOCTL),
        lambda: device.ioctl(GET_INFO_IOCTL, bytearray(b"\x14" + bytes(19))),
        lambda: device.map_dma(0, 4096, memory=memoryview(bytearray(4096))),
        lambda: device.unmap_dma(0, 4096),
        device.start_dirty_tracking,
        device.stop_dirty_tracking,
        lambda: device.dirty_bitmap(0, 4096, 4096),
        lambda: find_migration_region(device),
    ):
        again = lost(call)
        assert (again.access, again.where, again.error) == (
            error.access,
            error.where,
            error.error,
        )
    device.close()
    with pytest.raises(OSError, match="closed") as raised:
        device.pread(8, NINE)
    assert raised.value.errno == errno.EBADF
    device.close()


# What is asked, the access that it is, and what goes over the socket.
ASKED: tuple[tuple[Callable[[VfioUserDevice], object], str, str], ...] = (
    (
        lambda device: device.pread(8, NINE + 16),
        "read of 8 bytes at 0x10",
        "REGION_READ of 8 bytes at 0x10 of region 9",
    ),
    (
        lambda device: device.pread(500, NINE + 16),
        "read of 500 bytes at 0x10",
        "REGION_READ of 500 bytes at 0x10 of region 9",
    ),
    (
        lambda device: device.pwrite(b"abcd", NINE),
        "write of 4 bytes at 0x0",
        "REGION_WRITE of 4 bytes at 0x0 of region 9",
    ),
    (
        lambda device: device.pwrite(bytes(500), NINE),
        "write of 500 bytes at 0x0",
        "REGION_WRITE of 500 bytes at 0x0 of region 9",
    ),
    (
        lambda device: device.mmap(4096, NINE + 4096),
        "mmap of 0x1000 bytes at 0x1000",
        "DEVICE_GET_REGION_INFO of region 9",
    ),
    (
        lambda device: device.ioctl(RESET_IOCTL),
        "VFIO_DEVICE_RESET",
        "DEVICE_RESET",
    ),
    (find_migration_region, "VFIO_DEVICE_GET_INFO", "DEVICE_GET_INFO"),
    (
        lambda device: device.unmap_dma(0, 4096),
        "DMA unmap of 0x1000 bytes at 0x0",
        "DMA_UNMAP of 0x1000 bytes at 0x0",
    ),
    (
        lambda device: device.map_dma(0, 4096),
        "DMA map of 0x1000 bytes at 0x0",
        "DMA_MAP of 0x1000 bytes at 0x0",
    ),
)
every_request = pytest.mark.parametrize(
    ("ask", "access", "name"), ASKED, ids=[name for _, _, name in ASKED]
)


@every_request
def test_a_server_that_dies_is_lost_with_the_request(
    tmp_path: Path, ask: Callable[[VfioUserDevice], object], access: str, name: str
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.message()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        error = lost(lambda: ask(device))
        assert error.access == access
        assert error.where == str(server.path)
        assert error.error == f"the server closed the connection at {name}"
        stays_lost(device, error)


@pytest.mark.parametrize("size", [8, 500])
def test_a_server_that_left_before_is_lost_at_the_next_request(
    tmp_path: Path, size: int
) -> None:
    with serving(tmp_path / "s", lambda peer: peer.greet() and None) as server:
        device = connect(server.path, name="the mdev")
        server.finish()
        error = lost(lambda: device.pwrite(bytes(size), NINE))
        assert error.where == "the mdev"
        assert "the server closed the connection at REGION_WRITE" in error.error
        stays_lost(device, error)


@pytest.mark.parametrize("size", [8, 500])
@pytest.mark.parametrize("cut", [1, 15, 16, 17, 31, 32, 33])
def test_a_server_that_dies_in_the_middle_of_a_message_is_lost(
    tmp_path: Path, size: int, cut: int
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        read = peer.expect(REGION_READ)
        whole = HEADER.pack(read.msg_id, REGION_READ, 32 + size, REPLY, 0)
        peer.send((whole + read.payload + bytes(size))[:cut])

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        error = lost(lambda: device.pread(size, NINE))
        assert "closed the connection in the middle of a message" in error.error
        stays_lost(device, error)


def test_a_server_that_resets_the_connection_is_lost(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.socket.recv(1)  # and leaves the rest unread: the client gets ECONNRESET

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        error = lost(lambda: device.pread(8, NINE))
        assert error.error == (
            "the server closed the connection at "
            "REGION_READ of 8 bytes at 0x0 of region 9"
        )
        stays_lost(device, error)


def test_how_a_process_ended_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    child = os.fork()
    if not child:
        peer = Peer(listener.accept()[0])
        peer.greet()
        peer.message()
        os.kill(os.getpid(), signal.SIGKILL)
    listener.close()

    def post_mortem() -> str:
        _, status = os.waitpid(child, 0)
        return f"killed by signal {os.WTERMSIG(status)};\nstderr: none\n"

    device = connect(path, post_mortem=post_mortem)
    error = lost(lambda: device.pread(4, NINE))
    assert error.error == (
        "the server closed the connection at REGION_READ of 4 bytes at 0x0 of region 9 "
        "(killed by signal 9; stderr: none)"
    )
    device.close()


def test_a_lost_server_is_a_driver_that_died_and_crosses_to_another_process() -> None:
    error = DriverLostError("read", "/a/socket", "gone")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, DriverDiedError)
    assert (type(copy), str(copy)) == (DriverLostError, str(error))


# -- hanging


@every_request
def test_a_server_that_hangs_is_lost_when_the_limit_has_passed(
    tmp_path: Path, ask: Callable[[VfioUserDevice], object], access: str, name: str
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path, limit=LIMIT)
        began = time.monotonic()
        error = lost(lambda: ask(device))
        assert LIMIT * 0.9 < time.monotonic() - began < 10 * LIMIT
        assert error.access == access
        assert error.error == f"the server did not answer within {LIMIT} s at {name}"
        stays_lost(device, error)


@pytest.mark.parametrize("size", [8, 500])
def test_half_an_answer_is_none(tmp_path: Path, size: int) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        read = peer.expect(REGION_READ)
        peer.send(HEADER.pack(read.msg_id, REGION_READ, 32 + size, REPLY, 0))
        peer.send(read.payload)
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path, limit=LIMIT)
        began = time.monotonic()
        error = lost(lambda: device.pread(size, NINE))
        assert LIMIT * 0.9 < time.monotonic() - began < 10 * LIMIT
        assert "the server did not answer" in error.error
        device.close()


def test_a_server_that_reads_nothing_is_lost_while_a_message_is_sent(
    tmp_path: Path,
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        assert done.recv(1) == b""

    ours, done = socket.socketpair()
    with ours, done, serving(tmp_path / "s", script) as server:
        device = connect(server.path, limit=LIMIT)
        error = lost(lambda: device.pwrite(bytes(1 << 20), NINE))
        assert error.access == "write of 1048576 bytes at 0x0"
        assert "did not answer" in error.error
        device.close()
        ours.close()


def flood(connected: socket.socket, commands: bytes) -> None:
    """Send for ever, and take whatever is answered, until the other end leaves."""
    connected.setblocking(False)
    poll = select.poll()
    poll.register(connected, select.POLLIN | select.POLLOUT)
    while True:
        for _, event in poll.poll(PATIENCE * 1000):
            if event & select.POLLIN and not connected.recv(1 << 16):
                raise BrokenPipeError
            if event & select.POLLOUT:
                connected.send(commands, socket.MSG_NOSIGNAL)


@pytest.mark.parametrize("flags", [0, NO_REPLY])
def test_a_flood_of_commands_does_not_extend_the_limit(
    tmp_path: Path, flags: int
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect(REGION_READ)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            flood(peer.socket, HEADER.pack(1, 99, 16, flags, 0) * 64)

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path, limit=LIMIT)
        began = time.monotonic()
        error = lost(lambda: device.pread(8, NINE))
        assert time.monotonic() - began < 10 * LIMIT
        assert "did not answer" in error.error
        device.close()


def test_an_interrupted_wait_ends_the_session_and_is_passed_on(
    tmp_path: Path,
) -> None:
    class Interrupt(BaseException): ...

    def interrupt(*_: object) -> None:
        raise Interrupt

    def script(peer: Peer) -> None:
        peer.greet()
        peer.message()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        peer.until_gone()

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        for size in (8, 500):
            with serving(tmp_path / f"s{size}", script) as server:
                device = connect(server.path)
                with pytest.raises(Interrupt):
                    device.pread(size, NINE)
                error = lost(lambda: device.pread(size, NINE))  # noqa: B023
                assert "the wait was interrupted at REGION_READ" in error.error
                device.close()
    finally:
        signal.signal(signal.SIGUSR1, before)


# -- garbage: what comes for a read of 8 bytes at 0, whose message is ``read``


def header(read: Message, **changed: int) -> bytes:
    fields = {
        "msg_id": read.msg_id,
        "command": REGION_READ,
        "size": 40,
        "flags": REPLY,
        "error": 0,
        **changed,
    }
    return HEADER.pack(*fields.values())


GARBAGE: tuple[tuple[str, Callable[[Message], bytes]], ...] = (
    ("a message of 15 bytes: one has 16", lambda read: header(read, size=15)),
    ("a message of 0 bytes", lambda read: header(read, size=0)),
    ("a message of 4294967295 bytes", lambda read: header(read, size=0xFFFF_FFFF)),
    ("a message of type 2", lambda read: header(read, flags=2)),
    ("a message of 825110831 bytes", lambda _: b"HTTP/1.1TTTTT   no such device"),
    (
        "is marked as a command",
        lambda read: header(read, flags=0) + read.payload + bytes(8),
    ),
    (
        "a reply to message 77, not to",
        lambda read: header(read, msg_id=77) + read.payload + bytes(8),
    ),
    (
        "a reply to message 77, not to",
        lambda read: header(read, msg_id=77, size=16, flags=REPLY | ERROR, error=22),
    ),
    (
        "a reply to command 10, not to 9",
        lambda read: header(read, command=10) + read.payload + bytes(8),
    ),
    (
        "9 bytes, more than were asked for",
        lambda read: header(read, size=41) + ACCESS.pack(0, 9, 9) + bytes(9),
    ),
    (
        "access with 8 bytes: 23 bytes, not 24",
        lambda read: header(read, size=39) + read.payload + bytes(7),
    ),
    (
        "access with 8 bytes: 25 bytes, not 24",
        lambda read: header(read, size=41) + read.payload + bytes(9),
    ),
    (
        "access with 4294967295 bytes: 24 bytes",
        lambda read: header(read) + ACCESS.pack(0, 9, 0xFFFF_FFFF) + bytes(8),
    ),
    (
        "an answer for 0x8 of region 9",
        lambda read: header(read) + ACCESS.pack(8, 9, 8) + bytes(8),
    ),
    (
        "an answer for 0x0 of region 7",
        lambda read: header(read) + ACCESS.pack(0, 7, 8) + bytes(8),
    ),
    ("0 bytes, less than 16", lambda read: header(read, size=16)),
)


@pytest.mark.parametrize("is_quick", [True, False])
@pytest.mark.parametrize(("reason", "garbage"), GARBAGE)
def test_a_server_that_talks_garbage_is_lost_with_the_reason(
    tmp_path: Path, reason: str, garbage: Callable[[Message], bytes], is_quick: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        if not is_quick:  # a message of the server's own comes first
            peer.command(5, 99, bytes(200), NO_REPLY)
        read = peer.expect(REGION_READ)
        peer.send(garbage(read))
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        error = lost(lambda: device.pread(8, NINE))
        assert error.error.startswith(
            "the server talks garbage at REGION_READ of 8 bytes at 0x0 of region 9: "
        )
        assert reason in error.error
        stays_lost(device, error)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (ACCESS.pack(0, 9, 5), "5 bytes, more than were asked for"),
        (ACCESS.pack(4, 9, 4), "an answer for 0x4 of region 9"),
        (ACCESS.pack(0, 9, 4) + b"abcd", "region access: 20 bytes, not 16"),
        (b"", "region access: 0 bytes, not 16"),
    ],
)
def test_garbage_in_reply_to_a_write(
    tmp_path: Path, payload: bytes, reason: str
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.reply(peer.expect(REGION_WRITE), payload)
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        device = connect(server.path)
        error = lost(lambda: device.pwrite(b"abcd", NINE))
        assert error.access == "write of 4 bytes at 0x0"
        assert reason in error.error
        device.close()


def test_garbage_in_other_replies(tmp_path: Path) -> None:
    info = region_info(0, 4096)
    cases: tuple[tuple[Callable[[VfioUserDevice], object], bytes, str], ...] = (
        (find_migration_region, bytes(15), "device info: 15 bytes"),
        (
            lambda device: device.backing(4096, 0),
            region_info(1, 4096),
            "the info of region 1, not 0",
        ),
        (
            lambda device: device.backing(4096, 0),
            struct.pack("<I", 1 << 30) + info[4:],
            "the info of region 0 needs 1073741824 bytes",
        ),
        (lambda device: device.backing(4096, 0), info[:31], "region info: 31 bytes"),
        (
            lambda device: device.ioctl(
                IRQ_INFO_IOCTL, bytearray(struct.pack("<IIII", 16, 0, 2, 0))
            ),
            struct.pack("<IIII", 16, 0, 1, 0),
            "the info of interrupt 1, not 2",
        ),
        (lambda device: device.ioctl(RESET_IOCTL), b"x", "1 bytes, not 0"),
    )
    for number, (ask, payload, reason) in enumerate(cases):

        def script(peer: Peer, payload: bytes = payload) -> None:
            peer.greet()
            message = peer.message()
            if message.command == 4 and len(payload) != 15:
                peer.reply(message, struct.pack("<IIII", 16, 3, 1, 0))
                message = peer.message()
            peer.reply(message, payload)
            peer.until_gone()

        with serving(tmp_path / f"s{number}", script) as server:
            device = connect(server.path)
            error = lost(lambda: ask(device))  # noqa: B023
            assert reason in error.error
            device.close()


# -- connecting


def refused(call: Callable[[], object], reason: str) -> ConnectError:
    with pytest.raises(ConnectError) as raised:
        call()
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    return raised.value


def test_where_nobody_listens_there_is_no_session(tmp_path: Path) -> None:
    refused(lambda: connect(tmp_path / "none"), "none: no server can be reached: No su")
    (tmp_path / "file").write_text("")
    refused(lambda: connect(tmp_path / "file"), "Connection refused")
    refused(lambda: connect(tmp_path), "Connection refused")
    refused(lambda: connect(str(tmp_path / ("x" * 200))), "path too long")
    refused(lambda: connect("a\0b"), "no server can be reached")
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left"))
    left.close()
    refused(lambda: connect(tmp_path / "left", name="X"), "X: no server can be reached")


def test_a_limit_is_a_time(tmp_path: Path) -> None:
    for limit in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="a limit of"):
            connect(tmp_path / "none", limit=limit)


@pytest.mark.parametrize("limit", [1e9, float("inf")])
def test_a_limit_may_be_as_good_as_none(tmp_path: Path, limit: float) -> None:
    with serving(tmp_path / "s", Regions()) as server:
        device = connect(server.path, limit=limit)
        assert len(device.pread(500, NINE)) == 500
        assert len(device.pread(8, NINE)) == 8
        device.close()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\1\0\0\0{}\0", "version 1.0 in reply to 0.2"),
        (b"\0\0\3\0{}\0", "minor version 3 in reply to 2"),
        (b"\0\0\2\0{}", "without a NUL"),
        (b"\0\0\2\0nonsense\0", "no JSON"),
        (b"\0\0", "a version of 2 bytes"),
    ],
)
def test_a_version_that_does_not_fit_is_no_session(
    tmp_path: Path, said: bytes, reason: str
) -> None:
    def script(peer: Peer) -> None:
        peer.reply(peer.expect(VERSION), said)
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        error = refused(lambda: connect(server.path), reason)
        assert not isinstance(error, BusyError)


def test_a_server_may_speak_less_and_say_nothing(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.reply(peer.expect(VERSION), b"\0\0\1\0")
        peer.until_gone()

    with serving(tmp_path / "s", script) as server:
        connect(server.path).close()


def test_a_server_that_refuses_is_no_session(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.refuse(peer.expect(VERSION), errno.EINVAL)

    with serving(tmp_path / "s", script) as server:
        refused(
            lambda: connect(server.path),
            "the server refuses version 0.2: Invalid argument",
        )


def test_a_server_that_dies_at_once_is_no_session(tmp_path: Path) -> None:
    with serving(tmp_path / "s", lambda peer: peer.message() and None) as server:
        error = refused(
            lambda: connect(server.path, post_mortem=lambda: "exit status 1"),
            "the server closed the connection at VERSION (exit status 1)",
        )
        assert not isinstance(error, BusyError)


def test_a_server_that_does_not_answer_is_busy(tmp_path: Path) -> None:
    with serving(tmp_path / "s", Peer.until_gone) as server:
        began = time.monotonic()
        error = refused(
            lambda: connect(server.path, limit=LIMIT),
            f"the server did not answer within {LIMIT} s at VERSION",
        )
        assert time.monotonic() - began < 10 * LIMIT
        assert isinstance(error, BusyError)


def test_a_server_whose_queue_is_full_is_busy(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "s"))
            began = time.monotonic()
            error = refused(
                lambda: connect(tmp_path / "s", limit=LIMIT), "its queue is full"
            )
            assert LIMIT * 0.9 < time.monotonic() - began < 10 * LIMIT
            assert isinstance(error, BusyError)


def test_nothing_stays_open_behind_a_session_or_none(tmp_path: Path) -> None:
    before = open_fds()
    with pytest.raises(ConnectError):
        connect(tmp_path / "none")

    def refusing(peer: Peer) -> None:
        peer.refuse(peer.expect(VERSION), errno.EINVAL)

    with serving(tmp_path / "s", refusing) as server, pytest.raises(ConnectError):
        connect(server.path)

    with serving(tmp_path / "t", lambda peer: peer.greet() and None) as server:
        device = connect(server.path)
        lost(lambda: device.pread(8, NINE))
        device.close()
    assert open_fds() == before
