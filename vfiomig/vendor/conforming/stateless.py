"""A driver for a device that has no state to migrate."""

from __future__ import annotations

import errno
import struct
from typing import Final, NoReturn

from vfiomig.protocol.region import MigrationRegion

_REGION_SIZE: Final = 36
_STATES: Final = (0, 1, 2, 3, 4)
_WIDTHS: Final = {0: 4, 4: 4, 8: 8, 16: 8, 24: 8}
_NAMES: Final = {8: "pending_bytes", 16: "data_offset", 24: "data_size"}


class NoDeviceState:
    """All of its state is nothing, and so is its stream: 0 bytes, in no buffer.

    V1-SAVE-06: the chunks together restore the device, and here that takes none.  A
    stream with a byte in it is another device's, and refused (V1-RES-08).
    """

    def __init__(self) -> None:
        self.migration_region = MigrationRegion(_REGION_SIZE)
        self._state = 1
        self._has_refused = False
        self._faults: dict[str, int] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Answer a trapped read."""
        if _WIDTHS.get(offset) == size:
            self._trip(_NAMES.get(offset, ""))
            value = {0: self._state, 16: 32}.get(offset, 0)
            return struct.pack("<I" if size == 4 else "<Q", value)
        self._require_data(offset, size)
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        """Take a trapped write."""
        if _WIDTHS.get(offset) != len(data):
            self._require_data(offset, len(data))
            if self._state != 4:
                _refuse("data is written in RESUMING")
        elif offset == 0:
            self._write_device_state(data[0] & 7)
        elif offset == 24:
            self._trip("data_size")
            self._write_data_size(int.from_bytes(data, "little"))
        elif offset != 4:
            _refuse("it is read only")

    def reset(self) -> None:
        """Go back to RUNNING."""
        self._state = 1
        self._has_refused = False
        self._faults.clear()

    def close(self) -> None:
        """Do nothing."""

    def work(self, amount: int) -> None:
        """Change nothing: ``amount`` packets pass through and leave no trace."""

    def snapshot(self) -> bytes:
        """Return no bytes."""
        return b""

    def fail(self, on: str, code: int) -> None:
        """Let the next access ``on`` fail; for "device_state", the next write."""
        self._faults[on] = code

    def _write_device_state(self, state: int) -> None:
        self._trip("device_state")
        if state not in _STATES:
            _refuse(f"{state:03b}b is no valid state")
        if self._state == 4 and state != 4 and self._has_refused:
            _refuse("the stream was of another device")
        if state != self._state:
            self._has_refused = False
        self._state = state

    def _write_data_size(self, size: int) -> None:
        if self._state != 4:
            _refuse("data_size is written in RESUMING")
        if size:
            self._has_refused = True
            _refuse("this device takes no data")

    def _require_data(self, offset: int, size: int) -> None:
        if offset >= 32:
            self._trip("data")
        if offset < 32 or offset + size > _REGION_SIZE:
            _refuse(f"neither register nor data: {size} bytes at {offset:#x}")

    def _trip(self, on: str) -> None:
        if (code := self._faults.pop(on, None)) is not None:
            raise OSError(code, f"a fault on {on}")


def _refuse(why: str) -> NoReturn:
    raise OSError(errno.EINVAL, why)
