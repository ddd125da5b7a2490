"""An accelerator: local memory of any size, registers and a queue of jobs.

Rule 1: registers, queue and local memory are one piece of memory, in that order, so
that a snapshot is one view of it and copies nothing.

Rule 2: local memory goes in pre-copy, and again where jobs changed it.  The head
(registers and queue) is only sent once the device has stopped: jobs are under way
at any other time.

Rule 3: guest traffic is a pseudo-random driver's, that fills the queue, until a guest
gives it a job of its own through BAR 0 (`accelerator_jobs`).  From then on, until
power-on, `work` does nothing: the guest's results lie in the same local memory.

The queue is a ring.  Its producer (the guest) and its consumer (the device) count
their jobs in numbers that never turn back, and a job's place is its number modulo
the size of the ring.
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Final

from vfiomig.host.pci import Bar, PciIdentity
from vfiomig.vendor.accelerator_jobs import (
    GuestRegisters,
    Job,
    Status,
    read_registers,
    write_registers,
)
from vfiomig.vendor.paged_memory import PAGE_SIZE, PagedMemory
from vfiomig.vendor.pseudo_random import INCREMENT, MULTIPLIER

if TYPE_CHECKING:
    from vfiomig.host.pci import Bus

MAX_MEMORY: Final = 4 << 30
RING_SIZE: Final = 256

# The guest keeps so many jobs under way: for each one done it submits another.
_JOBS_UNDER_WAY: Final = 64

# The vendor is that of the kernel's sample drivers; no driver of Linux takes it.
IDENTITY: Final = PciIdentity(
    vendor=0x4348,
    device=0x4143,
    subsystem_vendor=0x4348,
    subsystem=0x4143,
    class_code=0x120000,  # processing accelerator
    revision=1,
    msi_vectors=1,
)

_GUEST_SIZE: Final = ctypes.sizeof(GuestRegisters)
_WORD: Final = 8
_COUNTER: Final = 1 << 64


class AcceleratorRegisters(ctypes.Structure):
    """The registers; they fill a page."""

    _fields_ = (
        ("jobs_submitted", ctypes.c_uint64),
        ("jobs_done", ctypes.c_uint64),
        ("generator", ctypes.c_uint64),
        ("guest", GuestRegisters),
        ("reserved", ctypes.c_uint8 * (PAGE_SIZE - 24 - _GUEST_SIZE)),
    )


class AcceleratorJob(ctypes.Structure):
    """A job: ``value`` is to be stored at ``address`` in local memory, in bytes."""

    _fields_ = (("address", ctypes.c_uint64), ("value", ctypes.c_uint64))


class AcceleratorHead(ctypes.Structure):
    """What stands before local memory."""

    _fields_ = (
        ("registers", AcceleratorRegisters),
        ("ring", AcceleratorJob * RING_SIZE),
    )


HEAD_SIZE: Final = ctypes.sizeof(AcceleratorHead)

# The ring and local memory are 64-bit words, and indexing words is several times
# faster than going through a structure for each job.
_RING_WORD: Final = AcceleratorHead.ring.offset // _WORD
_MEMORY_WORD: Final = HEAD_SIZE // _WORD
_WORDS_PER_JOB: Final = ctypes.sizeof(AcceleratorJob) // _WORD
_WORDS_PER_PAGE: Final = PAGE_SIZE // _WORD


class AcceleratorModel:
    """``memory`` bytes of local memory, whole pages up to 4 GiB; a `PciModel`.

    Jobs touch the first ``spread`` bytes of it, all by default: the smaller the
    spread, the sooner pre-copy converges.
    """

    kind: Final = int.from_bytes(b"ACCL", "big")
    identity: Final = IDENTITY
    bars: Final = (Bar(PAGE_SIZE),)

    def __init__(self, memory: int = 16 << 20, *, spread: int | None = None) -> None:
        _check_size("local memory", memory, MAX_MEMORY)
        if spread is not None:
            _check_size("the spread", spread, memory)
        self.shape = memory
        self._spread = memory if spread is None else spread
        self._bus: Bus | None = None
        self._memory = store = PagedMemory(
            head_pages=HEAD_SIZE // PAGE_SIZE, memory_pages=memory // PAGE_SIZE
        )
        self.snapshot = store.snapshot
        self.power_on = store.power_on
        self.begin_saving = store.begin_saving
        self.pending = store.pending
        self.save = store.save
        self.requeue = store.requeue
        self.end_saving = store.end_saving
        self.begin_loading = store.begin_loading
        self.load = store.load
        self.drop_loading = store.drop_loading
        self.close = store.close

    def work(self, amount: int) -> None:
        """Finish ``amount`` jobs, each of which stores eight bytes somewhere.

        Not for a device that does the jobs of a guest.
        """
        registers = AcceleratorRegisters.from_buffer(self._memory.view)
        if amount <= 0 or registers.guest.jobs:
            return
        self._memory.touch()
        words = self._memory.view.cast("Q")
        mark = self._memory.dirty.mark
        spread = self._spread
        done = int(registers.jobs_done)
        generator = int(registers.generator)
        under_way = (registers.jobs_submitted - done) % _COUNTER
        depth = max(under_way, _JOBS_UNDER_WAY)
        for number in range(done + under_way, done + depth + amount):
            if (oldest := number - depth) >= done:
                slot = _RING_WORD + oldest % RING_SIZE * _WORDS_PER_JOB
                place = _MEMORY_WORD + words[slot] // _WORD
                words[place] = words[slot + 1]
                mark(place // _WORDS_PER_PAGE)
            # `following`, without the call that would be a fifth of the time.
            generator = (generator * MULTIPLIER + INCREMENT) % _COUNTER
            slot = _RING_WORD + number % RING_SIZE * _WORDS_PER_JOB
            words[slot] = (generator >> 32) % spread // _WORD * _WORD
            words[slot + 1] = generator
        registers.jobs_done = done + amount
        registers.jobs_submitted = done + amount + depth
        registers.generator = generator
        self._memory.dirty.mark_run(0, HEAD_SIZE // PAGE_SIZE)

    def finish_loading(self) -> None:
        """Make what came the device's state.

        Raises ``OSError(EINVAL)`` if a page never came, or if the registers or a job
        say what this device cannot do.
        """
        self._memory.finish_loading(self._check_head)

    # -- the guest

    def connect(self, bus: Bus) -> None:
        """Get to know the bus."""
        self._bus = bus

    def read_bar(self, bar: int, offset: int, size: int) -> bytes:
        """Read registers; there is but one BAR."""
        registers = AcceleratorRegisters.from_buffer(self._memory.view)
        return read_registers(registers.guest, self.shape, offset, size)

    def write_bar(self, bar: int, offset: int, data: bytes) -> None:
        """Write registers; the doorbell is answered before this returns."""
        store = self._memory
        store.touch()
        registers = AcceleratorRegisters.from_buffer(store.view)
        rung = write_registers(registers.guest, offset, data)
        if rung:
            job = Job(registers.guest, store.view[HEAD_SIZE:], self._bus)
            if touched := job.touched:
                first = (HEAD_SIZE + touched.start) // PAGE_SIZE
                last = (HEAD_SIZE + touched.stop - 1) // PAGE_SIZE
                store.dirty.mark_run(first, last - first + 1)
            job.run()
        store.dirty.mark(0)
        if rung and self._bus is not None:
            self._bus.raise_interrupt(0)

    def drive_interrupt(self) -> None:
        """Send the message of the last job again.

        The first one may have been lost with the source; a guest whose job has ended
        long ago takes it for spurious.
        """
        registers = AcceleratorRegisters.from_buffer(self._memory.view)
        if self._bus is not None and registers.guest.jobs:
            self._bus.raise_interrupt(0)

    def _check_head(self, view: memoryview) -> None:
        registers = AcceleratorRegisters.from_buffer(view)
        under_way = (registers.jobs_submitted - registers.jobs_done) % _COUNTER
        if under_way > RING_SIZE:
            message = f"{under_way} jobs in a ring of {RING_SIZE}"
            raise OSError(errno.EINVAL, message)
        if registers.guest.status > max(Status) or registers.guest.memory:
            raise OSError(errno.EINVAL, "no job of a guest ended like that")
        if any(bytes(registers.reserved)):
            raise OSError(errno.EINVAL, "a reserved register is set")
        for address in view.cast("Q")[_RING_WORD::_WORDS_PER_JOB].tolist():
            if address % _WORD or address >= self.shape:
                message = f"a job at {address:#x} of {self.shape:#x} bytes"
                raise OSError(errno.EINVAL, message)


def _check_size(name: str, size: int, most: int) -> None:
    if not 0 < size <= most or size % PAGE_SIZE:
        message = f"{name}: {size} bytes are not whole pages up to {most}"
        raise ValueError(message)
