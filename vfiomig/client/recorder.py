"""A device handle that writes down what crosses it.

It stands where a handle stands, in front of one; the client does not notice.  What
goes through a mapping crosses no handle: the client tells of it (`Recorder.unseen`),
and the history marks it as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from vfiomig.protocol.errors import DriverDiedError
from vfiomig.protocol.history import (
    Access,
    AccessKind,
    Header,
    Record,
    encode,
    encode_all,
    shown,
)
from vfiomig.uapi.ioctl import VFIO_DEVICE_RESET

if TYPE_CHECKING:
    import mmap as _mmap
    from collections.abc import Callable

    from vfiomig.client.device import DeviceHandle
    from vfiomig.client.region import FoundRegion

# Records that are kept before they are written: a call a record would cost more.
_BATCH: Final = 512


class HistoryWriter:
    """The records of all devices of a migration, in the order in which they happened.

    With ``write`` they leave as lines, and memory does not grow with the run; without
    it they stay in ``records``.
    """

    def __init__(self, write: Callable[[bytes], object] | None = None) -> None:
        self._write = write
        self.records: list[Record] = []

    def begin(self, header: Header) -> None:
        """Write the first line."""
        if self._write is not None:
            self._write(encode(header))

    def append(self, record: Record) -> None:
        """Add what happened now."""
        self.records.append(record)
        if self._write is not None and len(self.records) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is kept."""
        if self._write is not None:
            self._write(encode_all(self.records))
            self.records.clear()


class Recorder:
    """A `DeviceHandle` in front of another one that records the migration region."""

    def __init__(
        self,
        handle: DeviceHandle,
        region: FoundRegion,
        log: HistoryWriter,
        *,
        device: str,
    ) -> None:
        self._handle = handle
        self._base = region.offset
        self._size = region.size
        self._add = log.append
        self._device = device

    def pread(self, size: int, offset: int) -> bytes:
        """Read, and record what came."""
        try:
            data = self._handle.pread(size, offset)
        except OSError as error:
            self._note("read", offset, size, errno=error.errno)
            raise
        except DriverDiedError:
            self._note("read", offset, size, died=True)
            raise
        self._note("read", offset, size, data, moved=len(data))
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write, and record what went."""
        try:
            taken = self._handle.pwrite(data, offset)
        except OSError as error:
            self._note("write", offset, len(data), data, errno=error.errno)
            raise
        except DriverDiedError:
            self._note("write", offset, len(data), data, died=True)
            raise
        self._note("write", offset, len(data), data, moved=taken)
        return taken

    def mmap(self, length: int, offset: int) -> _mmap.mmap:
        """Map, and record where."""
        try:
            mapping = self._handle.mmap(length, offset)
        except OSError as error:
            self._note("mmap", offset, length, errno=error.errno)
            raise
        self._note("mmap", offset, length)
        return mapping

    def ioctl(self, request: int, argument: bytearray | None = None) -> int:
        """Perform an ioctl; a reset is recorded."""
        if request != VFIO_DEVICE_RESET():
            return self._handle.ioctl(request, argument)
        try:
            result = self._handle.ioctl(request, argument)
        except OSError as error:
            self._add(Access(self._device, "reset", errno=error.errno or 0))
            raise
        self._add(Access(self._device, "reset"))
        return result

    def close(self) -> None:
        """Close, and record it."""
        try:
            self._handle.close()
        except OSError as error:
            self._add(Access(self._device, "close", errno=error.errno or 0))
            raise
        self._add(Access(self._device, "close"))

    def unseen(self, access: str, offset: int, size: int) -> None:
        """Record data that went through a mapping; ``offset`` is the region's."""
        kind: AccessKind = "read" if access == "read" else "write"
        self._add(Access(self._device, kind, offset, size, unseen=True))

    def _note(
        self,
        access: AccessKind,
        offset: int,
        size: int,
        data: bytes | memoryview = b"",
        errno: int | None = 0,
        moved: int | None = None,
        *,
        died: bool = False,
    ) -> None:
        place = offset - self._base
        if 0 <= place < self._size:
            value = shown(place, data) if data else ""
            record = Access(self._device, access, place, size, value, errno or 0)
            if moved is not None and moved != size:
                record = replace(record, moved=moved)
            if died:
                record = replace(record, died=True)
            self._add(record)
