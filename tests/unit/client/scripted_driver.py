"""A vendor driver that does what a test wrote down, and nothing of its own accord.

It is no state machine: device_state becomes whatever is written, pending_bytes and
data_offset are answered from lists, and a refusal happens where the test wants one.
What crosses its fd is told in the words of qemu_v1_client.md:

    R4=1  W4=3            device_state, read and written
    R8=40000  R16=1000  R24=10000  W24=800      the other registers, in hex
    r8@1000  w4@1008      trapped data, bytes and offset
    m1000+800  M1000+800  data read, data written through a mapping
    map1000+2000  RESET  close                  and -EIO behind what failed
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from vfiomig.client.conduct import QEMU_7_2, Conduct
from vfiomig.client.recorder import HistoryWriter, Recorder
from vfiomig.client.region import find_migration_region
from vfiomig.client.v1 import V1Client
from vfiomig.host.device_fd import DeviceFd
from vfiomig.migration.side import MigratingDevice
from vfiomig.protocol.history import Access
from vfiomig.protocol.region import MigrationRegion, SparseMmapArea

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vfiomig.protocol.history import Record

STATE, PENDING, OFFSET, SIZE = 0, 8, 16, 24
DATA = 0x1000


@dataclass(slots=True)
class Refusal:
    """An access that fails: which, how often, and the state that it leaves behind."""

    access: str
    offset: int
    value: int | None = None  # of the write; None for any
    code: int = errno.EIO
    times: int = 1
    leaves: int | None = None
    after: int = 0  # so many of them succeed first


@dataclass(slots=True, kw_only=True)
class ScriptedDriver:
    """``pending`` and ``buffers`` are answered one after another, then 0 and nothing.

    ``buffers`` are (data_offset, data_size) for saving, ``places`` the data_offset for
    each piece that is loaded; where they have an end, ``DATA`` follows.
    """

    size: int = 0x3000
    areas: tuple[tuple[int, int], ...] = ()
    pending: Iterable[int | Callable[[], int]] = ()
    buffers: Iterable[tuple[int, int]] = ()
    places: Iterable[int] = ()
    state: int = 1
    refusals: list[Refusal] = field(default_factory=list)
    resets_to: int = 1
    migration_region: MigrationRegion = field(init=False)
    memory: mmap.mmap = field(init=False)
    committed: list[bytes] = field(init=False, default_factory=list)
    _fd: int = field(init=False)
    _offset: int = field(init=False, default=0)
    _length: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        areas = tuple(SparseMmapArea(*area) for area in self.areas)
        self.migration_region = MigrationRegion(self.size, areas)
        self._fd = os.memfd_create("scripted")
        os.truncate(self._fd, self.size)
        self.memory = mmap.mmap(self._fd, self.size)
        for place in range(DATA, self.size):
            self.memory[place] = place * 7 % 251
        self.pending = iter(self.pending)
        self.buffers = iter(self.buffers)
        self.places = iter(self.places)

    def read(self, offset: int, size: int) -> bytes:
        self._refuse("read", offset, None)
        match offset, size:
            case 0, 4:
                return self.state.to_bytes(4, "little")
            case 8, 8:
                answer = next(iter(self.pending), 0)
                value = answer if isinstance(answer, int) else answer()
                return value.to_bytes(8, "little")
            case 16, 8:
                self._next_place()
                return self._offset.to_bytes(8, "little")
            case 24, 8:
                return self._length.to_bytes(8, "little")
        return self.memory[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        value = int.from_bytes(data, "little")
        self._refuse("write", offset, value)
        if (offset, len(data)) == (0, 4):
            self.state = value
        elif (offset, len(data)) == (24, 8):
            self.committed.append(self.memory[self._offset : self._offset + value])
        elif offset >= 32:
            self.memory[offset : offset + len(data)] = data
        else:
            raise OSError(errno.EINVAL, f"{len(data)} bytes at {offset:#x}")

    def mmap(self, area: SparseMmapArea) -> tuple[int, int]:
        self._refuse("mmap", area.offset, None)
        return self._fd, area.offset

    def reset(self) -> None:
        self._refuse("reset", 0, None)
        self.state = self.resets_to

    def close(self) -> None:
        self.memory.close()
        os.close(self._fd)

    def _next_place(self) -> None:
        if self.state & 7 == 4:
            self._offset = next(iter(self.places), DATA)
        else:
            self._offset, self._length = next(iter(self.buffers), (DATA, 0))

    def _refuse(self, access: str, offset: int, value: int | None) -> None:
        for refusal in self.refusals:
            if (
                (refusal.access, refusal.offset) != (access, offset)
                or refusal.value not in (None, value)
                or not refusal.times
            ):
                continue
            if refusal.after:
                refusal.after -= 1
                continue
            refusal.times -= 1
            if refusal.leaves is not None:
                self.state = refusal.leaves
            raise OSError(refusal.code, "as the script has it")


class OpenDevice:
    """A scripted driver behind its fd and a recorder, with a client that drives it."""

    def __init__(
        self,
        driver: ScriptedDriver,
        *,
        conduct: Conduct = QEMU_7_2,
        vm_is_running: bool = False,
        name: str = "a",
        log: HistoryWriter | None = None,
    ) -> None:
        self.driver = driver
        self.log = log or HistoryWriter()
        self._fd = DeviceFd(driver)
        region = find_migration_region(self._fd)
        self.handle = Recorder(self._fd, region, self.log, device=name)
        self.client = V1Client(
            self.handle,
            region,
            conduct=conduct,
            vm_is_running=vm_is_running,
            unseen=self.handle.unseen,
        )
        self.participant = MigratingDevice(name, self.client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.save_cleanup()
        self._fd.close()

    def told(self) -> str:
        """Tell what crossed the fd since the last time that this was asked."""
        words = " ".join(map(word, self.log.records))
        self.log.records.clear()
        return words

    def start_vm(self) -> Self:
        """Let the VM run, and forget how that went."""
        self.client.vm_state_change(running=True)
        self.told()
        return self


def word(record: Record) -> str:
    """Tell one access."""
    assert isinstance(record, Access)
    offset, size = record.offset, record.size
    failed = f"-{errno.errorcode[record.errno]}" if record.errno else ""
    if record.access == "reset":
        return f"RESET{failed}"
    if record.access == "close":
        return f"close{failed}"
    if record.access == "mmap":
        return f"map{offset:x}+{size:x}{failed}"
    is_read = record.access == "read"
    if record.unseen:
        return f"{'m' if is_read else 'M'}{offset:x}+{size:x}"
    if offset >= 32:
        return f"{'r' if is_read else 'w'}{size}@{offset:x}{failed}"
    value = f"={int(record.value, 16):x}" if record.value else ""
    name = 4 if offset == 0 else offset
    return f"{'R' if is_read else 'W'}{name}{value}{failed}"


def words(text: str) -> str:
    """Take the words of an expected sequence, however they are laid out.

    What follows ``|`` on a line is a remark.
    """
    return " ".join(w for line in text.splitlines() for w in line.split("|")[0].split())
