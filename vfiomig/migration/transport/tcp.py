"""A link over TCP on the loopback address: two hosts, but for the distance."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

from vfiomig.migration.transport.stream_socket import SocketStream

if TYPE_CHECKING:
    from vfiomig.migration.transport.base import Pair

_LOOPBACK: Final = "127.0.0.1"
# Loopback connects at once; a firewall that drops packets must not hang us.
_CONNECT_SECONDS: Final = 5.0

_Address: TypeAlias = tuple[str, int]


def make_tcp_pair() -> Pair:
    """Return both ends of a TCP connection over 127.0.0.1, with TCP_NODELAY.

    Raises OSError when the process has no descriptors left or loopback is not there
    (TimeoutError when it does not answer).
    """
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.settimeout(_CONNECT_SECONDS)
        listener.bind((_LOOPBACK, 0))
        listener.listen()
        one = opened.enter_context(
            socket.create_connection(listener.getsockname(), _CONNECT_SECONDS)
        )
        other = opened.enter_context(_accept_from(listener, one.getsockname()))
        for end in (one, other):
            # A register-sized message must not wait for the next one to share a packet.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.pop_all()
        listener.close()
        return SocketStream(one), SocketStream(other)


def _accept_from(listener: socket.socket, wanted: _Address) -> socket.socket:
    """Accept the connection from ``wanted``, and no stranger's on the same port."""
    while True:
        accepted, address = listener.accept()
        if address == wanted:
            return accepted
        accepted.close()
