"""Connecting to a vfio-user server, and agreeing on a version with it."""

from __future__ import annotations

import mmap
import os
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vfiomig.client.vfio_user import requests
from vfiomig.client.vfio_user.channel import MOST_FDS, Channel, SilentError, timeval
from vfiomig.client.vfio_user.device import VfioUserDevice
from vfiomig.client.vfio_user.memory import DmaMemory
from vfiomig.client.vfio_user.session import Session
from vfiomig.protocol.errors import DriverLostError, VfiomigError
from vfiomig.protocol.vfio_user.negotiation import Capabilities, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# What is said to every server: dirty pages have the size of the machine's.
_OWN: Final = Capabilities(max_msg_fds=MOST_FDS, pgsize=mmap.PAGESIZE)


class ConnectError(VfiomigError):
    """No session with that server: nobody listens, it refuses, it is not understood."""


class BusyError(ConnectError):
    """It takes the connection, or lets it wait, and does not answer in time.

    A server that has a client already does so.
    """


def connect(
    path: str | Path,
    *,
    limit: float = 5.0,
    name: str | None = None,
    post_mortem: Callable[[], str] = lambda: "",
) -> VfioUserDevice:
    """Open a session with the server that listens at ``path``.

    Every wait, this one and each later request, ends after ``limit`` seconds.  ``name``
    is what the server is called in errors, by default its path; ``post_mortem`` is
    called when it is lost, and what it says is added.

    Raises:
        ConnectError: there is none; BusyError: it does not answer in time.
        ValueError: ``limit`` is no time.
    """
    if not limit > 0:
        message = f"a limit of {limit} s"
        raise ValueError(message)
    where = name or os.fspath(path)
    began = time.monotonic()
    connected = _connected(os.fspath(path), where, limit)
    memory = DmaMemory(_OWN.max_data_xfer_size)
    session = Session(
        Channel(connected, limit),
        memory,
        limit=limit,
        most=_OWN.max_data_xfer_size,
        where=where,
        post_mortem=post_mortem,
    )
    try:
        said = _negotiate(session, where, began + limit)
    except BaseException:
        session.close()
        raise
    most = min(_OWN.max_data_xfer_size, said.max_data_xfer_size)
    return VfioUserDevice(session, memory, replace(said, max_data_xfer_size=most))


def _connected(path: str, where: str, limit: float) -> socket.socket:
    """Return a connected socket.

    The kernel keeps the time: a socket that never waits is refused at once by a server
    whose queue is full.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(limit))
        connected.connect(path)
    except BlockingIOError:
        connected.close()
        message = f"{where}: its queue is full: nobody was let in within {limit:g} s"
        raise BusyError(message) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        connected.close()
        why = error.strerror if isinstance(error, OSError) else None
        message = f"{where}: no server can be reached: {why or error}"
        raise ConnectError(message) from error
    except BaseException:
        connected.close()
        raise
    return connected


def _negotiate(session: Session, where: str, deadline: float) -> Capabilities:
    proposed = Version(capabilities=_OWN)
    try:
        said = session.ask(requests.version(proposed), deadline=deadline)
    except DriverLostError as lost:
        message = f"{where}: {lost.error}"
        if isinstance(lost.__cause__, SilentError):
            raise BusyError(message) from lost
        raise ConnectError(message) from lost
    except OSError as error:
        offered = f"version {proposed.major}.{proposed.minor}"
        message = (
            f"{where}: the server refuses {offered}: {os.strerror(error.errno or 0)}"
        )
        raise ConnectError(message) from error
    return said.capabilities
