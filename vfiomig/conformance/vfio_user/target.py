"""Targets behind a vfio-user socket.

::

    vfio-user:/path/to.sock                  a server that is there
    vfio-user:COMMAND with {socket}          servers that we start, one a device
    vfio-user,bench=FILE,limit=SECONDS:...   with options
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from vfiomig.conformance.target_errors import TargetError
from vfiomig.conformance.vfio_user.bench_file import read_black_box
from vfiomig.conformance.vfio_user.driver import new_driver
from vfiomig.conformance.vfio_user.server_process import SOCKET
from vfiomig.conformance.vfio_user.servers import OneServer, StartedServers

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.conformance.vfio_user.driver import VfioUserDriver
    from vfiomig.conformance.vfio_user.servers import Servers

PREFIX: Final = "vfio-user"
_LIMIT: Final = 5.0  # seconds for an answer
_FORMS: Final = "vfio-user:/path/to.sock, or vfio-user:COMMAND with {socket} in it"


@dataclass(frozen=True, slots=True, kw_only=True)
class VfioUserTarget:
    """What such a target names: its servers, and how to make a driver of them."""

    name: str
    servers: Servers
    make_driver: Callable[[], VfioUserDriver]


def is_vfio_user(text: str) -> bool:
    """Tell whether a target is one of these."""
    return text.partition(":")[0].partition(",")[0] == PREFIX and ":" in text


def place_of(text: str) -> str:
    """Return the socket that a target of this kind names, or the program to start."""
    rest = text.partition(":")[2].strip()
    return rest.split()[0] if SOCKET in rest else rest


def with_server(text: str, *, server: str | None, bench: Path | None) -> str:
    """Return a target of this kind with a command and a bench file put into it.

    Raises:
        TargetError: it is none, or has one of them already.
    """
    if server is None and bench is None:
        return text
    head, _, rest = text.partition(":")
    if not is_vfio_user(text):
        _refuse(text, "only a vfio-user: target has a server or a bench file")
    if server is not None and rest.strip():
        _refuse(text, f"with a server's command the target is {head}: alone")
    if bench is not None:
        head += f",bench={bench}"
    return f"{head}:{server if server is not None else rest}"


def vfio_user_target(text: str, folder: Path) -> VfioUserTarget:
    """Read a target of this kind; relative paths begin at ``folder``.

    Raises:
        TargetError: it cannot be read, or its bench file cannot.
    """
    head, _, rest = text.partition(":")
    limit, bench = _options(text, head)
    rest = rest.strip()
    if not rest:
        _refuse(text, f"which server? Give {_FORMS}")
    black_box = read_black_box(folder / bench) if bench is not None else None
    try:
        servers = _started(rest) if SOCKET in rest else OneServer(folder / rest)
    except ValueError as error:
        _refuse(text, str(error))
    return VfioUserTarget(
        name=Path(place_of(text)).name,
        servers=servers,
        make_driver=functools.partial(new_driver, servers, limit, black_box),
    )


@functools.cache
def _started(command: str) -> StartedServers:
    """Return the servers of a command: once a process, however often it is named."""
    return StartedServers(command)


def _options(text: str, head: str) -> tuple[float, str | None]:
    """Return the limit in seconds, and the bench file."""
    limit, bench = _LIMIT, None
    for option in head.split(",")[1:]:
        key, _, value = (part.strip() for part in option.partition("="))
        if key == "bench" and value:
            bench = value
        elif key == "limit" and _is_limit(value):
            limit = float(value)
        elif key in ("bench", "limit"):
            _refuse(text, f"{key}={value}: give bench=FILE, limit=SECONDS (0.1 to 600)")
        else:
            _refuse(text, f"unknown option {key!r} (options bench, limit)")
    return limit, bench


def _is_limit(value: str) -> bool:
    try:
        return 0.1 <= float(value) <= 600
    except ValueError:
        return False


def _refuse(text: str, why: str) -> NoReturn:
    raise TargetError(f"{text}: {why}")
