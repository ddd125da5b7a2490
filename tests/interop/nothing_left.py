"""Run a command, and see that no process of it is left; exit as it does.

``python nothing_left.py COMMAND ...``: processes that lose their parent become
children of this one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_LIMIT: Final = 60  # seconds, for the command
_PATIENCE: Final = 5  # seconds, for what has been killed to go
_PR_SET_CHILD_SUBREAPER: Final = 36
_FAILED: Final = 99


def _ring(_: int, __: FrameType | None) -> None:
    raise TimeoutError


def _kill_children() -> None:
    me = os.getpid()
    for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text()
        sys.stderr.write(f"left: {command}\n")
        os.kill(int(child), signal.SIGKILL)


def main() -> int:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(_LIMIT)
    process = subprocess.Popen(sys.argv[1:])
    try:
        status = process.wait()
        signal.alarm(_PATIENCE)
        while True:
            os.wait()
    except ChildProcessError:
        return status
    except TimeoutError:
        _kill_children()
        return _FAILED


if __name__ == "__main__":
    sys.exit(main())
