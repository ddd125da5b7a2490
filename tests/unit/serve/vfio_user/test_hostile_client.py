"""Clients that mean harm: the next one is served, and nothing was kept."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.serve.vfio_user.wire import (
    ACCESS,
    HEADER,
    MIGRATION,
    NO_REPLY,
    READ,
    VERSION,
    WRITE,
    Card,
    Client,
    MappedCard,
    open_fds,
    region_info,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE: Final = HEADER.pack(1, READ, 32, 0, 0) + ACCESS.pack(0, MIGRATION, 4)
WRITTEN: Final = HEADER.pack(1, WRITE, 16 + 16 + 70000, 0, 0) + (
    ACCESS.pack(0x100, MIGRATION, 70000) + bytes(60000)
)


@pytest.fixture
def some_fds() -> Iterator[list[int]]:
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    "begun", [WHOLE[:1], WHOLE[:15], WHOLE[:16], WHOLE[:31], WRITTEN]
)
def test_a_message_that_was_begun_is_waited_for_and_not_for_ever(
    folder: Path, begun: bytes
) -> None:
    with serving(folder, patience=0.1) as server:
        with Client(server.path) as client:
            client.socket.sendall(begun)
            with Client(server.path) as another:
                assert another.read(0, 4) == bytes(4)
            assert client.is_closed()
        assert server.await_ends(1)[0] == (0, "its message is not whole after 0.1 s")


def test_dripping_bytes_does_not_help(folder: Path) -> None:
    with serving(folder, patience=0.2) as server, Client(server.path) as client:
        client.socket.settimeout(0.02)
        is_closed = False
        for byte in WHOLE:
            try:
                client.socket.send(bytes([byte]))
                is_closed = client.socket.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                is_closed = True
            if is_closed:
                break
        assert is_closed
        assert server.await_ends(1) == [(0, "its message is not whole after 0.2 s")]


def test_who_says_nothing_at_all_is_not_waited_for(folder: Path) -> None:
    with serving(folder, patience=0.1) as server:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(server.path))
            with Client(server.path) as another:
                assert another.read(0, 4) == bytes(4)
        assert server.ends[0] == (0, "it says nothing after 0.1 s")


def test_a_client_that_has_agreed_may_take_its_time(folder: Path) -> None:
    with serving(folder, patience=0.05) as server, Client(server.path) as client:
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):  # four times the patience for a message
            client.socket.recv(1)
        assert client.read(0, 4) == bytes(4)


@pytest.mark.parametrize("size", [4, 1 << 20])
def test_who_does_not_read_is_left(folder: Path, size: int) -> None:
    flood = (HEADER.pack(1, READ, 32, 0, 0) + ACCESS.pack(0, MIGRATION, size)) * 500
    with serving(folder, patience=0.1) as server:
        with Client(server.path) as client:
            with pytest.raises(ConnectionError):  # noqa: PT012 -- any of many
                while True:
                    client.socket.sendall(flood)
            assert "has not read" in server.await_ends(1)[0][1]
        with Client(server.path) as another:
            assert another.read(0, 4) == bytes(4)


@pytest.mark.parametrize("cut", range(0, 36, 5))
def test_a_client_may_vanish_at_any_byte(folder: Path, cut: int) -> None:
    with serving(folder) as server:
        for number, client_is_new in enumerate((True, False), 1):
            client = Client(server.path, is_agreed=not client_is_new)
            version = HEADER.pack(1, VERSION, 20, 0, 0) + struct.pack("<HH", 0, 2)
            client.socket.sendall((version + WHOLE)[20 * (not client_is_new) :][:cut])
            client.socket.close()
            server.await_ends(number)
        with Client(server.path) as another:
            assert another.read(0, 4) == bytes(4)


def test_fds_that_nobody_asked_for_are_closed(
    folder: Path, some_fds: list[int]
) -> None:
    with serving(folder, MappedCard) as server, Client(server.path) as client:
        for fd in region_info(client, MIGRATION).fds:
            os.close(fd)
        before = open_fds()
        read = ACCESS.pack(0, MIGRATION, 4)
        for number in range(1000):
            client.send(READ, read, fds=some_fds[: 1 + number % 32], flags=NO_REPLY)
            client.send(number % 20, read, fds=some_fds[:3], flags=NO_REPLY)
        assert client.read(0, 4) == bytes(4)
        assert open_fds() == before


@pytest.mark.parametrize("pieces", [1, 16])
def test_too_many_fds_end_the_connection(
    folder: Path, some_fds: list[int], pieces: int
) -> None:
    before = open_fds()
    with serving(folder) as server:
        client = Client(server.path)
        for number in range(pieces):
            fds = some_fds[: 33 if pieces == 1 else 3]
            try:
                socket.send_fds(client.socket, [WHOLE[number : number + 1]], fds)
            except ConnectionError:
                break
        assert client.is_closed()
        assert server.await_ends(1) == [(0, "a message with more than 32 fds")]
        client.socket.close()
    assert open_fds() == before


def test_a_claim_of_four_gigabytes_costs_nothing(folder: Path) -> None:
    with serving(folder) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(1, 20):
            with Client(server.path) as client:
                size = 0xFFFF_FFFF
                client.ask(READ, ACCESS.pack(0, MIGRATION, size))
                client.ask(WRITE, ACCESS.pack(0, MIGRATION, size))
                client.socket.sendall(HEADER.pack(1, WRITE, size, 0, 0))
                assert client.is_closed()
            server.await_ends(number)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 16 << 10  # KiB


# A process of its own, so that it may do with its sockets what it likes.
FUZZ: Final = """
import os, random, socket, struct, sys
path, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rnd = random.Random(seed)
HEADER = struct.Struct("<HHIII")
files = [os.open("/dev/null", os.O_RDWR), os.memfd_create("m"), os.eventfd(0, 0x800)]
os.ftruncate(files[1], 1 << 16)
files += list(os.pipe())
VALUES = [0, 1, 2, 3, 4, 7, 8, 9, 10, 16, 20, 24, 32, 36, 48, 4096, 0x10000,
    1 << 20, (1 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 9 << 40,
    (1 << 64) - 1]
def value(bits):
    v = rnd.choice(VALUES) if rnd.random() < 0.9 else rnd.getrandbits(64)
    return v & ((1 << bits) - 1)
SHAPES = {2: "IIQQQ", 3: "IIQQQQ", 4: "IIII", 5: "IIIIQQ", 6: "IIII", 7: "IIII",
    8: "IIIII", 9: "QII", 10: "QII", 11: "QQ", 12: "QQ", 13: "", 14: "IIQQQQ"}
def message():
    if rnd.random() < 0.005:
        return rnd.randbytes(rnd.randrange(1, 100))
    command = rnd.choice([*range(1, 15), *range(2, 15), rnd.getrandbits(16)])
    shape = SHAPES.get(command, "IIII")
    body = b"".join(struct.pack("<" + c, value(32 if c == "I" else 64)) for c in shape)
    if rnd.random() < 0.5 and body:
        body = struct.pack("<I", rnd.choice([8, 16, 24, 32, 48, 4096])) + body[4:]
    if rnd.random() < 0.3:
        body += rnd.randbytes(rnd.choice([1, 4, 16, 100, 5000]))
    if rnd.random() < 0.1:
        body = body[: rnd.randrange(len(body) + 1)]
    size = 16 + len(body)
    if rnd.random() < 0.005:
        size = value(32)
    flags = 0
    if rnd.random() < 0.1:
        flags = rnd.choice([0x10, 0x10, 0x10, 0x10, 1, 2, 0x21, 0xFFFFFFFF])
    return HEADER.pack(rnd.getrandbits(16), command, size, flags, 0) + body
for _ in range(rounds):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    s.connect(path)
    s.settimeout(0.02)
    try:
        if rnd.random() < 0.95:
            s.send(HEADER.pack(1, 1, 20, 0, 0) + struct.pack("<HH", 0, 2))
            s.recv(4096)
        for _ in range(rnd.randrange(200)):
            data = message()
            if rnd.random() < 0.1:
                data += message()
            if rnd.random() < 0.1:
                data = struct.pack("<HHIIIQIIQI", 1, 10, 44, 0, 0, rnd.choice(
                    [0x100, 0x108]), 9, 12, value(64), rnd.choice([1, 4096]))
            if rnd.random() < 0.1:
                data = struct.pack("<HHIIIIIQQQ", 1, 2, 48, 0, 0, 32, 3,
                    rnd.choice([0, 4096]), rnd.choice(VALUES[-9:]) & ~4095, 4096)
            number = rnd.choice([0, 0, 0, 1, 1, 2, 5]) if rnd.random() < 0.99 else 33
            fds = rnd.choices(files, k=number)
            socket.send_fds(s, [data], fds) if fds else s.send(data)
            if rnd.random() < 0.9:
                try:
                    if not s.recv(1 << 17):
                        break
                except TimeoutError: pass
    except (TimeoutError, ConnectionError):
        pass
    s.close()
"""


class Anything(Card):
    """Its memory takes an access anywhere, and its DMA may fail."""

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        if len(data) == 12:
            super().write(offset & 0x108, data)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_comes_an_honest_client_is_served_afterwards(
    folder: Path, seed: int
) -> None:
    with serving(folder, Anything, patience=0.1) as server:
        before = open_fds()
        subprocess.run(
            [sys.executable, "-c", FUZZ, str(server.path), str(seed), "40"],
            check=True,
            timeout=60,
        )
        with Client(server.path) as client:
            assert client.read(0, 4) == bytes(4)
        assert len(server.await_ends(41)) == 41
        assert open_fds() == before
        assert sum(accesses for accesses, _ in server.ends) > 20
