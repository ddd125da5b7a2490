"""A link over an AF_UNIX socket pair: what a proxy or a second process would use."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from vfiomig.migration.transport.stream_socket import SocketStream

if TYPE_CHECKING:
    from vfiomig.migration.transport.base import Pair


def make_unix_pair() -> Pair:
    """Return both ends of a connected pair of AF_UNIX stream sockets.

    Raises OSError when the process has no descriptors left.
    """
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return SocketStream(one), SocketStream(other)
