"""Host and guest change one page at the same time, and no event is lost or doubled."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.unit.vm.xen.migrating import migrate
from tests.unit.vm.xen.running_guest import (
    ELSEWHERE,
    LIMIT,
    SHARED,
    RunningGuest,
    host,
    send,
    storing_way,
    yielding_way,
)
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.event_channel import Outcome
from vfiomig.vm.xen.guest_page import WAYS
from vfiomig.vm.xen.shared_info import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.vm.xen.guest_page import Way

_EVENTS: Final = 4_000
_CHUNK: Final = 500
_PATIENCE: Final = 100
_PORTS: Final = [*range(1, 60), 127, 128, 1000, 1023]  # words apart, and close


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory.of_pc(8 * PAGE_SIZE) as made:
        yield made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("bits", "info"), [(64, SHARED), (32, ELSEWHERE)])
def test_no_event_is_lost_or_doubled(
    memory: GuestMemory, way: str, bits: int, info: int
) -> None:
    sent = [0] * 4096
    channels = host(memory, bits, info, WAYS[way])
    for port in _PORTS:
        channels.bind(port)
    with RunningGuest(memories=[memory], layout=LAYOUTS[bits], info=info) as guest:
        send(channels, _PORTS, _EVENTS, sent)
        guest.settle()
        assert guest.taken() == sent
        assert sum(sent) == _EVENTS
        assert guest.upcalls > 1


def stress(memory: GuestMemory, way: Way, chunks: float = math.inf) -> int:
    """Send until some are lost, or so many chunks; return how many are lost."""
    channels = host(memory, 64)
    ports = _PORTS[:40]  # all in one word
    for port in ports:
        channels.bind(port)
    sent, deadline = [0] * 4096, time.monotonic() + LIMIT
    lost, done = 0, 0
    with RunningGuest(memories=[memory], layout=LAYOUTS[64], way=way) as guest:
        while not lost and done < chunks:
            assert time.monotonic() < deadline, f"{done} chunks, and none is lost"
            covered = 0  # in a row: a guest that lost its selector takes nothing more
            for turn in range(_CHUNK):
                port = ports[turn % len(ports)]
                if channels.deliver(port) is not Outcome.ALREADY_PENDING:
                    sent[port], covered = sent[port] + 1, 0
                elif covered < _PATIENCE:
                    covered += 1
                    os.sched_yield()
            guest.settle()
            taken, done = guest.taken(), done + 1
            lost = sum(max(a - b, 0) for a, b in zip(sent, taken, strict=True))
    return lost


@pytest.mark.parametrize("run", range(10))
def test_events_are_lost_by_load_and_store(memory: GuestMemory, run: int) -> None:
    assert stress(memory, storing_way) > 0, run


def test_none_is_lost_by_the_same_with_compare_and_swap(memory: GuestMemory) -> None:
    assert stress(memory, yielding_way, 20) == 0


@pytest.mark.parametrize("bits", LAYOUTS)
def test_events_cross_a_migration(bits: int) -> None:
    migrate(4_000, 4, _PORTS, bits)


def test_the_guest_is_another_process(memory: GuestMemory) -> None:
    with RunningGuest(memories=[memory], layout=LAYOUTS[64]) as guest:
        assert guest.child != os.getpid()
        guest.settle()
