"""The table of event channels: who is at the other end, and what moves of it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.vm.xen.xen_machines import HostAlone
from vfiomig.protocol.qemu_stream.xen_state import REMOTE_QEMU, XenPort
from vfiomig.uapi.xen_event_channel import (
    EVTCHNSTAT_closed,
    EVTCHNSTAT_interdomain,
    EVTCHNSTAT_ipi,
    EVTCHNSTAT_pirq,
    EVTCHNSTAT_unbound,
    EVTCHNSTAT_virq,
)
from vfiomig.vm.xen.event_channel import Outcome
from vfiomig.vm.xen.ports import HostEnd
from vfiomig.vm.xen.shared_info import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.vm.xen.ports import EventPorts

PENDING_BYTE: Final = 0x800  # of evtchn_pending, ports 0 to 7
CLOSED: Final = XenPort(0, EVTCHNSTAT_closed, 0)
UNBOUND: Final = XenPort(0, EVTCHNSTAT_unbound, 0x8000)


def bound_to(own: int, vcpu: int = 0) -> XenPort:
    return XenPort(vcpu, EVTCHNSTAT_interdomain, 0x8000 | own)


def refused(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 -- the errno is returned
        call()
    return raised.value.errno


@pytest.fixture
def guest() -> Iterator[HostAlone]:
    with HostAlone(vcpus=2) as guest:
        yield guest


@pytest.fixture
def ports(guest: HostAlone) -> EventPorts:
    return guest.host.ports


# -- opened and closed ----------------------------------------------------------------


def test_the_lowest_free_port_is_given(ports: EventPorts) -> None:
    assert [ports.alloc_unbound() for _ in range(4)] == [1, 2, 3, 4]
    ports.close(2)
    assert ports.save() == (CLOSED, UNBOUND, CLOSED, UNBOUND, UNBOUND)
    assert ports.alloc_unbound(1) == 2
    assert ports.save()[2] == XenPort(1, EVTCHNSTAT_unbound, REMOTE_QEMU)


def test_the_table_ends_behind_the_last_open_port(ports: EventPorts) -> None:
    for _ in range(4):
        ports.alloc_unbound()
    for port in (3, 2):
        ports.close(port)
        assert len(ports.save()) == 5
    ports.close(4)
    assert ports.save() == (CLOSED, UNBOUND)
    ports.close(1)
    assert ports.save() == (CLOSED,)


@pytest.mark.parametrize(("bits", "most"), [(32, 1024), (64, 4096)])
def test_a_layout_has_so_many_ports(bits: int, most: int) -> None:
    with HostAlone(bits=bits) as guest:
        ports = guest.host.ports
        ports.load((CLOSED, *[UNBOUND] * (most - 2)))
        assert ports.alloc_unbound() == most - 1
        assert refused(ports.alloc_unbound) == errno.ENOSPC
        end = HostEnd()
        ports.bind(end, most - 1)
        assert ports.notify(end) is Outcome.NOTIFIED
        assert guest.pending(most - 1)
        before = ports.save()
        assert refused(lambda: ports.load([*before, UNBOUND])) == errno.EINVAL
        assert ports.save() == before


def test_a_port_of_no_vcpu_is_not_opened(ports: EventPorts) -> None:
    assert refused(lambda: ports.alloc_unbound(2)) == errno.ENOENT
    port = ports.alloc_unbound()
    assert refused(lambda: ports.bind_vcpu(port, 2)) == errno.ENOENT
    assert ports.save() == (CLOSED, UNBOUND)


@pytest.mark.parametrize("port", [-1, 0, 2, 3, 4, 1 << 20])
def test_a_port_that_is_not_open_is_refused(ports: EventPorts, port: int) -> None:
    for _ in range(3):
        ports.alloc_unbound()
    for closed in (2, 3):
        ports.close(closed)
    calls: list[Callable[[], object]] = [
        lambda: ports.send(port),
        lambda: ports.close(port),
        lambda: ports.bind_vcpu(port, 0),
        lambda: ports.bind(HostEnd(), port),
    ]
    assert [refused(call) for call in calls] == [errno.EINVAL] * 4


def test_before_shared_info_is_somewhere_there_are_no_ports() -> None:
    with HostAlone(is_mapped=False) as guest:
        ports = guest.host.ports
        assert refused(ports.alloc_unbound) == errno.ENOTCONN
        assert refused(lambda: ports.load([CLOSED, UNBOUND])) == errno.ENOTCONN
        assert ports.notify(HostEnd()) is None
        assert ports.save() == (CLOSED,)


# -- ends -----------------------------------------------------------------------------


def test_an_event_goes_to_the_other_end(guest: HostAlone, ports: EventPorts) -> None:
    ends = HostEnd(), HostEnd()
    for end in ends:
        ports.bind(end, ports.alloc_unbound())
    ports.send(2)
    assert [end.is_told for end in ends] == [False, True]
    assert ports.notify(ends[0]) is Outcome.NOTIFIED
    assert [guest.pending(port) for port in (1, 2)] == [True, False]


def test_an_event_to_nobody_is_none(ports: EventPorts) -> None:
    ports.send(ports.alloc_unbound())
    assert ports.notify(HostEnd()) is None
    assert (ports.sent, ports.merged) == (0, 0)


def test_events_are_counted_once_each(ports: EventPorts) -> None:
    ends = HostEnd(), HostEnd()
    for end in ends:
        ports.bind(end, ports.alloc_unbound())
    for end in (*ends, *ends, ends[0]):
        ports.notify(end)
    assert (ports.sent, ports.merged) == (2, 3)


def test_a_port_tells_the_vcpu_that_it_is_bound_to(
    guest: HostAlone, ports: EventPorts
) -> None:
    end, port = HostEnd(), ports.alloc_unbound()
    ports.bind(end, port)
    ports.bind_vcpu(port, 1)
    ports.notify(end)
    assert guest.notes.told == [1]
    assert (guest.page[0], guest.page[64]) == (0, 1)  # evtchn_upcall_pending of both
    assert ports.save()[port] == bound_to(1, vcpu=1)


def test_closing_forgets_what_is_pending(guest: HostAlone, ports: EventPorts) -> None:
    end, port = HostEnd(), ports.alloc_unbound()
    ports.bind(end, port)
    ports.notify(end)
    assert guest.pending(port)
    ports.close(port)
    assert not guest.pending(port)
    assert end.guest_port == 0
    assert ports.notify(end) is None
    # Whoever has that number next is told of nothing, and the end is free again.
    assert ports.alloc_unbound() == port
    ports.bind(end, port)
    assert ports.notify(end) is Outcome.ALREADY_SELECTED


def test_an_end_that_lets_go_leaves_the_port_to_another(ports: EventPorts) -> None:
    end, other = HostEnd(), HostEnd()
    port = ports.alloc_unbound(1)
    ports.bind(end, port)
    ports.send(port)
    ports.unbind(end)
    assert end == HostEnd()
    assert ports.save()[port] == XenPort(1, EVTCHNSTAT_unbound, REMOTE_QEMU)
    ports.bind(other, port)
    assert (other.port, other.guest_port) == (1, port)


def test_a_port_has_one_end(ports: EventPorts) -> None:
    end, other = HostEnd(), HostEnd()
    port = ports.alloc_unbound()
    ports.bind(end, port)
    assert refused(lambda: ports.bind(other, port)) == errno.EINVAL
    assert other == HostEnd()
    ports.bind(end, port)  # its own again
    assert (end.port, end.guest_port) == (1, port)


def test_an_end_that_is_bound_elsewhere_leaves_where_it_was(ports: EventPorts) -> None:
    end = HostEnd()
    for _ in range(2):
        ports.bind(end, ports.alloc_unbound())
    assert ports.save() == (CLOSED, UNBOUND, bound_to(1))
    ports.send(1)
    assert not end.is_told


# -- what moves -----------------------------------------------------------------------

MOVED: Final = (CLOSED, bound_to(2), CLOSED, bound_to(1, vcpu=1), UNBOUND)


def test_after_a_load_no_end_is_bound(ports: EventPorts) -> None:
    end = HostEnd()
    ports.bind(end, ports.alloc_unbound())
    ports.load(MOVED)
    assert ports.save() == MOVED
    assert end == HostEnd()


def test_an_end_keeps_its_number_if_that_is_free(ports: EventPorts) -> None:
    ports.load(MOVED)
    ends = HostEnd(), HostEnd()
    ports.bind(ends[0], 1)
    ports.bind(ends[1], 3)
    assert [end.port for end in ends] == [2, 1]
    assert ports.save() == MOVED


def test_an_end_takes_another_number_if_that_is_not_free(ports: EventPorts) -> None:
    ports.load(MOVED)
    first, later = HostEnd(), HostEnd()
    ports.bind(first, 4)  # it had none, and takes 1
    assert first.port == 1
    ports.send(3)  # the row says 1, which is another port's end now
    assert not first.is_told
    ports.bind(later, 3)
    assert later.port == 2
    ports.send(3)
    assert [first.is_told, later.is_told] == [False, True]
    ports.close(3)
    assert (first.guest_port, later.guest_port) == (4, 0)


def test_what_is_pending_stays_so(guest: HostAlone, ports: EventPorts) -> None:
    guest.page[PENDING_BYTE] = 1 << 3
    ports.load(MOVED)
    assert guest.pending(3)
    end = HostEnd()
    ports.bind(end, 3)
    assert ports.notify(end) is Outcome.ALREADY_PENDING


def test_an_empty_table_is_one_without_ports(ports: EventPorts) -> None:
    ports.alloc_unbound()
    ports.load(())
    assert ports.save() == (CLOSED,)
    assert ports.alloc_unbound() == 1


def test_a_closed_port_is_closed_whatever_its_row_says(ports: EventPorts) -> None:
    ports.load((CLOSED, XenPort(0, EVTCHNSTAT_closed, 7), UNBOUND))
    assert refused(lambda: ports.send(1)) == errno.EINVAL
    assert ports.alloc_unbound() == 1


REFUSED: Final = {
    "port 0 is open": (UNBOUND,),
    "port 0 leads to an end": (bound_to(1), UNBOUND),
    "a vCPU that is not there": (CLOSED, UNBOUND, XenPort(2, EVTCHNSTAT_unbound, 0)),
    "another vCPU": (CLOSED, XenPort(2, EVTCHNSTAT_unbound, REMOTE_QEMU)),
    "a vCPU above all": (CLOSED, bound_to(1, vcpu=0xFFFF_FFFF)),
    "a VIRQ": (CLOSED, XenPort(0, EVTCHNSTAT_virq, 0)),
    "a PIRQ": (CLOSED, XenPort(0, EVTCHNSTAT_pirq, 3)),
    "an IPI": (CLOSED, XenPort(0, EVTCHNSTAT_ipi, 0)),
    "no type at all": (CLOSED, XenPort(0, 6, REMOTE_QEMU)),
    "waits for a guest": (CLOSED, XenPort(0, EVTCHNSTAT_unbound, 1)),
    "waits for a port": (CLOSED, XenPort(0, EVTCHNSTAT_unbound, REMOTE_QEMU | 1)),
    "leads to the guest": (CLOSED, UNBOUND, XenPort(0, EVTCHNSTAT_interdomain, 1)),
    "leads to port 0": (CLOSED, bound_to(0)),
    "leads to port 4096": (CLOSED, bound_to(4096)),
}


@pytest.mark.parametrize("rows", REFUSED.values(), ids=REFUSED.keys())
def test_a_table_that_cannot_be_changes_nothing(
    guest: HostAlone, ports: EventPorts, rows: tuple[XenPort, ...]
) -> None:
    end = HostEnd()
    ports.bind(end, ports.alloc_unbound())
    before, page = ports.save(), bytes(guest.page)
    assert refused(lambda: ports.load(rows)) in {errno.EINVAL, errno.ENOENT}
    assert ports.save() == before
    assert bytes(guest.page) == page
    ports.send(1)
    assert end.is_told
    assert ports.notify(end) is Outcome.NOTIFIED


def test_a_table_of_the_other_layout_does_not_fit() -> None:
    with HostAlone(bits=64) as guest:
        host = guest.host
        host.ports.load((CLOSED, *[CLOSED] * 1023, UNBOUND))  # port 1024
        end = HostEnd()
        host.ports.bind(end, 1024)
        slots, page = guest.memory.slots, host.channels
        assert refused(lambda: host.map_shared_info(0x8000, 32)) == errno.EINVAL
        assert guest.memory.slots == slots
        assert host.channels is page
        assert (host.bits, host.shared_info) == (64, 0xFE70_0000)
        assert host.ports.notify(end) is Outcome.NOTIFIED
        assert guest.pending(1024)
    assert LAYOUTS[32].ports == 1024
