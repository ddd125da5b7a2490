"""The command line: where it begins, and how it ends.

The exit codes are the same everywhere: 0 held or done, 1 it did not end as expected,
2 misuse or unreadable input, 3 a target that does not start, 130 interrupted.  Every
error is one line on standard error, and none is a traceback of ours.
"""

from __future__ import annotations

import os
import sys

from vfiomig.frontends.exit_codes import DONE, INTERRUPTED, MISUSE


def main() -> None:
    """Run the command line and exit."""
    if not sys.platform.startswith("linux"):
        # memfd, seals and VFIO itself are Linux's: the rest would only fail later.
        _end(MISUSE, f"vfiomig runs on Linux only, and this is {sys.platform}")
    try:
        # Inside: an interrupt while all this is imported ends like any other.
        if sys.argv[1:2] == ["serve"]:
            from vfiomig.frontends.serve_alone import run_command
        else:
            from vfiomig.frontends.command_line import run_command

        code, message = run_command()
        if sys.stdout is not None:  # it may have been closed before we began
            sys.stdout.flush()
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted"
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, message = DONE, ""
    _end(code, message)


def _end(code: int, message: str) -> None:
    if message and sys.stderr is not None:
        print(f"vfiomig: {message}", file=sys.stderr)
    sys.exit(code)
