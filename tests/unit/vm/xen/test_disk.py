"""A disk's back end: how it meets a front end, whatever that writes to the store.

The steps are those of Xen's io/xenbus.h; here the test is the front end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.vm.xen.xen_machines import HostAlone
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.disk import DiskBackEnd, DiskRing, XenbusState
from vfiomig.vm.xen.toolstack import DISK, add_disk, back_end_of, populate

if TYPE_CHECKING:
    from collections.abc import Iterator

RING: Final = 0x10000
BACK: Final = back_end_of(1)
MOST: Final = 1 << 32


class World:
    """A back end, and the nodes of a front end that does what it is told."""

    def __init__(self, guest: HostAlone) -> None:
        self.guest, self.host, self.memory = guest, guest.host, guest.memory
        self.store = guest.host.store
        self.disk = DiskBackEnd(guest.host)
        populate(self.store, port=0, ring=0)
        add_disk(self.store)
        self.port = guest.host.ports.alloc_unbound()
        self.ring = DiskRing(guest.memory, RING, LogUser.KERNEL)

    def write(self, node: str, value: object) -> None:
        text = value if isinstance(value, bytes) else str(value).encode()
        self.store.write(1, 0, f"{DISK}/{node}", text)

    def says(self, state: XenbusState | bytes) -> int:
        """Write the front end's state; return the back end's answer."""
        self.write("state", state if isinstance(state, bytes) else int(state))
        self.disk.look()
        return self.back_end

    @property
    def back_end(self) -> int:
        return int(self.store.read(0, 0, f"{BACK}/state"))

    def meet(self) -> int:
        """Do all that leads to a connection; return the back end's state."""
        self.says(XenbusState.INITIALISING)
        self.write("ring-ref", RING // PAGE_SIZE)
        self.write("event-channel", self.port)
        return self.says(XenbusState.INITIALISED)


@pytest.fixture
def world() -> Iterator[World]:
    with HostAlone() as guest:
        yield World(guest)


def test_the_nodes_that_qemu_writes_are_there(world: World) -> None:
    # qemu_stream_and_xen.md D8.
    store, home = world.store, "/local/domain/1"
    assert store.directory(1, 0, f"{home}/platform") == [
        "acpi",
        "acpi_laptop_slate",
        "acpi_s3",
        "acpi_s4",
    ]
    assert store.read(1, 0, "control/feature-suspend") == b"1"
    assert store.get_perms(1, 0, "control/feature-suspend") == ["n1"]
    assert store.get_perms(1, 0, "domid") == ["n0", "r1"]
    assert store.read(1, 0, "control/shutdown") == b""


def test_two_ends_meet_step_by_step(world: World) -> None:
    assert world.disk.look()
    assert world.back_end == XenbusState.INIT_WAIT
    assert not world.disk.look()
    assert world.meet() == XenbusState.CONNECTED
    assert world.disk.is_connected
    assert world.says(XenbusState.CONNECTED) == XenbusState.CONNECTED
    assert world.disk.connections == 1
    assert world.says(XenbusState.CLOSING) == XenbusState.CLOSED
    assert not world.disk.is_connected
    assert world.says(XenbusState.CLOSED) == XenbusState.CLOSED
    assert world.meet() == XenbusState.CONNECTED
    assert world.disk.connections == 2


def test_a_request_has_one_response_and_one_event(world: World) -> None:
    world.meet()
    assert not world.disk.answer()
    world.ring.add_requests(2)
    assert world.disk.answer()
    assert world.guest.pending(world.port)
    assert world.disk.answer()
    assert not world.disk.answer()
    assert (world.ring.requests, world.ring.responses) == (2, 2)
    ports = world.host.ports
    assert (ports.sent, ports.merged) == (1, 1)


def test_counters_count_for_ever(world: World) -> None:
    world.meet()
    world.ring.add_requests(MOST - 1)
    page = world.memory.block("pc.ram").view[RING : RING + PAGE_SIZE].cast("I")
    page[2] = MOST - 1  # rsp_prod
    world.ring.add_requests(2)
    assert world.disk.answer()
    assert world.disk.answer()
    assert not world.disk.answer()
    assert (page[0], page[2]) == (1, 1)


def test_responses_are_qemus_to_log(world: World) -> None:
    for user in (LogUser.KERNEL, LogUser.MIGRATION):
        world.memory.start_log(user)
    world.meet()
    world.ring.add_requests(1)
    assert world.memory.sync(LogUser.KERNEL) == 1  # the guest's, by its vCPU
    log = world.memory.log(LogUser.MIGRATION, world.memory.block("pc.ram"))
    assert log is not None
    assert log.ranges().tolist() == [[RING // PAGE_SIZE, 1]]
    log.clear_all()
    world.disk.answer()
    assert log.ranges().tolist() == [[RING // PAGE_SIZE, 1]]


def test_who_has_forgotten_meets_again_where_the_nodes_say(world: World) -> None:
    world.meet()
    world.ring.add_requests(3)
    world.disk.answer()
    rows = world.host.ports.save()
    world.disk.forget()
    world.host.ports.load(rows)
    assert not world.disk.answer()
    world.store.load(world.store.serialize())
    assert world.disk.look()
    assert world.back_end == XenbusState.CONNECTED
    assert (world.disk.answer(), world.disk.answer(), world.disk.answer()) == (
        True,
        True,
        False,
    )
    assert world.host.ports.save() == rows


def test_a_new_back_end_says_again_that_it_has_closed(world: World) -> None:
    # A guest that waits for it, and whose event was lost, hears of it.
    world.meet()
    assert world.says(XenbusState.CLOSING) == XenbusState.CLOSED
    world.store.watch(1, 0, f"{BACK}/state", "guest")
    world.store.load(world.store.serialize())
    events = len(world.store.events(1))
    assert world.disk.look()
    assert len(world.store.events(1)) == events + 1


def test_a_front_end_that_begins_anew_meets_anew(world: World) -> None:
    world.meet()
    assert world.says(XenbusState.INITIALISING) == XenbusState.INIT_WAIT
    assert not world.disk.is_connected
    world.host.ports.close(world.port)
    world.port = world.host.ports.alloc_unbound()
    assert world.meet() == XenbusState.CONNECTED
    world.ring.add_requests(1)
    assert world.disk.answer()
    assert world.guest.pending(world.port)


@pytest.mark.parametrize("state", [XenbusState.CLOSED, XenbusState.UNKNOWN])
def test_a_front_end_that_goes_at_once_is_let_go(
    world: World, state: XenbusState
) -> None:
    world.meet()
    assert world.says(state) == XenbusState.CLOSED
    assert not world.disk.is_connected
    assert world.host.ports.save()[world.port].type == 1  # unbound: it waits again


def test_a_front_end_that_removes_its_nodes_is_let_go(world: World) -> None:
    world.meet()
    world.store.rm(1, 0, DISK)
    assert world.disk.look()
    assert world.back_end == XenbusState.CLOSED
    assert not world.disk.answer()


NONSENSE: Final = (b"", b"x", b"-4", b"4.0", b" 4", b"4_0", b"\xb2", b"4" * 2048)


@pytest.mark.parametrize("state", [*NONSENSE, b"0", b"99"])
def test_a_state_that_is_none_connects_nothing(world: World, state: bytes) -> None:
    world.disk.look()
    world.write("ring-ref", RING // PAGE_SIZE)
    world.write("event-channel", world.port)
    world.says(state)
    assert not world.disk.is_connected
    assert world.meet() == XenbusState.CONNECTED  # it makes up for it


def test_a_number_without_an_end_is_none(world: World) -> None:
    # A guest cannot write so much; a store that came may hold it.
    world.store.write(0, 0, f"/local/domain/1/{DISK}/state", b"4" * 5000)
    world.disk.look()
    assert not world.disk.is_connected


NO_RING: Final = (*NONSENSE, b"1" + b"0" * 9, b"4294967295", b"256")
NO_PORT: Final = (*NONSENSE, b"0", b"2", b"4096", b"4294967295")


@pytest.mark.parametrize(
    ("node", "value"),
    [
        *(("ring-ref", value) for value in NO_RING),
        *(("event-channel", value) for value in NO_PORT),
        ("ring-ref", None),
        ("event-channel", None),
    ],
)
def test_who_does_not_say_where_is_not_met(
    world: World, node: str, value: bytes | None
) -> None:
    world.says(XenbusState.INITIALISING)
    world.write("ring-ref", RING // PAGE_SIZE)
    world.write("event-channel", world.port)
    rows = world.host.ports.save()
    if value is None:
        world.store.rm(1, 0, f"{DISK}/{node}")
    else:
        world.write(node, value)
    assert world.says(XenbusState.INITIALISED) == XenbusState.INIT_WAIT
    assert not world.disk.is_connected
    assert world.host.ports.save() == rows
    assert not world.disk.answer()
    assert world.meet() == XenbusState.CONNECTED


def test_the_stores_port_is_not_the_disks(world: World) -> None:
    world.host.open_store(world.port)
    world.meet()
    assert not world.disk.is_connected
    assert world.host.store_end.guest_port == world.port


def test_a_guest_that_closes_its_port_is_answered_in_silence(world: World) -> None:
    world.meet()
    world.ring.add_requests(1)
    world.host.ports.close(world.port)
    assert world.disk.answer()
    assert (world.host.ports.sent, world.ring.responses) == (0, 1)
    assert world.says(XenbusState.CLOSING) == XenbusState.CLOSED
