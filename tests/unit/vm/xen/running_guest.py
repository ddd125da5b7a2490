"""A guest that runs: a process of its own, on memory that the host changes meanwhile.

It serves upcalls as soon as it sees them, and counts what it took.  What it says of
itself is in a board, pages that both have mapped and that are no guest memory; it may
be stopped between any two of its changes, and go on in another memory, as a vCPU does
that is migrated: what it has in its registers goes along.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from vfiomig.vm import atomic
from vfiomig.vm.dirty_pages import LogUser
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.event_channel import EventChannels, GuestChannels, Outcome
from vfiomig.vm.xen.guest_page import CachedPage
from vfiomig.vm.xen.shared_info import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.vm.atomic import Swapping
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.xen.guest_page import Way
    from vfiomig.vm.xen.shared_info import Layout

SHARED: Final = 2 * PAGE_SIZE  # where shared_info is
ELSEWHERE: Final = 5 * PAGE_SIZE + 1024  # where vcpu_info may be
LIMIT: Final = 30.0  # seconds that nothing may take
GUEST_LIMIT: Final = 900.0  # nor a guest, should its host be gone

_PORTS: Final = 4096
_IDLE, _ASKED, _UPCALLS, _COUNTS = 0, 1, 2, 8
_GO, _MOVE, _END = b"g", b"m", b"e"
_MASKED_EACH: Final = 7  # how often the guest masks what it took, and unmasks it


def yielding(size: int) -> Swapping:
    """Give a compare-and-swap that lets others run first.

    Who was stopped between its load and its change, as anybody may be, is seen sooner.
    """
    swap = atomic.swapping(size)

    def swap_late(address: int, expected: int, desired: int) -> bool:
        os.sched_yield()
        return swap(address, expected, desired)

    return swap_late


def storing(size: int) -> Swapping:
    """Give what looks like the same, and is a store."""
    kinds = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32}
    kind = kinds.get(size, ctypes.c_uint64)

    def store(address: int, _expected: int, desired: int) -> bool:
        os.sched_yield()
        kind.from_address(address).value = desired
        return True

    return store


def yielding_way(memory: GuestMemory, gpa: int) -> CachedPage:
    return CachedPage(memory, gpa, swaps=yielding)


def storing_way(memory: GuestMemory, gpa: int) -> CachedPage:
    return CachedPage(memory, gpa, swaps=storing)


class Silent:
    """Tells nobody: the guest looks by itself."""

    def inject(self, vcpu: int, vector: int) -> None:
        pass

    def kick(self, vcpu: int) -> None:
        pass

    def set_line(self, *, is_raised: bool) -> None:
        pass


@dataclass(slots=True, kw_only=True)
class RunningGuest:
    """One vCPU of ``memories[0]``; later ones are where it may go on."""

    memories: Sequence[GuestMemory]
    layout: Layout
    info: int = SHARED  # address of its vcpu_info
    way: Way = CachedPage
    board: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 32 * PAGE_SIZE))
    words: memoryview[int] = field(init=False)
    child: int = -1
    to_guest: int = -1
    from_guest: int = -1

    def __post_init__(self) -> None:
        whole = memoryview(self.board)[: 8 * (_COUNTS + 2 * _PORTS)]
        self.words = whole.cast("Q")

    # -- the host's side

    def __enter__(self) -> Self:
        hears, self.to_guest = os.pipe()
        self.from_guest, tells = os.pipe()
        self.child = os.fork()
        if not self.child:
            try:
                self._run(hears, tells)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(hears)
        os.close(tells)
        return self

    def __exit__(self, *exc: object) -> None:
        self.words[_ASKED] = 1
        os.write(self.to_guest, _END)
        _, status = os.waitpid(self.child, 0)
        os.close(self.to_guest)
        os.close(self.from_guest)
        assert status == 0 or exc[0] is not None

    def taken(self, memory: int = 0) -> list[int]:
        """How many events of each port it took in a memory."""
        at = _COUNTS + memory * _PORTS
        return self.words[at : at + _PORTS].tolist()

    @property
    def upcalls(self) -> int:
        return self.words[_UPCALLS]

    def settle(self) -> None:
        """Wait until it has nothing to do that it knows of."""
        # The first look may have been before the last event; the second was not.
        target, deadline = self.words[_IDLE] + 2, time.monotonic() + LIMIT
        while self.words[_IDLE] < target:
            assert time.monotonic() < deadline, "the guest does not get idle"
            os.sched_yield()

    def stop(self) -> None:
        """Stop it where it is, and take its log of what it wrote."""
        self.words[_ASKED] = 1
        ready, _, _ = select.select([self.from_guest], [], [], LIMIT)
        assert ready, "the guest does not stop"
        pages = [int(each) for each in os.read(self.from_guest, 1 << 16).split()]
        memory = self.memories[0]
        for page in pages:
            memory.mark(LogUser.KERNEL, memory.blocks[0], page * PAGE_SIZE, 1)

    def go_on(self) -> None:
        self.words[_ASKED] = 0
        os.write(self.to_guest, _GO)

    def move(self) -> None:
        """Let it go on, in the other memory."""
        self.words[_ASKED] = 0
        os.write(self.to_guest, _MOVE)

    # -- the guest's side

    def _run(self, hears: int, tells: int) -> None:
        words, number = self.words, 0
        channels = self._channels(number)
        self.memories[0].start_log(LogUser.KERNEL)
        deadline = time.monotonic() + GUEST_LIMIT

        def obey() -> bool:
            """Stop, until told how to go on; return whether there is an end to it."""
            nonlocal number
            pages = self._take_log()
            os.write(tells, b" ".join([*pages, b"\n"]))
            match os.read(hears, 1):
                case b"m":
                    number = 1
                    moved = self._channels(number)
                    channels.page, channels.info = moved.page, moved.info
                case b"g":
                    pass
                case _:
                    return True
            return False

        while time.monotonic() < deadline:
            if words[_ASKED] and obey():
                return
            if not channels.is_called():
                words[_IDLE] += 1
                os.sched_yield()
                continue
            words[_UPCALLS] += 1
            for port in channels.upcall():
                if port is not None:
                    words[_COUNTS + number * _PORTS + port] += 1
                    if words[_COUNTS + number * _PORTS + port] % _MASKED_EACH == 0:
                        channels.mask(port)
                        channels.unmask(port)
                if words[_ASKED] and obey():
                    return

    def _channels(self, number: int) -> GuestChannels:
        memory = self.memories[number]
        page = self.way(memory, SHARED)
        offset = self.info % PAGE_SIZE
        info = page if self.info == SHARED else self.way(memory, self.info - offset)
        return GuestChannels(self.layout, page, info, offset)

    def _take_log(self) -> list[bytes]:
        memory = self.memories[0]
        log = memory.log(LogUser.KERNEL, memory.blocks[0])
        assert log is not None
        pages = [
            b"%d" % page for page, n in log.ranges() for page in range(page, page + n)
        ]
        log.clear_all()
        return pages


def host(
    memory: GuestMemory, bits: int, info: int = SHARED, way: Way = CachedPage
) -> EventChannels:
    """Return the host's side, its vCPU's vcpu_info at an address."""
    channels = EventChannels(memory, SHARED, LAYOUTS[bits], Silent(), way=way)
    if info != SHARED:
        channels.register_vcpu_info(0, info)
    return channels


def send(
    channels: EventChannels,
    ports: Sequence[int],
    count: int,
    sent: list[int],
    between: Callable[[int], None] = lambda _: None,
) -> None:
    """Send ``count`` events in turns; count those that another did not cover."""
    left, turn = count, 0
    deadline = time.monotonic() + GUEST_LIMIT
    while left:
        port = ports[turn % len(ports)]
        turn += 1
        if channels.deliver(port) is not Outcome.ALREADY_PENDING:
            sent[port] += 1
            left -= 1
            between(left)
        elif not turn % 64:
            assert time.monotonic() < deadline, f"{left} events cannot be sent"
            os.sched_yield()
