"""What these tests need of the machine, and a place for what they write."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

Vfiomig = Callable[..., "subprocess.CompletedProcess[str]"]

_NEEDS = {
    "qemu-system-x86_64": "apt-get install qemu-system-x86",
    "qemu-img": "apt-get install qemu-utils",
}


@pytest.fixture(autouse=True, scope="session")
def _qemu_is_there() -> None:
    for program, remedy in _NEEDS.items():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: {remedy}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as the address of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="vfiomig-") as name:
        yield Path(name)


@pytest.fixture
def vfiomig(folder: Path) -> Vfiomig:
    """Run a command in a folder of its own, and wait until it ends.

    ``under`` is what runs it, if not we.
    """

    def run(
        *arguments: str, under: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*under, sys.executable, "-m", "vfiomig", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
