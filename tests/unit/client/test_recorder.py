"""What a recorder writes down of a device, and when it writes it."""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass, field

import pytest
import xxhash

from vfiomig.client.recorder import HistoryWriter, Recorder
from vfiomig.client.region import FoundRegion
from vfiomig.protocol.history import (
    Access,
    BenchEvent,
    Header,
    RegionShape,
    decode,
    encode,
)

BASE, SIZE = 9 << 40, 0x3000
RESET, GET_INFO = 0x3B6F, 0x3B6B

REGION = FoundRegion(index=9, offset=BASE, size=SIZE, listed=())


@dataclass(slots=True)
class Handle:
    """A handle that answers what a test wants, and notes that it was called."""

    answer: bytes = b""
    taken: int | None = None
    error: OSError | None = None
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def pread(self, size: int, offset: int) -> bytes:
        self._call("pread", size, offset)
        return self.answer

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        self._call("pwrite", bytes(data), offset)
        return len(data) if self.taken is None else self.taken

    def mmap(self, length: int, offset: int) -> mmap.mmap:
        self._call("mmap", length, offset)
        return mmap.mmap(-1, length)

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        self._call("ioctl", request, argument)
        return 7

    def close(self) -> None:
        self._call("close")

    def _call(self, *call: object) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error


def recorder_of(handle: Handle) -> tuple[Recorder, HistoryWriter]:
    log = HistoryWriter()
    return Recorder(handle, REGION, log, device="d"), log


def test_a_register_is_recorded_as_a_number_and_passed_through() -> None:
    handle = Handle(answer=(0x40000).to_bytes(8, "little"))
    recorder, log = recorder_of(handle)
    assert recorder.pread(8, BASE + 8) == handle.answer
    assert recorder.pwrite(b"\x03\0\0\0", BASE) == 4
    assert handle.calls == [("pread", 8, BASE + 8), ("pwrite", b"\x03\0\0\0", BASE)]
    assert log.records == [
        Access("d", "read", 8, 8, "0x40000"),
        Access("d", "write", 0, 4, "0x3"),
    ]


def test_data_is_recorded_as_hex_and_much_of_it_as_a_digest() -> None:
    recorder, log = recorder_of(Handle(answer=b"\x01\xff"))
    recorder.pread(2, BASE + 0x1000)
    recorder.pwrite(memoryview(bytes(65)), BASE + 0x1002)
    digest = xxhash.xxh3_128_hexdigest(bytes(65))
    assert log.records == [
        Access("d", "read", 0x1000, 2, "01ff"),
        Access("d", "write", 0x1002, 65, f"xxh3-128:{digest}"),
    ]


def test_an_access_outside_the_region_is_passed_through_and_not_recorded() -> None:
    handle = Handle(answer=b"\0\0")
    recorder, log = recorder_of(handle)
    for place in (0, (7 << 40) + 4, BASE - 1, BASE + SIZE, 10 << 40):
        recorder.pread(2, place)
        recorder.pwrite(b"\0\0", place)
        recorder.mmap(4096, place).close()
    assert len(handle.calls) == 15
    assert log.records == []


def test_what_fails_is_recorded_with_its_errno_and_still_fails() -> None:
    handle = Handle(error=OSError(errno.EIO, "broken"))
    recorder, log = recorder_of(handle)
    for access in (
        lambda: recorder.pread(8, BASE + 24),
        lambda: recorder.pwrite(b"\x02\0\0\0", BASE),
        lambda: recorder.mmap(4096, BASE + 0x1000),
        lambda: recorder.ioctl(RESET),
        lambda: recorder.close(),
    ):
        with pytest.raises(OSError, match="broken") as raised:
            access()
        assert raised.value is handle.error
    assert log.records == [
        Access("d", "read", 24, 8, errno=errno.EIO),
        Access("d", "write", 0, 4, "0x2", errno=errno.EIO),
        Access("d", "mmap", 0x1000, 4096, errno=errno.EIO),
        Access("d", "reset", errno=errno.EIO),
        Access("d", "close", errno=errno.EIO),
    ]


def test_an_error_that_is_no_oserror_passes_through() -> None:
    class Dying(Handle):
        def pread(self, size: int, offset: int) -> bytes:
            raise ZeroDivisionError

    recorder, log = recorder_of(Dying())
    with pytest.raises(ZeroDivisionError):
        recorder.pread(8, BASE)
    assert log.records == []


def test_a_short_count_is_recorded_beside_what_was_asked_for() -> None:
    handle = Handle(answer=b"\x01\x00", taken=3)
    recorder, log = recorder_of(handle)
    recorder.pread(4, BASE)
    recorder.pwrite(b"\x01\0\0\0", BASE)
    handle.answer = b""
    recorder.pread(8, BASE + 0x1000)
    assert log.records == [
        Access("d", "read", 0, 4, "0x1", moved=2),
        Access("d", "write", 0, 4, "0x1", moved=3),
        Access("d", "read", 0x1000, 8, moved=0),
    ]


def test_mappings_resets_and_the_end_are_recorded() -> None:
    handle = Handle()
    recorder, log = recorder_of(handle)
    recorder.mmap(0x2000, BASE + 0x1000).close()
    assert recorder.ioctl(RESET) == 7
    recorder.close()
    assert log.records == [
        Access("d", "mmap", 0x1000, 0x2000),
        Access("d", "reset"),
        Access("d", "close"),
    ]
    assert handle.calls[-1] == ("close",)


def test_other_ioctls_are_not_recorded() -> None:
    handle = Handle()
    recorder, log = recorder_of(handle)
    argument = bytearray(20)
    assert recorder.ioctl(GET_INFO, argument) == 7
    assert handle.calls == [("ioctl", GET_INFO, argument)]
    assert log.records == []


def test_data_that_went_through_a_mapping_is_marked_unseen() -> None:
    recorder, log = recorder_of(Handle())
    recorder.unseen("read", 0x1000, 0x800)
    recorder.unseen("write", 0x1800, 8)
    assert log.records == [
        Access("d", "read", 0x1000, 0x800, unseen=True),
        Access("d", "write", 0x1800, 8, unseen=True),
    ]


def test_two_devices_share_one_order() -> None:
    log = HistoryWriter()
    handle = Handle(answer=bytes(4))
    source = Recorder(handle, REGION, log, device="source/a")
    destination = Recorder(handle, REGION, log, device="destination/a")
    source.pread(4, BASE)
    destination.pread(4, BASE)
    log.append(BenchEvent("source/a", "work", amount=3))
    destination.unseen("write", 0x1000, 8)
    source.close()
    assert [record.device for record in log.records] == [
        "source/a",
        "destination/a",
        "source/a",
        "destination/a",
        "source/a",
    ]


HEADER = Header(recorded_by="a test", devices={"d": RegionShape(size=SIZE)})


def test_what_is_written_is_a_history() -> None:
    lines: list[bytes] = []
    log = HistoryWriter(lines.append)
    log.begin(HEADER)
    recorder = Recorder(Handle(answer=bytes(4)), REGION, log, device="d")
    for _ in range(3):
        recorder.pread(4, BASE)
    log.flush()
    assert list(decode(iter(b"".join(lines).splitlines()))) == [
        HEADER,
        *[Access("d", "read", 0, 4, "0x0")] * 3,
    ]


def test_lines_leave_in_batches_and_memory_does_not_grow() -> None:
    written: list[bytes] = []
    log = HistoryWriter(written.append)
    most = 0
    for number in range(2000):
        log.append(Access("d", "read", number))
        most = max(most, len(log.records))
    assert most < 1000
    assert 1 < len(written) < 20
    log.flush()
    assert log.records == []
    lines = b"".join(written).splitlines()
    assert lines == [
        encode(Access("d", "read", number)).rstrip() for number in range(2000)
    ]


def test_without_a_place_to_write_to_the_records_are_kept() -> None:
    log = HistoryWriter()
    log.begin(HEADER)
    for number in range(2000):
        log.append(Access("d", "read", number))
    log.flush()
    assert [r.offset for r in log.records if isinstance(r, Access)] == list(range(2000))


def test_flushing_twice_writes_nothing_twice() -> None:
    written: list[bytes] = []
    log = HistoryWriter(written.append)
    log.append(Access("d", "reset"))
    log.flush()
    log.flush()
    assert b"".join(written) == encode(Access("d", "reset"))
