"""The unusual drivers do migrate, keep to the table, and are as unusual as they say."""

from __future__ import annotations

import errno
from contextlib import closing
from errno import EINVAL
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest

from vfiomig.client.conduct import QEMU_7_2, STRICT, Conduct
from vfiomig.client.region import find_migration_region
from vfiomig.client.v1 import V1Client
from vfiomig.conformance.target import load_target
from vfiomig.host.device_fd import DeviceFd
from vfiomig.host.region import MIGRATION_INDEX, OFFSET_SHIFT
from vfiomig.protocol.v1.states import ARCS, ArcClass
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET
from vfiomig.vendor import conforming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES: Final = conforming.__all__
WITH_STATE: Final = [name for name in NAMES if name != "NoDeviceState"]
BASE: Final = MIGRATION_INDEX << OFFSET_SHIFT
STATE, RESERVED, PENDING, OFFSET, SIZE = 0, 4, 8, 16, 24
STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING, _, ERROR, _ = range(8)
LIMIT: Final = 10_000
ROUNDS: Final = 12  # a clock that ticks never comes to an end in pre-copy


class Device:
    """An open device of one of the classes."""

    def __init__(self, name: str) -> None:
        target = load_target(f"vfiomig.vendor.conforming:{name}")
        self.driver = target.make_driver()
        self.fd = DeviceFd(self.driver)

    def close(self) -> None:
        self.fd.close()

    def read(self, register: int) -> int:
        width = 4 if register < PENDING else 8
        return int.from_bytes(self.fd.pread(width, BASE + register), "little")

    def write(self, register: int, value: int) -> None:
        width = 4 if register < PENDING else 8
        self.fd.pwrite(value.to_bytes(width, "little"), BASE + register)

    def buffer(self) -> bytes:
        place, size = self.read(OFFSET), self.read(SIZE)
        assert place >= 32
        assert place + size <= self.driver.migration_region.size
        return self.fd.pread(size, BASE + place)

    def drain(self, at_most: int = LIMIT) -> Iterator[bytes]:
        for _ in range(at_most):
            if not self.read(PENDING):
                return
            yield self.buffer()
        assert at_most < LIMIT

    def give(self, chunk: bytes) -> None:
        self.fd.pwrite(chunk, BASE + self.read(OFFSET))
        self.write(SIZE, len(chunk))

    def load(self, chunks: list[bytes]) -> None:
        self.write(STATE, RESUMING)
        for chunk in chunks:
            if chunk:
                self.give(chunk)
        self.write(STATE, RUNNING)

    def work(self, amount: int) -> None:
        self.driver.work(amount)  # type: ignore[attr-defined]

    def fail(self, on: str, code: int) -> None:
        self.driver.fail(on, code)  # type: ignore[attr-defined]

    def reset(self) -> None:
        self.fd.ioctl(VFIO_DEVICE_RESET())

    @property
    def snapshot(self) -> bytes:
        return bytes(self.driver.snapshot())  # type: ignore[attr-defined]

    def bring_to(self, state: int) -> None:
        if state != RUNNING:
            self.write(STATE, state)


def opened(name: str) -> closing[Device]:
    return closing(Device(name))


def refusal(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 -- the errno is what counts
        call()
    return refused.value.errno


def stream_of(name: str, *, with_pre_copy: bool = True) -> tuple[list[bytes], bytes]:
    """Return a stream with work before and during pre-copy, and the snapshot."""
    with opened(name) as source:
        source.work(30)
        chunks: list[bytes] = []
        if with_pre_copy:
            source.write(STATE, PRE_COPY)
            chunks += source.drain(ROUNDS)
            source.work(20)
            chunks += source.drain(3)
        source.write(STATE, STOP_AND_COPY)
        chunks += source.drain()
        return chunks, source.snapshot


def assert_restores(name: str, chunks: list[bytes], snapshot: bytes) -> None:
    with opened(name) as destination:
        destination.load(chunks)
        assert destination.snapshot == snapshot
        assert destination.read(STATE) == RUNNING


def assert_refuses(name: str, chunks: list[bytes]) -> None:
    """Whatever comes of it, nothing of the stream is in the device."""
    with opened(name) as destination:
        destination.work(3)
        destination.write(STATE, RESUMING)
        before = destination.snapshot

        def give_all() -> None:
            for chunk in chunks:
                if chunk:
                    destination.give(chunk)
            destination.write(STATE, RUNNING)

        assert refusal(give_all) in errno.errorcode
        refusal(lambda: destination.write(STATE, RUNNING))
        assert destination.read(STATE) in (RESUMING, ERROR)
        assert destination.snapshot == before
        destination.reset()
        assert destination.read(STATE) == RUNNING
        stream, snapshot = stream_of(name)
        destination.load(stream)
        assert destination.snapshot == snapshot


def client_of(device: Device, conduct: Conduct) -> V1Client:
    region = find_migration_region(device.fd)
    return V1Client(device.fd, region, conduct=conduct, vm_is_running=True)


# -- every one of them ---------------------------------------------------------------


@pytest.mark.parametrize("conduct", [STRICT, QEMU_7_2], ids=lambda each: each.name)
@pytest.mark.parametrize("name", NAMES)
def test_state_goes_from_one_device_to_the_other(name: str, conduct: Conduct) -> None:
    if name == "EmptyBuffers":
        conduct = STRICT  # QEMU leaves stop-and-copy at the first empty buffer
    with opened(name) as source, opened(name) as destination:
        saving, loading = client_of(source, conduct), client_of(destination, conduct)
        source.work(30)
        chunks: list[bytes] = []
        saving.save_setup()
        for _ in range(ROUNDS):
            source.work(1)
            if not saving.save_pending():
                continue
            for buffer in saving.save_iterate():
                chunks.append(b"".join(buffer.views))
        saving.vm_state_change(running=False)
        stopped = source.snapshot
        for buffer in saving.save_complete_precopy():
            chunks.append(b"".join(buffer.views))
        saving.save_cleanup()
        source.work(5)  # it is stopped
        assert source.snapshot == stopped
        loading.load_setup()
        for chunk in chunks:
            taken = 0
            for room in loading.load_buffer(len(chunk)):
                room[:] = chunk[taken : taken + len(room)]
                taken += len(room)
        loading.vm_state_change(running=False)
        loading.load_cleanup()
        destination.write(STATE, RUNNING)
        assert destination.snapshot == stopped


@pytest.mark.parametrize("name", WITH_STATE)
@pytest.mark.parametrize("with_pre_copy", [True, False])
def test_work_is_in_the_stream(name: str, with_pre_copy: bool) -> None:
    chunks, snapshot = stream_of(name, with_pre_copy=with_pre_copy)
    with opened(name) as fresh:
        assert snapshot != fresh.snapshot
    assert_restores(name, chunks, snapshot)


@pytest.mark.parametrize("name", WITH_STATE)
def test_a_corrupted_byte_is_refused(name: str) -> None:
    chunks, _ = stream_of(name)
    full = [number for number, chunk in enumerate(chunks) if chunk]
    for number in (full[0], full[len(full) // 2], full[-1]):
        chunk = chunks[number]
        for place in {0, len(chunk) // 2, len(chunk) - 1}:
            bad = bytearray(chunk)
            bad[place] ^= 0x10
            corrupted = [*chunks[:number], bytes(bad), *chunks[number + 1 :]]
            if name == "JudgesEachBuffer":  # a later record may mend it
                corrupted = corrupted[: number + 1]
            assert_refuses(name, corrupted)


@pytest.mark.parametrize("name", WITH_STATE)
def test_a_stream_that_is_cut_or_empty_is_refused(name: str) -> None:
    chunks, _ = stream_of(name)
    assert_refuses(name, chunks[:-1])
    assert_refuses(name, chunks[: len(chunks) // 2])
    assert_refuses(name, [])


@pytest.mark.parametrize("foreign", ["AcceptsEveryArc", "DeadSpace", "SeveralAreas"])
@pytest.mark.parametrize("name", NAMES)
def test_a_stream_of_another_device_is_refused(name: str, foreign: str) -> None:
    if name == foreign:
        foreign = {"DeadSpace": "IgnoresStrangeWrites"}.get(name, "MovingDataOffset")
    chunks, _ = stream_of(foreign)
    with opened(name) as device:
        device.write(STATE, RESUMING)
        room = device.driver.migration_region.size - device.read(OFFSET)
    cut = [
        chunk[at : at + room] for chunk in chunks for at in range(0, len(chunk), room)
    ]
    assert_refuses(name, cut[-2000:])


@pytest.mark.parametrize("is_sent", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_buffer_that_nobody_read_is_not_lost(name: str, is_sent: bool) -> None:
    for earlier in range(4):
        with opened(name) as source:
            source.work(30)
            source.write(STATE, PRE_COPY)
            chunks = list(source.drain(earlier))
            if source.read(PENDING):
                queued = source.buffer()
                chunks += [queued] if is_sent else []
            source.work(2)
            source.write(STATE, STOP_AND_COPY)
            chunks += source.drain()
            snapshot = source.snapshot
        assert_restores(name, chunks, snapshot)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_session_begins_afresh(name: str) -> None:
    with opened(name) as source:
        source.work(10)
        source.write(STATE, PRE_COPY)
        list(source.drain(2))
        source.write(STATE, RUNNING)
        source.work(10)
        source.write(STATE, STOP_AND_COPY)
        list(source.drain(3))
        source.read(OFFSET)
        source.write(STATE, RUNNING)
        source.work(10)
        source.write(STATE, STOP_AND_COPY)
        first = list(source.drain())
        assert [source.read(PENDING) for _ in range(3)] == [0, 0, 0]
        source.write(STATE, STOP)
        source.write(STATE, STOP_AND_COPY)
        again = list(source.drain())
        snapshot = source.snapshot
    assert_restores(name, first, snapshot)
    assert_restores(name, again, snapshot)


@pytest.mark.parametrize("name", NAMES)
def test_reading_twice_changes_nothing(name: str) -> None:
    with opened(name) as source:
        source.work(30)
        source.write(STATE, STOP_AND_COPY)
        chunks = []
        while pending := source.read(PENDING):
            assert source.read(PENDING) == pending
            chunks.append(source.buffer())
            source.write(STATE, STOP_AND_COPY)
            refusal(lambda: source.fd.pread(2, BASE + OFFSET))
            refusal(lambda: source.write(STATE, 5))
            assert source.buffer() == chunks[-1]
        snapshot = source.snapshot
    assert_restores(name, chunks, snapshot)


REFUSED: Final = (ArcClass.INV, ArcClass.ERRW)
NEEDED: Final = (ArcClass.REQ, ArcClass.EXP, ArcClass.SELF)


@pytest.mark.parametrize("name", NAMES)
def test_every_arc_of_the_table_comes_out_as_it_must(name: str) -> None:
    stream, _ = stream_of(name)
    for arc in ARCS:
        if arc.arc_class in (ArcClass.XERR, ArcClass.UNR):
            continue
        with opened(name) as device:
            device.bring_to(arc.source)
            if arc.source == RESUMING:
                for chunk in stream:
                    if chunk:
                        device.give(chunk)
            try:
                device.write(STATE, arc.target)
                outcome, code = arc.target, 0
            except OSError as refused:
                outcome, code = arc.source, refused.errno or 0
            assert device.read(STATE) == outcome, arc
            assert code in (0, EINVAL), arc
            assert not code or arc.arc_class not in NEEDED, arc
            assert code or arc.arc_class not in REFUSED, arc


@pytest.mark.parametrize("name", NAMES)
def test_any_other_width_or_place_is_refused(name: str) -> None:
    odd = ((0, 1), (0, 2), (0, 8), (8, 4), (12, 4), (4, 8), (12, 8), (3, 1), (20, 12))
    for state in (STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING):
        with opened(name) as device:
            device.bring_to(state)
            for offset, size in (*odd, (0, 32), (24, 16)):
                place, data = BASE + offset, bytes(size)
                assert refusal(lambda: device.fd.pread(size, place)) == EINVAL  # noqa: B023
                assert refusal(lambda: device.fd.pwrite(data, place)) == EINVAL  # noqa: B023
            end = BASE + device.driver.migration_region.size
            assert refusal(lambda: device.fd.pread(2, end - 1)) == EINVAL  # noqa: B023
            assert device.read(STATE) == state
            device.write(RESERVED, 0xFFFFFFFF)
            assert device.read(RESERVED) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_size_without_room_is_refused(name: str) -> None:
    with opened(name) as device:
        device.write(STATE, RESUMING)
        device.read(OFFSET)
        for size in (device.driver.migration_region.size, 1 << 40, (1 << 64) - 1):
            assert refusal(lambda: device.write(SIZE, size)) == EINVAL  # noqa: B023


@pytest.mark.parametrize("name", NAMES)
def test_reset_leads_from_every_state_to_power_on(name: str) -> None:
    with opened(name) as fresh:
        power_on = fresh.snapshot
    for state in (STOP, RUNNING, STOP_AND_COPY, PRE_COPY, RESUMING):
        with opened(name) as device:
            device.work(9)
            device.bring_to(state)
            if state == RESUMING:
                device.fd.pwrite(b"\xff", BASE + device.read(OFFSET))
            device.fail("device_state", errno.EIO)
            device.reset()
            assert device.snapshot == power_on
            assert device.read(STATE) == RUNNING
            device.write(STATE, PRE_COPY)


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_fails_one_access_and_loses_nothing(name: str) -> None:
    with opened(name) as source:
        source.work(30)
        source.write(STATE, STOP_AND_COPY)
        chunks = []
        for site, register in (
            ("pending_bytes", PENDING),
            ("data_offset", OFFSET),
            ("data_size", SIZE),
        ):
            source.fail(site, errno.ENOSPC)
            assert refusal(lambda: source.read(register)) == errno.ENOSPC  # noqa: B023
        if source.read(PENDING):
            place = source.read(OFFSET)
            source.fail("data", errno.EIO)
            assert refusal(lambda: source.fd.pread(1, BASE + place)) == errno.EIO
            chunks.append(source.buffer())
            source.fail("pending_bytes", errno.EIO)
            assert refusal(lambda: source.read(PENDING)) == errno.EIO
            assert source.buffer() == chunks[0]
        chunks += source.drain()
        source.fail("device_state", errno.EBUSY)
        assert refusal(lambda: source.write(STATE, STOP)) == errno.EBUSY
        expected = ERROR if name == "ErrorAtBadStream" else STOP_AND_COPY
        assert source.read(STATE) == expected
        snapshot = source.snapshot
    assert_restores(name, chunks, snapshot)


# -- what each has of its own --------------------------------------------------------


def test_each_buffer_has_another_place() -> None:
    with opened("MovingDataOffset") as device:
        device.write(STATE, STOP_AND_COPY)
        places = []
        while device.read(PENDING):
            places.append(device.read(OFFSET))
        assert all(a != b for a, b in pairwise(places))
        assert any(place % 8 for place in places)


@pytest.mark.parametrize("state", [PRE_COPY, STOP_AND_COPY])
def test_pending_bytes_is_a_boolean(state: int) -> None:
    with opened("PendingIsBoolean") as device:
        device.write(STATE, state)
        assert device.read(PENDING) == 1
        assert len(device.buffer()) > 1000


def test_no_more_than_two_empty_buffers_come_in_a_row() -> None:
    chunks, _ = stream_of("EmptyBuffers")
    sizes = "".join("x" if chunk else "0" for chunk in chunks)
    assert "00" in sizes
    assert "000" not in sizes


def accepted(name: str) -> set[tuple[int, int]]:
    """Return the optional arcs that a driver takes."""
    stream, _ = stream_of(name)
    taken = set()
    for arc in ARCS:
        if arc.arc_class is not ArcClass.OPT:
            continue
        with opened(name) as device:
            if arc.source == RESUMING:
                device.write(STATE, RESUMING)
                for chunk in stream:
                    device.give(chunk)
            else:
                device.bring_to(arc.source)
            try:
                device.write(STATE, arc.target)
            except OSError:
                continue
            taken.add((arc.source, arc.target))
    return taken


def test_of_the_optional_arcs_one_takes_none_and_one_takes_all() -> None:
    assert accepted("RefusesOptionalArcs") == set()
    assert len(accepted("AcceptsEveryArc")) == 8


@pytest.mark.parametrize("drained", [0, 2, 1000])
def test_a_stream_that_went_back_to_pre_copy_restores(drained: int) -> None:
    with opened("AcceptsEveryArc") as source:
        source.write(STATE, STOP_AND_COPY)
        chunks = list(source.drain(drained)) if drained else []
        source.write(STATE, PRE_COPY)
        source.work(50)
        chunks += source.drain(2)
        source.write(STATE, STOP_AND_COPY)
        chunks += source.drain()
        snapshot = source.snapshot
    assert_restores("AcceptsEveryArc", chunks, snapshot)


@pytest.mark.parametrize("target", [STOP_AND_COPY, PRE_COPY])
def test_what_was_loaded_can_be_saved_at_once(target: int) -> None:
    stream, snapshot = stream_of("AcceptsEveryArc")
    with opened("AcceptsEveryArc") as device:
        device.write(STATE, RESUMING)
        for chunk in stream:
            device.give(chunk)
        device.write(STATE, target)
        assert device.snapshot == snapshot
        device.write(STATE, STOP_AND_COPY)
        assert_restores("AcceptsEveryArc", list(device.drain()), snapshot)


def test_nothing_is_pending_in_pre_copy() -> None:
    with opened("NothingInPreCopy") as device:
        device.write(STATE, PRE_COPY)
        device.work(100)
        assert device.read(PENDING) == 0
        device.write(STATE, STOP_AND_COPY)
        assert device.read(PENDING) > 0


def test_no_state_is_an_empty_snapshot_and_an_empty_stream() -> None:
    assert stream_of("NoDeviceState") == ([], b"")
    assert_refuses("NoDeviceState", [b"\0"])


def test_a_buffer_has_one_byte() -> None:
    chunks, _ = stream_of("SingleByteBuffers")
    assert {len(chunk) for chunk in chunks} == {1}


def test_dead_space_is_nobodys() -> None:
    with opened("DeadSpace") as device:
        device.write(STATE, STOP_AND_COPY)
        assert device.read(OFFSET) > 0x1000
        assert refusal(lambda: device.fd.pread(4, BASE + 32)) == EINVAL
        assert refusal(lambda: device.fd.pread(4, BASE + 0x131F)) == EINVAL


@pytest.mark.parametrize("register", [PENDING, OFFSET])
def test_a_read_only_register_is_refused_or_ignored(register: int) -> None:
    with opened("RefusesStrangeWrites") as device:
        assert refusal(lambda: device.write(register, 1)) == errno.EPERM
        assert refusal(lambda: device.write(STATE, 1 << 31)) == EINVAL
        assert device.read(STATE) == RUNNING
    with opened("IgnoresStrangeWrites") as device:
        device.write(STATE, STOP_AND_COPY)
        assert device.read(PENDING)
        chunk = device.buffer()
        device.write(register, 1)
        device.write(SIZE, 1)
        device.fd.pwrite(b"\xff", BASE + 32)
        device.fd.pwrite(b"\xff", BASE + device.read(OFFSET))
        assert device.buffer() == chunk
        assert device.fd.pread(8, BASE + 32) == bytes(8)


def test_the_clock_ticks_at_an_access_while_running_and_for_nothing_else() -> None:
    with opened("TickingClock") as device:
        before = device.snapshot
        assert device.snapshot == before
        device.read(STATE)
        assert device.snapshot != before
        device.write(STATE, PRE_COPY)
        list(device.drain(60))
        seen = [device.read(PENDING) for _ in range(30)]
        assert seen[-1] > seen[0]
        device.write(STATE, STOP_AND_COPY)
        before = device.snapshot
        list(device.drain())
        assert device.snapshot == before


def test_a_buffer_lies_across_areas_and_trapped_pages() -> None:
    with opened("SeveralAreas") as device:
        areas = device.driver.migration_region.areas
        assert len(areas) == 2
        assert areas[0].offset + areas[0].size < areas[1].offset
        device.write(STATE, STOP_AND_COPY)
        assert device.read(PENDING)
        chunk, place = device.buffer(), device.read(OFFSET)
        assert place == areas[0].offset
        assert place + len(chunk) > areas[1].offset + areas[1].size
        for area in areas:
            mapping = device.fd.mmap(area.size, BASE + area.offset)
            start = area.offset - place
            assert mapping[:] == chunk[start : start + area.size]
            mapping.close()


@pytest.mark.parametrize("state", [STOP, RUNNING, RESUMING])
def test_outside_of_saving_registers_say_anything(state: int) -> None:
    with opened("UndefinedOutsideSessions") as device:
        device.bring_to(state)
        for register in (PENDING, SIZE):
            assert len({device.read(register) for _ in range(4)}) == 4
        if state != RESUMING:
            assert refusal(lambda: [device.read(OFFSET) for _ in range(40)]) == EINVAL
        else:
            assert len({device.read(OFFSET) for _ in range(4)}) == 1


def bad_stream(name: str) -> list[bytes]:
    """Return a stream whose first buffer is bad."""
    chunks, _ = stream_of(name, with_pre_copy=False)
    return [chunks[0][:-1] + bytes([chunks[0][-1] ^ 1]), *chunks[1:]]


def test_a_bad_buffer_is_noticed_at_once_or_at_the_end() -> None:
    for name, is_late in (("JudgesEachBuffer", False), ("JudgesAtTheEnd", True)):
        chunks = bad_stream(name)
        with opened(name) as device:
            device.write(STATE, RESUMING)
            noticed = []
            for chunk in chunks:
                try:
                    device.give(chunk)
                except OSError:
                    noticed.append(chunk)
            assert noticed == ([] if is_late else [chunks[0], chunks[-1]])
            assert refusal(lambda: device.write(STATE, RUNNING)) in errno.errorcode
            assert device.read(STATE) == RESUMING


def test_the_right_buffer_may_come_after_a_bad_one() -> None:
    chunks, snapshot = stream_of("JudgesEachBuffer", with_pre_copy=False)
    bad = bad_stream("JudgesEachBuffer")
    with opened("JudgesEachBuffer") as device:
        device.write(STATE, RESUMING)
        assert refusal(lambda: device.give(bad[0])) == errno.EBADMSG
        assert refusal(lambda: device.write(STATE, RUNNING)) == EINVAL
        for chunk in chunks:
            device.give(chunk)
        device.write(STATE, RUNNING)
        assert device.snapshot == snapshot


def test_a_bad_stream_leads_to_error_and_only_a_reset_from_there() -> None:
    chunks = bad_stream("ErrorAtBadStream")
    with opened("ErrorAtBadStream") as device:
        device.write(STATE, RESUMING)
        refusal(lambda: device.give(chunks[0]))
        assert device.read(STATE) == RESUMING
        refusal(lambda: device.write(STATE, RUNNING))
        assert device.read(STATE) == ERROR
        for state in range(8):
            assert refusal(lambda: device.write(STATE, state)) == EINVAL  # noqa: B023
            assert device.read(STATE) == ERROR
        device.reset()
        assert device.read(STATE) == RUNNING
