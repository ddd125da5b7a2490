"""Byte streams that carry a migration, and the one suite that checks them all."""

from vfiomig.migration.transport.base import ByteStream, Pair
from vfiomig.migration.transport.check import check_transport
from vfiomig.migration.transport.faults import CutLink, FlipBit, Tee
from vfiomig.migration.transport.memory import make_memory_pair
from vfiomig.migration.transport.stream_socket import SocketStream
from vfiomig.migration.transport.tcp import make_tcp_pair
from vfiomig.migration.transport.unix import make_unix_pair

__all__ = [
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
