"""A link over rsocket, librdmacm's or a model's: RDMA that looks like a socket.

It is none: no selector knows its descriptors, nothing moves but in the library's calls,
and the receiver has to come back for the sender's window to open.  `ways`
and `poller` are the ways to wait for it.

Every socket here has O_NONBLOCK, set by hand: accepted ones do not inherit it (before
rdma-core 63).  Shutting and closing wait all the same, until what was sent has been
placed.  That is up to the peer's adapter and not to its program, which may be in the
same thread; only if its host is gone they last until the adapter has retried in vain.
No limit of ours could end that sooner: it is one call of the library.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import selectors
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.poller import Poller
from vfiomig.migration.transport.rsocket.ways import BOTH, InTurns
from vfiomig.migration.transport.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vfiomig.migration.transport.base import Pair, Poll
    from vfiomig.migration.transport.rsocket.library import Address, RsocketLibrary
    from vfiomig.migration.transport.rsocket.ways import Way

WAYS: Final[Mapping[str, Callable[[RsocketLibrary], Way]]] = {
    "yield": lambda library: InTurns(library, yields=True),
    "thread": Poller,
    "poll": lambda library: InTurns(library, yields=False),
}
# No thread beside the loop, and no loop that runs hot: it sleeps in rpoll().
DEFAULT_WAY: Final = "poll"
ANYWHERE: Final = ("127.0.0.1", 0)  # a model's; RDMA has the addresses of its devices

_BACKLOG: Final = 128
# Doubled by the library, and inherited by accepted sockets.  With its 128 KiB a call
# would move an eighth of what migration offers it at once.
_BUFFER: Final = 1 << 18
_PAIR_SECONDS: Final = 10.0  # software over an emulated CPU takes a quarter of one
_LOOK: Final = 0.05  # seconds that one wait of these may take


class Rsockets:
    """The sockets of one library that wait in the same way, by its name in `WAYS`."""

    def __init__(self, library: RsocketLibrary, way: str = DEFAULT_WAY) -> None:
        if way not in WAYS:
            message = f"the ways to wait are {', '.join(WAYS)}: not {way}"
            raise ValueError(message)
        self.library = library
        self.way = WAYS[way](library)

    def listen(self, address: Address = ANYWHERE) -> RsocketListener:
        """Listen; port 0 is any free one, and the listener's ``address`` says which.

        Raises OSError as rsocket(), rbind() and rlisten() do: ENODEV without RDMA.
        """
        number = self._new()
        with self._closing(number):
            self.library.rbind(number, address)
            self.library.rlisten(number, _BACKLOG)
            self.way.add(number, selectors.EVENT_READ)
        return RsocketListener(self, number)

    def connect(
        self, address: Address, *, was_listened_to: bool = False
    ) -> RsocketStream:
        """Begin a connection; its stream says "none now" until it stands.

        Raises OSError as rsocket() and rconnect() do; a refusal that comes later is
        raised by the stream; where someone listened before, it is the loss of a
        connection (ConnectionResetError).
        """
        number = self._new()
        with self._closing(number):
            connects = False
            try:
                self.library.rconnect(number, address)
            except BlockingIOError:  # EINPROGRESS
                connects = True
            self.way.add(number, BOTH, connects=connects)
        return RsocketStream(
            self, number, connects=connects, was_listened_to=was_listened_to
        )

    def pair(self, address: Address = ANYWHERE) -> tuple[RsocketStream, RsocketStream]:
        """Return both ends of a new connection; it stands.

        Raises OSError as `listen` and `connect` do, and TimeoutError when it does not
        stand within 10 s.
        """
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(contextlib.closing(self.listen(address)))
            near = listener.connect()
            opened.callback(near.close)
            limit = time.monotonic() + _PAIR_SECONDS
            while not near.stands:
                _wait(limit, near, selectors.EVENT_WRITE)
            while (far := listener.accept()) is None:
                _wait(limit, listener, selectors.EVENT_READ)
            opened.pop_all()
            listener.close()
        return near, far

    def adopt(self, number: int) -> RsocketStream:
        """Return the stream of a socket that was accepted."""
        with self._closing(number):
            self._do_not_block(number)
            self.way.add(number, BOTH)
        return RsocketStream(self, number)

    def _new(self) -> int:
        number = self.library.rsocket(socket.AF_INET, socket.SOCK_STREAM)
        with self._closing(number):
            self._do_not_block(number)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self.library.rsetsockopt(number, socket.SOL_SOCKET, option, _BUFFER)
        return number

    def _do_not_block(self, number: int) -> None:
        flags = self.library.rfcntl(number, fcntl.F_GETFL)
        self.library.rfcntl(number, fcntl.F_SETFL, flags | os.O_NONBLOCK)

    @contextlib.contextmanager
    def _closing(self, number: int) -> Iterator[None]:
        """Close a socket that nobody has yet, if this fails."""
        try:
            yield
        except BaseException:
            self.library.rclose(number)
            raise


class RsocketStream:
    """One end of a connection; a ByteStream that owns the rsocket."""

    def __init__(
        self,
        sockets: Rsockets,
        number: int,
        *,
        connects: bool = False,
        was_listened_to: bool = False,
    ) -> None:
        self._library = sockets.library
        self._way = sockets.way
        self._number = number
        self._connects = connects
        self._was_listened_to = was_listened_to
        self._error: OSError | None = None
        self._is_closed = self._has_finished = self._has_ended = False

    @property
    def number(self) -> int:
        """What the library calls it."""
        return self._number

    def is_at(self, address: Address) -> bool:
        """Tell whether this is its own address; or whether it is closed."""
        return self._is_closed or self._library.rgetsockname(self._number) == address

    @property
    def stands(self) -> bool:
        """Whether it is connected.

        Raises OSError when it could not be: the same one from now on.
        """
        if self._error is not None:
            raise self._error
        if self._connects and self._way.stands(self._number):
            self._connects = False
            self._look_for_error(connecting=True)
        return not self._connects

    def send(self, data: memoryview) -> int:
        """Copy bytes into the window; 0 while it is closed (EAGAIN).

        Raises BrokenPipeError or ConnectionResetError when the peer is gone, what
        rconnect() raises later, and ValueError when this end is closed.
        """
        self._require_open()
        if self._has_finished:
            raise BrokenPipeError(errno.EPIPE, "this end has finished sending")
        if not data or ((self._connects or self._error) and not self.stands):
            return 0
        try:
            return self._library.rsend(self._number, data)
        except BlockingIOError:
            self._way.ran_dry(self._number, selectors.EVENT_WRITE)
            return 0

    def receive_into(self, buffer: memoryview) -> int | None:
        """Copy what has come; 0 at the end of the stream, None for EAGAIN.

        Raises ConnectionResetError when the peer was lost, what rconnect() raises
        later, and ValueError for a buffer without room or when this end is closed.
        """
        self._require_open()
        if not buffer:
            message = "a buffer to receive into must have room for a byte"
            raise ValueError(message)
        if self._has_ended:
            return 0
        if (self._connects or self._error) and not self.stands:
            return None
        try:
            count = self._library.rrecv(self._number, buffer)
        except BlockingIOError:
            self._way.ran_dry(self._number, selectors.EVENT_READ)
            return None
        if count:
            self._way.took(self._number)
            return count
        self._look_for_error()  # a link that was lost ends with 0, too
        self._has_ended = True
        return 0

    def finish(self) -> None:
        """Shut the sending half down, or do so once the connection stands."""
        if self._is_closed or self._has_finished:
            return
        self._has_finished = True
        # librdmacm 44 leaves a socket that still connects blocking behind rshutdown().
        self._way.once_standing(self._number, self._shut)

    def close(self) -> None:
        """Close the rsocket."""
        if self._is_closed:
            return
        self._way.remove(self._number)
        self._is_closed = True
        self._library.rclose(self._number)

    def fileno(self) -> int | None:
        """Return what the way to wait has for a selector, None once it is closed."""
        return None if self._is_closed else self._way.fileno(self._number)

    @property
    def poll(self) -> Poll | None:
        """The wait of its own, if the way to wait is that; None once it is closed."""
        return None if self._is_closed else _poll(self._way, self._number)

    def lose(self) -> None:
        """Hear that nobody will ever accept it: from now on it is lost."""
        self._error = ConnectionResetError(
            errno.ECONNRESET, "the link was lost: the listener was closed"
        )

    def _shut(self) -> None:
        # The link is lost then, so that the peer reads nothing more anyway.
        with contextlib.suppress(OSError):
            self._library.rshutdown(self._number, socket.SHUT_WR)

    def _look_for_error(self, *, connecting: bool = False) -> None:
        code = self._library.rgetsockopt(
            self._number, socket.SOL_SOCKET, socket.SO_ERROR
        )
        if not code:
            return
        self._error = OSError(code, os.strerror(code))
        if not connecting or (code == errno.ECONNREFUSED and self._was_listened_to):
            why = f"the link was lost: {os.strerror(code)}"
            self._error = ConnectionResetError(errno.ECONNRESET, why)
        raise self._error

    def _require_open(self) -> None:
        if self._is_closed:
            message = "this end of the rsocket is closed"
            raise ValueError(message)


class RsocketListener:
    """A listening rsocket; a Listener that owns it.

    ``address`` is what another process connects to.
    """

    def __init__(self, sockets: Rsockets, number: int) -> None:
        self._sockets = sockets
        self._library = sockets.library
        self._way = sockets.way
        self._number = number
        self._is_closed = False
        self._unaccepted: list[RsocketStream] = []
        self.address = self._library.rgetsockname(number)

    def connect(self) -> RsocketStream:
        """Begin a connection to its address.

        Raises ConnectionRefusedError after ``close()``, and OSError as rconnect().
        """
        if self._is_closed:
            # Somebody else may listen there by now.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        stream = self._sockets.connect(self.address, was_listened_to=True)
        self._unaccepted.append(stream)
        return stream

    def accept(self) -> RsocketStream | None:
        """Accept the connection that has waited longest; None for EAGAIN.

        Raises OSError when the process has no descriptors left, and ValueError after
        ``close()``.
        """
        if self._is_closed:
            message = "this listener is closed"
            raise ValueError(message)
        self._way.go_on()
        if (accepted := self._next()) is None:
            self._way.ran_dry(self._number, selectors.EVENT_READ)
            return None
        number, peer = accepted
        self._unaccepted = [each for each in self._unaccepted if not each.is_at(peer)]
        return self._sockets.adopt(number)

    def fileno(self) -> int | None:
        """Return what the way to wait has for a selector, None once it is closed."""
        return None if self._is_closed else self._way.fileno(self._number)

    @property
    def poll(self) -> Poll | None:
        """The wait of its own, if the way to wait is that; None once it is closed."""
        return None if self._is_closed else _poll(self._way, self._number)

    def close(self) -> None:
        """Close the rsocket, and those that it accepted and nobody took.

        librdmacm 44 would leave those open, and leaves those open that its helper
        accepts in this very moment: who connected here is told by this listener.
        """
        if self._is_closed:
            return
        self._way.go_on()
        self._way.remove(self._number)
        self._is_closed = True
        self._way.undisturbed(self._let_go)
        while self._unaccepted:
            self._unaccepted.pop().lose()

    def _let_go(self) -> None:
        while (accepted := self._next()) is not None:
            self._library.rclose(accepted[0])
        self._library.rclose(self._number)

    def _next(self) -> tuple[int, Address] | None:
        try:
            return self._library.raccept(self._number)
        except (BlockingIOError, ConnectionAbortedError):
            return None


def make_rsocket_pair(
    library: RsocketLibrary, way: str = DEFAULT_WAY, address: Address = ANYWHERE
) -> Pair:
    """Return both ends of a connection; ``way`` is of `WAYS`. See `Rsockets.pair`."""
    return Rsockets(library, way).pair(address)


def listen_rsocket(
    library: RsocketLibrary, way: str = DEFAULT_WAY, address: Address = ANYWHERE
) -> RsocketListener:
    """Listen at an address; ``way`` is of `WAYS`. See `Rsockets.listen`."""
    return Rsockets(library, way).listen(address)


def connect_rsocket(
    library: RsocketLibrary, way: str, address: Address
) -> RsocketStream:
    """Begin a connection; ``way`` is of `WAYS`. See `Rsockets.connect`."""
    return Rsockets(library, way).connect(address)


def _poll(way: Way, number: int) -> Poll | None:
    poll = way.poll
    return None if poll is None else partial(poll, number)


def _wait(limit: float, end: RsocketStream | RsocketListener, event: int) -> None:
    waiting = Waiting()
    waiting.add(end, event)
    waiting.wait(_LOOK)
    if time.monotonic() > limit:
        message = f"no connection within {_PAIR_SECONDS:g} s"
        raise TimeoutError(errno.ETIMEDOUT, message)
