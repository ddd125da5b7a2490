"""Numbers and layouts of Xen's <xen/io/xs_wire.h>: messages and ring of XenStore.

Xen 4.17.  The quotas are QEMU's (hw/i386/kvm/xenstore_impl.c, 10.0), which says so
beside its own names.
"""

from __future__ import annotations

import ctypes
from typing import Final

XS_CONTROL: Final = 0
XS_DIRECTORY: Final = 1
XS_READ: Final = 2
XS_GET_PERMS: Final = 3
XS_WATCH: Final = 4
XS_UNWATCH: Final = 5
XS_TRANSACTION_START: Final = 6
XS_TRANSACTION_END: Final = 7
XS_INTRODUCE: Final = 8
XS_RELEASE: Final = 9
XS_GET_DOMAIN_PATH: Final = 10
XS_WRITE: Final = 11
XS_MKDIR: Final = 12
XS_RM: Final = 13
XS_SET_PERMS: Final = 14
XS_WATCH_EVENT: Final = 15
XS_ERROR: Final = 16
XS_IS_DOMAIN_INTRODUCED: Final = 17
XS_RESUME: Final = 18
XS_SET_TARGET: Final = 19
XS_RESET_WATCHES: Final = 21
XS_DIRECTORY_PART: Final = 22
XS_INVALID: Final = 0xFFFF

XBT_NULL: Final = 0  # the id of no transaction

XENSTORE_PAYLOAD_MAX: Final = 4096
XENSTORE_ABS_PATH_MAX: Final = 3072
XENSTORE_REL_PATH_MAX: Final = 2048
XENSTORE_RING_SIZE: Final = 1024

XS_MAX_WATCHES: Final = 128
XS_MAX_DOMAIN_NODES: Final = 1000
XS_MAX_NODE_SIZE: Final = 2048
XS_MAX_TRANSACTIONS: Final = 10
XS_MAX_PERMS_PER_NODE: Final = 5


class xsd_sockmsg(ctypes.LittleEndianStructure):
    """The header of a message; ``len`` bytes follow."""

    _fields_ = (
        ("type", ctypes.c_uint32),  # 0x00
        ("req_id", ctypes.c_uint32),  # 0x04  the reply has the request's
        ("tx_id", ctypes.c_uint32),  # 0x08
        ("len", ctypes.c_uint32),  # 0x0c
    )


class xenstore_domain_interface(ctypes.LittleEndianStructure):
    """The ring page: two rings of bytes and free-running indices."""

    _fields_ = (
        ("req", ctypes.c_uint8 * XENSTORE_RING_SIZE),  # 0x000  the guest writes
        ("rsp", ctypes.c_uint8 * XENSTORE_RING_SIZE),  # 0x400  the store writes
        ("req_cons", ctypes.c_uint32),  # 0x800
        ("req_prod", ctypes.c_uint32),  # 0x804
        ("rsp_cons", ctypes.c_uint32),  # 0x808
        ("rsp_prod", ctypes.c_uint32),  # 0x80c
        ("server_features", ctypes.c_uint32),  # 0x810
        ("connection", ctypes.c_uint32),  # 0x814
        ("error", ctypes.c_uint32),  # 0x818
    )
