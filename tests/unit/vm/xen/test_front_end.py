"""A disk's front end: its steps through the store, word by word.

The test is the store: it reads what the guest wrote to the ring, and answers.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.vm.xen.xen_machines import HostAlone
from vfiomig.protocol.xenstore import (
    HEADER_SIZE,
    Message,
    arguments,
    message_in,
    missing_in,
    watch_event,
)
from vfiomig.uapi.xen_xs_wire import (
    XS_READ,
    XS_TRANSACTION_END,
    XS_TRANSACTION_START,
    XS_WATCH,
    XS_WRITE,
)
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.xen.front_end import DEPTH, FrontEnd
from vfiomig.vm.xen.host import STORE_PAGE
from vfiomig.vm.xen.toolstack import DISK, back_end_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RING: Final = 0x5000
KEPT: Final = 1_000_000
STATE: Final = f"{back_end_of(1)}/state"


class Script:
    """The front end, and a store that says what the test wants."""

    def __init__(self, guest: HostAlone) -> None:
        self.memory, self.host = guest.memory, guest.host
        self.front = FrontEnd(guest.memory, guest.host, STORE_PAGE, RING, KEPT)
        self.own = self.front.registers
        self.own.store_port = guest.host.ports.alloc_unbound()
        guest.host.open_store(self.own.store_port)
        self.requests, self.responses = guest.requests, guest.responses
        self.now = 0
        self.last = Message(0, b"")

    def asks(self) -> Message | None:
        """Return what the guest asks next, if it does."""
        data = b""
        while self.front.act(self.now):
            data += self.requests.take(missing_in(data))
            if (found := message_in(data)) is not None:
                self.last = found
                return found
        return None

    def wrote(self) -> tuple[str, bytes]:
        asked = self.asks()
        assert asked is not None
        assert asked.type == XS_WRITE
        path, value = arguments(asked)
        return path[0].removeprefix(f"{DISK}/"), value

    def tell(self, message: Message) -> None:
        """Write a message to the guest's ring, and tell it."""
        data = message.encode()
        assert self.responses.put(data) == len(data)
        self.front.take_event(self.own.store_port)

    def answer(self, payload: bytes = b"OK\0") -> None:
        self.tell(self.last.reply(payload))

    def refuse(self, code: int) -> None:
        self.tell(self.last.error(code))

    def back_end_is(self, state: int, *, is_new: bool = True) -> None:
        """Let the watch fire; the guest reads the state."""
        if is_new:
            self.tell(watch_event(STATE, "front-end"))
        asked = self.asks()
        assert asked is not None
        assert (asked.type, asked.payload) == (XS_READ, f"{STATE}\0".encode())
        self.answer(b"%d" % state)

    def begin(self) -> None:
        """Come to where the transaction begins."""
        asked = self.asks()
        assert asked is not None
        assert asked.type == XS_WATCH
        self.answer()
        assert self.wrote() == ("state", b"1")
        self.answer()
        self.back_end_is(2, is_new=False)  # it looks at least once

    def offer(self, tx: int) -> None:
        """Come to the end of the transaction."""
        asked = self.asks()
        assert asked is not None
        assert asked.type == XS_TRANSACTION_START
        self.answer(b"%d\0" % tx)
        for node, value in (
            ("ring-ref", b"%d" % (RING // 4096)),
            ("event-channel", b"2"),
            ("protocol", b"x86_64-abi"),
            ("state", b"3"),
        ):
            assert self.wrote() == (node, value)
            assert self.last.tx_id == tx
            self.answer()
        asked = self.asks()
        assert asked is not None
        assert (asked.type, asked.payload) == (XS_TRANSACTION_END, b"T\0")
        assert asked.tx_id == tx

    def connect(self) -> None:
        self.begin()
        self.offer(tx=5)
        self.answer()
        self.back_end_is(4, is_new=False)
        assert self.wrote() == ("state", b"4")
        self.answer()
        assert self.asks() is None


@pytest.fixture
def script() -> Iterator[Script]:
    with HostAlone() as guest:
        yield Script(guest)


def test_a_connection_is_made_as_xenbus_has_it(script: Script) -> None:
    script.connect()
    assert script.own.connections == 1
    assert script.front.wakes_at == KEPT
    assert script.memory.read(RING, 4) == DEPTH.to_bytes(4, "little")


def test_it_is_made_anew_when_its_time_is_over(script: Script) -> None:
    script.connect()
    script.now = KEPT - 1
    assert script.asks() is None
    script.now = KEPT
    assert script.wrote() == ("state", b"5")
    script.answer()
    assert script.front.wakes_at is None
    script.back_end_is(4, is_new=False)
    assert script.asks() is None  # until it is told of a change
    script.back_end_is(6)
    assert script.wrote() == ("state", b"6")
    assert len(script.host.ports.save()) == 3
    script.answer()
    # It goes on with INITIALISING: the watch is there already.
    assert script.wrote() == ("state", b"1")
    assert len(script.host.ports.save()) == 2  # the port is closed
    script.answer()
    script.back_end_is(2, is_new=False)
    script.offer(tx=9)
    assert script.memory.read(RING, 4) == bytes(4)  # the ring begins anew


def test_who_closes_takes_what_comes_and_asks_no_more(script: Script) -> None:
    script.connect()
    script.now = KEPT
    assert script.wrote() == ("state", b"5")
    page = script.memory.block("pc.ram").view[RING : RING + 4096].cast("I")
    page[2] = 2
    script.front.take_event(script.own.disk_port)
    assert script.own.completed == 2
    assert page[0] == DEPTH


def test_a_transaction_that_met_a_change_is_made_again(script: Script) -> None:
    script.begin()
    script.offer(tx=5)
    script.refuse(errno.EAGAIN)
    script.offer(tx=6)  # with the port that it had
    script.answer()
    script.back_end_is(4, is_new=False)
    assert script.own.error == 0


def test_a_transaction_that_cannot_be_is_asked_for_again(script: Script) -> None:
    script.begin()
    for _ in range(2):
        asked = script.asks()
        assert asked is not None
        assert asked.type == XS_TRANSACTION_START
        script.refuse(errno.ENOSPC)
        assert script.asks() is None  # it sleeps
        assert script.front.wakes_at == script.now + 1_000_000
        script.now += 1_000_000
    script.offer(tx=7)
    assert script.own.error == 0


def test_what_it_did_not_expect_is_its_end(script: Script) -> None:
    script.begin()
    script.asks()
    script.refuse(errno.EACCES)
    assert script.asks() is None
    assert script.own.error == errno.EACCES
    assert script.front.wakes_at is None


def test_a_port_that_is_not_open_is_its_end(script: Script) -> None:
    script.own.store_port = 77
    script.asks()
    assert script.own.error == errno.EINVAL


def test_a_disks_port_that_is_not_open_is_its_end(script: Script) -> None:
    script.connect()
    script.own.disk_port = 77
    script.front.take_event(77)
    assert script.own.error == errno.EINVAL


def test_a_port_that_cannot_be_closed_is_its_end(script: Script) -> None:
    script.connect()
    script.now = KEPT
    script.wrote()
    script.answer()
    script.back_end_is(6, is_new=False)
    assert script.wrote() == ("state", b"6")
    script.own.disk_port = 77
    script.answer()
    assert script.asks() is None
    assert script.own.error == errno.EINVAL


@pytest.mark.parametrize("payload", [b"", b"\0", b"none\0", b"\xff\xff\0"])
def test_a_transaction_without_an_id_is_its_end(script: Script, payload: bytes) -> None:
    script.begin()
    script.asks()
    script.answer(payload)
    assert script.asks() is None
    assert script.own.error == errno.EPROTO


def test_a_message_is_written_in_two_pieces(script: Script) -> None:
    for user in (LogUser.KERNEL, LogUser.MIGRATION):
        script.memory.start_log(user)
    for size in (HEADER_SIZE, HEADER_SIZE + len(f"{STATE}\0front-end\0")):
        script.own.is_told = 0
        assert script.front.act(0)
        assert script.requests.used() == size
        assert script.host.store_end.is_told
        script.host.store_end.is_told = False
        assert script.memory.sync(LogUser.KERNEL) == 1  # the ring's page
        for block in script.memory.blocks:
            log = script.memory.log(LogUser.MIGRATION, block)
            assert log is not None
            log.clear_all()


def test_a_reply_may_come_byte_by_byte(script: Script) -> None:
    script.asks()
    for byte in script.last.reply(b"OK\0").encode():
        script.responses.put(bytes([byte]))
        script.front.take_event(script.own.store_port)
        assert script.front.act(0)
    assert script.wrote() == ("state", b"1")


def test_another_ones_reply_and_other_watches_are_passed_over(script: Script) -> None:
    script.asks()
    script.tell(script.last._replace(req_id=77).reply(b"OK\0"))
    script.tell(watch_event("data/n0", "watch 0"))
    assert script.asks() is None
    assert (script.own.watch_events, script.own.has_changed) == (1, 0)
    script.answer()
    assert script.wrote() == ("state", b"1")


def test_responses_are_counted_over_the_edge_of_32_bits(script: Script) -> None:
    script.connect()
    page = script.memory.block("pc.ram").view[RING : RING + 4096].cast("I")
    script.own.rsp_cons = page[2] = (1 << 32) - 2
    page[2] = 3
    assert script.front.stuck == 5
    handled = script.own.handled
    script.front.take_event(script.own.disk_port)
    assert (script.own.completed, script.own.rsp_cons) == (5, 3)
    assert (script.front.stuck, script.own.handled) == (0, handled + 1)
    assert page[0] == DEPTH + 5  # as many are asked anew
