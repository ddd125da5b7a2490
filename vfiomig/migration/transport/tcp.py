"""A link over TCP on the loopback address: two hosts, but for the distance."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

from vfiomig.migration.transport.stream_socket import SocketListener, SocketStream

if TYPE_CHECKING:
    from vfiomig.migration.transport.base import Pair

_LOOPBACK: Final = "127.0.0.1"
# Loopback connects at once; a firewall that drops packets must not hang us.
_CONNECT_SECONDS: Final = 5.0

TcpAddress: TypeAlias = tuple[str, int]


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
            _send_at_once(end)
        opened.pop_all()
        listener.close()
        return SocketStream(one), SocketStream(other)


def listen_tcp(address: TcpAddress = (_LOOPBACK, 0)) -> SocketListener:
    """Listen for TCP connections, with TCP_NODELAY at both ends.

    ``address`` is an IPv4 host and a port; 0 is any free one, and the listener's
    ``address`` says which.  Raises OSError as bind(2) and listen(2) do.
    """
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # Sockets inherit it from the one that accepts them.
        _send_at_once(listening)
        listening.listen()
        opened.pop_all()
        return SocketListener(listening, connect_tcp)


def connect_tcp(address: TcpAddress) -> SocketStream:
    """Begin a TCP connection; its stream says "none now" until the peer has answered.

    Raises OSError as connect(2) does; a refusal that comes later is raised by the
    stream.
    """
    with contextlib.ExitStack() as opened:
        end = opened.enter_context(socket.socket())
        end.settimeout(0)
        _send_at_once(end)
        code = end.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            host, port = address
            raise OSError(code, f"{os.strerror(code)}: {host}, port {port}")
        opened.pop_all()
        return SocketStream(end)


def _send_at_once(end: socket.socket) -> None:
    # A register-sized message must not wait for the next one to share a packet.
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _accept_from(listener: socket.socket, wanted: TcpAddress) -> socket.socket:
    """Accept the connection from ``wanted``, and no stranger's on the same port."""
    while True:
        accepted, address = listener.accept()
        if address == wanted:
            return accepted
        accepted.close()
