"""Byte streams that carry a migration, and the one suite that checks them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.base import ByteStream, Listener, Pair
from vfiomig.migration.transport.channels import ChannelsError, IncomingChannels
from vfiomig.migration.transport.check import check_transport
from vfiomig.migration.transport.check_channels import check_channels
from vfiomig.migration.transport.faults import CutLink, FlipBit, Tee
from vfiomig.migration.transport.memory import listen_memory, make_memory_pair
from vfiomig.migration.transport.rsocket.model import RsocketModel
from vfiomig.migration.transport.rsocket.stream import (
    WAYS,
    Rsockets,
    connect_rsocket,
    listen_rsocket,
    make_rsocket_pair,
)
from vfiomig.migration.transport.stream_socket import SocketListener, SocketStream
from vfiomig.migration.transport.tcp import connect_tcp, listen_tcp, make_tcp_pair
from vfiomig.migration.transport.unix import connect_unix, listen_unix, make_unix_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "LISTENERS",
    "PAIRS",
    "WAYS",
    "ByteStream",
    "ChannelsError",
    "CutLink",
    "FlipBit",
    "IncomingChannels",
    "Listener",
    "Pair",
    "RsocketModel",
    "Rsockets",
    "SocketListener",
    "SocketStream",
    "Tee",
    "check_channels",
    "check_transport",
    "connect_rsocket",
    "connect_tcp",
    "connect_unix",
    "listen_memory",
    "listen_rsocket",
    "listen_tcp",
    "listen_unix",
    "make_memory_pair",
    "make_rsocket_pair",
    "make_tcp_pair",
    "make_unix_pair",
]

# By the names that a scenario has for them.
PAIRS: Final[Mapping[str, Callable[[], Pair]]] = {
    "memory": make_memory_pair,
    "unix": make_unix_pair,
    "tcp": make_tcp_pair,
    "rsocket-model": lambda: make_rsocket_pair(RsocketModel()),
}
LISTENERS: Final[Mapping[str, Callable[[], Listener]]] = {
    "memory": listen_memory,
    "unix": listen_unix,
    "tcp": listen_tcp,
    "rsocket-model": lambda: listen_rsocket(RsocketModel()),
}
