"""Drivers for the tests of check and replay, as a user's file holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
import os
from vfiomig.vendor.scratchpad import ScratchpadModel
from vfiomig.vendor.reference import ReferenceDriver

class Good(ReferenceDriver):
    def __init__(self):
        super().__init__(ScratchpadModel())

class Bits(Good):  # reserved bits of device_state read as 1
    def read(self, offset, size):
        data = super().read(offset, size)
        return bytes([data[0] | 0x80]) + data[1:] if offset == 0 else data

class Raises(Good):
    def read(self, offset, size):
        if offset == 16:
            raise ValueError("no buffer")
        return super().read(offset, size)

class Text(Good):
    def read(self, offset, size):
        return "eight" if offset == 16 else super().read(offset, size)

class Exits(Good):
    def read(self, offset, size):
        if offset == 16:
            os.write(1, b"leaving\\n")
            os._exit(7)
        return super().read(offset, size)

class Hangs(Good):
    def read(self, offset, size):
        while offset == 16:
            pass
        return super().read(offset, size)

class NoStart(Good):
    def __init__(self):
        raise RuntimeError("no power")
"""


def write_drivers(folder: Path) -> None:
    """Write the file driver.py."""
    (folder / "driver.py").write_text(FILE)
