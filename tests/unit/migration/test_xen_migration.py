"""A Xen guest crosses a migration, or stays where it is: with all events either way."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.unit.migration.feeding import feed
from tests.unit.migration.xen_migration import LastAnswer, Side, migrate
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.transport import CutLink, FlipBit, Tee
from vfiomig.protocol.errors import StreamError
from vfiomig.protocol.qemu_stream.xen_sections import full_section
from vfiomig.protocol.qemu_stream.xen_state import (
    UNMAPPED,
    XenPort,
    XenState,
    XenStoreDevice,
)
from vfiomig.vm.xen.guest import XenPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.protocol.qemu_stream.xen_state import XenPart

MS: Final = 1_000_000
PLAN: Final = XenPlan(
    vcpus=2, renegotiates=3 * MS, nodes=4, watches=3, transactions=2, bits=32
)
RAM_SECTION: Final = 1


def goes_on(side: Side) -> tuple[int, int]:
    """Let a guest run on for a while; return the events that it has taken, and sent."""
    begin = side.clock.now
    side.machine.run_until(begin + 20 * MS)
    side.xen.settle(begin + 20 * MS)
    own = side.xen.front.registers
    assert (own.error, own.unknown, side.xen.front.stuck) == (0, 0, 0)
    return own.handled, side.xen.host.ports.sent


# -- that completes -------------------------------------------------------------------

PLANS: Final = {
    "small": XenPlan(renegotiates=3 * MS),
    "much": PLAN,
    "registered": XenPlan(vcpus=32, registers_vcpu_info=True, renegotiates=3 * MS),
    "replaced": XenPlan(replaced_at=(MS, 13 * MS, 21 * MS), renegotiates=3 * MS),
    "pinned": XenPlan(way="pinned", renegotiates=3 * MS),
    "quirks": XenPlan(quirks="qemu", renegotiates=3 * MS, transactions=1, nodes=1),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_all_of_a_guest_arrives(plan: XenPlan) -> None:
    with Side(plan) as source, Side(plan) as destination:
        source.boot()
        metrics = Metrics()
        endings = migrate(source, destination, metrics=metrics)
        assert [each.outcome for each in endings] == [Outcome.COMPLETED] * 2
        assert not source.is_running
        assert destination.is_running
        assert destination.memory.digest() == source.memory.digest()
        state = source.xen.host.save()
        assert metrics.xenstore_bytes == len(full_section(9, 0, state.store))
        parts = [full_section(9, number, part) for number, part in state.parts()]
        assert metrics.xen_bytes == sum(map(len, parts[:-1]))
        assert metrics.downtime is not None
        assert 0 < metrics.xenstore_time < metrics.downtime
        before = source.xen.front.registers
        assert before.connections > 1
        handled, sent = goes_on(destination)
        assert handled == source.xen.host.ports.sent + sent
        own = destination.xen.front.registers
        assert own.connections > before.connections
        assert own.committed + own.conflicted == plan.transactions


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("bits", [32, 64])
def test_an_event_that_is_on_its_way_arrives(bits: int, registered: bool) -> None:
    plan = XenPlan(bits=bits, vcpus=2, renegotiates=0, registers_vcpu_info=registered)
    with Side(plan) as source, Side(plan) as destination:
        source.boot()
        source.observer = last = LastAnswer(source)
        migrate(source, destination)
        assert last.has_answered
        before = source.xen.front.registers.handled
        assert source.xen.host.ports.sent == before + 1
        handled, sent = goes_on(destination)
        assert handled == before + 1 + sent
        assert sent > 10


def test_the_state_is_the_same_before_it_runs() -> None:
    stream, state = recorded()
    with Side(PLAN) as side:
        feed(side.destination(starts_vm=False).load_stream(), stream)
        assert side.xen.host.save() == state
        assert not side.is_running


# -- that fails -----------------------------------------------------------------------


@cache
def recorded() -> tuple[bytes, XenState]:
    """Return what crosses the link when nothing is wrong, and the guest's state."""
    stream = bytearray()
    with Side(PLAN) as source, Side(PLAN) as destination:
        source.boot()
        migrate(source, destination, link=lambda end: Tee(end, stream.extend))
        return bytes(stream), source.xen.host.save()


def sections() -> list[bytes]:
    state = recorded()[1]
    return [
        full_section(RAM_SECTION + number, instance, part)
        for number, (instance, part) in enumerate(state.parts(), 1)
    ]


def places() -> list[int]:
    """Return where each of the guest's sections begins."""
    return [recorded()[0].index(section) for section in sections()]


def load(*pieces: bytes) -> StreamError:
    """Load a stream whose sections of the guest are these; return why it is refused."""
    stream, known = recorded()[0], b"".join(sections())
    assert stream.count(known) == 1
    with Side(PLAN) as side:
        with pytest.raises(StreamError) as raised:
            feed(
                side.destination().load_stream(),
                stream.replace(known, b"".join(pieces)),
            )
        assert not side.is_running
    return raised.value


def test_the_sections_of_a_guest_come_last_and_the_store_last_of_them() -> None:
    stream = recorded()[0]
    names = [section[6 : 6 + section[5]] for section in sections()]
    assert names == [
        b"xen_overlay",
        b"xen_evtchn",
        *[b"xen_vcpu"] * 2,
        b"xen_xenstore",
    ]
    end = places()[-1] + len(sections()[-1])
    assert stream[end : end + 2] == b"\0\x06"  # the end, and the description


@pytest.mark.parametrize("number", range(5))
def test_sections_that_are_not_as_they_are_due_are_refused(number: int) -> None:
    all_of_them = sections()
    before, own, behind = (
        all_of_them[:number],
        all_of_them[number],
        all_of_them[number + 1 :],
    )
    at = places()[number]
    missing = load(*before, *behind)
    assert missing.position >= at
    twice = load(*before, own, own, *behind)
    assert twice.position >= at + len(own)
    if behind:
        out_of_order = load(*before, behind[0], own, *behind[1:])
        assert at <= out_of_order.position <= at + 26


def test_what_a_stream_without_the_store_lacks_is_named() -> None:
    assert "xen_xenstore" in str(load(*sections()[:-1]))
    assert "xen_overlay" in str(load())


def test_a_guest_where_there_is_none_is_refused() -> None:
    stream = recorded()[0]
    with Side(PLAN) as side:
        side.machine.xen = None
        with pytest.raises(StreamError, match="FULL section 2 has no place") as raised:
            feed(side.destination().load_stream(), stream)
        assert raised.value.position == places()[0] + 5


@pytest.mark.parametrize(("there", "here"), [(1, 2), (2, 1), (3, 2)])
def test_a_guest_of_other_vcpus_is_refused(there: int, here: int) -> None:
    with Side(XenPlan(vcpus=there)) as source, Side(XenPlan(vcpus=here)) as other:
        source.boot()
        ending, refusal = migrate(source, other)
        assert (ending.outcome, refusal.outcome) == (Outcome.FAILED,) * 2
        assert isinstance(refusal.error, StreamError)
        assert "xen_" in str(refusal.error)
        assert not other.is_running
        handled, sent = goes_on(source)
        assert handled == sent


def extra(*rows: XenPort) -> Callable[[Any], XenPart]:
    """Return what has more ports than there are."""
    return lambda part: part._replace(ports=(*part.ports, *rows))


def with_(**fields: object) -> Callable[[Any], XenPart]:
    return lambda part: part._replace(**fields)


# The number of a section, and what becomes of its part: nothing that a host can have.
HOSTILE: Final[dict[str, tuple[int, Callable[[Any], XenPart]]]] = {
    "overlay: no page": (0, with_(shinfo_gpa=0xFE70_0008)),
    "evtchn: no callback": (1, with_(callback_param=3 << 56)),
    "evtchn: a vCPU": (1, extra(XenPort(9, 1, 0x8000))),
    "evtchn: a VIRQ": (1, extra(XenPort(0, 4, 1))),
    "evtchn: port 0": (1, with_(ports=(XenPort(0, 1, 0x8000),) * 3)),
    "evtchn: more than the layout": (1, extra(*[XenPort(0, 1, 0x8000)] * 1024)),
    "evtchn: a PIRQ": (1, with_(pirq_inuse_bitmap=(1, 0, 0, 0))),
    "vcpu: no RAM": (2, with_(vcpu_info_gpa=1 << 60)),
    "vcpu: no default": (2, with_(vcpu_info_default_gpa=1 << 60)),
    "vcpu: a time": (3, with_(vcpu_time_info_gpa=0x1FF0)),
    "vcpu: a vector": (3, with_(callback_vector=1)),
    "vcpu: a timer": (3, with_(singleshot_timer_ns=1)),
    "store: no port": (4, with_(guest_port=77)),
    "store: no port of any": (4, with_(guest_port=0x8000_0000)),
    "store: a byte": (4, lambda part: with_(impl_state=part.impl_state + b"\0")(part)),
    "store: short": (4, lambda part: with_(impl_state=part.impl_state[:-1])(part)),
    "store: none": (4, with_(impl_state=b"")),
    "store: half an event": (4, with_(events=b"path")),
}


@pytest.mark.parametrize(("number", "change"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_section_that_no_host_can_have_is_named(
    number: int, change: Callable[[Any], XenPart]
) -> None:
    pieces, (instance, part) = sections(), list(recorded()[1].parts())[number]
    pieces[number] = full_section(RAM_SECTION + 1 + number, instance, change(part))
    error = load(*pieces)
    assert places()[number] <= error.position < places()[number] + len(pieces[number])
    assert "xen_" in str(error)


def test_ports_without_shared_info_are_refused() -> None:
    nowhere = recorded()[1].overlay._replace(shinfo_gpa=UNMAPPED)
    error = load(full_section(RAM_SECTION + 1, 0, nowhere), *sections()[1:])
    assert "xen_evtchn" in str(error)
    assert error.position == places()[1] + 5


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("at", [0, 6, -1])
def test_a_damaged_frame_leaves_the_guest_where_it_was(number: int, at: int) -> None:
    # Its type, its name, the id in its footer.
    section = sections()[number]
    place = places()[number] + at % len(section)
    with Side(PLAN) as source, Side(PLAN) as destination:
        source.boot()
        ending, refusal = migrate(
            source, destination, link=lambda end: FlipBit(end, place, 1)
        )
        assert (ending.outcome, refusal.outcome) == (Outcome.FAILED,) * 2
        assert isinstance(refusal.error, StreamError)
        assert places()[number] <= refusal.error.position
        assert not destination.is_running
        assert source.is_running
        handled, sent = goes_on(source)
        assert handled == sent


@pytest.mark.parametrize("number", [0, 4])
def test_a_link_that_is_cut_within_a_section(number: int) -> None:
    place = places()[number] + len(sections()[number]) // 2
    with Side(PLAN) as source, Side(PLAN) as destination:
        source.boot()
        ending, refusal = migrate(
            source, destination, link=lambda end: CutLink(end, place)
        )
        assert isinstance(ending.error, ConnectionError)
        assert isinstance(refusal.error, StreamError)
        assert source.is_running
        held = source.xen.front.registers.held_count
        handled, sent = goes_on(source)
        assert handled == sent
        assert held == PLAN.transactions
        # And once more, over a link that holds.
        with Side(PLAN) as other:
            other.clock.now = source.clock.now
            before = source.xen.host.ports.sent
            assert before >= sent
            endings = migrate(source, other)
            assert [each.outcome for each in endings] == [Outcome.COMPLETED] * 2
            taken, there = goes_on(other)
            assert taken == source.xen.host.ports.sent + there


def test_the_place_in_a_store_is_told_as_well() -> None:
    state = recorded()[1]
    bad = state.store._replace(impl_state=state.store.impl_state + b"\0")
    error = load(*sections()[:-1], full_section(RAM_SECTION + 5, 0, bad))
    assert isinstance(state.store, XenStoreDevice)
    size = len(state.store.impl_state)
    assert error.position == places()[-1] + 5
    assert f"byte {size} of its store" in str(error)
