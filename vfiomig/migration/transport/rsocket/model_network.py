"""Where the sockets of the rsocket model meet: addresses, ports, and the handshake.

The two sides exchange private data, byte for byte.  Who cannot read the other's refuses
it there and then, as rdma-core 44.0 and QEMU 7.2 do: old RDMA and rsocket never meet.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.model_socket import (
    NOWHERE,
    ModelSocket,
    Phase,
    failure,
)
from vfiomig.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from vfiomig.migration.transport.rsocket.library import Address

_FIRST_PORT: Final = 49152
_LAST_PORT: Final = 65535


class Network:
    """The sockets that can reach one another; who calls holds the model's lock."""

    def __init__(self, *, inherits: bool) -> None:
        self.refusals: list[str] = []
        self._inherits = inherits
        self.sockets: dict[int, ModelSocket] = {}
        self._bound: dict[int, ModelSocket] = {}  # by port
        self._next_port = _FIRST_PORT

    def add(self, each: ModelSocket) -> int:
        """Give it its number."""
        self.sockets[each.number] = each
        return each.number

    def remove(self, each: ModelSocket) -> None:
        """Close it; its address is free."""
        del self.sockets[each.number]
        if self._bound.get(each.address[1]) is each:
            del self._bound[each.address[1]]
        each.close()

    def bind(self, each: ModelSocket, address: Address) -> None:
        """Give it an address. Raises OSError: EADDRINUSE, EINVAL if it has one."""
        host, port = address
        if each.address != NOWHERE:
            raise failure(errno.EINVAL, "it has an address")
        port = port or self._free_port()
        if port in self._bound:
            raise failure(errno.EADDRINUSE, f"port {port}")
        self._bound[port] = each
        each.address = host, port

    def connect(self, each: ModelSocket, address: Address) -> None:
        """Shake hands; the socket hears of the outcome when it goes on to open."""
        if each.address == NOWHERE:
            self.bind(each, (address[0], 0))
        each.peer_address = address
        each.phase = Phase.OPENING
        try:
            self._shake_hands(each, address)
        except ConnectionRefusedError as refusal:
            each.refusal = refusal

    def open(self, each: ModelSocket) -> None:
        """Take the outcome. Raises OSError: ECONNREFUSED."""
        if each.refusal is None:
            each.phase = Phase.CONNECTED
            return
        each.phase = Phase.REFUSED
        each.error = each.refusal
        each.make_end().disconnect()
        raise each.refusal

    def _shake_hands(self, each: ModelSocket, address: Address) -> None:
        listener = self._bound.get(address[1])
        if (
            listener is None
            or listener.phase is not Phase.LISTENING
            or listener.address[0] not in (address[0], NOWHERE[0])
        ):
            raise failure(
                errno.ECONNREFUSED, f"nobody listens at {address[0]}:{address[1]}"
            )
        end = each.make_end()
        try:
            theirs = listener.read(each.hello(end))
        except ProtocolError as error:
            self.refusals.append(f"{address[0]}:{address[1]}: {error}")
            why = f"{os.strerror(errno.ECONNREFUSED)}: {error}"
            raise ConnectionRefusedError(errno.ECONNREFUSED, why) from error
        accepted = self._accept(listener, each)
        far = accepted.make_end()
        far.learn(end, theirs)
        end.learn(far, each.read(accepted.hello(far)))
        listener.queue.append(accepted)

    def _accept(self, listener: ModelSocket, each: ModelSocket) -> ModelSocket:
        accepted = ModelSocket(
            dataclasses.replace(listener.sizes),
            is_native=listener.is_native,
            native_flags=listener.native_flags,
        )
        accepted.flags = listener.flags if self._inherits else 0
        accepted.address, accepted.peer_address = each.peer_address, each.address
        accepted.phase = Phase.CONNECTED
        self.add(accepted)
        return accepted

    def _free_port(self) -> int:
        for _ in range(_FIRST_PORT, _LAST_PORT + 1):
            port = self._next_port
            self._next_port = _FIRST_PORT if port == _LAST_PORT else port + 1
            if port not in self._bound:
                return port
        raise failure(errno.EADDRINUSE, "no port is free")
