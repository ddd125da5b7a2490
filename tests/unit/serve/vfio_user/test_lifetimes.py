"""Clients one after another, drivers that die, and the socket's file."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, cast

import pytest

from tests.unit.serve.vfio_user.wire import (
    ACCESS,
    READ,
    RESET,
    VERSION,
    WRITE,
    Card,
    Client,
    serving,
)
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.serve.vfio_user.listening import ListenError, listen, listening

if TYPE_CHECKING:
    from pathlib import Path


def test_each_client_finds_a_device_as_freshly_opened(folder: Path) -> None:
    with serving(folder) as server:
        for number in range(1, 4):
            with Client(server.path) as client:
                assert client.read(0x200, 4) == bytes(4)
                client.write(0x200, b"mine")
            assert server.await_ends(number)[-1] == (2, "")
        calls = [cast("Card", driver).calls for driver in server.drivers]
        assert calls == [["read 512 4", "write 512 4", "close"]] * 3


def test_others_wait_while_a_client_is_served(folder: Path) -> None:
    with serving(folder) as server, Client(server.path) as first:
        with Client(server.path, is_agreed=False) as second:
            number = second.send(VERSION, b"\0\0\2\0")
            assert first.read(0, 1) == b"\0"
            first.socket.close()
            assert second.receive().number == number
            assert second.read(0, 1) == b"\0"
        assert len(server.drivers) == 2


@pytest.mark.parametrize("member", ["read", "write", "reset", "close"])
def test_a_driver_that_dies_is_not_used_again(folder: Path, member: str) -> None:
    class Dying(Card):
        def _die(self, *_: object) -> None:
            self.calls.append("died")
            raise KeyError(member)

    setattr(Dying, member, Dying._die)
    drivers = []

    def hold() -> None:
        with serving(folder, Dying) as server, Client(server.path) as client:
            if member == "read":
                client.send(READ, ACCESS.pack(0, 9, 4))
            elif member == "write":
                client.send(WRITE, ACCESS.pack(0, 9, 4) + bytes(4))
            elif member == "reset":
                client.send(RESET)
            else:
                client.socket.shutdown(socket.SHUT_WR)
            # Not a byte comes, and nobody else is served.
            assert client.is_closed()
            server.thread.join(10)
            assert not server.thread.is_alive()
            drivers.extend(server.drivers)

    with pytest.raises(DriverDiedError) as death:
        hold()
    assert death.value.error == f"KeyError: {member!r}"
    assert death.value.where.startswith(__file__)
    assert [cast("Card", driver).calls for driver in drivers] == [["died"]]


def test_a_device_that_cannot_be_opened_is_an_errno_and_the_next_is_tried(
    folder: Path,
) -> None:
    class Busy(Card):
        def connect(self, bus: object) -> None:
            raise OSError(errno.EBUSY, "another has it")

    made: list[type[Card]] = [Card, Busy]
    with serving(folder, lambda: made.pop()()) as server:
        with Client(server.path, is_agreed=False) as client:
            assert client.ask(VERSION, b"\0\0\2\0").error == errno.EBUSY
            assert client.is_closed()
        with Client(server.path) as client:
            assert client.read(0, 1) == b"\0"


def test_what_the_factory_raises_ends_the_server(folder: Path) -> None:
    def refuse() -> Card:
        raise LookupError("no driver")

    def hold() -> None:
        with (
            serving(folder, refuse) as server,
            Client(server.path, is_agreed=False) as client,
        ):
            client.send(VERSION, b"\0\0\2\0")
            assert client.is_closed()

    with pytest.raises(LookupError, match="no driver"):
        hold()


def test_a_driver_whose_close_fails_is_closed_all_the_same(folder: Path) -> None:
    class Failing(Card):
        def close(self) -> None:
            super().close()
            raise OSError(errno.EIO, "cannot")

    with serving(folder, Failing) as server:
        for number in (1, 2):
            with Client(server.path) as client:
                client.read(0, 1)
            server.await_ends(number)


# -- the socket's file


def test_the_file_is_there_as_long_as_the_server(folder: Path) -> None:
    path = folder / "sock"
    with listening(path):
        assert path.is_socket()
    assert not path.exists()


def test_a_socket_that_nobody_serves_is_replaced(folder: Path) -> None:
    path = folder / "sock"
    listen(path).close()
    assert path.is_socket()
    with listening(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_file_that_is_another_servers_by_now_stays(folder: Path) -> None:
    path = folder / "sock"
    with listening(path):
        path.unlink()
        other = listen(path)
    assert path.is_socket()
    other.close()


def test_where_another_server_listens_is_no_place(folder: Path) -> None:
    path = folder / "sock"
    with serving(folder), pytest.raises(ListenError, match=f"^{path}: another server"):
        listen(path)
    listen(path).close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(folder / "datagrams"))
        with pytest.raises(ListenError, match="another kind of server"):
            listen(folder / "datagrams")


def test_a_server_whose_backlog_is_full_is_alive(folder: Path) -> None:
    path = folder / "sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            with pytest.raises(ListenError, match="another server listens there"):
                listen(path)


def test_a_path_that_cannot_be_is_one_line(folder: Path) -> None:
    (folder / "file").write_text("precious")
    for path, why in (
        (folder / "file", "there is something else than a socket"),
        (folder, "there is something else than a socket"),
        (folder / "none" / "sock", "its folder is not there"),
        (folder / "file" / "sock", "Not a directory"),
        (folder / ("x" * 108), "a socket's has at most 107"),
    ):
        with pytest.raises(ListenError) as refusal:
            listen(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert why in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert (folder / "file").read_text() == "precious"
    longest = folder / ("x" * (107 - len(os.fsencode(folder)) - 1))
    listen(longest).close()
