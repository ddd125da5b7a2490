"""``vfiomig serve``: a device as a vfio-user server.

Scripts, and our own suite, start many of these: so this module and what it imports are
all that such a process has, see `vfiomig.frontends.cli`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vfiomig.conformance.target import load_target
from vfiomig.frontends.exit_codes import DONE
from vfiomig.frontends.plain_text import plain
from vfiomig.serve.vfio_user.listening import listening
from vfiomig.serve.vfio_user.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from vfiomig.conformance.target import Target
    from vfiomig.host.device_ops import TrappedDriver


@click.command()
@click.argument("text", metavar="TARGET")
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="Where clients connect; the file is made, and removed at the end.",
)
def serve(text: str, path: Path) -> int:
    """Serve a device to clients that speak vfio-user, such as a VMM or another vfiomig.

    TARGET is path/file.py:NAME, package.module:NAME, or a built-in device with its
    options. One client is served at a time, others wait; each finds a fresh driver.
    The server runs until it is interrupted, or until a driver dies.

    It prints one line once clients can connect; a socket that another server left
    behind is replaced. Exit codes: 130 after Ctrl-C, 0 after SIGTERM, 1 if a driver
    died, 2 if PATH cannot be served at, 3 if the target does not start.

    \b
    vfiomig serve reference --socket /tmp/device.sock
    vfiomig serve driver.py:MyDriver --socket /tmp/device.sock
    vfiomig check vfio-user:/tmp/device.sock
    """  # noqa: D301 -- click wants the character
    termination = _Termination()
    signal.signal(signal.SIGTERM, termination)
    target = load_target(text)
    if target.servers is not None:
        message = f"{text}: that is a server already"
        raise click.UsageError(message)
    make_driver = _started(target)
    try:
        with listening(path) as listener:
            name, place = plain(target.name), plain(str(path))
            _say(f"serving {name} at {place}")
            observer = _Watcher() if _is_terminal() else None
            Server(make_driver, listener, observer=observer).serve()
    except KeyboardInterrupt:
        if not termination.has_come:
            raise
    return DONE


class _Termination:
    """SIGTERM as an interrupt: drivers pass that on, and what is open is closed."""

    has_come = False

    def __call__(self, _: int, __: FrameType | None) -> None:
        self.has_come = True
        raise KeyboardInterrupt


class _Watcher:
    """Tells a person of each client."""

    def __init__(self) -> None:
        self._number = 0

    def connected(self) -> None:
        self._number += 1
        _say(f"client {self._number}: connected")

    def gone(self, accesses: int, why: str) -> None:
        words = f": {plain(why)}" if why else ""
        _say(f"client {self._number}: gone after {accesses} accesses{words}")


def _started(target: Target) -> Callable[[], TrappedDriver]:
    """Make a driver, to see that it starts, and let the first client have it."""
    made = [target.make_driver()]

    def make_driver() -> TrappedDriver:
        return made.pop() if made else target.make_driver()

    return make_driver


def _say(line: str) -> None:
    click.echo(line)
    if sys.stdout is not None:
        sys.stdout.flush()


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
