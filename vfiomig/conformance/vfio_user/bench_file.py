"""A bench for a black box: which bytes of its BARs are state, and what makes it work.

::

    [[state]]           # read in this order; together they are the snapshot
    bar = 0
    offset = 0x100
    size = 64
    width = 4           # bytes of one access, 1, 2, 4 or 8

    [[work]]            # written in this order, for one unit of guest traffic
    bar = 0
    offset = 0x10
    value = 1
    width = 4
    step = 1            # added to the value from one unit to the next
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from vfiomig.conformance.target_errors import TargetError
from vfiomig.conformance.user_code import shown
from vfiomig.conformance.vfio_user.bars import enable_bars, read_bar, write_bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vfiomig.client.device import DeviceHandle

_LARGEST: Final = 1 << 20  # bytes of a file
_WORK_LIMIT: Final = 2.0  # seconds of one ``work``, far below a worker's patience
_SHIFT: Final = 40  # of a region's index in the offsets of a handle
_WIDTHS: Final = (1, 2, 4, 8)
_PLACE: Final = re.compile(r"(.*) - at `\$\.?(.*)`")

_Bar = Annotated[int, msgspec.Meta(ge=0, le=5)]
_Place = Annotated[int, msgspec.Meta(ge=0, lt=1 << _SHIFT)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class StateBytes(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``size`` bytes of a BAR that a migration must carry, read ``width`` at a time."""

    bar: _Bar
    offset: _Place
    size: _Size
    width: int = 4

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be read so."""
        _require_width(self.width)
        if self.size % self.width:
            message = f"size {self.size} is not a multiple of width {self.width}"
            raise ValueError(message)

    def read(self, device: DeviceHandle) -> bytes:
        """Return them all."""
        enable_bars(device)
        return b"".join(
            read_bar(device, self.bar, self.offset + at, self.width)
            for at in range(0, self.size, self.width)
        )


class WorkWrite(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A write of a unit of work; its value grows by ``step`` from unit to unit."""

    bar: _Bar
    offset: _Place
    value: _Number
    width: int = 4
    step: _Number = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be written so."""
        _require_width(self.width)
        if self.value >> 8 * self.width:
            message = f"value {self.value:#x} does not fit into {self.width} bytes"
            raise ValueError(message)

    def perform(self, device: DeviceHandle, unit: int) -> None:
        """Write what stands for a unit of work, counted from 0."""
        value = self.value + unit * self.step & (1 << 8 * self.width) - 1
        data = value.to_bytes(self.width, "little")
        write_bar(device, self.bar, self.offset, data)


class BlackBox(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a bench may do to a device of which only the BARs are known."""

    state: tuple[StateBytes, ...] = ()
    work: tuple[WorkWrite, ...] = ()

    def observer(self, device: DeviceHandle) -> Callable[[], bytes]:
        """Return the ``snapshot`` of a device."""

        def snapshot() -> bytes:
            return b"".join(each.read(device) for each in self.state)

        return snapshot

    def worker(self, device: DeviceHandle) -> Callable[[int], None]:
        """Return the ``work`` of a device.

        A unit is a message or more: a server that has not taken all of them after
        `_WORK_LIMIT` has worked enough, or it would be said to hang.
        """
        done = 0

        def work(amount: int) -> None:
            nonlocal done
            end = time.monotonic() + _WORK_LIMIT
            enable_bars(device)
            for _ in range(amount):
                if time.monotonic() > end:
                    break
                for each in self.work:
                    # A device that is stopped may refuse it: to a guest that is lost.
                    with contextlib.suppress(OSError):
                        each.perform(device, done)
                done += 1

        return work


def read_black_box(path: Path) -> BlackBox:
    """Read a bench file.

    Raises:
        TargetError: one line with the file, the key and the reason.
    """
    try:
        if not path.is_file():
            raise TargetError(f"{shown(path)}: there is no such file")
        if path.stat().st_size > _LARGEST:
            raise TargetError(f"{shown(path)}: larger than {_LARGEST >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise TargetError(f"{shown(path)}: {error.strerror}") from error
    try:
        return msgspec.toml.decode(content, type=BlackBox)
    except msgspec.ValidationError as error:
        found = _PLACE.fullmatch(str(error))
        reason = f"{found[2]}: {found[1]}" if found and found[2] else str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error)
    raise TargetError(f"{shown(path)}: {reason}")


def _require_width(width: int) -> None:
    if width not in _WIDTHS:
        message = f"width {width} is none of 1, 2, 4 and 8"
        raise ValueError(message)
