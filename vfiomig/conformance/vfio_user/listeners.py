"""Who listens at a socket, when the process that was started is not the one.

A server may go to the background: its parent's end is not its own, and no signal of
the kernel's reaches it when we end.  What it holds is found by the socket's path.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOCKETS: Final = Path("/proc/net/unix")
_LISTENING: Final = 1 << 16  # __SO_ACCEPTCON in the column of flags


def is_listening(path: Path) -> bool:
    """Tell whether some process listens at exactly this path."""
    return any(
        flags & _LISTENING and place == str(path) for place, flags, _ in _sockets()
    )


def end_holders(folder: Path) -> None:
    """Kill who holds a socket that is bound in a folder, or below it."""
    below = f"{folder}/"
    held = {f"socket:[{node}]" for at, _, node in _sockets() if at.startswith(below)}
    if not held:
        return
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()) and held & set(_files(process)):
            with contextlib.suppress(OSError):
                os.kill(int(process.name), signal.SIGKILL)


def _sockets() -> Iterator[tuple[str, int, str]]:
    """Yield each that is bound: its path, flags and inode."""
    text = _SOCKETS.read_bytes().decode("utf-8", "surrogateescape")
    for line in text.split("\n")[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8:
            yield fields[7], int(fields[3], 16), fields[6]


def _files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # it has ended, or is somebody else's
        for fd in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(fd.readlink())
