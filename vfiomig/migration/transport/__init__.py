"""Byte streams that carry a migration, and the one suite that checks them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.base import ByteStream, Pair
from vfiomig.migration.transport.check import check_transport
from vfiomig.migration.transport.faults import CutLink, FlipBit, Tee
from vfiomig.migration.transport.memory import make_memory_pair
from vfiomig.migration.transport.stream_socket import SocketStream
from vfiomig.migration.transport.tcp import make_tcp_pair
from vfiomig.migration.transport.unix import make_unix_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "PAIRS",
    "ByteStream",
    "CutLink",
    "FlipBit",
    "Pair",
    "SocketStream",
    "Tee",
    "check_transport",
    "make_memory_pair",
    "make_tcp_pair",
    "make_unix_pair",
]

# By the names that a scenario has for them.
PAIRS: Final[Mapping[str, Callable[[], Pair]]] = {
    "memory": make_memory_pair,
    "unix": make_unix_pair,
    "tcp": make_tcp_pair,
}
