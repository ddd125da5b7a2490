"""A socket of the model: what its number stands for, its options, and its handshake."""

from __future__ import annotations

import enum
import errno
import os
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.model_end import End, Sizes
from vfiomig.protocol.rdma_cm import (
    NativeHello,
    RemoteBuffer,
    RsocketHello,
    decode_native,
    decode_rsocket,
    encode_native,
    encode_rsocket,
    rounded_iomap_size,
)
from vfiomig.uapi.rsocket import (
    RDMA_INLINE,
    RDMA_IOMAPSIZE,
    RDMA_RQSIZE,
    RDMA_SQSIZE,
    SOL_RDMA,
)

if TYPE_CHECKING:
    from vfiomig.migration.transport.rsocket.library import Address

NOWHERE: Final[Address] = ("0.0.0.0", 0)

_SIZES: Final = {
    RDMA_SQSIZE: "send_queue",
    RDMA_RQSIZE: "receive_queue",
    RDMA_INLINE: "inline",
    RDMA_IOMAPSIZE: "mappings",
}
_BUFFERS: Final = {
    socket.SO_SNDBUF: "send_buffer",
    socket.SO_RCVBUF: "receive_buffer",
}
_SWITCHES: Final = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
)
_LEAST_SEND_BUFFER: Final = 2048
_U32: Final = 0xFFFF_FFFF


class Phase(enum.Enum):
    """How far a socket has come; what ends a connection is its `End`'s affair."""

    NEW = "new"
    LISTENING = "listening"
    OPENING = "opening"
    CONNECTED = "connected"
    REFUSED = "refused"


class ModelSocket:
    """What a number stands for.

    The number is a descriptor that no call of the kernel finds ready: an epoll instance
    that watches nothing.
    """

    def __init__(self, sizes: Sizes, *, is_native: bool, native_flags: int = 0) -> None:
        self._descriptor = select.epoll()
        self.number = self._descriptor.fileno()
        self.is_native = is_native
        self.native_flags = native_flags
        self.sizes = sizes
        self.flags = 0  # of rfcntl()
        self.phase = Phase.NEW
        self.address = self.peer_address = NOWHERE
        self.queue: deque[ModelSocket] = deque()
        self.end: End | None = None
        self.refusal: OSError | None = None  # what it finds when it goes on to open
        self.error: OSError | None = None  # what SO_ERROR tells, once
        self.is_closed = False
        self._switches: set[tuple[int, int]] = set()

    @property
    def blocks(self) -> bool:
        """Whether O_NONBLOCK is not set."""
        return not self.flags & os.O_NONBLOCK

    def close(self) -> None:
        """Let go of the number, and end the connection."""
        self.is_closed = True
        if self.end is not None:
            self.end.unmap_all()
            self.end.shut(reading=True, writing=True)
        self._descriptor.close()

    def make_end(self) -> End:
        """Make the buffers; they have the sizes that were asked for before.

        Old RDMA has no such options.
        """
        sizes = Sizes() if self.is_native else self.sizes.settled()
        self.end = End(sizes, is_native=self.is_native)
        return self.end

    def hello(self, end: End) -> bytes:
        """Return the private data of its side of the handshake."""
        if self.is_native:
            return encode_native(NativeHello(flags=self.native_flags))
        # Addresses and keys are an adapter's affair; nobody here looks at them.
        buffer = RemoteBuffer(self.number << 32, self.number, 2)
        return encode_rsocket(
            RsocketHello(
                credits=end.sizes.receive_queue,
                iomap_size=end.sizes.mappings,
                windows=buffer,
                data=buffer._replace(length=end.sizes.receive_buffer // 2),
            )
        )

    def read(self, private_data: bytes) -> RsocketHello:
        """Read the other side's. Raises ProtocolError that says who else it is."""
        if not self.is_native:
            return decode_rsocket(private_data)
        decode_native(private_data)
        # Its registered memory is not in these bytes: as much as rsocket's defaults.
        defaults = Sizes()
        buffer = RemoteBuffer(0, 0, defaults.receive_buffer // 2)
        return RsocketHello(
            credits=defaults.receive_queue, iomap_size=0, windows=buffer, data=buffer
        )

    def set_option(self, level: int, option: int, value: int) -> None:
        """Set an option. Raises OSError: EINVAL, ENOTSUP."""
        value &= _U32
        if level == SOL_RDMA and self.phase not in (Phase.NEW, Phase.LISTENING):
            raise failure(errno.EINVAL, "it is set before connecting")
        if level == SOL_RDMA and option in _SIZES:
            if option == RDMA_IOMAPSIZE:
                value = rounded_iomap_size(value & 0xFFFF)
            setattr(self.sizes, _SIZES[option], value)
        elif level == socket.SOL_SOCKET and option in _BUFFERS:
            if self.end is None:
                self._set_buffer(option, value << 1 & _U32)
        elif (level, option) in _SWITCHES:
            (self._switches.add if value else self._switches.discard)((level, option))
        else:
            raise failure(errno.ENOTSUP, f"option {option} of level {level:#x}")

    def _set_buffer(self, option: int, size: int) -> None:
        if option == socket.SO_SNDBUF and size < _LEAST_SEND_BUFFER:
            size = _LEAST_SEND_BUFFER << 1
        setattr(self.sizes, _BUFFERS[option], size)

    def option(self, level: int, option: int) -> int:
        """Return an option; SO_ERROR only once. Raises OSError: ENOTSUP."""
        if level == SOL_RDMA and option in _SIZES:
            return int(getattr(self.sizes, _SIZES[option]))
        if level == socket.SOL_SOCKET and option in _BUFFERS:
            return int(getattr(self.sizes, _BUFFERS[option]))
        if (level, option) in _SWITCHES:
            return int((level, option) in self._switches)
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            return self._take_error()
        raise failure(errno.ENOTSUP, f"option {option} of level {level:#x}")

    def _take_error(self) -> int:
        error, self.error = self.error, None
        if self.end is not None and self.end.has_failed:
            self.end.has_failed = False
            return errno.EIO
        return 0 if error is None else error.errno or 0


def failure(code: int, why: str) -> OSError:
    """Return an OSError with an errno and the reason."""
    return OSError(code, f"{os.strerror(code)}: {why}")
