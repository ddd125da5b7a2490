"""A Xen guest by virtual time: its plan, its steps, and RAM that came damaged."""

from __future__ import annotations

import ctypes
import errno
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.unit.vm.xen.xen_machines import GuestAlone, copy_all, load
from vfiomig.protocol.qemu_stream.xen_state import UNMAPPED, XenOverlay
from vfiomig.uapi.xen_xs_wire import XS_MAX_DOMAIN_NODES, XS_MAX_WATCHES
from vfiomig.vm.xen.disk import XenbusState
from vfiomig.vm.xen.front_end import DEPTH
from vfiomig.vm.xen.guest import MOST_NODES, MOST_WATCHES, RESERVED, XenPlan
from vfiomig.vm.xen.guest_registers import MOST_HELD, Registers
from vfiomig.vm.xen.host import SHARED_INFO
from vfiomig.vm.xen.toolstack import DISK, back_end_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.protocol.qemu_stream.xen_state import XenState

MS: Final = 1_000_000


def run(guest: GuestAlone, until: int) -> Registers:
    guest.xen.boot(1)
    guest.xen.start(0)
    guest.xen.run_until(until)
    return guest.xen.front.registers


# -- what it does ---------------------------------------------------------------------


def test_all_that_is_asked_is_answered_at_the_rate_of_the_disk() -> None:
    with GuestAlone(XenPlan(requests=10_000, renegotiates=0)) as guest:
        own = run(guest, 10 * MS)
        completed, sent = own.completed, guest.xen.host.ports.sent
        guest.xen.run_until(110 * MS)
        assert own.connections == 1
        assert own.completed - completed == 1000
        assert guest.xen.host.ports.sent - sent == 1000
        # The last one was sent in this moment.
        assert own.handled == guest.xen.host.ports.sent - 1
        guest.xen.run_until(110 * MS + 10_000)
        assert own.handled == guest.xen.host.ports.sent
        guest.xen.settle(110 * MS + 10_000)
        assert guest.xen.disk.is_connected


def test_a_connection_is_kept_for_as_long_as_the_plan_says() -> None:
    with GuestAlone(XenPlan(renegotiates=10 * MS)) as guest:
        own = run(guest, 200 * MS)
        # Each lasts 10 ms and what it takes to meet anew, a few turns of 20 us a step.
        assert 200 // 14 <= own.connections <= 200 // 10
        assert guest.xen.disk.connections == own.connections
        assert own.error == 0


def test_a_guest_without_requests_negotiates_only() -> None:
    with GuestAlone(XenPlan(requests=0, renegotiates=0)) as guest:
        own = run(guest, 50 * MS)
        assert (own.connections, own.completed) == (1, 0)
        assert guest.xen.disk.is_connected
        store = guest.xen.host.store
        for path in (f"/local/domain/1/{DISK}", back_end_of(1)):
            assert store.read(0, 0, f"{path}/state") == b"%d" % XenbusState.CONNECTED


def test_the_same_seed_is_the_same_run() -> None:
    plan = XenPlan(nodes=3, watches=2, transactions=2, vcpus=2)
    with GuestAlone(plan) as one, GuestAlone(plan) as other:
        for guest in (one, other):
            run(guest, 30 * MS)
            guest.xen.stop()
        assert one.xen.host.save() == other.xen.host.save()
        assert one.memory.digest() == other.memory.digest()


def test_time_may_pass_in_any_steps() -> None:
    with GuestAlone(XenPlan()) as one, GuestAlone(XenPlan()) as other:
        run(one, 30 * MS)
        run(other, 0)
        luck = random.Random(1)
        for time in sorted(luck.randrange(30 * MS) for _ in range(40)):
            other.xen.run_until(time)
        other.xen.run_until(30 * MS)
        for guest in (one, other):
            guest.xen.stop()
        assert one.xen.host.save() == other.xen.host.save()
        assert one.memory.digest() == other.memory.digest()


def test_a_page_is_replaced_when_the_plan_says_in_any_order() -> None:
    with GuestAlone(XenPlan(replaced_at=(20 * MS, 5 * MS))) as guest:
        blocks = {id(guest.memory.block(SHARED_INFO))}
        guest.xen.boot(1)
        guest.xen.start(0)
        for time, seen in (
            (5 * MS - 1, 1),
            (5 * MS, 2),
            (20 * MS - 1, 2),
            (30 * MS, 3),
        ):
            guest.xen.run_until(time)
            blocks.add(id(guest.memory.block(SHARED_INFO)))
            assert len(blocks) == seen


def test_what_the_guest_knows_fits_below_what_it_reserves() -> None:
    assert ctypes.sizeof(Registers) <= 4 * 4096
    assert RESERVED >= 6 * 4096  # registers, vcpu_infos, the ring


def test_the_largest_plan_keeps_to_the_quotas() -> None:
    plan = XenPlan(
        nodes=MOST_NODES, node_size=1, watches=MOST_WATCHES, requests=0, renegotiates=0
    )
    with GuestAlone(plan) as guest:
        own = run(guest, 100 * MS)
        assert (own.error, own.connections) == (0, 1)
        store = guest.xen.host.store
        assert MOST_NODES < store.nodes <= XS_MAX_DOMAIN_NODES
        assert store.watches == MOST_WATCHES + 1 <= XS_MAX_WATCHES


@pytest.mark.parametrize("renegotiates", [0, MS, 5 * MS])
def test_a_guest_holds_all_it_may_whatever_its_front_end_does(
    renegotiates: int,
) -> None:
    for watches in range(0, MOST_WATCHES + 1, 9):
        plan = XenPlan(
            transactions=MOST_HELD,
            nodes=64,
            watches=watches,
            renegotiates=renegotiates,
        )
        with GuestAlone(plan) as guest:
            guest.xen.boot(1)
            assert guest.xen.host.store.transactions == MOST_HELD


def test_who_holds_all_transactions_waits_until_it_has_moved() -> None:
    plan = XenPlan(transactions=MOST_HELD, renegotiates=2 * MS)
    with GuestAlone(plan) as guest:
        own = run(guest, 5 * MS)
        met = own.connections
        assert met > 0  # until it held them
        guest.xen.run_until(10 * MS)
        assert (own.error, own.connections) == (0, met)
        assert own.sleeps_until > 0
        own.ends_held = 1
        guest.xen.run_until(20 * MS)
        assert own.connections > met
        # Its own first writes came between.
        assert (own.committed, own.conflicted) == (0, MOST_HELD)


def test_a_transaction_commits_where_nothing_came_between() -> None:
    # Connected, both ends write nothing; of two the second meets the first.
    plan = XenPlan(renegotiates=0)
    with GuestAlone(plan) as source, GuestAlone(plan) as destination:
        own, store = run(source, 20 * MS), source.xen.host.store
        for number in range(2):
            own.held[number] = tx = store.transaction_start(1)
            own.held_count += 1
            store.write(1, tx, "data/mine", b"%d" % number)
        source.xen.stop()
        move(source, destination)
        destination.xen.start(30 * MS)
        destination.xen.run_until(40 * MS)
        own = destination.xen.front.registers
        assert (own.committed, own.conflicted, own.unknown) == (1, 1, 0)
        assert destination.xen.host.store.read(1, 0, "data/mine") == b"1"


# -- a guest that came ----------------------------------------------------------------


def move(source: GuestAlone, destination: GuestAlone) -> None:
    destination.xen.pre_load()
    copy_all(source.memory, destination.memory)
    load(destination.xen.host, source.xen.host.save())


def test_a_guest_without_shared_info_cannot_run() -> None:
    with GuestAlone(XenPlan()) as guest:
        guest.xen.pre_load()
        state = guest.xen.host.save()
        assert state.overlay.shinfo_gpa == XenOverlay().shinfo_gpa
        load(guest.xen.host, state)
        with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is what counts
            guest.xen.start(0)
        assert raised.value.errno == errno.ENOTCONN


@pytest.mark.parametrize("bits", [32, 64])
def test_each_vcpu_has_its_vcpu_info_where_the_plan_says(bits: int) -> None:
    for is_registered, places in (
        (False, [UNMAPPED] * 3),
        (True, [0x4000 + 64 * n for n in range(3)]),
    ):
        plan = XenPlan(vcpus=3, bits=bits, registers_vcpu_info=is_registered)
        with GuestAlone(plan) as guest:
            run(guest, 20 * MS)
            state: XenState = guest.xen.host.save()
            assert [vcpu.vcpu_info_gpa for vcpu in state.vcpus] == places
            # The disk tells the last vCPU.
            assert state.event_channels.ports[2].vcpu == 2


def test_a_guest_comes_back_to_where_it_was() -> None:
    plan = XenPlan(renegotiates=0)
    with GuestAlone(plan) as one, GuestAlone(plan) as other:
        run(one, 10 * MS)
        for number, (source, target) in enumerate([(one, other), (other, one)], 2):
            source.xen.stop()
            move(source, target)
            assert not target.xen.disk.is_connected
            before = target.xen.host.ports.sent
            target.xen.start(number * 10 * MS)
            target.xen.run_until(number * 10 * MS + 5 * MS)
            assert target.xen.disk.is_connected
            assert target.xen.host.ports.sent > before
        one.xen.settle(40 * MS)
        sent = one.xen.host.ports.sent + other.xen.host.ports.sent
        assert one.xen.front.registers.handled == sent


DAMAGED: Final[dict[str, Callable[[Registers], None]]] = {}


def damage(name: str, **fields: Any) -> None:
    def apply(own: Registers) -> None:
        for field, value in fields.items():
            setattr(own, field, value)

    DAMAGED[name] = apply


damage("a step that is none", step=99, asked=0, out_size=0)
damage("more transactions than there can be", held_count=11, asked=0, out_size=0)
damage("a message longer than any", out_at=0, out_size=0xFFFF_FFFF)
damage("more read than there is room", in_size=0xFFFF_FFFF, is_told=1)
damage("a header that lies", in_=(ctypes.c_ubyte * 4112)(*[0xFF] * 20), in_size=20)
damage("a port that is not open", store_port=77, out_at=0, out_size=16)
damage("a disk's port that is not open", disk_port=77)
damage(
    "all of it",
    **{name: 0xFFFF_FFFF for name, *_ in Registers._fields_[:-2] if name != "held"},
)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_guest_whose_ram_came_damaged_harms_itself_alone(name: str) -> None:
    plan = XenPlan(renegotiates=2 * MS, transactions=2)
    with GuestAlone(plan) as source, GuestAlone(plan) as destination:
        run(source, 7 * MS)
        DAMAGED[name](source.xen.front.registers)
        source.xen.stop()
        move(source, destination)
        destination.xen.start(10 * MS)
        destination.xen.run_until(30 * MS)
        destination.xen.settle(30 * MS)
        assert destination.xen.host.save().overlay == source.xen.host.save().overlay


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_in_a_guests_pages_bring_its_host_down(seed: int) -> None:
    luck = random.Random(seed)
    plan = XenPlan(renegotiates=MS, bits=luck.choice((32, 64)), vcpus=2)
    with GuestAlone(plan) as source, GuestAlone(plan) as destination:
        run(source, luck.randrange(6 * MS))
        source.xen.stop()
        move(source, destination)
        for block in destination.memory.blocks:
            for page in range(6 if block.pages > 1 else 1):
                at = 4096 * page + luck.randrange(4000)
                block.view[at : at + 96] = luck.randbytes(96)
        destination.xen.start(10 * MS)
        destination.xen.run_until(20 * MS)
        destination.xen.settle(20 * MS)
        destination.xen.stop()
        destination.xen.host.save()


def test_what_is_asked_in_one_go_is_the_depth_of_the_ring() -> None:
    with GuestAlone(XenPlan(requests=0, renegotiates=0)) as guest:
        run(guest, 20 * MS)
        ring = guest.memory.read(6 * 4096, 16)
        assert int.from_bytes(ring[:4], "little") == DEPTH
        assert int.from_bytes(ring[8:12], "little") == 0
