"""The calls of rsocket, as Python has those of sockets: librdmacm's, or a model's.

Rule 1: a number is a descriptor of the library.  No call of the kernel says anything
about it: poll(2) and epoll never find it ready.

Rule 2: where C returns -1 with an errno, OSError with that errno is raised.

Rule 3: bytes, credits and windows move only inside these calls, and only for the
sockets that they are about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Address: TypeAlias = tuple[str, int]
"""An IPv4 address of an RDMA interface and a port."""


class RsocketLibrary(Protocol):
    """<rdma/rsocket.h>; sources: rdma-core 44.0, the rsocket(7) page."""

    def rsocket(self, domain: int, kind: int, protocol: int = 0) -> int:
        """Return a new socket: blocking. ENODEV where there is no RDMA device."""

    def rbind(self, number: int, address: Address) -> None:
        """Bind; port 0 is any free one."""

    def rlisten(self, number: int, backlog: int) -> None:
        """Listen; connections are accepted by the library at once, and wait."""

    def raccept(self, number: int) -> tuple[int, Address]:
        """Return a connection and its peer: EAGAIN if none waits and it must not block.

        It does not inherit O_NONBLOCK (44.0; since 63 it does).
        """

    def rconnect(self, number: int, address: Address) -> None:
        """Connect: EINPROGRESS when it must not block, ECONNREFUSED."""

    def rsend(self, number: int, data: memoryview, flags: int = 0) -> int:
        """Copy bytes to be sent; return how many. EAGAIN: the window is closed."""

    def rrecv(self, number: int, buffer: memoryview, flags: int = 0) -> int:
        """Copy what has come; return how many bytes, 0 at the end. EAGAIN: none yet."""

    def rpoll(
        self, watched: Sequence[tuple[int, int]], timeout: int
    ) -> list[tuple[int, int]]:
        """Wait up to ``timeout`` ms (-1: for ever) as poll(2): (number, events) each.

        Ordinary descriptors may be among them. Return (number, revents) of those that
        are ready.
        """

    def rfcntl(self, number: int, command: int, argument: int = 0) -> int:
        """Do F_GETFL or F_SETFL; ENOTSUP for any other (44.0)."""

    def rshutdown(self, number: int, how: int) -> None:
        """Shut one direction or both, waiting for what is on its way."""

    def rclose(self, number: int) -> None:
        """Close; EBADF for what is no socket of this library."""

    def rgetsockname(self, number: int) -> Address:
        """Return its own address."""

    def rgetpeername(self, number: int) -> Address:
        """Return its peer's address."""

    def rsetsockopt(self, number: int, level: int, option: int, value: int) -> None:
        """Set an option; EINVAL for RDMA's when it is connected."""

    def rgetsockopt(self, number: int, level: int, option: int) -> int:
        """Return an option."""

    def riomap(self, number: int, buffer: memoryview, offset: int = -1) -> int:
        """Let the peer write into ``buffer``; return the offset. ENOMEM: no place."""

    def riounmap(self, number: int, buffer: memoryview) -> None:
        """End that."""

    def riowrite(
        self, number: int, data: memoryview, offset: int, flags: int = 0
    ) -> int:
        """Write to where the peer mapped ``offset``; return how many bytes, 0 if none.

        None as long as the mapping has not been heard of.
        """
