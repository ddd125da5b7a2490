"""One trapped register read, against a pread of 8 bytes from a memfd."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figures import best_of, show, timed
from vfiomig.client.recorder import HistoryWriter, Recorder
from vfiomig.client.region import find_migration_region
from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.v1.registers import Register
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfiomig.client.device import DeviceHandle

READS = 50_000


class EverLessPending(ScratchpadModel):
    """A device whose pending_bytes is another number at each read."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1 << 40
        self.pending = self.count_down

    def count_down(self, *, running: bool) -> int:
        self.left -= running
        return self.left


@contextlib.contextmanager
def opened_device() -> Iterator[DeviceFd]:
    fd = DeviceFd(ReferenceDriver(EverLessPending()))
    region = find_migration_region(fd)
    fd.pwrite((3).to_bytes(4, "little"), region.offset)  # pre-copy
    yield fd
    fd.close()


@contextlib.contextmanager
def memfd() -> Iterator[int]:
    number = os.memfd_create("bench")
    os.ftruncate(number, 4096)
    yield number
    os.close(number)


def many_reads(handle: DeviceHandle, place: int) -> float:
    def read_all() -> None:
        for _ in range(READS):
            handle.pread(8, place)

    return timed(read_all)


def many_preads(number: int) -> float:
    def read_all() -> None:
        for _ in range(READS):
            os.pread(number, 8, 0)

    return timed(read_all)


def test_a_register_read() -> None:
    with opened_device() as fd, memfd() as number, Path(os.devnull).open("wb") as sink:
        region = find_migration_region(fd)
        place = region.offset + Register.PENDING_BYTES.offset
        assert fd.pread(8, place) != fd.pread(8, place)
        recorder = Recorder(fd, region, HistoryWriter(sink.write), device="source")
        bare, plain, recorded = best_of(
            lambda: many_preads(number),
            lambda: many_reads(fd, place),
            lambda: many_reads(recorder, place),
        )
    beside = "os.pread of 8 bytes from a memfd"
    show("a register read, recorder off", plain / bare, 2, beside)
    show("a register read, recorder on", recorded / bare, 6, beside)
