"""The private data of RDMA's two kinds of migration: neither takes the other's.

The bytes are written down by hand from rdma-core's struct rs_conn_data and from QEMU's
RDMACapabilities.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfiomig.protocol.errors import ProtocolError
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

RSOCKET = bytes.fromhex(
    "01 02 0180"  # version, RS_CONN_FLAG_IOMAP, 384 credits
    "000000 08"  # reserved, 8 places for mappings
    "00007f0000001000 00000a0b 00000002"  # target_sgl: address, key, entries
    "00007f0000020000 00000c0d 00010000"  # data_buf: the first 64 KiB
)
HELLO = RsocketHello(
    credits=384,
    iomap_size=8,
    windows=RemoteBuffer(0x7F0000001000, 0xA0B, 2),
    data=RemoteBuffer(0x7F0000020000, 0xC0D, 65536),
)
NATIVE = bytes.fromhex("00000001 00000001")  # version 1, RDMA_CAPABILITY_PIN_ALL
PADDING = bytes(16)


def test_rsocket_s_bytes_are_as_rdma_core_writes_them() -> None:
    assert encode_rsocket(HELLO) == RSOCKET
    assert decode_rsocket(RSOCKET) == HELLO


def test_old_rdma_s_bytes_are_as_qemu_writes_them() -> None:
    assert encode_native(NativeHello(flags=1)) == NATIVE
    assert decode_native(NATIVE) == NativeHello(flags=1, version=1)


def test_what_the_connection_manager_pads_is_read_all_the_same() -> None:
    assert decode_rsocket(RSOCKET + PADDING) == HELLO
    assert decode_native(NATIVE + PADDING) == NativeHello(flags=1)


def test_an_rsocket_refuses_old_rdma_and_names_both() -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_rsocket(NATIVE + PADDING)
    assert str(refused.value) == (
        "old RDMA migration (version 1, flags 0x1) where rsocket was expected"
    )


def test_old_rdma_refuses_an_rsocket_and_names_both() -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_native(RSOCKET + PADDING)
    assert str(refused.value) == (
        "rsocket (version 1, flags 0x2, 384 credits) "
        "where old RDMA migration was expected"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "private data of 0 bytes where rsocket was expected"),
        (b"\0\0\0", "private data of 3 bytes where rsocket was expected"),
        (RSOCKET[:39], "private data of 39 bytes where rsocket has 40"),
        (
            b"\2" + RSOCKET[1:],
            "private data that begins with 02020180 where rsocket was expected",
        ),
    ],
)
def test_an_rsocket_says_what_it_cannot_read(data: bytes, said: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_rsocket(data)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "private data of 0 bytes where old RDMA has 8"),
        (NATIVE[:7], "private data of 7 bytes where old RDMA has 8"),
        (
            b"\0\0\0\2\0\0\0\0",
            "private data that begins with 00000002 "
            "where old RDMA migration was expected",
        ),
        (
            RSOCKET[:20],
            "rsocket, cut short after 20 bytes, where old RDMA migration was expected",
        ),
    ],
)
def test_old_rdma_says_what_it_cannot_read(data: bytes, said: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_native(data)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("asked", "had"),
    [(0, 0), (8, 8), (128, 128), (129, 128), (256, 256), (511, 256), (0x7FFF, 0x7F00)],
)
def test_eight_bits_say_some_numbers_of_mappings(asked: int, had: int) -> None:
    assert rounded_iomap_size(asked) == had


def uint(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


buffers = st.builds(RemoteBuffer, uint(64), uint(32), uint(32))


@given(
    st.builds(
        RsocketHello,
        credits=uint(16),
        iomap_size=st.integers(0, 0x7FFF).map(rounded_iomap_size),
        windows=buffers,
        data=buffers,
        flags=uint(8),
    )
)
def test_what_an_rsocket_says_is_what_its_peer_reads(hello: RsocketHello) -> None:
    assert decode_rsocket(encode_rsocket(hello)) == hello


@given(st.binary(max_size=64))
def test_nobody_takes_any_bytes_for_both(data: bytes) -> None:
    taken = 0
    for decode in (decode_rsocket, decode_native):
        try:
            decode(data)
        except ProtocolError:
            continue
        taken += 1
    assert taken < 2
