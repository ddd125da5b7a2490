"""RAM from one guest to another, against moving the same bytes by hand.

Every page has contents, and is looked at for zeros all the same.  The link is so fast
that the migration is one round; time is virtual, so nothing waits.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.bench.figures import best_of, show, timed
from vfiomig.migration.clock import Channel, LinkModel, VirtualClock
from vfiomig.migration.convergence import DowntimeEstimate, Limits
from vfiomig.migration.destination import Destination
from vfiomig.migration.exchange import Party, exchange
from vfiomig.migration.metrics import Metrics, Outcome
from vfiomig.migration.parameters import Parameters
from vfiomig.migration.side import MigratingMachine
from vfiomig.migration.source import Source
from vfiomig.migration.transport import make_memory_pair, make_unix_pair
from vfiomig.vm.machine import Machine, RunState
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.workload import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.base import Pair

RAM = 256 << 20
CHUNK = 2 << 20  # what a system call carries: 512 pages, of which each has its word
LINK = LinkModel(bandwidth=1 << 40, latency=0)


@pytest.fixture(scope="module")
def guests() -> tuple[Machine, Machine]:
    source, destination = GuestMemory.of_pc(RAM), GuestMemory.of_pc(RAM)
    fill(source, RAM)
    fill(destination, RAM, seed=2)  # all pages are there before anything is timed
    return (
        Machine("pc-i440fx-7.2", source, (), RunState.RUNNING),
        Machine("pc-i440fx-7.2", destination),
    )


def migrate(guests: tuple[Machine, Machine], make_pair: Callable[[], Pair]) -> None:
    metrics, near, far = Metrics(), *make_pair()
    here, there = VirtualClock(), VirtualClock()
    forth, back = Channel(LINK, here, there), Channel(LINK, there, here)
    parameters = Parameters(max_bandwidth=0)
    leaving = Source(
        (),
        clock=here,
        estimate=DowntimeEstimate(link=LINK),
        limits=Limits(),
        metrics=metrics,
        machine=MigratingMachine(guests[0], parameters),
    )
    arriving = Destination(
        (), clock=there, metrics=metrics, machine=MigratingMachine(guests[1])
    )
    first = Party(leaving.migrate(), near, outgoing=forth, incoming=back)
    second = Party(arriving.load(), far, outgoing=back, incoming=forth)
    exchange(first, second)
    assert first.result().outcome is Outcome.COMPLETED
    assert metrics.normal_pages == metrics.loaded_ram_pages == RAM // 4096
    for end in (near, far):
        end.close()


def move(guests: tuple[Machine, Machine]) -> None:
    source, destination = (guest.memory.blocks[0].bytes for guest in guests)
    np.copyto(destination, source)


def send_and_receive(guests: tuple[Machine, Machine]) -> None:
    """Move the bytes over a socket pair, a chunk at a time, in one thread."""
    source, destination = (guest.memory.blocks[0].view for guest in guests)
    near, far = socket.socketpair()
    near.settimeout(0)
    far.settimeout(0)
    with near, far:
        sent = got = 0
        while got < RAM:
            end = min(sent - sent % CHUNK + CHUNK, RAM)
            if sent < RAM:
                with contextlib.suppress(BlockingIOError):
                    sent += near.sendmsg([source[sent:end]])
            end = min(got - got % CHUNK + CHUNK, RAM)
            with contextlib.suppress(BlockingIOError):
                got += far.recv_into(destination[got:end])


def test_ram_over_memory(guests: tuple[Machine, Machine]) -> None:
    ours, bare = best_of(
        lambda: timed(lambda: migrate(guests, make_memory_pair)),
        lambda: timed(lambda: move(guests)),
    )
    # A quarter of memmove's rate.
    show("RAM over the memory transport", ours / bare, 4, "one memmove of it")
    assert guests[0].memory.digest() == guests[1].memory.digest()


def test_ram_over_a_unix_socket(guests: tuple[Machine, Machine]) -> None:
    ours, bare = best_of(
        lambda: timed(lambda: migrate(guests, make_unix_pair)),
        lambda: timed(lambda: send_and_receive(guests)),
    )
    # 0.8 of its rate.
    show("RAM over a unix socket", ours / bare, 1.25, "a bare loop of 2 MiB pieces")
    assert guests[0].memory.digest() == guests[1].memory.digest()
