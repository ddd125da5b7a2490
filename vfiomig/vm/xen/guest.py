"""A Xen guest with a disk, and its host: what both do, by virtual time.

Rule 1: the host answers a request of the disk at each tick of its rate.  A vCPU that is
told of an event takes it `_REACTION` later.  All else, the store and the guest's
program, goes in turns, one every `_TURN` while any has something to do.  A stop finds
them anywhere: with an event on its way, within a message, a transaction, a negotiation.

Rule 2: what the guest knows goes into its RAM when it stops (`Registers`), as registers
of its vCPUs would move in sections of theirs; on the other side it is taken from there.

Rule 3: the guest has been up for `_BOOTED` when the machine's time begins.  What this
module calls ``time`` is the guest's, what is called ``now`` the machine's.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.qemu_stream.xen_state import UNMAPPED
from vfiomig.uapi import xen
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.disk import DiskBackEnd
from vfiomig.vm.xen.event_channel import GuestChannels
from vfiomig.vm.xen.front_end import FrontEnd
from vfiomig.vm.xen.guest_page import CachedPage
from vfiomig.vm.xen.guest_registers import Registers
from vfiomig.vm.xen.host import STORE_PAGE, STORE_RING, TIME_INFO_SIZE, XenHost
from vfiomig.vm.xen.shared_info import VCPU_INFO_SIZE, default_vcpu_info
from vfiomig.vm.xen.toolstack import add_disk, populate
from vfiomig.vm.xen.vcpu_time import read_versioned

if TYPE_CHECKING:
    from vfiomig.vm.memory import GuestMemory
    from vfiomig.vm.xen.xenstore import Quirks

# What the guest has of its RAM, from address 0 on: registers, what each vCPU has, the
# disk's ring.
_VCPU_INFOS: Final = 4 * PAGE_SIZE
_TIME_INFOS: Final = 5 * PAGE_SIZE
_DISK_RING: Final = 6 * PAGE_SIZE
RESERVED: Final = 16 * PAGE_SIZE
SHARED_INFO_AT: Final = 0xFE70_0000  # where Linux has it put

# What the quotas leave of 1,000 nodes and 128 watches beside what is there anyway.
MOST_NODES: Final = 955
MOST_WATCHES: Final = 127

_SECOND: Final = 1_000_000_000
_TURN: Final = 20_000  # virtual nanoseconds
_REACTION: Final = 10_000
_BOOTED: Final = 20_000_000
_VECTOR: Final = 0xF3  # Linux's HYPERVISOR_CALLBACK_VECTOR
_CALLBACK: Final = (
    xen.HVM_PARAM_CALLBACK_TYPE_VECTOR << xen.HVM_PARAM_CALLBACK_TYPE_SHIFT | _VECTOR
)
_NEVER: Final = 1 << 62
_SETTLES: Final = _SECOND  # in which all comes to rest, or never will


@dataclass(frozen=True, slots=True, kw_only=True)
class XenPlan:
    """What a guest is, and what it and its host do.

    ``way`` is how the host reaches shared_info (a key of `WAYS`), ``bits`` the layout
    (of `LAYOUTS`).  ``registers_vcpu_info``: every vCPU has its vcpu_info in RAM, none
    in shared_info.  ``requests`` of the disk are answered in a virtual second.  A
    connection is kept for ``renegotiates`` virtual nanoseconds, 0 for ever.
    ``replaced_at``: when the host replaces the memory behind shared_info.

    The store has ``nodes`` more, of ``node_size`` bytes each, ``watches`` on them (two
    on a node), and ``transactions`` are open that have written all of them anew.
    """

    way: str = "cached"
    bits: int = 64
    vcpus: int = 1
    registers_vcpu_info: bool = False
    requests: int = 1_000
    renegotiates: int = 20_000_000
    replaced_at: tuple[int, ...] = ()
    nodes: int = 0
    node_size: int = 64
    watches: int = 0
    transactions: int = 0
    quirks: Quirks = None


class XenGuest:
    """The guest on one side, and what its host there has for it."""

    def __init__(self, memory: GuestMemory, plan: XenPlan) -> None:
        self.plan = plan
        self.memory = memory
        self.host = XenHost(
            memory,
            self,
            vcpus=plan.vcpus,
            bits=plan.bits,
            way=plan.way,
            quirks=plan.quirks,
        )
        self.disk = DiskBackEnd(self.host)
        self.front = FrontEnd(
            memory, self.host, STORE_PAGE, _DISK_RING, plan.renegotiates
        )
        self.called: set[int] = set()  # vCPUs that have an upcall to look for
        self._channels: list[GuestChannels] = []
        self._interval = max(1, _SECOND // plan.requests) if plan.requests else 0
        self._time = 0
        self._answers_at = self._serves_at = _NEVER
        self._turned_at, self._is_active = 0, False
        self._replaced_at = [at + _BOOTED for at in sorted(plan.replaced_at)]
        self._has_come = False  # from another side
        self._has_woken = False  # and not seen the time yet

    def boot(self, seed: int) -> None:
        """Come up, meet the disk, and have all in the store that the plan has."""
        host, store, plan = self.host, self.host.store, self.plan
        self.memory.write(0, bytes(RESERVED))
        host.map_shared_info(SHARED_INFO_AT, plan.bits)
        host.set_callback(_CALLBACK)
        for vcpu in range(plan.vcpus):
            host.set_vector(vcpu, _VECTOR)
            host.register_time_info(vcpu, _TIME_INFOS + vcpu * TIME_INFO_SIZE)
            if plan.registers_vcpu_info:
                host.register_vcpu_info(vcpu, _VCPU_INFOS + vcpu * VCPU_INFO_SIZE)
        own = self.front.registers
        own.store_port = host.ports.alloc_unbound()
        host.open_store(own.store_port)
        populate(store, port=own.store_port, ring=STORE_RING // PAGE_SIZE)
        add_disk(store)
        luck = random.Random(seed)
        self._write_all(0, luck)
        for number in range(plan.watches):
            store.watch(store.domid, 0, self._paths[number // 2], f"watch {number}")
        self.start(-_BOOTED)
        self.run_until(-_BOOTED // 5)
        while store.transactions:  # the front end's own: it is soon over
            self.run_until(self._time - _BOOTED + _TURN)
        for number in range(plan.transactions):
            own.held[number] = tx = store.transaction_start(store.domid)
            own.held_count += 1
            self._write_all(tx, luck)

    # -- as a machine does

    def start(self, now: int) -> None:
        """Run from ``now`` on.

        Raises ``OSError``: ENOTCONN for a guest that came without shared_info.
        """
        if self._has_come:
            self._take_registers()
            self._has_come = False
        self._time = time = now + _BOOTED
        self._has_woken = True
        self._channels = [self._channels_of(vcpu) for vcpu in range(self.plan.vcpus)]
        # Each looks when it is entered.
        self.called.update(range(self.plan.vcpus))
        self._serves_at = time
        self._answers_at = time + self._interval if self._interval else _NEVER
        self._turned_at, self._is_active = time - _TURN, True
        while self._replaced_at and self._replaced_at[0] < time:
            del self._replaced_at[0]

    def stop(self) -> None:
        """Stop; what is known, and what waits, goes into RAM."""
        self.host.settle()
        self.memory.write(0, bytes(self.front.registers))

    def pre_load(self) -> None:
        """Await another side's guest."""
        self.disk.forget()
        self.host.pre_load()
        self._has_come = True

    def run_until(self, now: int) -> None:
        """Do what is due until ``now``."""
        if self._has_woken:
            self.host.tell_time(self._time)
            self._look_at_the_time()
            self._has_woken = False
        end = now + _BOOTED
        while (time := self._next_time()) <= end:
            self._do_what_is_due(time)

    def settle(self, now: int) -> int:
        """Answer no more of the disk's requests, and let all else come to an end.

        Transactions that are held are ended, wherever that is.
        Return when that was; at the latest a virtual second after ``now``.
        """
        self.run_until(now)
        self._answers_at = _NEVER
        self.front.renegotiates, self.front.registers.ends_held = 0, 1
        self._is_active = True
        end = now + _BOOTED + _SETTLES
        while (time := self._next_time()) <= end:
            self._do_what_is_due(time)
        return max(now, self._time - _BOOTED)

    # -- a Notifier

    def inject(self, vcpu: int, vector: int) -> None:
        """Have the vCPU look for its upcall."""
        del vector
        self.kick(vcpu)

    def kick(self, vcpu: int) -> None:
        """Have the vCPU look for its upcall, soon."""
        self.called.add(vcpu)
        self._serves_at = min(self._serves_at, self._time + _REACTION)

    def set_line(self, *, is_raised: bool) -> None:
        """Do nothing: this guest has vectors."""

    # -- turns

    def _do_what_is_due(self, time: int) -> None:
        self._time = time
        if self._replaced_at and time >= self._replaced_at[0]:
            del self._replaced_at[0]
            self.host.replace_shared_info()
        if time >= self._answers_at:
            self._answers_at += self._interval
            self.disk.answer()
        if time >= self._serves_at:
            self._serves_at = _NEVER
            self._serve()
        if time >= self._next_turn():
            self._turned_at = time
            self._is_active = self._turn(time)

    def _turn(self, time: int) -> bool:
        """Let each do one thing; tell whether any did."""
        was_active = self.host.serve_store()
        was_active |= self.disk.look()
        return self.front.act(time) or was_active

    def _serve(self) -> None:
        """Let the vCPUs that were called take their events."""
        called, self.called = self.called, set()
        for vcpu in called:
            channels = self._channels[vcpu]
            while channels.is_called():
                for port in channels.upcall():
                    if port is not None:
                        self.front.take_event(port)
        self._is_active = True  # the program may have something to do now

    def _next_time(self) -> int:
        replaced_at = self._replaced_at[0] if self._replaced_at else _NEVER
        return min(self._answers_at, self._serves_at, self._next_turn(), replaced_at)

    def _next_turn(self) -> int:
        """Return when the next turn is; `_NEVER` while all wait."""
        next_one = max(self._turned_at + _TURN, self._time)
        if self._is_active:
            return next_one
        wakes_at = self.front.wakes_at
        return _NEVER if wakes_at is None else max(wakes_at, next_one)

    # -- what it begins with, and goes on with

    def _channels_of(self, vcpu: int) -> GuestChannels:
        host = self.host
        if host.channels is None:
            raise OSError(errno.ENOTCONN, "the guest has put shared_info nowhere")
        page = CachedPage(self.memory, host.shared_info)
        at = host.vcpu_infos[vcpu]
        if at == UNMAPPED:
            info, offset = page, default_vcpu_info(vcpu)
        else:
            info, offset = CachedPage(self.memory, at - at % PAGE_SIZE), at % PAGE_SIZE
        return GuestChannels(host.channels.layout, page, info, offset)

    def _look_at_the_time(self) -> None:
        """Read the time as each vCPU does; note it if it goes back."""
        own = self.front.registers
        for gpa in self.host.time_infos:
            frame = CachedPage(self.memory, gpa - gpa % PAGE_SIZE).frame()
            found = read_versioned(frame, gpa % PAGE_SIZE, xen.pvclock_vcpu_time_info)
            own.times_back += found.system_time < own.time
            own.time = found.system_time

    def _take_registers(self) -> None:
        data = self.memory.read(0, len(bytes(self.front.registers)))
        self.front.registers = Registers.from_buffer_copy(data)
        self.front.registers.ends_held = 1

    @property
    def _paths(self) -> list[str]:
        return [f"data/n{number}" for number in range(self.plan.nodes)]

    def _write_all(self, tx: int, luck: random.Random) -> None:
        """Write what the plan has more into the store, as the guest does."""
        store = self.host.store
        for path in self._paths:
            store.write(store.domid, tx, path, luck.randbytes(self.plan.node_size))
