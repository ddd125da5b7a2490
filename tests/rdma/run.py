"""`make test-rdma`: run the tests beside this file in a VM that has RDMA.

``python -m tests.rdma.run ARGUMENTS``: the arguments are pytest's.  The exit status is
pytest's as well; 1 where there was no run, with one line that says why.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.rdma import needs, vm

if TYPE_CHECKING:
    from types import FrameType

_LIMIT: Final = 480.0  # seconds, for all of it
_HUNG: Final = 60  # seconds, after which a test shows where it is
_INTERRUPTED: Final = 130

# Neither plugins nor tests/conftest.py (hypothesis): importing them takes ten seconds.
_PYTEST: Final = (
    *("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"),
    "--confcutdir=tests/rdma",
    *("-o", f"faulthandler_timeout={_HUNG}"),
)


def main(arguments: list[str]) -> int:
    """Return an exit status."""
    parts = needs.collect()
    if isinstance(parts, str):
        return _refuse(parts)
    signal.signal(signal.SIGTERM, _interrupt)
    colour = f"--color={'yes' if sys.stdout.isatty() else 'no'}"
    command = [sys.executable, *_PYTEST, colour, *arguments, "tests/rdma"]
    try:
        with tempfile.TemporaryDirectory(prefix="vfiomig-") as folder:
            outcome = vm.run(
                command,
                parts,
                Path(folder),
                environment=_environment(),
                limit=_LIMIT,
                show=_show,
            )
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        return _refuse(str(error))
    if outcome.status is not None:
        return outcome.status
    return _refuse(f"the VM: {outcome.fault}", outcome.console)


def _environment() -> dict[str, str]:
    columns = shutil.get_terminal_size().columns
    return {
        "COLUMNS": str(columns),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": os.environ.get("PYTEST_ADDOPTS", ""),
    }


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _refuse(reason: str, more: str = "") -> int:
    sys.stdout.flush()
    sys.stderr.write(f"make test-rdma: {reason}\n")
    if more:
        sys.stderr.write(f"the console's last lines:\n{more}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
