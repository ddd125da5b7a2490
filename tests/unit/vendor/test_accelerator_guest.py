"""The accelerator as a guest has it: registers in BAR 0, DMA, and a message."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from vfiomig.host.device_fd import DeviceFd
from vfiomig.vendor.accelerator import HEAD_SIZE, AcceleratorModel
from vfiomig.vendor.pci_reference import PciReferenceDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096
BASE, CONFIG = 9 << 40, 7 << 40
SET_IRQS, RESET = 0x3B6E, 0x3B6F
STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING = 0, 1, 2, 3, 4

ADDRESS, LOCAL, LENGTH, COMMAND, VALUE = 0x00, 0x08, 0x10, 0x14, 0x18
STATUS, ERROR, FAULT, JOBS, MEMORY = 0x20, 0x24, 0x28, 0x30, 0x38
COPY_IN, COPY_OUT, FILL = 1, 2, 3
IDLE, DONE, REFUSED, FAULTED = range(4)
LOCAL_PAGES = 8


class Ram:
    """Guest memory without its last page but one; it notes which were dirtied."""

    def __init__(self) -> None:
        self.bytes = bytearray(os.urandom(8 * PAGE))
        self.dirty: set[int] = set()

    def dma_read(self, iova: int, size: int) -> bytes:
        self._require(iova, size)
        return bytes(self.bytes[iova : iova + size])

    def dma_write(self, iova: int, data: bytes | memoryview) -> None:
        self._require(iova, len(data))
        self.bytes[iova : iova + len(data)] = data
        self.dirty |= set(range(iova // PAGE, (iova + len(data) - 1) // PAGE + 1))

    def _require(self, iova: int, size: int) -> None:
        pages = range(iova // PAGE, (iova + size - 1) // PAGE + 1)
        if 6 in pages or iova + size > len(self.bytes):
            raise OSError(errno.EFAULT, f"nothing is mapped at {iova:#x}")


class Guest:
    """A guest's driver of one accelerator."""

    def __init__(self, ram: Ram) -> None:
        self.ram = ram
        model = AcceleratorModel(LOCAL_PAGES * PAGE)
        self.driver = PciReferenceDriver(model, section=2 * PAGE)
        self.fd = DeviceFd(self.driver, dma=ram)
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        head = struct.pack("=5Ii", 24, 0x24, 1, 0, 1, self.event)
        self.fd.ioctl(SET_IRQS, bytearray(head))
        self.enable(0x06)  # memory, bus master

    def enable(self, command: int) -> None:
        self.fd.pwrite(command.to_bytes(2, "little"), CONFIG + 4)

    def get(self, place: int, size: int = 8) -> int:
        return int.from_bytes(self.fd.pread(size, place), "little")

    def put(self, place: int, value: int, size: int = 8) -> None:
        self.fd.pwrite(value.to_bytes(size, "little"), place)

    def job(
        self, command: int, address: int, length: int, *, local: int = 0, value: int = 0
    ) -> int:
        """Have a job done; return its status."""
        self.put(ADDRESS, address)
        self.put(LOCAL, local)
        self.put(VALUE, value)
        self.put(LENGTH, length, 4)
        self.put(COMMAND, command, 4)
        return self.get(STATUS, 4)

    def messages(self) -> int:
        try:
            return os.eventfd_read(self.event)
        except BlockingIOError:
            return 0

    def state(self, state: int) -> None:
        self.fd.pwrite(state.to_bytes(4, "little"), BASE)

    def register(self, place: int) -> int:
        return int.from_bytes(self.fd.pread(8, BASE + place), "little")

    @property
    def local(self) -> bytes:
        return bytes(self.driver.snapshot()[HEAD_SIZE:])

    def close(self) -> None:
        self.fd.close()
        os.close(self.event)


@pytest.fixture
def guests() -> Iterator[list[Guest]]:
    ram = Ram()
    guests = [Guest(ram), Guest(ram)]
    yield guests
    for guest in guests:
        guest.close()


@pytest.fixture
def guest(guests: list[Guest]) -> Guest:
    return guests[0]


def test_it_is_a_processing_accelerator_with_one_message(guest: Guest) -> None:
    config = guest.fd.pread(256, CONFIG)
    assert config[0:4] == bytes.fromhex("48434341")
    assert config[9:12] == bytes.fromhex("000012")
    assert config[0x3D] == 0
    assert config[0x34] == 0x40
    assert config[0x40:0x44] == bytes.fromhex("05008000")
    assert guest.get(MEMORY) == LOCAL_PAGES * PAGE
    assert guest.get(STATUS, 4) == IDLE


def test_data_go_in_and_out_by_dma_and_leave_marks(guest: Guest) -> None:
    source = bytes(guest.ram.bytes[100:5100])
    assert guest.job(COPY_IN, 100, 5000, local=3) == DONE
    assert guest.local[3:5003] == source
    assert guest.ram.dirty == set()
    assert guest.job(COPY_OUT, 3 * PAGE - 10, 5000, local=3) == DONE
    assert guest.ram.bytes[3 * PAGE - 10 : 3 * PAGE + 4990] == source
    assert guest.ram.dirty == {2, 3, 4}
    assert guest.get(JOBS) == 2
    assert guest.messages() == 2


def test_a_pattern_fills_guest_memory(guest: Guest) -> None:
    pattern = 0x0807060504030201
    assert guest.job(FILL, PAGE - 3, 13, value=pattern) == DONE
    assert guest.ram.bytes[PAGE - 3 : PAGE + 10] == bytes(
        [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5]
    )
    assert guest.ram.dirty == {0, 1}
    assert not any(guest.local)


@pytest.mark.parametrize("command", [COPY_IN, COPY_OUT, FILL])
def test_memory_that_is_not_there_stops_a_job_where_it_is_not(
    guest: Guest, command: int
) -> None:
    assert guest.job(command, 5 * PAGE + 8, 2 * PAGE) == FAULTED
    assert guest.get(ERROR, 4) == errno.EFAULT
    assert guest.get(FAULT) == 6 * PAGE
    assert guest.ram.dirty == (set() if command == COPY_IN else {5})
    if command == COPY_IN:
        assert guest.local[: PAGE - 8] == guest.ram.bytes[5 * PAGE + 8 : 6 * PAGE]
    assert guest.messages() == 1
    assert guest.job(FILL, 0, 8) == DONE  # and that is over
    assert (guest.get(ERROR, 4), guest.get(FAULT)) == (0, 0)


@pytest.mark.parametrize("command", [COPY_IN, COPY_OUT, FILL])
def test_without_bus_mastering_there_is_neither_dma_nor_a_message(
    guest: Guest, command: int
) -> None:
    guest.enable(0x02)
    assert guest.job(command, 0, 8) == FAULTED
    assert guest.get(ERROR, 4) == errno.EFAULT
    guest.enable(0x06)
    assert guest.messages() == 0
    assert guest.ram.dirty == set()


@pytest.mark.parametrize(
    ("command", "address", "length", "local"),
    [
        (0, 0, 8, 0),
        (4, 0, 8, 0),
        (COPY_IN, 0, 16, LOCAL_PAGES * PAGE - 8),
        (COPY_OUT, 0, 8, (1 << 64) - 8),
        (FILL, 0, (1 << 20) + 1, 0),
        (FILL, (1 << 64) - 8, 16, 0),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_and_said_to_be_over(
    guest: Guest, command: int, address: int, length: int, local: int
) -> None:
    before = guest.local
    assert guest.job(command, address, length, local=local) == REFUSED
    assert (guest.get(JOBS), guest.messages()) == (1, 1)
    assert (guest.local, guest.ram.dirty) == (before, set())


def test_a_job_of_nothing_is_done(guest: Guest) -> None:
    assert guest.job(COPY_OUT, 6 * PAGE, 0, local=LOCAL_PAGES * PAGE) == DONE


# -- the registers ---------------------------------------------------------------------


def test_parameters_are_written_in_any_width_and_the_rest_is_read_only(
    guest: Guest,
) -> None:
    guest.put(ADDRESS, 0x1122334455667788)
    guest.put(ADDRESS + 4, 0xAABBCCDD, 4)
    guest.put(ADDRESS + 1, 0xEE, 1)
    assert guest.get(ADDRESS) == 0xAABBCCDD5566EE88
    for place in (STATUS, FAULT, JOBS, MEMORY, 0x40, PAGE - 8):
        guest.put(place, (1 << 64) - 1)
    assert [guest.get(place) for place in (STATUS, FAULT, JOBS)] == [0, 0, 0]
    assert guest.get(MEMORY) == LOCAL_PAGES * PAGE
    assert (guest.get(0x40), guest.get(PAGE - 8)) == (0, 0)


def test_only_a_whole_write_rings_the_doorbell(guest: Guest) -> None:
    for place, size in ((COMMAND, 1), (COMMAND, 2), (COMMAND + 2, 2)):
        guest.put(place, FILL, size)
    assert (guest.get(JOBS), guest.get(COMMAND, 4)) == (0, 0)
    guest.put(LENGTH, FILL << 32 | 8)  # length and command in one go
    assert (guest.get(JOBS), guest.get(STATUS, 4)) == (1, DONE)


# -- the built-in driver, reset, migration ---------------------------------------------


def test_after_a_guests_job_the_local_memory_is_his_until_reset(guest: Guest) -> None:
    guest.job(COPY_IN, 0, 64)
    before = bytes(guest.driver.snapshot())
    guest.driver.work(100)
    assert bytes(guest.driver.snapshot()) == before
    guest.fd.ioctl(RESET)
    assert not any(guest.driver.snapshot())
    assert guest.messages() == 1
    guest.driver.work(1)
    assert any(guest.driver.snapshot())


def test_a_stopped_device_does_no_job(guest: Guest) -> None:
    guest.job(FILL, 0, 8)
    guest.state(STOP)
    before = bytes(guest.driver.snapshot())
    assert guest.job(FILL, 0, 8) == 0xFFFFFFFF
    assert bytes(guest.driver.snapshot()) == before
    assert guest.messages() == 1


def drained(guest: Guest) -> int:
    """Save until nothing is pending; return how many buffers of a page that took."""
    buffers = 0
    while guest.register(8):
        guest.register(16)
        buffers += 1
    return buffers


def test_what_a_job_changes_goes_again_in_pre_copy(guest: Guest) -> None:
    guest.state(PRE_COPY)
    assert drained(guest) == LOCAL_PAGES
    guest.job(COPY_IN, 0, 16, local=2 * PAGE - 8)
    assert drained(guest) == 2
    guest.job(COPY_OUT, 0, 16)
    guest.job(FILL, 0, 16)
    assert drained(guest) == 0  # what only reads local memory changes none


def move(source: Guest, destination: Guest, *states: int) -> None:
    destination.state(RESUMING)
    for state in states:
        source.state(state)
        while source.register(8):
            place, size = source.register(16), source.register(24)
            data = source.fd.pread(size, BASE + place)
            destination.fd.pwrite(data, BASE + destination.register(16))
            destination.fd.pwrite(size.to_bytes(8, "little"), BASE + 24)
    source.state(STOP)
    destination.state(RUNNING)


@pytest.mark.parametrize("states", [(STOP_AND_COPY,), (PRE_COPY, STOP_AND_COPY)])
def test_registers_and_local_memory_are_at_the_destination(
    guests: list[Guest], states: tuple[int, ...]
) -> None:
    source, destination = guests
    assert source.job(COPY_IN, 50, 3000, local=777) == DONE
    assert source.job(FILL, 6 * PAGE, 8) == FAULTED
    source.put(ADDRESS, 3 * PAGE)
    source.put(LOCAL, 777)
    source.put(LENGTH, 3000, 4)
    before = bytes(source.driver.snapshot())
    move(source, destination, *states)
    assert bytes(destination.driver.snapshot()) == before
    assert destination.get(STATUS, 4) == FAULTED
    assert destination.get(FAULT) == 6 * PAGE
    assert destination.messages() == 1  # the last one again: it may have been lost
    destination.put(COMMAND, COPY_OUT, 4)
    ram = destination.ram.bytes
    assert ram[3 * PAGE : 3 * PAGE + 3000] == ram[50:3050]
    assert destination.get(JOBS) == 3


def test_a_status_that_no_job_has_is_refused_with_the_stream(guest: Guest) -> None:
    source = AcceleratorModel(PAGE)
    source.work(1)
    payload = memoryview(bytearray(64 * PAGE))
    source.begin_saving()
    payload = payload[: source.save(payload, running=False)]
    for place in (STATUS, MEMORY):
        bad = memoryview(bytearray(payload))
        start = bytes(bad).index(struct.pack("=IIQ", 1, 2, 0)) + 16
        bad[start + 24 + place] = 4
        destination = AcceleratorModel(PAGE)
        destination.begin_loading()
        destination.load(bad)
        with pytest.raises(OSError, match="guest") as refused:
            destination.finish_loading()
        assert refused.value.errno == errno.EINVAL
