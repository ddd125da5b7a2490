"""Which line of a driver answered each access: what a finding points at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vfiomig.conformance.vfio_user import driver as vfio_user_driver
from vfiomig.host import device_fd
from vfiomig.protocol import errors

if TYPE_CHECKING:
    from types import FrameType

    from vfiomig.protocol.history import Record

_HOST: Final = device_fd.__file__
# The lines of one behind a socket are its server's.
_NOT_THE_DRIVERS: Final = (
    str(Path(_HOST).parent),
    errors.__file__,
    vfio_user_driver.__file__,
)


class DriverLines:
    """A context manager that notes the line by the number of the access's record.

    The driver is whatever the host's device fd calls.
    """

    def __init__(self, records: list[Record]) -> None:
        self._records = records
        self._at: dict[int, str] = {}

    def __enter__(self) -> None:
        sys.setprofile(self._profile)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def at(self, record: int) -> str:
        """Return the line that answered a record, or the last one before it."""
        known = [number for number in self._at if number <= record]
        return self._at[max(known)] if known else ""

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        caller = frame.f_back
        if event != "return" or caller is None:
            return
        own = frame.f_code.co_filename
        if own.startswith(_NOT_THE_DRIVERS) or caller.f_code.co_filename != _HOST:
            return
        self._at[len(self._records) + 1] = f"{own}:{frame.f_lineno}"
