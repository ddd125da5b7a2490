"""Delivery, bit by bit: reference/qemu_stream_and_xen.md, E1 and E2."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.event_channel import EventChannels, GuestChannels, Outcome
from vfiomig.vm.xen.guest_page import WAYS, CachedPage
from vfiomig.vm.xen.overlay import without
from vfiomig.vm.xen.shared_info import LAYOUTS, default_vcpu_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GPA: Final = 2 * PAGE_SIZE
_INFO: Final = 5 * PAGE_SIZE + 0x40


class Told:
    """Notes what vCPUs were told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def inject(self, vcpu: int, vector: int) -> None:
        self.calls.append(("inject", vcpu, vector))

    def kick(self, vcpu: int) -> None:
        self.calls.append(("kick", vcpu))

    def set_line(self, *, is_raised: bool) -> None:
        self.calls.append(("line", is_raised))


class Bench:
    """A memory, channels on it, and who was told."""

    def __init__(self, bits: int = 64, way: str = "cached", vcpus: int = 2) -> None:
        self.memory = GuestMemory.of_pc(8 * PAGE_SIZE)
        self.told = Told()
        self.layout = LAYOUTS[bits]
        self.channels = EventChannels(
            self.memory, _GPA, self.layout, self.told, vcpus=vcpus, way=WAYS[way]
        )

    def written(self, gpa: int = _GPA) -> dict[int, int]:
        """Return the bytes of a page that are not zero."""
        page = self.memory.read(gpa - gpa % PAGE_SIZE, PAGE_SIZE)
        return {at: byte for at, byte in enumerate(page) if byte}

    def guest(self, info: int = _GPA) -> GuestChannels:
        page = CachedPage(self.memory, _GPA)
        of_info = CachedPage(self.memory, info - info % PAGE_SIZE)
        return GuestChannels(self.layout, page, of_info, info % PAGE_SIZE)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.memory.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make_bench(bits: int = 64, way: str = "cached", vcpus: int = 2) -> Bench:
        benches.append(Bench(bits, way, vcpus))
        return benches[-1]

    yield make_bench
    for each in benches:
        each.memory.close()


# (bits, port, vCPU): the bytes that its delivery sets
DELIVERED: Final = [
    # The example of E2: word 1, bit 6.
    (64, 70, 0, {0x808: 0x40, 8: 2, 0: 1}),
    (64, 70, 1, {0x808: 0x40, 64 + 8: 2, 64: 1}),
    (64, 1, 0, {0x800: 2, 8: 1, 0: 1}),
    (64, 4095, 0, {0x9FF: 0x80, 8 + 7: 0x80, 0: 1}),
    (32, 70, 0, {0x808: 0x40, 4: 4, 0: 1}),
    (32, 1023, 1, {0x87F: 0x80, 64 + 7: 0x80, 64: 1}),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("bits", "port", "vcpu", "expected"), DELIVERED)
def test_an_event_sets_three_bits(
    make: Callable[..., Bench],
    way: str,
    bits: int,
    port: int,
    vcpu: int,
    expected: dict[int, int],
) -> None:
    bench = make(bits, way)
    bench.channels.bind(port, vcpu)
    assert not bench.channels.upcall_pending(vcpu)
    assert bench.channels.deliver(port) is Outcome.NOTIFIED
    assert bench.written() == expected
    assert bench.told.calls == [("kick", vcpu)]
    assert bench.channels.upcall_pending(vcpu)
    assert not bench.channels.upcall_pending(1 - vcpu)
    assert bench.channels.deliver(port) is Outcome.ALREADY_PENDING
    assert len(bench.told.calls) == 1


def test_only_a_step_from_0_to_1_goes_on(bench: Bench) -> None:
    for port in (70, 71, 1):
        bench.channels.bind(port)
    outcomes = [bench.channels.deliver(port) for port in (70, 71, 1)]
    assert outcomes == [
        Outcome.NOTIFIED,
        Outcome.ALREADY_SELECTED,
        Outcome.ALREADY_UPCALLED,
    ]
    assert bench.written() == {0: 1, 8: 3, 0x800: 2, 0x808: 0xC0}
    assert bench.told.calls == [("kick", 0)]


@pytest.mark.parametrize(("bits", "masked_at"), [(64, 0xA08), (32, 0x888)])
def test_a_masked_event_waits(
    make: Callable[..., Bench], bits: int, masked_at: int
) -> None:
    bench = make(bits)
    channels = bench.channels
    channels.bind(70)
    assert not channels.mask(70)
    assert channels.mask(70)
    assert bench.written() == {masked_at: 0x40}
    assert channels.deliver(70) is Outcome.MASKED
    assert bench.written() == {masked_at: 0x40, 0x808: 0x40}
    assert bench.told.calls == []
    assert channels.unmask(70) is Outcome.NOTIFIED
    assert masked_at not in bench.written()
    assert [*bench.guest().upcall()][2:] == [70]
    assert channels.unmask(70) is Outcome.NOT_PENDING
    channels.mask(70)
    assert channels.unmask(70) is Outcome.NOT_PENDING
    assert bench.told.calls == [("kick", 0)]


def test_an_unmasked_port_is_not_told_of_again(bench: Bench) -> None:
    bench.channels.bind(70)
    bench.channels.deliver(70)
    [*bench.guest().upcall()][:2]
    bench.memory.write(_GPA + 0x808, b"\x40")
    assert bench.channels.unmask(70) is Outcome.NOT_PENDING  # was clear: done
    assert bench.written() == {0x808: 0x40}


def test_a_guest_takes_what_is_not_masked_and_clears_from_the_top(bench: Bench) -> None:
    for port in (70, 71, 4000):
        bench.channels.bind(port)
        bench.channels.deliver(port)
    guest = bench.guest()
    guest.mask(71)
    steps = guest.upcall()
    assert guest.is_called()
    assert next(steps) is None
    assert (0 in bench.written(), 8 in bench.written()) == (False, True)
    assert next(steps) is None
    assert 8 not in bench.written()
    assert [*steps] == [70, 4000]
    assert bench.written() == {0x808: 0x80, 0xA08: 0x80}
    assert not guest.is_called()
    assert guest.unmask(71)
    assert [*guest.upcall()][2:] == [71]
    assert not guest.unmask(71)
    assert bench.written() == {}


def test_a_closed_port_is_forgotten(bench: Bench) -> None:
    bench.channels.bind(70)
    bench.channels.deliver(70)
    bench.channels.close(70)
    assert bench.written() == {0: 1, 8: 2}
    for refused in (
        bench.channels.deliver,
        bench.channels.close,
        bench.channels.mask,
        bench.channels.unmask,
    ):
        with pytest.raises(OSError, match="70") as refusal:
            refused(70)
        assert refusal.value.errno == errno.EINVAL


# -- how a vCPU is told ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "vector", "vcpu", "calls"),
    [
        (0, 0, 1, [("kick", 1)]),
        (2 << 56 | 0xF3, 0, 1, [("kick", 1)]),
        (2 << 56 | 0xF3, 0x31, 1, [("inject", 1, 0x31)]),
        (28, 0, 0, [("line", True)]),  # a GSI
        (28, 0, 1, []),
        (28, 0xFF, 1, [("inject", 1, 0xFF)]),
        (1 << 56 | 3 << 11, 0, 0, [("line", True)]),  # an INTx
    ],
)
def test_a_vcpu_is_told_as_the_guest_wants(
    bench: Bench, callback: int, vector: int, vcpu: int, calls: list[object]
) -> None:
    bench.channels.set_callback(callback)
    bench.channels.set_vector(vcpu, vector)
    bench.channels.bind(9, vcpu)
    assert bench.channels.deliver(9) is Outcome.NOTIFIED
    assert bench.told.calls == calls


def test_a_line_falls_when_vcpu_0_has_served(bench: Bench) -> None:
    bench.channels.bind(9)
    bench.channels.check_line()
    bench.channels.set_callback(28)
    bench.channels.deliver(9)
    bench.channels.check_line()
    assert bench.told.calls == [("line", True)]
    [*bench.guest().upcall()]
    bench.channels.check_line()
    assert bench.told.calls == [("line", True), ("line", False)]


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda it: it.bind(0), errno.EINVAL),
        (lambda it: it.bind(4096), errno.EINVAL),
        (lambda it: it.bind(-1), errno.EINVAL),
        (lambda it: it.bind(1, 2), errno.ENOENT),
        (lambda it: it.deliver(1), errno.EINVAL),
        (lambda it: it.deliver(-1), errno.EINVAL),
        (lambda it: it.set_vector(0, 0xF), errno.EINVAL),
        (lambda it: it.set_vector(0, 0x100), errno.EINVAL),
        (lambda it: it.set_vector(7, 0x20), errno.ENOENT),
        (lambda it: it.set_callback(3 << 56), errno.ENOSYS),
        (lambda it: it.upcall_pending(2), errno.ENOENT),
        (lambda it: it.register_vcpu_info(0, 4096 - 63), errno.EINVAL),
        (lambda it: it.register_vcpu_info(0, 4096 - 56), errno.EINVAL),
        (lambda it: it.register_vcpu_info(0, 4), errno.EINVAL),
        (lambda it: it.register_vcpu_info(-1, 0), errno.EINVAL),
        (lambda it: it.register_vcpu_info(0, 1 << 40), errno.EFAULT),
    ],
)
def test_what_is_not_there_is_refused(
    bench: Bench, ask: Callable[[EventChannels], object], code: int
) -> None:
    with pytest.raises(OSError, match=r"\w") as refusal:
        ask(bench.channels)
    assert refusal.value.errno == code
    assert not any(bench.memory.read(0, 8 * PAGE_SIZE))


def test_a_32_bit_guest_has_1023_ports(make: Callable[..., Bench]) -> None:
    channels = make(32).channels
    channels.bind(1023)
    with pytest.raises(OSError, match="1024"):
        channels.bind(1024)


@pytest.mark.parametrize("vcpus", [0, 33])
def test_shared_info_has_places_for_32(make: Callable[..., Bench], vcpus: int) -> None:
    make(vcpus=32)
    assert default_vcpu_info(31) == 0x7C0
    with pytest.raises(OSError, match="32"):
        default_vcpu_info(32)
    with pytest.raises(ValueError, match=str(vcpus)):
        make(vcpus=vcpus)


# -- vcpu_info elsewhere, and out of reach ---------------------------------------------


def test_a_vcpu_info_elsewhere_is_told_of_all_words(bench: Bench) -> None:
    channels = bench.channels
    channels.bind(70, 1)
    channels.deliver(70)
    channels.register_vcpu_info(1, _INFO)
    assert bench.written(_INFO) == {0x40: 1, **dict.fromkeys(range(0x48, 0x50), 0xFF)}
    assert [*bench.guest(_INFO).upcall()][2:] == [70]
    channels.register_vcpu_info(40, _INFO + 64)  # one that shared_info has no place for
    [*bench.guest(_INFO + 64).upcall()]
    channels.bind(71, 40)
    assert channels.deliver(71) is Outcome.NOTIFIED
    assert bench.written(_INFO) == {0x80: 1, 0x88: 2}


def test_what_is_set_without_registering_stays_as_it_is(bench: Bench) -> None:
    bench.channels.set_vcpu_info(1, _INFO)
    assert bench.written(_INFO) == {}
    bench.channels.bind(70, 1)
    bench.channels.deliver(70)
    assert bench.written(_INFO) == {0x40: 1, 0x48: 2}


def test_a_selector_out_of_reach_waits_with_the_host(bench: Bench) -> None:
    channels, memory, slots = bench.channels, bench.memory, bench.memory.slots
    channels.set_vcpu_info(0, _INFO)
    for port in (1, 70, 71):
        channels.bind(port)
    memory.set_slots(without(slots, _INFO - 0x40, PAGE_SIZE))
    assert channels.deliver(70) is Outcome.WAITING
    assert channels.deliver(70) is Outcome.ALREADY_PENDING
    assert channels.deliver(1) is Outcome.WAITING
    assert channels.waiting(0) == 3
    assert not channels.enter(0)
    assert bench.written() == {0x800: 2, 0x808: 0x40}
    memory.set_slots(slots)
    assert channels.enter(0)
    assert bench.told.calls == [("kick", 0)] * 3
    assert bench.written(_INFO) == {0x40: 1, 0x48: 3}
    assert channels.enter(0)
    assert channels.waiting(0) == 0
    assert [*bench.guest(_INFO).upcall()][2:] == [1, 70]


def test_what_waits_goes_with_the_next_event(bench: Bench) -> None:
    channels, memory, slots = bench.channels, bench.memory, bench.memory.slots
    channels.set_vcpu_info(0, _INFO)
    channels.bind(1)
    channels.bind(70)
    memory.set_slots(without(slots, _INFO - 0x40, PAGE_SIZE))
    channels.deliver(70)
    memory.set_slots(slots)
    assert channels.deliver(1) is Outcome.ALREADY_UPCALLED
    assert [*bench.guest(_INFO).upcall()][2:] == [1, 70]


def test_without_shared_info_nothing_happens_and_the_sender_is_told(
    bench: Bench,
) -> None:
    channels, memory, slots = bench.channels, bench.memory, bench.memory.slots
    channels.set_vcpu_info(0, _INFO)
    channels.bind(70)
    memory.set_slots(without(slots, _GPA, PAGE_SIZE))
    with pytest.raises(OSError, match="0x2000") as refusal:
        channels.deliver(70)
    assert refusal.value.errno == errno.EFAULT
    memory.set_slots(slots)
    assert bench.written() == bench.written(_INFO) == {}
    assert channels.deliver(70) is Outcome.NOTIFIED


def test_a_page_that_was_put_elsewhere_is_used_there(bench: Bench) -> None:
    channels = bench.channels
    channels.set_vcpu_info(1, _INFO)
    channels.bind(70)
    channels.bind(71, 1)
    channels.move(4 * PAGE_SIZE)
    assert channels.deliver(70) is Outcome.NOTIFIED
    assert channels.deliver(71) is Outcome.NOTIFIED
    assert bench.written() == {}
    assert bench.written(4 * PAGE_SIZE) == {0: 1, 8: 2, 0x808: 0xC0}
    assert bench.written(_INFO) == {0x40: 1, 0x48: 2}
