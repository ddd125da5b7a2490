"""Drivers of one's own: with no more than they must have, or with a bug."""

from __future__ import annotations

import errno
import os
import runpy
import signal
from pathlib import Path
from typing import Any, NoReturn

from vfiomig.vendor.opaque import OpaqueModel
from vfiomig.vendor.reference import ReferenceDriver
from vfiomig.vendor.scratchpad import ScratchpadModel


class Bare:
    """A driver without any member of Bench, and without a PCI function."""

    def __init__(self) -> None:
        driver = ReferenceDriver(OpaqueModel(4096), section=8192, data_section="mapped")
        self.migration_region = driver.migration_region
        self.read, self.write = driver.read, driver.write
        self.mmap, self.reset, self.close = driver.mmap, driver.reset, driver.close


def seals_nothing() -> Any:
    """Return the frame buffer of the examples with a snapshot: it takes any picture."""
    example = Path(__file__).parents[2] / "examples" / "03_mapped_data.py"
    driver = runpy.run_path(str(example))["FrameBuffer"]()
    driver.snapshot = lambda: bytes(driver.pixels)
    return driver


class _Reference(ReferenceDriver):
    def __init__(self) -> None:
        super().__init__(ScratchpadModel(), section=16384, data_section="mapped")


class DiesWhenAsked(_Reference):
    """Has a bug that raises where pending_bytes is read."""

    def read(self, offset: int, size: int) -> bytes:
        if offset == 8:
            message = "a bug"
            raise ZeroDivisionError(message)
        return super().read(offset, size)


class DiesAtWork(_Reference):
    """Has a bug that raises when there is guest traffic."""

    def work(self, amount: int) -> None:
        message = "a bug"
        raise ZeroDivisionError(message)


class Hangs(_Reference):
    """Has a bug that hangs where device_state is read: where the VM begins to run."""

    def read(self, offset: int, size: int) -> bytes:
        while offset == 0:
            pass
        return super().read(offset, size)


class GoesToError(_Reference):
    """Goes to ERROR when it is asked to save, and says so."""

    is_in_error = False

    def read(self, offset: int, size: int) -> bytes:
        if offset == 0 and self.is_in_error:
            return (6).to_bytes(size, "little")
        return super().read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        if offset == 0 and data[0] & 2:
            self.is_in_error = True
            raise OSError(errno.EIO, "the device has gone")
        super().write(offset, data)


class StopsQemuAtReset(_Reference):
    """Stops the QEMU that uses it where the VM is about to run."""

    def reset(self) -> None:
        super().reset()
        _stop_qemus()


class StopsQemuAtSave(_Reference):
    """Stops the QEMU that uses it where PRE_COPY begins."""

    def write(self, offset: int, data: bytes) -> None:
        super().write(offset, data)
        if offset == 0 and data[0] == 3:
            _stop_qemus()


def _stop_qemus() -> None:
    """Stop the QEMUs that this process has started, be it by others."""
    parents = [os.getpid()]
    while parents:
        for tasks in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
            parents += map(int, tasks.read_text().split())
        for pid in parents:
            if Path(f"/proc/{pid}/comm").read_text().startswith("qemu-"):
                os.kill(pid, signal.SIGSTOP)


class NeverEnds(_Reference):
    """Has always more to say, so that no migration of it ends."""

    def read(self, offset: int, size: int) -> bytes:
        data = super().read(offset, size)
        return (1 << 40).to_bytes(8, "little") if offset == 8 else data


def raises() -> NoReturn:
    """Stand for a factory that fails."""
    message = "no firmware"
    raise RuntimeError(message)
