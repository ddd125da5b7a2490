"""A connected stream socket as a ByteStream, and a listening one as a Listener.

The kernel's answers pass unchanged, but for two: EAGAIN becomes "none now", and a peer
that left is an exception, never SIGPIPE, whatever the process does with that signal.

Where the kernel differs from the plain contract: an end that closes with bytes unread
resets the link (a TCP RST, and unix(7) sockets alike), so that its peer's
``receive_into`` raises ConnectionResetError once instead of returning 0.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfiomig.migration.transport.rows import require_room, require_writable
from vfiomig.migration.transport.socket_rows import SocketRows

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.migration.transport.rows import Span


class SocketStream:
    """One end of a connected SOCK_STREAM socket; a ByteStream that owns the socket.

    It moves rows too (`rows.RowStream`).
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(0)
        self._socket = connected
        self._rows = SocketRows()

    def send(self, data: memoryview) -> int:
        """Hand bytes to the kernel; 0 when its buffer is full (EAGAIN).

        Raises BrokenPipeError (EPIPE) or ConnectionResetError (ECONNRESET) when the
        peer is gone, another OSError when the network fails, and ValueError when this
        end is closed.
        """
        self._require_open()
        if not data:
            return 0
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def receive_into(self, buffer: memoryview) -> int | None:
        """Read what the kernel holds; 0 at the end of the stream, None for EAGAIN.

        Raises ConnectionResetError (ECONNRESET) when the peer closed without reading
        all that this end sent, another OSError when the network fails, and ValueError
        for a buffer without room or when this end is closed.
        """
        self._require_open()
        require_room(buffer)
        try:
            return self._socket.recv_into(buffer)
        except BlockingIOError:
            return None

    def send_rows(self, span: Span) -> int:
        """Hand bytes of rows to the kernel; raises as `send`."""
        if (number := self._socket.fileno()) < 0:
            self._require_open()
        return self._rows.send(number, span) or 0

    def receive_rows(self, span: Span) -> int | None:
        """Read what the kernel holds into rows; raises as `receive_into`.

        TypeError for rows that are read-only.
        """
        if (number := self._socket.fileno()) < 0:
            self._require_open()
        if span.rows.readonly or span.start == span.end:
            require_room(span)
            require_writable(span)
        return self._rows.receive(number, span)

    def finish(self) -> None:
        """Shut the sending half down (SHUT_WR)."""
        if self._is_closed():
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            # ENOTCONN: the peer has reset the link, so it reads nothing more anyway.
            return

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int | None:
        """Return the socket's descriptor, None once it is closed."""
        return None if self._is_closed() else self._socket.fileno()

    def _is_closed(self) -> bool:
        return self._socket.fileno() < 0

    def _require_open(self) -> None:
        if self._is_closed():
            message = "this end of the socket is closed"
            raise ValueError(message)


class SocketListener:
    """A listening SOCK_STREAM socket; a Listener that owns it.

    ``address`` is what another process connects to.
    """

    def __init__(
        self,
        listening: socket.socket,
        connect: Callable[[Any], SocketStream],
        *,
        path: str = "",
    ) -> None:
        listening.settimeout(0)
        self._socket = listening
        self._connect = connect
        self._path = path
        self.address: Any = listening.getsockname()

    def connect(self) -> SocketStream:
        """Connect to the socket's address.

        Raises ConnectionRefusedError after ``close()``, and OSError as connect(2).
        """
        if self.fileno() is None:
            # Somebody else may listen there by now.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        return self._connect(self.address)

    def accept(self) -> SocketStream | None:
        """Accept the connection that has waited longest; None for EAGAIN.

        Raises OSError when the process has no descriptors left, and ValueError after
        ``close()``.
        """
        if self.fileno() is None:
            message = "this listener is closed"
            raise ValueError(message)
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # ECONNABORTED: it has left before it was accepted.
            return None
        return SocketStream(accepted)

    def fileno(self) -> int | None:
        """Return the socket's descriptor, None once it is closed."""
        number = self._socket.fileno()
        return None if number < 0 else number

    def close(self) -> None:
        """Close the socket, and remove its path."""
        if self.fileno() is None:
            return
        self._socket.close()
        if self._path:
            Path(self._path).unlink(missing_ok=True)
