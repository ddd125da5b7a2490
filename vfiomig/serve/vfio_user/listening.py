"""The socket that clients connect to, and its file."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import VfiomigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST_PATH: Final = 107  # bytes: sun_path of struct sockaddr_un, less a NUL
_BACKLOG: Final = 16  # clients that wait while another is served


class ListenError(VfiomigError):
    """No server can listen there; one line that begins with the path."""


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen as `listen` does; close the socket and remove its file at the end.

    Raises:
        ListenError: as `listen`.
    """
    listener = listen(path)
    try:
        made = path.lstat()
        try:
            yield listener
        finally:
            _remove(path, made)
    finally:
        listener.close()


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``; a file that nobody serves is replaced.

    Raises:
        ListenError: the path cannot be, or is taken by a server or another file.
    """
    name = os.fsencode(path)
    if len(name) > _LONGEST_PATH:
        what = f"a path of {len(name)} bytes; a socket's has at most {_LONGEST_PATH}"
        raise ListenError(f"{path}: {what}")
    if b"\0" in name:
        raise ListenError(f"{str(path)!r}: a path with a NUL")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _remove_stale(path)
        listener.bind(name)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"{path}: {_reason(error)}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that has ended; raise ListenError for others."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"{path}: there is something else than a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            _remove(path, found)
            return
        except BlockingIOError:  # there is a server, with many clients
            pass
    raise ListenError(f"{path}: another server listens there")


def _remove(path: Path, made: os.stat_result) -> None:
    """Remove a file if it is still the one that was made."""
    with contextlib.suppress(FileNotFoundError):
        now = path.lstat()
        if (now.st_dev, now.st_ino) == (made.st_dev, made.st_ino):
            path.unlink()


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "its folder is not there"
    if error.errno == errno.EPROTOTYPE:
        return "another kind of server listens there"
    return error.strerror or str(error)
