"""Numbers and layouts of rsocket's interface, and of what RDMA peers say on connecting.

<rdma/rsocket.h> of rdma-core 44, <netinet/in.h>, <poll.h>, <time.h>; `rs_conn_data`
stands in rdma-core's librdmacm/rsocket.c, and `RDMACapabilities` in QEMU 7.2's
migration/rdma.c.
"""

from __future__ import annotations

import ctypes
from typing import Final

SOL_RDMA: Final = 0x10000
RDMA_SQSIZE: Final = 0
RDMA_RQSIZE: Final = 1
RDMA_INLINE: Final = 2
RDMA_IOMAPSIZE: Final = 3
RDMA_ROUTE: Final = 4

# Flags of rs_conn_data: the sender is big-endian; it knows riomap().
RS_CONN_FLAG_NET: Final = 1 << 0
RS_CONN_FLAG_IOMAP: Final = 1 << 1
RS_CONN_VERSION: Final = 1

# The messages of a connection: 32 bits, of which the upper three are these.
RS_MSG_SHIFT: Final = 29
RS_MSG_DATA_MASK: Final = (1 << RS_MSG_SHIFT) - 1
RS_OP_DATA: Final = 0  # bytes that were written into the receive buffer
RS_OP_SGL: Final = 4  # messages that may be sent in all, modulo 2**16
RS_OP_IOMAP_SGL: Final = 6  # the entry of the table of mappings that is new
RS_OP_CTRL: Final = 7
RS_CTRL_DISCONNECT: Final = 0
RS_CTRL_KEEPALIVE: Final = 1
RS_CTRL_SHUTDOWN: Final = 2

RDMA_CONTROL_VERSION_CURRENT: Final = 1
RDMA_CAPABILITY_PIN_ALL: Final = 0x01


class sockaddr_in(ctypes.Structure):
    """An IPv4 address and a port, both big-endian."""

    _fields_ = (
        ("sin_family", ctypes.c_uint16),  # 0x00  AF_INET
        ("sin_port", ctypes.c_uint8 * 2),  # 0x02
        ("sin_addr", ctypes.c_uint8 * 4),  # 0x04
        ("sin_zero", ctypes.c_uint8 * 8),  # 0x08
    )


class pollfd(ctypes.Structure):
    """What poll(2) and rpoll() are asked, and where they answer."""

    _fields_ = (
        ("fd", ctypes.c_int32),  # 0x00
        ("events", ctypes.c_int16),  # 0x04
        ("revents", ctypes.c_int16),  # 0x06
    )


class itimerspec(ctypes.Structure):
    """When a timer expires: two timespecs in one, of seconds and nanoseconds."""

    _fields_ = (
        ("it_interval", ctypes.c_long * 2),  # 0x00  zero: it expires once
        ("it_value", ctypes.c_long * 2),  # 0x10
    )


class rs_sge(ctypes.BigEndianStructure):
    """A buffer of the peer's; big-endian on connecting, the host's order later."""

    _fields_ = (
        ("addr", ctypes.c_uint64),  # 0x00
        ("key", ctypes.c_uint32),  # 0x08
        ("length", ctypes.c_uint32),  # 0x0c  bytes, or entries
    )


class rs_conn_data(ctypes.BigEndianStructure):
    """The private data that the two ends of an rsocket exchange on connecting."""

    _fields_ = (
        ("version", ctypes.c_uint8),  # 0x00
        ("flags", ctypes.c_uint8),  # 0x01
        ("credits", ctypes.c_uint16),  # 0x02  messages that the peer may send
        ("reserved", ctypes.c_uint8 * 3),  # 0x04
        ("target_iomap_size", ctypes.c_uint8),  # 0x07  places for mappings, scaled
        ("target_sgl", rs_sge),  # 0x08  where the peer publishes its buffers
        ("data_buf", rs_sge),  # 0x18  the first buffer that the peer may fill
    )


class RDMACapabilities(ctypes.BigEndianStructure):
    """The private data of QEMU's own RDMA migration."""

    _fields_ = (
        ("version", ctypes.c_uint32),  # 0x00
        ("flags", ctypes.c_uint32),  # 0x04
    )
