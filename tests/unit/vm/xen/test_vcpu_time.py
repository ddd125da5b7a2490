"""Times that a guest reads while its host writes them."""

from __future__ import annotations

import errno
import os
import signal
import struct
import time
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.uapi import xen
from vfiomig.vm.memory import GuestMemory
from vfiomig.vm.ram_block import PAGE_SIZE
from vfiomig.vm.xen.guest_page import CachedPage
from vfiomig.vm.xen.shared_info import LAYOUTS
from vfiomig.vm.xen.vcpu_time import (
    Runstate,
    read_runstate,
    read_versioned,
    read_wall_clock,
    write_versioned,
    write_wall_clock,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vfiomig.vm.xen.guest_page import Frame

_AT: Final = 32  # of time in the vcpu_info of vCPU 0
_READS: Final = 2_000
_PAUSE: Final = 1_000
_LIMIT: Final = 30.0


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory.of_pc(4 * PAGE_SIZE) as made:
        yield made


@pytest.fixture
def frame(memory: GuestMemory) -> Frame:
    return CachedPage(memory, PAGE_SIZE).frame()


def time_of(turn: int) -> xen.pvclock_vcpu_time_info:
    """All fields say the same."""
    return xen.pvclock_vcpu_time_info(
        tsc_timestamp=turn << 32 | turn,
        system_time=turn << 32 | turn,
        tsc_to_system_mul=turn,
        tsc_shift=-1,
        flags=xen.PVCLOCK_TSC_STABLE_BIT,
    )


def test_a_time_lies_where_a_guest_looks(memory: GuestMemory, frame: Frame) -> None:
    info = xen.pvclock_vcpu_time_info(
        version=77,  # not looked at
        tsc_timestamp=0x1122334455667788,
        system_time=0x99AABBCCDDEEFF00,
        tsc_to_system_mul=0x80000001,
        tsc_shift=-2,
        flags=3,
    )
    assert write_versioned(frame, _AT, info) == 2
    assert memory.read(PAGE_SIZE + _AT, 32) == struct.pack(
        "<IIQQIbBH", 2, 0, 0x1122334455667788, 0x99AABBCCDDEEFF00, 0x80000001, -2, 3, 0
    )
    assert write_versioned(frame, _AT, info) == 4
    assert read_versioned(frame, _AT, xen.pvclock_vcpu_time_info).version == 4


# What stands there; what it becomes.  An odd one was left by a writer that went away.
@pytest.mark.parametrize(
    ("before", "after"),
    [(0, 2), (1, 4), (6, 8), (7, 10), (0xFFFF_FFFE, 0), (0xFFFF_FFFF, 2)],
)
def test_versions_go_on_from_what_is_there(
    memory: GuestMemory, frame: Frame, before: int, after: int
) -> None:
    memory.write(PAGE_SIZE + _AT, struct.pack("<I", before))
    assert write_versioned(frame, _AT, time_of(1)) == after


def test_an_odd_version_is_not_read(memory: GuestMemory, frame: Frame) -> None:
    memory.write(PAGE_SIZE + _AT, struct.pack("<I", 5))
    with pytest.raises(OSError, match="written") as refusal:
        read_versioned(frame, _AT, xen.pvclock_vcpu_time_info)
    assert refusal.value.errno == errno.EAGAIN


def test_steal_time_lies_where_a_guest_looks(memory: GuestMemory, frame: Frame) -> None:
    steal = xen.kvm_steal_time(
        steal=5_000_000_001, flags=0, preempted=xen.KVM_VCPU_PREEMPTED
    )
    assert write_versioned(frame, 64, steal) == 2
    assert memory.read(PAGE_SIZE + 64, 64) == struct.pack(
        "<QIIB47x", 5_000_000_001, 2, 0, 1
    )
    read = read_versioned(frame, 64, xen.kvm_steal_time)
    assert (read.steal, read.preempted) == (5_000_000_001, 1)


@pytest.mark.parametrize(
    ("bits", "at", "high"), [(64, 0xC00, 0xC0C), (32, 0x900, 0x924)]
)
def test_a_wall_clock_knows_years_behind_2106(
    memory: GuestMemory, frame: Frame, bits: int, at: int, high: int
) -> None:
    layout = LAYOUTS[bits]
    now = ((7 << 32) + 1_700_000_000) * 1_000_000_000 + 999_999_999
    write_wall_clock(frame, layout, now)
    assert memory.read(PAGE_SIZE + at, 12) == struct.pack(
        "<III", 2, 1_700_000_000, 999_999_999
    )
    assert memory.read(PAGE_SIZE + high, 4) == struct.pack("<I", 7)
    assert read_wall_clock(frame, layout) == now
    for none in (-1, (1 << 64) * 1_000_000_000):
        with pytest.raises(OSError, match="no time") as refusal:
            write_wall_clock(frame, layout, none)
        assert refusal.value.errno == errno.EINVAL
    assert read_wall_clock(frame, layout) == now


@pytest.mark.parametrize(("bits", "packed"), [(64, "<i4x5Q"), (32, "<i5Q")])
def test_runstate_adds_up(
    memory: GuestMemory, frame: Frame, bits: int, packed: str
) -> None:
    layout = LAYOUTS[bits]
    runstate = Runstate(layout, 1000)
    for state, now in [
        (xen.RUNSTATE_runnable, 1100),
        (xen.RUNSTATE_running, 1130),
        (xen.RUNSTATE_blocked, 2130),
        (xen.RUNSTATE_offline, 2140),
        (xen.RUNSTATE_running, 2147),
    ]:
        runstate.enter(state, now)
    assert runstate.stolen == 37
    runstate.write(frame, 256)
    expected = (0, 2147, 1100, 30, 10, 7)
    assert memory.read(PAGE_SIZE + 256, struct.calcsize(packed)) == struct.pack(
        packed, *expected
    )
    assert read_runstate(frame, 256, layout) == expected
    entry = PAGE_SIZE + 256 + layout.runstate.state_entry_time.offset
    memory.fetch_or(entry + 4, 4, 1 << 31)
    with pytest.raises(OSError, match="written") as refusal:
        read_runstate(frame, 256, layout)
    assert refusal.value.errno == errno.EAGAIN


@pytest.mark.parametrize(("state", "now"), [(4, 2000), (-1, 2000), (1, 999)])
def test_a_runstate_that_is_none_is_refused(state: int, now: int) -> None:
    runstate = Runstate(LAYOUTS[64], 1000)
    with pytest.raises(OSError, match=r"runstate|before") as refusal:
        runstate.enter(state, now)
    assert refusal.value.errno == errno.EINVAL
    assert runstate.times == [0, 0, 0, 0]


@pytest.mark.parametrize("offset", [2, -4, PAGE_SIZE - 28, PAGE_SIZE])
def test_a_place_across_the_page_is_refused(
    memory: GuestMemory, frame: Frame, offset: int
) -> None:
    runstate = Runstate(LAYOUTS[64], 0)
    asks: tuple[Callable[[], object], ...] = (
        lambda: write_versioned(frame, offset, time_of(1)),
        lambda: read_versioned(frame, offset, xen.pvclock_vcpu_time_info),
        lambda: runstate.write(frame, offset),
        lambda: read_runstate(frame, offset, LAYOUTS[64]),
    )
    for ask in asks:
        with pytest.raises(OSError, match="of a page") as refusal:
            ask()
        assert refusal.value.errno == errno.EINVAL
    assert not any(memory.read(0, 4 * PAGE_SIZE))


# -- a guest that reads meanwhile ------------------------------------------------------


def read_at_last(read: Callable[[], bool]) -> bool:
    """Read again while the writer, in the midst of it, has no processor."""
    while True:
        try:
            return read()
        except BlockingIOError:
            os.sched_yield()


def read_in_a_process(read: Callable[[], bool], write: Callable[[int], object]) -> bool:
    """Write while a child reads; return whether one of its reads was torn."""
    result, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            is_torn = not all(read_at_last(read) for _ in range(_READS))
            os.write(tell, b"%d" % is_torn)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(tell)
    turn, deadline = 1, time.monotonic() + _LIMIT
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        write(turn)
        turn += 1
        # A host that did nothing else would let nobody see a whole one.
        for _ in range(_PAUSE):
            pass
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    told = os.read(result, 20)
    os.close(result)
    assert ended, "the reader does not end"
    assert status == 0
    return told == b"1"


def test_a_guest_reads_no_torn_time(frame: Frame) -> None:
    write_versioned(frame, _AT, time_of(0))

    def read() -> bool:
        found = read_versioned(frame, _AT, xen.pvclock_vcpu_time_info)
        same = found.tsc_to_system_mul << 32 | found.tsc_to_system_mul
        return bool(found.tsc_timestamp == found.system_time == same)

    def write(turn: int) -> None:
        write_versioned(frame, _AT, time_of(turn))

    assert not read_in_a_process(read, write)


def test_without_the_version_it_would(frame: Frame) -> None:
    def read() -> bool:
        low = frame.load(_AT + 8, 4)
        os.sched_yield()  # as it may be stopped at any time
        return low == frame.load(_AT + 24, 4)

    is_torn, deadline = False, time.monotonic() + _LIMIT
    while not is_torn:
        assert time.monotonic() < deadline, "nothing is torn"
        is_torn = read_in_a_process(
            read, lambda n: write_versioned(frame, _AT, time_of(n))
        )


@pytest.mark.parametrize("bits", LAYOUTS)
def test_a_guest_reads_no_torn_runstate(frame: Frame, bits: int) -> None:
    layout = LAYOUTS[bits]
    runstate = Runstate(layout, 0)
    runstate.write(frame, 256)

    def read() -> bool:
        _, entered, *times = read_runstate(frame, 256, layout)
        return sum(times) == entered

    def write(turn: int) -> None:
        runstate.enter(turn % 4, turn * 0x5_4321_0001)
        runstate.write(frame, 256)

    assert not read_in_a_process(read, write)


@pytest.mark.parametrize("bits", LAYOUTS)
def test_a_guest_reads_no_torn_wall_clock(frame: Frame, bits: int) -> None:
    layout = LAYOUTS[bits]
    write_wall_clock(frame, layout, 0)

    def read() -> bool:
        seconds, rest = divmod(read_wall_clock(frame, layout), 1_000_000_000)
        return seconds >> 32 == seconds & 0xFFFF_FFFF == rest

    def write(turn: int) -> None:
        write_wall_clock(frame, layout, (turn << 32 | turn) * 1_000_000_000 + turn)

    assert not read_in_a_process(read, write)
