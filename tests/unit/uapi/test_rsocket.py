"""rsocket's numbers and layouts: librdmacm-dev, which has them, need not be installed.

Offsets and widths of private data are those of rdma-core's rs_conn_data and of QEMU's
RDMACapabilities; what libc has as well is filled by libc itself.
"""

from __future__ import annotations

import ctypes
import select
import socket

import pytest

from vfiomig.uapi import rsocket

# Name, offset and width of each field; the sum is the size.
LAYOUTS = {
    "sockaddr_in": [
        ("sin_family", 0, 2),
        ("sin_port", 2, 2),
        ("sin_addr", 4, 4),
        ("sin_zero", 8, 8),
    ],
    "pollfd": [("fd", 0, 4), ("events", 4, 2), ("revents", 6, 2)],
    "itimerspec": [("it_interval", 0, 16), ("it_value", 16, 16)],
    "rs_sge": [("addr", 0, 8), ("key", 8, 4), ("length", 12, 4)],
    "rs_conn_data": [
        ("version", 0, 1),
        ("flags", 1, 1),
        ("credits", 2, 2),
        ("reserved", 4, 3),
        ("target_iomap_size", 7, 1),
        ("target_sgl", 8, 16),
        ("data_buf", 24, 16),
    ],
    "RDMACapabilities": [("version", 0, 4), ("flags", 4, 4)],
}


def structures() -> dict[str, type[ctypes.Structure]]:
    return {
        name: value
        for name, value in vars(rsocket).items()
        if isinstance(value, type) and issubclass(value, ctypes.Structure)
    }


def test_every_structure_is_held_against_its_layout() -> None:
    assert structures().keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_lie_where_c_has_them(name: str) -> None:
    structure = structures()[name]
    fields = [(field, getattr(structure, field)) for field, *_ in structure._fields_]
    assert [(name, each.offset, each.size) for name, each in fields] == LAYOUTS[name]
    assert ctypes.sizeof(structure) == sum(width for *_, width in LAYOUTS[name])


def test_libc_fills_an_address_as_it_is_laid_out_here() -> None:
    libc = ctypes.CDLL(None)
    place = rsocket.sockaddr_in()
    size = ctypes.c_uint32(ctypes.sizeof(place))
    with socket.socket() as bound:
        bound.bind(("127.0.0.2", 0))
        number = bound.fileno()
        assert libc.getsockname(number, ctypes.byref(place), ctypes.byref(size)) == 0
        port = int.from_bytes(bytes(place.sin_port), "big")
        assert (socket.inet_ntoa(bytes(place.sin_addr)), port) == bound.getsockname()
    assert place.sin_family == socket.AF_INET
    assert size.value == ctypes.sizeof(place)


def test_libc_answers_poll_as_it_is_laid_out_here() -> None:
    libc = ctypes.CDLL(None)
    one, other = socket.socketpair()
    with one, other:
        asked = (rsocket.pollfd * 2)()
        for each, number in zip(asked, (one.fileno(), other.fileno()), strict=True):
            each.fd, each.events = number, select.POLLIN
        one.send(b"!")
        assert libc.poll(asked, 2, 0) == 1
        assert [each.revents for each in asked] == [0, select.POLLIN]


def test_numbers_have_their_values() -> None:
    assert rsocket.SOL_RDMA == 0x10000
    names = ("SQSIZE", "RQSIZE", "INLINE", "IOMAPSIZE", "ROUTE")
    assert [getattr(rsocket, f"RDMA_{name}") for name in names] == [0, 1, 2, 3, 4]
    assert (rsocket.RS_CONN_FLAG_NET, rsocket.RS_CONN_FLAG_IOMAP) == (1, 2)
    assert rsocket.RS_MSG_SHIFT == 29
    assert rsocket.RS_MSG_DATA_MASK == 0x1FFF_FFFF
    operations = ("DATA", "SGL", "IOMAP_SGL", "CTRL")
    assert [getattr(rsocket, f"RS_OP_{name}") for name in operations] == [0, 4, 6, 7]
    controls = ("DISCONNECT", "KEEPALIVE", "SHUTDOWN")
    assert [getattr(rsocket, f"RS_CTRL_{name}") for name in controls] == [0, 1, 2]
    assert rsocket.RS_CONN_VERSION == rsocket.RDMA_CONTROL_VERSION_CURRENT == 1
    assert rsocket.RDMA_CAPABILITY_PIN_ALL == 1
