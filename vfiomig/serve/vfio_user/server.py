"""The server: it accepts a client, serves it to its end, and accepts the next.

Each client finds a device as freshly opened: its driver is a new one (V1-STATE-02,
V1-RST-06).  Others wait in the backlog of the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from vfiomig.serve.vfio_user.session import Limits, Session

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from vfiomig.host.device_ops import TrappedDriver

_DEFAULT_LIMITS: Final = Limits()


class Observer(Protocol):
    """Who is told of clients."""

    def connected(self) -> None:
        """Take note of a client that has come."""

    def gone(self, accesses: int, why: str) -> None:
        """Take note that it went, after so many accesses; ``why`` if it was sent."""


class Server:
    """Serves devices at a listening socket, which stays the caller's.

    ``make_driver`` is called once a client, in the thread that serves.
    """

    def __init__(
        self,
        make_driver: Callable[[], TrappedDriver],
        listener: socket.socket,
        *,
        limits: Limits = _DEFAULT_LIMITS,
        observer: Observer | None = None,
    ) -> None:
        self._make_driver = make_driver
        self._listener = listener
        self._limits = limits
        self._observer = observer

    def serve(self) -> NoReturn:
        """Serve one client after another, until interrupted.

        Raises:
            DriverDiedError: a driver raised something without an errno.
            OSError: the socket listens no more.
            Exception: what ``make_driver`` raises.
        """
        while True:
            self.serve_one()

    def serve_one(self) -> None:
        """Wait for a client, and serve it until it is gone.

        Raises:
            DriverDiedError, OSError, Exception: as `serve`.
        """
        try:
            connection, _ = self._listener.accept()
        except ConnectionAbortedError:
            return  # it left before its turn
        if self._observer is not None:
            self._observer.connected()
        session = Session(connection, self._make_driver, self._limits)
        why = session.run()
        if self._observer is not None:
            self._observer.gone(session.accesses, why)
