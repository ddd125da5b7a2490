"""A migration's copy of a page that host and guest change all the while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.vm.xen.running_guest import ELSEWHERE, RunningGuest, host, send
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.shared_info import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Sequence


def copy_dirty(source: GuestMemory, destination: GuestMemory) -> None:
    """Copy what the migration's log holds, and empty it."""
    source.sync(LogUser.KERNEL)
    block, other = source.blocks[0], destination.blocks[0]
    log = source.log(LogUser.MIGRATION, block)
    assert log is not None
    ranges = log.ranges()
    log.clear_all()  # before the copy: what is written meanwhile is dirty again
    for first, count in ranges.tolist():
        other.pages_view(first, count)[:] = block.pages_view(first, count)


def migrate(events: int, rounds: int, ports: Sequence[int], bits: int) -> None:
    """Send events, half of them from the destination of a migration."""
    sent = [0] * 4096
    with (
        GuestMemory.of_pc(8 * PAGE_SIZE) as source,
        GuestMemory.of_pc(8 * PAGE_SIZE) as destination,
    ):
        for user in (LogUser.KERNEL, LogUser.MIGRATION):
            source.start_log(user)
        channels = host(source, bits, ELSEWHERE)
        for port in ports:
            channels.bind(port)
        layout = LAYOUTS[bits]
        running = RunningGuest(
            memories=[source, destination], layout=layout, info=ELSEWHERE
        )
        with running as guest:
            for _ in range(rounds):
                send(channels, ports, events // 2 // rounds, sent)
                guest.stop()
                guest.go_on()
                copy_dirty(source, destination)
            # Some are on their way when it stops.
            send(channels, ports, len(ports) // 2, sent)
            guest.stop()
            copy_dirty(source, destination)
            assert source.digest() == destination.digest()
            here = sum(guest.taken())
            source.blocks[0].view[:] = bytes(source.size)  # nobody looks there again
            channels = host(destination, bits)
            channels.set_vcpu_info(0, ELSEWHERE)
            for port in ports:
                channels.bind(port)
            guest.move()
            send(channels, ports, events - sum(sent), sent)
            guest.settle()
            there = sum(guest.taken(1))
            taken = [a + b for a, b in zip(guest.taken(), guest.taken(1), strict=True)]
            assert taken == sent
            assert (sum(sent), here + there) == (events, events)
            assert here > 0 < there
        assert not any(source.blocks[0].view)
