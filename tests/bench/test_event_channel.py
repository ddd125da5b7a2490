"""Events to a guest that runs, against bare fetch-ors by libatomic: at least 0.15.

A delivery takes at most 6.67 of them.  Only events that were not covered by another are
counted, and each of those is taken by the guest.  The kernel's dirty log is on.
"""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.bench.figures import best_of, show, timed
from tests.unit.vm.xen.running_guest import ELSEWHERE, RunningGuest, host
from vfiomig.vm import atomic
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.event_channel import EventChannels, Outcome
from vfiomig.vm.xen.guest_page import WAYS
from vfiomig.vm.xen.shared_info import LAYOUTS

EVENTS = 2_000
RUNS = 40
PORTS = range(1, 4096)


def fetches(address: int) -> None:
    for at in range(EVENTS):
        atomic.fetch_or(address, 8, at)


def delivers(channels: EventChannels, sent: list[int]) -> float:
    """Return the seconds that ``EVENTS`` deliveries take."""
    turn, left, taken = sum(sent), EVENTS, 0.0
    while left:
        began = time.perf_counter()
        outcome = Outcome.NOTIFIED
        while left and outcome is not Outcome.ALREADY_PENDING:
            port = PORTS[turn % len(PORTS)]
            outcome = channels.deliver(port)
            if outcome is not Outcome.ALREADY_PENDING:
                turn, left = turn + 1, left - 1
                sent[port] += 1
        taken += time.perf_counter() - began
        while left and channels.upcall_pending(0):
            pass  # the guest is not that fast: no delivery, no time
    return taken


@pytest.mark.parametrize("way", WAYS)
def test_an_event_is_delivered(way: str) -> None:
    with GuestMemory.of_pc(8 * PAGE_SIZE) as memory:
        memory.start_log(LogUser.KERNEL)
        channels = host(memory, 64, ELSEWHERE, WAYS[way])
        for port in PORTS:
            channels.bind(port)
        word = memory.blocks[0].address + 7 * PAGE_SIZE
        sent = [0] * 4096
        running = RunningGuest(memories=[memory], layout=LAYOUTS[64], info=ELSEWHERE)
        with running as guest:
            bare, ours = best_of(
                lambda: timed(partial(fetches, word)),
                lambda: delivers(channels, sent),
                runs=RUNS,
            )
            guest.settle()
            assert guest.taken() == sent
        figure = f"an event by a {way} page ({bare / ours:.3f} of the rate)"
        show(figure, ours / bare, 1 / 0.15, "a bare fetch-or")
