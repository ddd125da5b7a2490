"""A Xen guest that is moved at any time, with its pages as the log has them.

All that the guest began goes on: negotiation, I/O, transactions, messages that were
half on their way.  No event is lost or comes twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.vm.xen.xen_machines import GuestAlone, copy_all, load
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.xen.front_end import DEPTH
from vfiomig.vm.xen.guest import XenPlan
from vfiomig.vm.xen.guest_page import WAYS
from vfiomig.vm.xen.guest_registers import MOST_HELD
from vfiomig.vm.xen.host import SHARED_INFO
from vfiomig.vm.xen.shared_info import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.xen.guest import XenGuest

MS: Final = 1_000_000
TURN: Final = 20_000
STOPS: Final = st.integers(0, 12 * MS)
DOWNTIME: Final = 7_770_000


def copy_dirty(source: GuestMemory, destination: GuestMemory) -> None:
    """Copy what the migration's log holds, and no other page."""
    source.sync(LogUser.KERNEL)
    for block in source.blocks:
        log = source.log(LogUser.MIGRATION, block)
        assert log is not None
        other = destination.block(block.idstr)
        for first, count in log.ranges().tolist():
            other.pages_view(first, count)[:] = block.pages_view(first, count)
        log.clear_all()


def start_logs(memory: GuestMemory) -> None:
    for user in (LogUser.KERNEL, LogUser.MIGRATION):
        memory.start_log(user)


def run_to_its_stop(
    source: GuestAlone, other: GuestMemory, times: list[int], acts: str = ""
) -> None:
    """Boot, and run to the last of ``times``: all is copied at the first.

    At each that follows what is dirty by then is.  When the guest has run for the last
    time the host ``acts`` alone: that the guest does not see.
    """
    source.xen.boot(1)
    source.xen.start(0)
    source.xen.run_until(times[0])
    start_logs(source.memory)
    copy_all(source.memory, other)
    for time in times[1:]:
        copy_dirty(source.memory, other)
        source.xen.run_until(time)
    for letter in acts:
        ACTS[letter](source.xen)
    source.xen.stop()
    copy_dirty(source.memory, other)


ACTS: Final[dict[str, Callable[[XenGuest], object]]] = {
    "s": lambda xen: xen.host.serve_store(),
    "d": lambda xen: xen.disk.answer(),
    "l": lambda xen: xen.disk.look(),
}


def move(
    source: GuestAlone, destination: GuestAlone, times: list[int], acts: str = ""
) -> None:
    """Run and move a guest; what has come must be what there was."""
    destination.xen.pre_load()
    run_to_its_stop(source, destination.memory, times, acts)
    state = source.xen.host.save()
    load(destination.xen.host, state)
    assert destination.xen.host.save() == state
    assert destination.memory.digest() == source.memory.digest()


def check(source: GuestAlone, destination: GuestAlone, stop: int) -> None:
    """Let a guest that came run on; it must do all that one that stayed would do."""
    plan, guest = source.xen.plan, destination.xen
    before = source.xen.front.registers
    begin = stop + DOWNTIME
    guest.start(begin)
    end = begin + 2 * plan.renegotiates + 8 * MS
    guest.run_until(end)
    assert guest.settle(end) < end + 100 * MS
    own = guest.front.registers
    assert (own.error, own.unknown, own.held_count) == (0, 0, 0)
    assert own.committed + own.conflicted == plan.transactions
    assert guest.front.stuck == 0
    if plan.renegotiates:
        assert own.connections > before.connections
    assert own.handled == source.xen.host.ports.sent + guest.host.ports.sent
    assert own.handled > before.handled
    assert own.completed > before.completed
    assert guest.host.store.transactions == 0
    assert guest.disk.is_connected


plans = st.builds(
    XenPlan,
    way=st.sampled_from(sorted(WAYS)),
    bits=st.sampled_from(sorted(LAYOUTS)),
    vcpus=st.integers(1, 4),
    registers_vcpu_info=st.booleans(),
    requests=st.sampled_from([1_000, 7_777, 10_000]),
    renegotiates=st.sampled_from([MS, 5 * MS]),
    nodes=st.just(6),
    node_size=st.sampled_from([0, 1, 2048]),
    watches=st.integers(0, 12),
    transactions=st.integers(0, MOST_HELD),
)


@given(
    plan=plans,
    stop=STOPS,
    copied=st.sets(st.integers(1, 20), max_size=3),
    acts=st.text("".join(ACTS), max_size=3),
)
@example(XenPlan(transactions=10, nodes=2, renegotiates=MS), 0, {1}, "")
@example(XenPlan(renegotiates=0), 9 * MS, set(), "d")  # an event is on its way
@example(XenPlan(renegotiates=MS), 10_000, set(), "s")  # a reply that nobody has seen
def test_a_guest_goes_on_wherever_it_was_stopped(
    plan: XenPlan, stop: int, copied: set[int], acts: str
) -> None:
    # Few turns lie between two copies: what one of them writes, no other marks.
    turns = sorted({0, *copied}, reverse=True)
    times = [max(0, stop - TURN * each) for each in turns]
    with GuestAlone(plan) as source, GuestAlone(plan) as destination:
        move(source, destination, times, acts)
        check(source, destination, stop)


@given(
    stop=STOPS,
    replaced=st.lists(STOPS, min_size=1, max_size=4),
    begin=st.integers(0, 2 * MS),
)
def test_a_cached_page_may_be_replaced_at_any_time(
    stop: int, replaced: list[int], begin: int
) -> None:
    plan = XenPlan(renegotiates=2 * MS, replaced_at=tuple(replaced))
    with GuestAlone(plan) as source, GuestAlone(plan) as destination:
        old = source.memory.block(SHARED_INFO)
        move(source, destination, [min(begin, stop), stop])
        assert (source.memory.block(SHARED_INFO) is old) == (min(replaced) > stop)
        check(source, destination, stop)


@given(plan=plans.filter(lambda plan: plan.transactions < MOST_HELD), stop=STOPS)
def test_a_guest_that_is_started_again_where_it_was_goes_on(
    plan: XenPlan, stop: int
) -> None:
    with GuestAlone(plan) as guest, GuestAlone(plan) as other:
        run_to_its_stop(guest, other.memory, [stop])
        before = guest.xen.front.registers.connections
        guest.xen.host.save()
        end = stop + DOWNTIME + 2 * plan.renegotiates + 8 * MS
        guest.xen.start(stop + DOWNTIME)
        guest.xen.run_until(end)
        guest.xen.settle(end)
        own = guest.xen.front.registers
        assert (own.error, guest.xen.front.stuck) == (0, 0)
        assert own.handled == guest.xen.host.ports.sent
        assert own.held_count == own.unknown == 0
        assert own.connections > before


def test_what_a_pinned_page_loses() -> None:
    # Replaced in the midst of I/O: the host goes on telling where nobody looks.
    plan = XenPlan(
        way="pinned", requests=10_000, renegotiates=0, replaced_at=(10 * MS,)
    )
    with GuestAlone(plan) as source, GuestAlone(plan) as destination:
        guest, own = source.xen, source.xen.front.registers
        old = source.memory.block(SHARED_INFO)
        guest.boot(1)
        guest.start(0)
        guest.run_until(10 * MS - 1)
        handled, was = own.handled, bytes(old.view)
        assert handled == guest.host.ports.sent
        guest.run_until(20 * MS)
        new = source.memory.block(SHARED_INFO)
        assert new is not old
        assert bytes(new.view) == was
        assert old.view[0x800 + own.disk_port // 8] == 1 << own.disk_port % 8
        assert own.handled == handled
        assert guest.host.ports.sent == handled
        assert guest.host.ports.strayed == DEPTH  # all that was asked
        assert guest.front.stuck == DEPTH
        # The destination maps the page anew; what is not in it stays lost.
        guest.stop()
        destination.xen.pre_load()
        copy_all(source.memory, destination.memory)
        load(destination.xen.host, guest.host.save())
        destination.xen.start(30 * MS)
        destination.xen.run_until(60 * MS)
        assert destination.xen.front.registers.handled == handled
        assert destination.xen.front.stuck == DEPTH
