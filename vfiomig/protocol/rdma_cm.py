"""What two RDMA peers tell one another on connecting: rsocket's words, and old RDMA's.

The connection manager carries private data with a request and with its answer, and
pads it with zeros.  rsocket's begins with a version byte, that of QEMU's own RDMA
migration with a version of four bytes, big-endian: each reads the other's as a version
that it does not know, and refuses the connection.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final, NamedTuple

from vfiomig.protocol.errors import ProtocolError
from vfiomig.uapi.rsocket import (
    RDMA_CONTROL_VERSION_CURRENT,
    RS_CONN_FLAG_IOMAP,
    RS_CONN_VERSION,
    RDMACapabilities,
    rs_conn_data,
    rs_sge,
)

_RSOCKET_BYTES: Final = ctypes.sizeof(rs_conn_data)
_NATIVE_BYTES: Final = ctypes.sizeof(RDMACapabilities)
# target_iomap_size is 8 bits for up to 0xffff places: beyond 128, in steps of 256.
_SCALED: Final = 0x80
_STEP_BITS: Final = 8


class RemoteBuffer(NamedTuple):
    """A buffer as its owner names it to the peer; ``length`` in bytes or entries."""

    address: int
    key: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RsocketHello:
    """What an rsocket says of itself (struct rs_conn_data).

    ``credits`` are the messages that the peer may send at first. ``iomap_size`` is how
    many mappings the peer may publish: 0 to 128, or a multiple of 256 up to 0x7f00.
    ``windows`` is where it publishes its buffers, and ``data`` the first to be filled.
    """

    credits: int
    iomap_size: int
    windows: RemoteBuffer
    data: RemoteBuffer
    flags: int = RS_CONN_FLAG_IOMAP


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeHello:
    """What QEMU's own RDMA migration says of itself (RDMACapabilities)."""

    flags: int = 0
    version: int = RDMA_CONTROL_VERSION_CURRENT


def encode_rsocket(hello: RsocketHello) -> bytes:
    """Write an rsocket's private data: 40 bytes."""
    written = rs_conn_data(
        version=RS_CONN_VERSION,
        flags=hello.flags,
        credits=hello.credits,
        target_iomap_size=_to_scale(hello.iomap_size),
        target_sgl=rs_sge(
            addr=hello.windows.address,
            key=hello.windows.key,
            length=hello.windows.length,
        ),
        data_buf=rs_sge(
            addr=hello.data.address, key=hello.data.key, length=hello.data.length
        ),
    )
    return bytes(written)


def decode_rsocket(private_data: bytes) -> RsocketHello:
    """Read an rsocket's private data; what is behind it is padding.

    Raises ProtocolError that says what it is instead.
    """
    if private_data[:1] != bytes([RS_CONN_VERSION]):
        message = f"{_named(private_data)} where rsocket was expected"
        raise ProtocolError(message)
    if len(private_data) < _RSOCKET_BYTES:
        raise ProtocolError(_too_short("rsocket", private_data, _RSOCKET_BYTES))
    return _rsocket_of(private_data)


def encode_native(hello: NativeHello) -> bytes:
    """Write the private data of old RDMA migration: 8 bytes."""
    return bytes(RDMACapabilities(version=hello.version, flags=hello.flags))


def decode_native(private_data: bytes) -> NativeHello:
    """Read the private data of old RDMA migration; what is behind it is padding.

    Raises ProtocolError that says what it is instead.
    """
    if len(private_data) < _NATIVE_BYTES:
        raise ProtocolError(_too_short("old RDMA", private_data, _NATIVE_BYTES))
    hello = _native_of(private_data)
    if hello.version != RDMA_CONTROL_VERSION_CURRENT:
        message = f"{_named(private_data)} where old RDMA migration was expected"
        raise ProtocolError(message)
    return hello


def rounded_iomap_size(size: int) -> int:
    """Return how many places an rsocket has that was asked for ``size``.

    Its 8 bits cannot say every number above 128.
    """
    return _from_scale(_to_scale(size))


def _rsocket_of(private_data: bytes) -> RsocketHello:
    read = rs_conn_data.from_buffer_copy(private_data)
    windows, data = read.target_sgl, read.data_buf
    return RsocketHello(
        credits=read.credits,
        iomap_size=_from_scale(read.target_iomap_size),
        windows=RemoteBuffer(windows.addr, windows.key, windows.length),
        data=RemoteBuffer(data.addr, data.key, data.length),
        flags=read.flags,
    )


def _native_of(private_data: bytes) -> NativeHello:
    read = RDMACapabilities.from_buffer_copy(private_data)
    return NativeHello(version=read.version, flags=read.flags)


def _named(private_data: bytes) -> str:
    """Say whose private data this is, as far as anyone can tell."""
    if private_data[:1] == bytes([RS_CONN_VERSION]):
        if len(private_data) < _RSOCKET_BYTES:
            return f"rsocket, cut short after {len(private_data)} bytes,"
        hello = _rsocket_of(private_data)
        return (
            f"rsocket (version {RS_CONN_VERSION}, flags {hello.flags:#x}, "
            f"{hello.credits} credits)"
        )
    if len(private_data) < _NATIVE_BYTES:
        return f"private data of {len(private_data)} bytes"
    native = _native_of(private_data)
    if native.version == RDMA_CONTROL_VERSION_CURRENT:
        return f"old RDMA migration (version {native.version}, flags {native.flags:#x})"
    return f"private data that begins with {private_data[:4].hex()}"


def _too_short(whose: str, private_data: bytes, size: int) -> str:
    return f"private data of {len(private_data)} bytes where {whose} has {size}"


def _to_scale(size: int) -> int:
    return size if size <= _SCALED else (_SCALED | size >> _STEP_BITS) & 0xFF


def _from_scale(scaled: int) -> int:
    return scaled if scaled <= _SCALED else (scaled & ~_SCALED) << _STEP_BITS
