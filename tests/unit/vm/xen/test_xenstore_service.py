"""A guest that speaks with the store over the ring page."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from vfiomig.protocol.xenstore import (
    Message,
    Ring,
    decode_texts,
    message_in,
    missing_in,
    request,
)
from vfiomig.uapi.xen_xs_wire import (
    XS_DIRECTORY,
    XS_DIRECTORY_PART,
    XS_ERROR,
    XS_GET_PERMS,
    XS_INTRODUCE,
    XS_MKDIR,
    XS_READ,
    XS_RESET_WATCHES,
    XS_RM,
    XS_SET_PERMS,
    XS_TRANSACTION_END,
    XS_TRANSACTION_START,
    XS_UNWATCH,
    XS_WATCH,
    XS_WATCH_EVENT,
    XS_WRITE,
)
from vfiomig.vm.xen.xenstore import CrashError, XenStore
from vfiomig.vm.xen.xenstore_service import XenStoreService

HOME: Final = "/local/domain/1"


class Guest:
    """The guest's end, which waits for each reply; events are kept."""

    def __init__(self, store: XenStore) -> None:
        self.page = memoryview(bytearray(4096))
        self.service = XenStoreService(store, self.page)
        self.requests = Ring.of_requests(self.page)
        self.responses = Ring.of_responses(self.page)
        self.got = b""
        self.events: list[list[str]] = []

    def ask(self, kind: int, *texts: str, value: bytes = b"", tx: int = 0) -> Message:
        message = request(kind, *texts, value=value, req_id=9, tx_id=tx)
        data = message.encode()
        while data:
            data = data[self.requests.put(data) :]
            self.service.process()
        reply = self.receive()
        while reply.type == XS_WATCH_EVENT:
            self.events.append(decode_texts(reply.payload))
            reply = self.receive()
        assert (reply.req_id, reply.tx_id) == (9, tx)
        return reply

    def receive(self) -> Message:
        while missing := missing_in(self.got):
            self.service.process()
            taken = self.responses.take(missing)
            assert taken, "the store is silent"
            self.got += taken
        message, self.got = message_in(self.got), b""
        assert message is not None
        return message

    def told(self, kind: int, *texts: str, value: bytes = b"", tx: int = 0) -> bytes:
        reply = self.ask(kind, *texts, value=value, tx=tx)
        return (b"!" if reply.type == XS_ERROR else b"") + reply.payload


def a_store(quirks: str | None = None) -> XenStore:
    store = XenStore(1, "qemu" if quirks else None)
    store.write(0, 0, HOME, b"")
    store.set_perms(0, 0, HOME, ["n1"])
    return store


@pytest.fixture
def guest() -> Guest:
    return Guest(a_store())


def test_each_request_has_its_reply(guest: Guest) -> None:
    assert guest.told(XS_WRITE, "a", value=b"\0one") == b"OK\0"
    assert guest.told(XS_READ, "a") == b"\0one"
    assert guest.told(XS_MKDIR, "b") == b"OK\0"
    assert guest.told(XS_DIRECTORY, HOME) == b"a\0b\0"
    assert guest.told(XS_SET_PERMS, "a", "n1", "r2") == b"OK\0"
    assert guest.told(XS_GET_PERMS, "a") == b"n1\0r2\0"
    assert guest.told(XS_TRANSACTION_START, "") == b"2\0"
    assert guest.told(XS_RM, "a", tx=2) == b"OK\0"
    assert guest.told(XS_TRANSACTION_END, "T", tx=2) == b"OK\0"
    assert guest.told(XS_READ, "a") == b"!ENOENT\0"
    assert guest.told(XS_WATCH, "b", "t") == b"OK\0"
    assert guest.told(XS_UNWATCH, "b", "t") == b"OK\0"
    assert guest.told(XS_RESET_WATCHES, "") == b"OK\0"


@pytest.mark.parametrize(
    ("kind", "texts", "error"),
    [
        (0, (), "EACCES"),
        (XS_INTRODUCE, ("1",), "EACCES"),
        (10, ("1",), "ENOSYS"),
        (20, (), "ENOSYS"),
        (23, (), "ENOSYS"),
        (XS_READ, (), "EINVAL"),
        (XS_WRITE, ("/a",), "EACCES"),
        (XS_SET_PERMS, ("a", "zz"), "EINVAL"),
        (XS_TRANSACTION_END, ("X",), "EINVAL"),
        (XS_TRANSACTION_END, ("T",), "ENOENT"),
        (XS_TRANSACTION_START, ("a",), "EINVAL"),
        (XS_DIRECTORY_PART, (HOME, "-1"), "EINVAL"),
        (XS_DIRECTORY_PART, (HOME, "1"), "EINVAL"),
    ],
)
def test_what_cannot_be_done_is_an_error(
    guest: Guest, kind: int, texts: tuple[str, ...], error: str
) -> None:
    assert guest.told(kind, *texts) == f"!{error}\0".encode()


def test_a_long_directory_comes_in_parts(guest: Guest) -> None:
    names = [f"{number:03}-{'x' * 60}" for number in range(150)]
    for name in names:
        guest.service.store.write(1, 0, name, b"")
    assert guest.told(XS_DIRECTORY, HOME) == b"!E2BIG\0"
    found, parts = b"", 0
    while not found.endswith(b"\0\0"):
        part = guest.told(XS_DIRECTORY_PART, HOME, str(len(found)))
        generation, _, rest = part.partition(b"\0")
        assert (generation, len(part) <= 4096) == (b"150", True)
        found, parts = found + rest, parts + 1
    assert decode_texts(found[:-1]) == names
    assert parts == 3  # of 63 names of 65 bytes at most


def test_an_event_comes_before_the_next_reply(guest: Guest) -> None:
    guest.ask(XS_WATCH, "a", "t")
    guest.service.store.write(0, 0, f"{HOME}/a/b", b"")
    guest.ask(XS_READ, "a")
    assert guest.events == [["a", "t"], ["a/b", "t"]]


def test_an_event_that_no_message_holds_is_dropped(guest: Guest) -> None:
    guest.service.store.watch(1, 0, "a", "t" * 4094)  # with the path one byte too many
    guest.service.store.watch(1, 0, "b", "u" * 4092)
    guest.ask(XS_READ, "a")
    assert [path for path, _ in guest.events] == ["b"]


def test_a_request_waits_while_the_guest_does_not_read(guest: Guest) -> None:
    guest.service.store.write(1, 0, "a", bytes(2048))
    for _ in range(2):
        guest.requests.put(request(XS_READ, "a").encode())
        guest.requests.put(request(XS_RM, "a").encode())
        guest.service.process()
    assert guest.responses.used() == 1024
    assert guest.service.store.directory(1, 0, HOME) == ["a"]
    assert len(guest.receive().payload) == 2048
    assert guest.receive() == Message(XS_RM, b"OK\0")
    assert guest.receive().payload == b"ENOENT\0"


def test_what_is_on_its_way_moves(guest: Guest) -> None:
    store = guest.service.store
    store.write(1, 0, "a", bytes(range(256)) * 8)
    guest.requests.put(request(XS_READ, "a").encode())
    guest.requests.put(request(XS_MKDIR, "b").encode()[:10])
    assert guest.service.process()
    there = XenStoreService(XenStore.deserialize(store.serialize(), 1), guest.page)
    old, guest.service = guest.service, there
    there.request, there.response = old.request, old.response
    there.sent = old.sent
    assert (len(there.request), there.sent) == (10, 1024)
    assert guest.receive().payload == bytes(range(256)) * 8
    guest.requests.put(request(XS_MKDIR, "b").encode()[10:])
    assert guest.receive().payload == b"OK\0"
    assert there.store.directory(1, 0, HOME) == ["a", "b"]


@pytest.mark.parametrize(
    "broken", [(struct.pack("<4I", 2, 0, 0, 4097), 16), (b"", 2000)]
)
def test_a_guest_that_breaks_the_ring_is_served_no_more(
    guest: Guest, broken: tuple[bytes, int]
) -> None:
    data, req_prod = broken
    guest.page[: len(data)] = data
    struct.pack_into("<I", guest.page, 2052, req_prod)
    guest.service.process()
    assert guest.service.fatal
    assert not guest.service.process()
    assert guest.responses.used() == 0


def test_an_idle_store_moves_nothing(guest: Guest) -> None:
    assert not guest.service.process()


def test_qemu_ends_at_a_mkdir() -> None:
    guest = Guest(a_store("qemu"))
    with pytest.raises(CrashError):
        guest.ask(XS_MKDIR, "a")
