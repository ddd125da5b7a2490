"""One device under test, open: each access is recorded and judged as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import xxhash

from vfiomig.client.region import find_migration_region
from vfiomig.conformance.target_errors import TargetStartError
from vfiomig.host.device_fd import DeviceFd
from vfiomig.protocol.bench import bench_of
from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.history import Access, BenchEvent, Record, RegionShape, shown
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET

if TYPE_CHECKING:
    import mmap as _mmap
    from collections.abc import Callable

    Begin = Callable[[str, int, int], None]

    from vfiomig.host.device_ops import TrappedDriver
    from vfiomig.protocol.v1.registers import Register

_Answer = TypeVar("_Answer")

# What an access came to where the device answered with an errno, or less than all.
FAILED: Final = None


class DeviceUnderTest:
    """A fresh driver behind a device fd.

    ``note`` is given each record as soon as it is known; ``begin`` is told of each
    access before it is made, by name, offset and size: what it raises instead is as if
    the driver had.  Failures of the device are
    answers (``None``, ``False``); only its death is an exception, `DriverDiedError`.
    """

    def __init__(
        self,
        name: str,
        driver: TrappedDriver,
        note: Callable[[Record], None],
        begin: Begin,
    ) -> None:
        self.name = name
        self._note = note
        self._begin = begin
        self._fd = DeviceFd(driver)
        region = find_migration_region(self._fd)
        self._base = region.offset
        self.size = region.size
        self.areas = region.areas
        # A user application leaves out what has no bytes; a judge does not.
        self._listed = tuple((a[0], a[1]) for a in region.listed)
        self.bench = bench_of(driver)
        self._mappings: dict[int, _mmap.mmap] = {}
        self.snapshot_size: int | None = None  # bytes, once one was taken
        self.is_open = True
        self.window: tuple[int, int] | None = None  # of the last chunk that it took

    @property
    def shape(self) -> RegionShape:
        """The region as a history's header has it."""
        return RegionShape(size=self.size, areas=self._listed)

    def read(self, offset: int, size: int) -> bytes | None:
        """Read from the region; None where not all of it came."""
        data = self._read(offset, size)
        return data if data is not None and len(data) == size else FAILED

    def _read(self, offset: int, size: int) -> bytes | None:
        try:
            self._begin("read", offset, size)
            data = self._fd.pread(size, self._base + offset)
        except OSError as error:
            self._note(Access(self.name, "read", offset, size, "", error.errno or 0))
            return FAILED
        except DriverDiedError:
            self._note(Access(self.name, "read", offset, size, died=True))
            raise
        value = shown(offset, data) if data else ""
        moved = None if len(data) == size else len(data)
        self._note(Access(self.name, "read", offset, size, value, moved=moved))
        return data

    def write(self, offset: int, data: bytes) -> bool:
        """Write to the region; tell whether the device took it."""
        value = shown(offset, data)
        size = len(data)
        try:
            self._begin("write", offset, size)
            self._fd.pwrite(data, self._base + offset)
        except OSError as error:
            code = error.errno or 0
            self._note(Access(self.name, "write", offset, size, value, code))
            return False
        except DriverDiedError:
            self._note(Access(self.name, "write", offset, size, value, died=True))
            raise
        self._note(Access(self.name, "write", offset, size, value))
        return True

    def read_all(self, offset: int, size: int) -> bytes | None:
        """Read data; go on behind a read that was short, as one does with read(2)."""
        data = self._read(offset, size)
        while data and len(data) < size:
            more = self._read(offset + len(data), size - len(data))
            data = data + more if more else None
        return data if data and len(data) == size else None

    def read_register(self, register: Register) -> int | None:
        """Read a register at its native width."""
        data = self.read(register.offset, register.width)
        return None if data is None else int.from_bytes(data, "little")

    def write_register(self, register: Register, value: int) -> bool:
        """Write a register at its native width."""
        return self.write(register.offset, value.to_bytes(register.width, "little"))

    def read_mapped(self, offset: int, size: int) -> bytes | None:
        """Read through mappings, and trapped what no area has; None if refused."""
        pieces: list[bytes] = []
        end = offset + size
        if end > self.size:
            return None
        while offset < end:
            number = self._area_at(offset)
            mapping = self._mapping(number) if number is not None else None
            count = min(end, self._end_of_stretch(offset, number)) - offset
            if number is None or mapping is None:
                piece = self.read_all(offset, count)
                if piece is None:
                    return None
            else:
                self._note(Access(self.name, "read", offset, count, unseen=True))
                start = offset - self.areas[number].offset
                piece = mapping[start : start + count]
            pieces.append(piece)
            offset += count
        return b"".join(pieces)

    def write_mapped(self, offset: int, data: bytes) -> bool:
        """Write through mappings, and trapped what no area has; False if refused."""
        if offset + len(data) > self.size:
            return False
        while data:
            number = self._area_at(offset)
            mapping = self._mapping(number) if number is not None else None
            end = self._end_of_stretch(offset, number)
            piece, data = data[: end - offset], data[end - offset :]
            if number is None or mapping is None:
                if not self.write(offset, piece):
                    return False
            else:
                size = len(piece)
                self._note(Access(self.name, "write", offset, size, unseen=True))
                start = offset - self.areas[number].offset
                mapping[start : start + size] = piece
            offset += len(piece)
        return True

    def reset(self) -> bool:
        """VFIO_DEVICE_RESET; tell whether it succeeded."""
        try:
            self._begin("reset", 0, 0)
            self._fd.ioctl(VFIO_DEVICE_RESET())
        except OSError as error:
            self._note(Access(self.name, "reset", errno=error.errno or 0))
            return False
        except DriverDiedError:
            self._note(Access(self.name, "reset", died=True))
            raise
        self._note(Access(self.name, "reset"))
        return True

    def close(self) -> bool:
        """Close the device, whatever state it is in; tell whether that succeeded."""
        if not self.is_open:
            return True
        self.is_open = False
        for mapping in self._mappings.values():
            mapping.close()
        try:
            self._begin("close", 0, 0)
            self._fd.close()
        except OSError as error:
            self._note(Access(self.name, "close", errno=error.errno or 0))
            return False
        except DriverDiedError:
            self._note(Access(self.name, "close", died=True))
            raise
        self._note(Access(self.name, "close"))
        return True

    def region_is_same(self) -> bool:
        """Ask for the region once more; tell whether it is what it was."""
        region = find_migration_region(self._fd)
        return (region.size, region.areas) == (self.size, self.areas)

    # -- from behind -------------------------------------------------------------------

    def work(self, amount: int) -> None:
        """Let guest traffic reach the device."""
        if self.bench.work is not None:
            self._note(BenchEvent(self.name, "work", amount=amount))
            self._behind("work", self.bench.work, amount)

    def snapshot(self) -> str | None:
        """Return a digest of the state that must migrate; None where none is told."""
        if self.bench.snapshot is None:
            return None
        state = self._behind("snapshot", self.bench.snapshot)
        digest = xxhash.xxh3_128_hexdigest(state)
        self.snapshot_size = len(state)
        self._note(BenchEvent(self.name, "snapshot", digest=digest))
        return digest

    def fail(self, on: str, code: int) -> bool:
        """Arm a fault inside the device; False where it offers none."""
        if self.bench.fail is None:
            return False
        self._behind("fail", self.bench.fail, on, code)
        self._note(BenchEvent(self.name, "fail", on=on, errno=code))
        return True

    def _area_at(self, offset: int) -> int | None:
        for number, area in enumerate(self.areas):
            if area.offset <= offset < area.offset + area.size:
                return number
        return None

    def _end_of_stretch(self, offset: int, number: int | None) -> int:
        """Return where the area ends, or the stretch that lies before the next one."""
        if number is not None:
            return self.areas[number].offset + self.areas[number].size
        behind = [area.offset for area in self.areas if area.offset > offset]
        return min(behind, default=self.size)

    def _behind(
        self, what: str, member: Callable[..., _Answer], *arguments: object
    ) -> _Answer:
        self._begin(what, 0, 0)
        try:
            return member(*arguments)
        except DriverDiedError:
            raise
        except Exception as error:
            owner = getattr(member, "__self__", member)
            raise DriverDiedError.of(owner, what, error) from error

    def _mapping(self, number: int) -> _mmap.mmap | None:
        if number not in self._mappings:
            area = self.areas[number]
            try:
                self._begin("mmap", area.offset, area.size)
                mapping = self._fd.mmap(area.size, self._base + area.offset)
            except OSError as error:
                code = error.errno or 0
                record = Access(self.name, "mmap", area.offset, area.size, errno=code)
                self._note(record)
                return None
            except DriverDiedError:
                self._note(Access(self.name, "mmap", area.offset, area.size, died=True))
                raise
            self._note(Access(self.name, "mmap", area.offset, area.size))
            self._mappings[number] = mapping
        return self._mappings[number]


def opened(
    make_driver: Callable[[], TrappedDriver],
    name: str,
    note: Callable[[Record], None],
    begin: Begin,
) -> DeviceUnderTest:
    """Open a fresh device.

    Raises:
        DriverDiedError: there is none, or it has no region that can be found.
    """
    begin("start", 0, 0)
    try:
        return DeviceUnderTest(name, make_driver(), note, begin)
    except DriverDiedError:
        raise
    except TargetStartError as error:  # one line that begins with the place
        raise DriverDiedError("its start", "", str(error)) from error
    except Exception as error:
        raise DriverDiedError.of(make_driver, "its start", error) from error
