"""A link over an AF_UNIX socket pair: what a proxy or a second process would use."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.stream_socket import SocketListener, SocketStream

if TYPE_CHECKING:
    from vfiomig.migration.transport.base import Pair

_SEND_BUFFER: Final = 4 << 20
_LONGEST: Final = 107  # sun_path of unix(7), less the NUL


def make_unix_pair() -> Pair:
    """Return both ends of a connected pair of AF_UNIX stream sockets.

    Raises OSError when the process has no descriptors left.
    """
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (one, other):
        _make_room(end)
    return SocketStream(one), SocketStream(other)


def listen_unix(path: str = "") -> SocketListener:
    """Listen at a path; without one, at a free name that leaves nothing behind.

    The path is removed when the listener is closed; such a name belongs to the network
    namespace, not to a folder.  Raises OSError as bind(2) does: EADDRINUSE for what
    exists already, ENAMETOOLONG for more than 107 bytes.
    """
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket(socket.AF_UNIX))
        # Bound to "", Linux chooses an abstract name (unix(7), autobind).
        listening.bind(_checked(path))
        listening.listen()
        opened.pop_all()
        return SocketListener(listening, connect_unix, path=path)


def connect_unix(address: str | bytes) -> SocketStream:
    """Connect to the socket at ``address``, a path or an abstract name.

    Raises OSError as connect(2) does: FileNotFoundError or ConnectionRefusedError when
    nobody listens there, BlockingIOError when too many already wait.
    """
    with contextlib.ExitStack() as opened:
        end = opened.enter_context(socket.socket(socket.AF_UNIX))
        _make_room(end)
        end.settimeout(0)
        end.connect(_checked(address))
        opened.pop_all()
        return SocketStream(end)


def _make_room(end: socket.socket) -> None:
    """Let the kernel take what one call sends, as far as it allows (wmem_max)."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def _checked(address: str | bytes) -> str | bytes:
    if len(os.fsencode(address)) > _LONGEST:
        raise OSError(
            errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), os.fsdecode(address)
        )
    return address
