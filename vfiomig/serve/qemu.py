"""What a QEMU needs to be told of simulated devices, and what one can be asked before.

QEMU finds a device by a folder of sysfs (``sysfsdev``), which may lie anywhere, and
everything else in /dev/vfio, which the broker answers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PLACEHOLDER: Final = "{vfio}"

_FIRST_V2: Final = (8, 0)
_PATIENCE: Final = 20.0  # seconds, for a question that takes a fraction of one
_VERSION: Final = re.compile(r"QEMU emulator version (\d+)\.(\d+)")


class QemuError(VfiomigError):
    """A QEMU, or its arguments, that will not do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuProgram:
    """What a program says of itself; no version if it is no QEMU, or a wrapper."""

    name: str
    version: tuple[int, int] | None
    has_vfio: bool

    def require_v1(self) -> None:
        """Raise `QemuError` if it is known that no v1 device can migrate with it."""
        if not self.has_vfio:
            message = f"{self.name} has no vfio-pci device: it was built without VFIO"
            raise QemuError(message)
        if self.version is not None and self.version >= _FIRST_V2:
            major, minor = self.version
            message = (
                f"{self.name} is QEMU {major}.{minor}, which speaks only v2 of the "
                "migration protocol; the last that speaks v1 is 7.2"
            )
            raise QemuError(message)


def ask_program(name: str, *, patience: float = _PATIENCE) -> QemuProgram:
    """Run a program with ``--version`` and ``-device help``.

    Either has so many seconds; what is left of it then is killed.

    Raises:
        QemuError: it cannot be run, or does not answer.
    """
    found = _VERSION.search(_output_of(patience, name, "--version"))
    version = (int(found[1]), int(found[2])) if found else None
    has_vfio = version is None or "vfio-pci" in _output_of(
        patience, name, "-device", "help"
    )
    return QemuProgram(name=name, version=version, has_vfio=has_vfio)


def with_devices(arguments: Sequence[str], sysfsdevs: Sequence[Path]) -> list[str]:
    """Return QEMU's arguments with the devices in them.

    Each ``{vfio}`` stands for the next device; those for which there is none are added
    at the end.

    Raises:
        QemuError: there are more placeholders than devices.
    """
    values = [_device(each) for each in sysfsdevs]
    filled = []
    for argument in arguments:
        while PLACEHOLDER in argument:
            if not values:
                message = f"{argument!r}: more {PLACEHOLDER} than there are --device"
                raise QemuError(message)
            argument = argument.replace(PLACEHOLDER, values.pop(0), 1)
        filled.append(argument)
    for value in values:
        filled += ["-device", value]
    return filled


def _device(sysfsdev: Path) -> str:
    # A comma ends a value; QEMU takes two for one.
    path = str(sysfsdev).replace(",", ",,")
    return f"vfio-pci,sysfsdev={path},x-enable-migration=on"


def _output_of(patience: float, *command: str) -> str:
    try:
        process = subprocess.Popen(
            command,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # a wrapper's program ends with it
        )
    except OSError as error:
        # A folder of PATH that may not be searched makes EACCES of it.
        is_there = "/" in command[0] or shutil.which(command[0]) is not None
        is_missing = isinstance(error, FileNotFoundError) or not is_there
        why = "there is no such program" if is_missing else error.strerror
        message = f"{command[0]}: {why}"
        raise QemuError(message) from None
    with process:
        try:
            return process.communicate(timeout=patience)[0]
        except subprocess.TimeoutExpired:
            message = f"{' '.join(command)} did not end in {patience:g} seconds"
            raise QemuError(message) from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
