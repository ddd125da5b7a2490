"""A Xen guest's host: where pages are, and all that moves from host to host."""

from __future__ import annotations

import errno
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.vm.xen.xen_machines import INFO_AT, HostAlone, copy_all, load
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.xen_state import (
    UNMAPPED,
    XenEventChannels,
    XenOverlay,
    XenPort,
    XenStoreDevice,
    XenVcpu,
)
from vfiomig.protocol.xenstore import Message, decode_texts, request
from vfiomig.uapi.xen_xs_wire import (
    XS_READ,
    XS_TRANSACTION_END,
    XS_WATCH_EVENT,
    XS_WRITE,
)
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.event_channel import Outcome
from vfiomig.vm.xen.host import STORE_PAGE, STORE_RING
from vfiomig.vm.xen.overlay import without
from vfiomig.vm.xen.ports import HostEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.vm.xen.host import XenHost

HOME: Final = "/local/domain/1"
CALLBACK: Final = 2 << 56 | 0xF3  # HVM_PARAM_CALLBACK_TYPE_VECTOR
ELSEWHERE: Final = 0x8000  # in RAM


def furnish(host: XenHost) -> None:
    """Have something of all that moves."""
    host.set_callback(CALLBACK)
    for vcpu in range(host.vcpus):
        host.set_vector(vcpu, 0xF3 - vcpu)
    host.register_vcpu_info(1, 0x4000 + 64)
    host.open_store(host.ports.alloc_unbound(1))
    store = host.store
    store.write(0, 0, HOME, b"")
    store.set_perms(0, 0, HOME, ["n1"])
    store.write(1, 0, "attr", b"hello")
    store.watch(1, 0, "attr", "mine")


@contextmanager
def two_hosts(bits: int = 64) -> Iterator[tuple[HostAlone, HostAlone]]:
    """Make a host that has something, and one that has nothing yet."""
    with (
        HostAlone(vcpus=3, bits=bits) as there,
        HostAlone(vcpus=3, is_mapped=False) as here,
    ):
        furnish(there.host)
        yield there, here


def move(there: HostAlone, here: HostAlone) -> None:
    copy_all(there.memory, here.memory)
    load(here.host, there.host.save())


# -- pages ----------------------------------------------------------------------------


def test_the_store_has_its_ring_where_qemu_puts_it() -> None:
    # qemu_stream_and_xen.md D8: frame 0xfeff9.
    with HostAlone(is_mapped=False) as guest:
        guest.memory.block(STORE_PAGE).view[:4] = b"ring"
        assert STORE_RING == 0xFEFF9 * PAGE_SIZE
        assert guest.memory.read(STORE_RING, 4) == b"ring"


@pytest.mark.parametrize("bits", [32, 64])
def test_shared_info_moves_with_all_that_is_in_it(bits: int) -> None:
    with HostAlone(vcpus=2, bits=bits) as guest:
        host, memory = guest.host, guest.memory
        memory.write(ELSEWHERE, b"beneath")
        host.register_vcpu_info(1, 0x4000)
        ends = HostEnd(), HostEnd()
        for vcpu, end in enumerate(ends):
            host.ports.bind(end, host.ports.alloc_unbound(vcpu))
        host.ports.notify(ends[0])
        before = bytes(guest.page)
        host.map_shared_info(ELSEWHERE, bits)
        assert memory.read(ELSEWHERE, PAGE_SIZE) == before
        with pytest.raises(OSError, match="no RAM"):
            memory.read(INFO_AT, 1)
        assert host.ports.notify(ends[0]) is Outcome.ALREADY_PENDING
        assert host.ports.notify(ends[1]) is not Outcome.ALREADY_PENDING
        assert guest.pending(2)
        assert memory.read(0x4000, 1) == b"\1"  # where vCPU 1 has it still
        # And away again: what was beneath was not written to.
        host.map_shared_info(INFO_AT, bits)
        assert memory.read(ELSEWHERE, 7) == b"beneath"
        assert not any(memory.read(ELSEWHERE + 7, PAGE_SIZE - 7))
        assert [guest.pending(port) for port in (1, 2)] == [True, True]


@pytest.mark.parametrize("way", ["cached", "pinned"])
def test_a_page_that_was_put_elsewhere_is_found_by_either_way(way: str) -> None:
    with HostAlone(way=way) as guest:
        host, end = guest.host, HostEnd()
        host.ports.bind(end, host.ports.alloc_unbound())
        guest.memory.replace_block("xen:shared_info")
        host.map_shared_info(ELSEWHERE, 64)
        host.ports.notify(end)
        assert guest.pending(1)


def test_what_waits_for_a_vcpu_info_goes_along() -> None:
    with HostAlone() as guest:
        host, memory, end = guest.host, guest.memory, HostEnd()
        host.register_vcpu_info(0, 0x4000)
        memory.write(0x4000, bytes(64))  # it has looked
        host.ports.bind(end, host.ports.alloc_unbound())
        shown = memory.slots
        memory.set_slots(without(shown, 0x4000, PAGE_SIZE))
        assert host.ports.notify(end) is Outcome.WAITING
        memory.set_slots(shown)
        host.map_shared_info(ELSEWHERE, 64)
        assert memory.read(0x4000, 1) == b"\1"


def test_a_guest_that_has_a_line_is_told_by_it_wherever_its_page_is() -> None:
    with HostAlone() as guest:
        host, end = guest.host, HostEnd()
        host.set_callback(10)  # HVM_PARAM_CALLBACK_TYPE_GSI, line 10
        host.ports.bind(end, host.ports.alloc_unbound())
        host.map_shared_info(ELSEWHERE, 64)
        assert host.ports.notify(end) is Outcome.NOTIFIED
        assert (guest.notes.levels, guest.notes.told) == ([True], [])


@pytest.mark.parametrize("gpa", [1, INFO_AT + 8, UNMAPPED])
def test_shared_info_is_a_page(gpa: int) -> None:
    with HostAlone() as guest:
        slots = guest.memory.slots
        with pytest.raises(OSError, match="not the address of a page"):
            guest.host.map_shared_info(gpa, 64)
        assert guest.memory.slots == slots


def test_a_place_over_a_registered_vcpu_info_keeps_that() -> None:
    with HostAlone(vcpus=2) as guest:
        host, end = guest.host, HostEnd()
        host.register_vcpu_info(0, ELSEWHERE + 0x400)
        host.ports.bind(end, host.ports.alloc_unbound())
        host.map_shared_info(ELSEWHERE, 64)
        host.ports.notify(end)
        assert guest.page[0x400] == 1


@pytest.mark.parametrize("vcpu", [-1, 2, 31])
def test_a_vcpu_that_is_not_there_has_no_vcpu_info(vcpu: int) -> None:
    with HostAlone(vcpus=2) as guest:
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is what counts
            guest.host.register_vcpu_info(vcpu, 0x4000)
        assert raised.value.errno == errno.ENOENT
        assert guest.host.vcpu_infos == [UNMAPPED] * 2


def test_before_shared_info_is_somewhere_nothing_can_be_had() -> None:
    with HostAlone(is_mapped=False) as guest:
        host = guest.host
        calls: list[Callable[[], object]] = [
            lambda: host.register_vcpu_info(0, 0x4000),
            lambda: host.set_vector(0, 0xF3),
            lambda: host.set_callback(CALLBACK),
            lambda: host.open_store(1),
        ]
        for call in calls:
            with pytest.raises(OSError) as raised:  # noqa: PT011
                call()
            assert raised.value.errno in {errno.ENOTCONN, errno.EINVAL}
        state = host.save()
        assert state.overlay == XenOverlay(UNMAPPED, long_mode=True)
        assert state.vcpus == (XenVcpu(),)


# -- save and load --------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
def test_what_is_saved_is_what_was_loaded(bits: int) -> None:
    with two_hosts(bits) as (there, here):
        state = there.host.save()
        assert state.overlay == XenOverlay(INFO_AT, bits == 64)
        assert state.event_channels == XenEventChannels(
            CALLBACK, (XenPort(0, 0, 0), XenPort(1, 2, 0x8001))
        )
        assert state.vcpus == (
            XenVcpu(UNMAPPED, INFO_AT, callback_vector=0xF3),
            XenVcpu(0x4040, INFO_AT + 64, callback_vector=0xF2),
            XenVcpu(UNMAPPED, INFO_AT + 128, callback_vector=0xF1),
        )
        assert state.store.guest_port == 1
        assert there.host.save() == state  # nothing changes by it
        move(there, here)
        assert here.host.save() == state
        assert here.memory.digest() == there.memory.digest()
        # All words were selected when the vcpu_info was registered.
        outcome = here.host.ports.notify(here.host.store_end)
        assert outcome is Outcome.ALREADY_SELECTED
        assert here.pending(1)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_host_without_anything_moves(bits: int) -> None:
    with (
        HostAlone(is_mapped=False, bits=bits) as there,
        HostAlone(is_mapped=False) as here,
    ):
        move(there, here)
        assert here.host.save() == there.host.save()
        assert here.host.channels is None


def test_a_half_read_request_and_a_half_written_response_go_on() -> None:
    with two_hosts() as (there, here):
        there.host.store.write(1, 0, "long", bytes(range(256)) * 8)
        assert there.reply().type == XS_WATCH_EVENT
        there.put(request(XS_READ, "long", req_id=1).encode())
        there.put(request(XS_READ, "attr", req_id=2).encode()[:20])
        service = there.host.save().store
        assert len(service.response) == 16 + 2048
        assert service.sent == 1024  # a ring's room
        assert service.request == request(XS_READ, "attr", req_id=2).encode()[:20]
        move(there, here)
        assert here.reply() == Message(XS_READ, bytes(range(256)) * 8, req_id=1)
        here.put(request(XS_READ, "attr", req_id=2).encode()[20:])
        assert here.reply() == Message(XS_READ, b"hello", req_id=2)


def test_a_reply_that_the_guest_has_half_read_goes_on() -> None:
    with two_hosts() as (there, here):
        there.reply()
        there.put(request(XS_READ, "attr", req_id=5).encode())
        there.serve()
        here.got = there.responses.take(3)
        move(there, here)
        assert here.reply() == Message(XS_READ, b"hello", req_id=5)


def test_a_guest_that_broke_the_ring_is_not_served_elsewhere_either() -> None:
    with two_hosts() as (there, here):
        there.put(struct.pack("<4I", XS_READ, 0, 0, 4097))
        assert there.host.save().store.fatal_error
        move(there, here)
        assert here.host.save().store.fatal_error
        assert not here.serve()


def test_what_the_host_writes_to_the_ring_is_qemus_to_log() -> None:
    with two_hosts() as (there, _):
        there.reply()
        there.memory.start_log(LogUser.MIGRATION)
        page = there.memory.block(STORE_PAGE)
        log = there.memory.log(LogUser.MIGRATION, page)
        assert log is not None
        there.requests.put(request(XS_READ, "attr").encode())
        assert there.serve()
        assert log.count == 1
        log.clear_all()
        assert not there.serve()
        assert log.count == 0


def test_what_was_sent_before_the_ring_broke_is_told_and_logged() -> None:
    with two_hosts() as (there, _):
        for user in (LogUser.KERNEL, LogUser.MIGRATION):
            there.memory.start_log(user)
        struct.pack_into("<I", there.memory.block(STORE_PAGE).view, 2052, 2000)
        before = bytes(there.memory.block(STORE_PAGE).view)
        there.serve()
        assert there.host.save().store.fatal_error
        changed = bytes(there.memory.block(STORE_PAGE).view) != before
        assert changed == bool(there.memory.dirty_pages)


def test_a_request_that_came_broken_moves_no_byte() -> None:
    with two_hosts() as (there, here):
        state = there.host.save()
        reply = Message(XS_READ, b"hello").encode()
        broken = struct.pack("<4I", XS_READ, 0, 0, 4097)
        store = state.store._replace(request=broken, response=reply)
        load(here.host, state._replace(store=store))
        before = bytes(here.memory.block(STORE_PAGE).view)
        assert not here.serve()
        assert here.host.save().store.fatal_error
        assert bytes(here.memory.block(STORE_PAGE).view) == before


# -- watches --------------------------------------------------------------------------


def test_dom0s_watches_fire_when_the_store_has_come() -> None:
    with two_hosts() as (there, here):
        here.host.store.watch(0, 0, f"{HOME}/attr", "back end")
        here.host.store.next_event(0)  # the one of the registration
        move(there, here)
        assert here.host.store.next_event(0) == (f"{HOME}/attr", "back end")
        assert here.host.store.next_event(0) is None


def test_the_guests_watches_fire_at_the_next_change() -> None:
    with two_hosts() as (there, here):
        there.reply()  # the event of the registration
        move(there, here)
        assert here.host.store.events(1) == ()
        here.host.store.write(0, 0, f"{HOME}/attr", b"new")
        message = here.reply()
        assert message.type == XS_WATCH_EVENT
        assert decode_texts(message.payload) == ["attr", "mine"]


@pytest.mark.parametrize(("quirks", "waiting"), [(None, 3), ("qemu", 0)])
def test_events_that_wait_move_but_from_qemu(quirks: None, waiting: int) -> None:
    with (
        HostAlone(vcpus=3, quirks=quirks) as there,
        HostAlone(vcpus=3, is_mapped=False, quirks=quirks) as here,
    ):
        furnish(there.host)
        for value in (b"1", b"2"):
            there.host.store.write(0, 0, f"{HOME}/attr", value)
        assert len(there.host.store.events(1)) == 3
        move(there, here)
        assert here.host.store.events(1) == (("attr", "mine"),) * waiting


# -- transactions ---------------------------------------------------------------------


def end_of(guest: HostAlone, tx: int, how: str) -> Message:
    guest.put(request(XS_TRANSACTION_END, how, tx_id=tx).encode())
    return guest.reply()


def open_transaction(guest: HostAlone) -> int:
    guest.reply()  # the event of the registration
    store = guest.host.store
    tx = store.transaction_start(1)
    guest.put(request(XS_WRITE, "attr", value=b"changed", tx_id=tx).encode())
    assert guest.reply().payload == b"OK\0"
    return tx


def test_a_transaction_commits_elsewhere() -> None:
    with two_hosts() as (there, here):
        tx = open_transaction(there)
        move(there, here)
        assert here.host.store.read(1, 0, "attr") == b"hello"
        assert end_of(here, tx, "T").payload == b"OK\0"
        assert here.host.store.read(1, 0, "attr") == b"changed"
        assert decode_texts(here.reply().payload) == ["attr", "mine"]


def test_a_transaction_meets_a_change_elsewhere() -> None:
    with two_hosts() as (there, here):
        tx = open_transaction(there)
        move(there, here)
        here.host.store.write(0, 0, "/elsewhere", b"")
        assert end_of(here, tx, "T").payload == b"EAGAIN\0"
        assert here.host.store.read(1, 0, "attr") == b"hello"
        assert end_of(here, tx, "T").payload == b"ENOENT\0"


def test_a_transaction_remembers_a_change_from_before_it_moved() -> None:
    with two_hosts() as (there, here):
        tx = open_transaction(there)
        there.host.store.write(0, 0, "/elsewhere", b"")
        move(there, here)
        assert end_of(here, tx, "T").payload == b"EAGAIN\0"


def test_a_transaction_is_aborted_elsewhere() -> None:
    with two_hosts() as (there, here):
        tx = open_transaction(there)
        move(there, here)
        assert end_of(here, tx, "F").payload == b"OK\0"
        assert here.host.store.read(1, 0, "attr") == b"hello"
        assert here.host.store.transactions == 0


# -- what is refused ------------------------------------------------------------------

EMPTY: Final = bytes.fromhex("000000010000000100000000006e300000000000000000")
STORES: Final = {
    "nothing": XenStoreDevice(guest_port=1),
    "a trailing byte": XenStoreDevice(guest_port=1, impl_state=EMPTY + b"\0"),
    "a byte short": XenStoreDevice(guest_port=1, impl_state=EMPTY[:-1]),
    "an unknown flag": XenStoreDevice(
        guest_port=1, impl_state=EMPTY[:8] + b"\x08" + EMPTY[9:]
    ),
    "a length of 4 GiB": XenStoreDevice(
        guest_port=1, impl_state=EMPTY[:9] + b"\xff" * 4 + EMPTY[13:]
    ),
    "half an event": XenStoreDevice(guest_port=1, impl_state=EMPTY, events=b"attr\0"),
    "more than events": XenStoreDevice(guest_port=1, impl_state=EMPTY, events=b"\0\0"),
    "a closed port": XenStoreDevice(guest_port=2, impl_state=EMPTY),
    "no port of any": XenStoreDevice(guest_port=0xFFFF_FFFF, impl_state=EMPTY),
    "another's port": XenStoreDevice(guest_port=3, impl_state=EMPTY),
}


@pytest.mark.parametrize("part", STORES.values(), ids=STORES.keys())
def test_a_store_that_is_refused_leaves_all_as_it_was(part: XenStoreDevice) -> None:
    with two_hosts() as (there, _):
        host, disk = there.host, HostEnd()
        for port in (2, 3):
            assert host.ports.alloc_unbound() == port
        host.ports.bind(disk, 3)
        host.ports.close(2)
        before, ends = host.save(), (host.store_end.port, disk.port)
        events, page = host.store.events(1), bytes(there.page)
        with pytest.raises((OSError, StreamError)) as raised:
            host.load(0, part)
        if part.guest_port != 1:
            assert isinstance(raised.value, OSError)
            assert raised.value.errno == errno.EINVAL
        assert host.save() == before
        assert (host.store_end.port, disk.port) == ends
        assert host.store.events(1) == events
        assert bytes(there.page) == page
        host.ports.send(1)
        assert host.store_end.is_told


def test_a_port_that_waits_is_as_it_was_when_its_store_is_refused() -> None:
    with two_hosts() as (there, here):
        state = there.host.save()
        bad = state.store._replace(impl_state=state.store.impl_state + b"\0")
        with pytest.raises(StreamError):
            load(here.host, state._replace(store=bad))
        assert here.host.save().event_channels == state.event_channels
        assert here.host.store_end == HostEnd()
        here.host.load(0, state.store)
        assert here.host.save() == state


OVERLAY: Final = XenOverlay(INFO_AT, long_mode=True)
PARTS: Final = {
    "an overlay within a page": (0, XenOverlay(INFO_AT + 1, long_mode=True)),
    "a callback of no type": (0, XenEventChannels(callback_param=3 << 56)),
    "a GSI's PIRQ": (0, XenEventChannels(CALLBACK, (), (0, 7, *[0] * 22))),
    "a PIRQ": (0, XenEventChannels(CALLBACK, pirq_inuse_bitmap=(1, 0, 0, 0))),
    "a GSI that is set": (0, XenEventChannels(CALLBACK, pirq_gsi_set=1)),
    "a vCPU's info without RAM": (0, XenVcpu(1 << 40, INFO_AT)),
    "a vCPU's info over two pages": (0, XenVcpu(0x4000 - 32, INFO_AT)),
    "a vCPU's info within a word": (0, XenVcpu(0x4001, INFO_AT)),
    "another default": (1, XenVcpu(UNMAPPED, INFO_AT)),
    "a vector of the processor's": (0, XenVcpu(UNMAPPED, INFO_AT, callback_vector=15)),
    "a time without RAM": (0, XenVcpu(UNMAPPED, INFO_AT, 1 << 40)),
    "a time over two pages": (0, XenVcpu(UNMAPPED, INFO_AT, 0x5000 - 28)),
    "a time within a word": (0, XenVcpu(UNMAPPED, INFO_AT, 0x4002)),
    "a runstate": (0, XenVcpu(UNMAPPED, INFO_AT, runstate_gpa=0x4000)),
    "a VIRQ": (0, XenVcpu(UNMAPPED, INFO_AT, virq=(1, *[0] * 23))),
    "a timer": (0, XenVcpu(UNMAPPED, INFO_AT, singleshot_timer_ns=1)),
    "a period": (0, XenVcpu(UNMAPPED, INFO_AT, periodic_timer_period=1)),
}


@pytest.mark.parametrize(("instance", "part"), PARTS.values(), ids=PARTS.keys())
def test_a_part_that_no_such_host_has_is_refused(
    instance: int, part: XenOverlay | XenEventChannels | XenVcpu
) -> None:
    with HostAlone(vcpus=2) as guest:
        before, slots = guest.host.save(), guest.memory.slots
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- of several errnos
            guest.host.load(instance, part)
        assert raised.value.errno in {errno.EINVAL, errno.EFAULT, errno.ENOSYS}
        assert guest.host.save() == before
        assert guest.memory.slots == slots


def test_a_guest_without_shared_info_has_nothing_else() -> None:
    with HostAlone(is_mapped=False) as guest:
        for part in (
            XenEventChannels(CALLBACK),
            XenEventChannels(0, (XenPort(0, 0, 0), XenPort(0, 1, 0x8000))),
            XenVcpu(vcpu_info_gpa=0x4000),
            XenVcpu(callback_vector=0xF3),
        ):
            with pytest.raises(OSError, match="put shared_info nowhere"):
                guest.host.load(0, part)
        assert guest.host.save().vcpus == (XenVcpu(),)
